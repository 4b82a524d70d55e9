# SPDX-License-Identifier: BSD-3-Clause
"""Another rule set while traffic flows: no packet meets new rules with an old encryption.

Rules that change may change how every address is encrypted, so rules, the state of NATs and what
the gateway encrypts by have to change as one (section 4.3.2 of the dissertation):

1. *prepare*: the new maps are copied and tried, and what the provider lacks is found out. Nothing
   changes.
2. *hold*: the gateway's workers stop, and packets wait in its queues; what is on its way at the
   provider passes under the old rules.
3. *swap*: rules and the mappings of NATs, whose internal endpoints the gateway can tell in the new
   encryption, change at the provider; then the gateway's maps. What fails is taken back.
4. *resume*.

A journal (`embark_gw.journal`) says how far that is. Whoever finds it without an owner (another
`update-rules`, or the gateway that runs) goes on from there. Where neither the new rules nor the
old ones can be had, as the provider doesn't answer, packets stay in the gateway, which tries again:
the provider never waits for a gateway, and no packet meets rules that aren't its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bess_plugins.client import BessError, Client
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from embark_gw.gateway import GatewayError, check_private, refusals
from embark_gw.journal import (
    Journal,
    JournalError,
    Phase,
    Swap,
    from_hex,
    journal_of,
    owned,
    put_in_place,
    stage,
    staged_maps,
    to_hex,
    unstage,
)
from embark_gw.pipelines import encrypt_args
from embark_gw.provider.metadata_match import config_of
from embark_gw.rules.document import EncryptedRules
from embark_gw.site import Gateway

__all__ = ["SwapResult", "finish_swap", "make_swap", "release", "update_rules"]

_LOOK_S = 0.01
_MOST_S = 5.0  # that packets may need to leave the provider
_CONFIG = "MetadataMatchConfig"
Config = Mapping[str, Any]


@dataclass(frozen=True)
class SwapResult:
    """How it went: how long packets waited, and how many mappings of NATs went over.

    ``taken_back``: the old rules are in force, as an update that was under way had failed.
    """

    held_s: float
    mappings: int
    ended: int
    taken_back: bool = False


def make_swap(
    provider: str,
    maps: Path,
    document: EncryptedRules,
    firewalls: Sequence[str],
    nats: Sequence[str],
    settle_s: float = Swap.settle_s,
) -> Swap:
    """To encrypted rules and their maps."""
    pool = [one.encrypted for one in document.pool]
    return Swap(
        provider=provider,
        maps=str(maps.absolute()),
        config=to_hex(config_of(document)),
        pool=pool,
        firewalls=[*firewalls],
        nats=[*nats],
        settle_s=settle_s,
    )


def update_rules(gateway: Gateway, swap: Swap) -> SwapResult:
    """Have a gateway and its provider use another rule set; a `GatewayError` changes nothing."""
    with owned(gateway) as mine:
        if not mine:
            raise GatewayError("another change of the rules or the key is under way")
        if (left := _read(gateway)) is not None:
            _Update(gateway, left).go_on()
        check_private(Path(swap.maps))
        stage(gateway, Path(swap.maps))
        try:
            before = _Update(gateway, Journal(swap, Phase.HOLD, {})).prepare()
            journal = Journal(swap, Phase.HOLD, before)
            journal.write(gateway)
        except BaseException:
            unstage(gateway)
            raise
        return _Update(gateway, journal).go_on()


def finish_swap(gateway: Gateway) -> SwapResult | None:
    """Finish an update that nobody works on any more, if there is one."""
    if not journal_of(gateway).exists():
        return None
    with owned(gateway) as mine:
        left = _read(gateway) if mine else None
        return None if left is None else _Update(gateway, left).go_on()


def release(gateway: Gateway) -> bool:
    """Have workers run that were built to wait for an update; false while there is one."""
    with owned(gateway) as mine:
        if not mine or journal_of(gateway).exists():
            return False
        with refusals(gateway.daemon), Client(gateway.daemon) as ours:
            for wid in _workers(gateway):
                ours.resume(wid)
        return True


def _read(gateway: Gateway) -> Journal | None:
    try:
        return Journal.read(gateway)
    except JournalError as error:
        raise GatewayError(str(error)) from None


def _workers(gateway: Gateway) -> range:
    return range(1, 1 + gateway.workers)


class _Update:
    """An update of a gateway, from wherever its journal says that it is."""

    def __init__(self, gateway: Gateway, journal: Journal) -> None:
        self._gateway = gateway
        self._journal = journal

    @contextmanager
    def _daemons(self) -> Iterator[tuple[Client, Client]]:
        with Client(self._gateway.daemon) as ours, Client(self._journal.swap.provider) as theirs:
            yield ours, theirs

    def _at_provider(self) -> Any:
        return refusals(f"provider at {self._journal.swap.provider}")

    def _plan(self, maps: Path) -> dict[str, Any]:
        return {**encrypt_args(self._gateway), "maps_file": str(maps)}

    def _note(self, phase: Phase) -> None:
        self._journal = replace(self._journal, phase=phase)
        self._journal.write(self._gateway)

    def prepare(self) -> dict[str, dict[str, Any]]:
        """What the firewalls have; `GatewayError` for what would be refused."""
        swap = self._journal.swap
        with self._daemons() as (ours, theirs):
            self._reencrypted(ours, [], staged_maps(self._gateway))
            self._check_pool(ours)
            with self._at_provider():
                there = {module["name"]: module["mclass"] for module in theirs.list_modules()}
            wanted = dict.fromkeys(swap.firewalls, "MetadataMatch") | dict.fromkeys(
                swap.nats, "NAT"
            )
            for name, mclass in wanted.items():
                if there.get(name) != mclass:
                    known = ", ".join(n for n, kind in there.items() if kind == mclass) or "none"
                    raise GatewayError(f"the provider has no {mclass} '{name}'; it has {known}")
            with self._at_provider():
                return {
                    name: to_hex(theirs.run_module_command(name, "get_runtime_config", "EmptyArg"))
                    for name in swap.firewalls
                }

    def _check_pool(self, ours: Client) -> None:
        """The provider's NATs and load balancers know the addresses that they write."""
        with refusals("encrypt"):
            arg_type = "PrefixMatchEncryptCommandGetPoolArg"
            told = ours.run_module_command("encrypt", "get_pool", arg_type)["addresses"]
        pool = [ip_address(text) for text in self._journal.swap.pool]
        if len(told) != len(pool):
            raise GatewayError(
                f"the rules are for a pool of {len(pool)} addresses, the gateway has {len(told)}; "
                "encrypt them with the same --pool"
            )
        for one, new in zip(told, pool, strict=True):
            if ip_address(one["encrypted"]) != new:
                raise GatewayError(
                    f"{one['address']} of the pool would have another encryption, which the "
                    f"provider does not know; encrypt the rules with --previous "
                    f"{self._gateway.maps}; where they are about that address, make the provider's "
                    "NAT anew"
                )

    def go_on(self) -> SwapResult:
        """To the end."""
        began = time.monotonic()
        moved = ended = 0
        with self._daemons() as (ours, theirs):
            if self._journal.phase is Phase.BACK:
                self._back(ours, theirs)
                return SwapResult(time.monotonic() - began, 0, 0, taken_back=True)
            if self._journal.phase is not Phase.DONE:
                moved, ended = self._forward(ours, theirs)
            self._finish(ours)
        return SwapResult(time.monotonic() - began, moved, ended)

    def _forward(self, ours: Client, theirs: Client) -> tuple[int, int]:
        swap = self._journal.swap
        try:
            self._hold(ours)
            with refusals("waiting for packets to pass"):
                _until_quiet(ours, theirs, swap.settle_s)
            self._note(Phase.FORWARD)
            wanted = dict.fromkeys(swap.firewalls, swap.config)
            done = self._provide(ours, theirs, wanted, staged_maps(self._gateway))
            self._encrypt_by(ours, staged_maps(self._gateway))
            self._note(Phase.DONE)
        except BaseException as error:
            if self._journal.phase is Phase.HOLD:
                self._let_go(ours)
                raise
            self._note(Phase.BACK)
            try:
                self._back(ours, theirs)
            except GatewayError as worse:
                raise GatewayError(
                    f"{error}; nor can the old rules be had: {worse}; packets wait in the gateway "
                    "until `embark-gw run` or another update finds the provider as it was"
                ) from None
            raise
        return done

    def _back(self, ours: Client, theirs: Client) -> None:
        """To the old rules."""
        self._hold(ours)
        self._provide(ours, theirs, self._journal.before, self._gateway.maps)
        self._encrypt_by(ours, self._gateway.maps)
        self._let_go(ours)

    def _finish(self, ours: Client) -> None:
        """All have the new rules; again where a daemon was restarted since."""
        staged = staged_maps(self._gateway)
        self._encrypt_by(ours, staged if staged.exists() else self._gateway.maps)
        put_in_place(self._gateway)
        self._let_go(ours)

    def _hold(self, ours: Client) -> None:
        with refusals(self._gateway.daemon):
            for wid in _workers(self._gateway):
                ours.pause(wid)

    def _let_go(self, ours: Client) -> None:
        """Workers first: who is killed before the journal goes leaves them to others."""
        with suppress(BessError):  # a daemon without workers gets its pipelines again
            for wid in _workers(self._gateway):
                ours.resume(wid)
        journal_of(self._gateway).unlink(missing_ok=True)
        unstage(self._gateway)

    def _encrypt_by(self, ours: Client, maps: Path) -> None:
        arg_type = "PrefixMatchEncryptCommandUpdateArg"
        with refusals("encrypt"):
            ours.run_module_command("encrypt", "update", arg_type, self._plan(maps))

    def _provide(
        self, ours: Client, theirs: Client, firewalls: Mapping[str, Config], maps: Path
    ) -> tuple[int, int]:
        """Give the provider rules and mappings; whatever it has of them already, too."""
        moved = ended = 0
        for name, config in firewalls.items():
            with self._at_provider():
                theirs.run_module_command(name, "set_runtime_config", _CONFIG, from_hex(config))
        for name in self._journal.swap.nats:
            with self._at_provider():
                told = theirs.run_module_command(name, "get_mappings", "NATCommandGetMappingsArg")
            found = self._reencrypted(ours, told["mappings"], maps)
            arg_type = "NATCommandReplaceMappingsArg"
            with self._at_provider():
                done = theirs.run_module_command(
                    name, "replace_mappings", arg_type, {"mappings": found}
                )
            moved += int(done["replaced"])
            ended += int(done["ended"])
        return moved, ended

    def _reencrypted(
        self, ours: Client, mappings: Sequence[Config], maps: Path
    ) -> list[dict[str, Any]]:
        """Internal endpoints as they are encrypted by maps; those that hosts still use."""
        sources = [{"protocol": one["protocol"], "source": one["internal"]} for one in mappings]
        with refusals("reencrypt"):
            found = ours.run_module_command(
                "encrypt",
                "reencrypt",
                "PrefixMatchEncryptCommandReencryptArg",
                {"sources": sources, "plan": self._plan(maps)},
            )
        return [dict(one) for one in found["mappings"]]


def _until_quiet(ours: Client, theirs: Client, settle_s: float) -> None:
    """Wait until nothing moves to the provider, nor there, for so long.

    A worker that gets no CPU moves nothing either: all must have run meanwhile.
    """
    deadline = time.monotonic() + _MOST_S
    before, ran, since = None, None, time.monotonic()
    while True:
        found = (ours.counters(), theirs.counters())
        now = _moved(*found)
        if now != before:
            before, ran, since = now, _ran(*found), time.monotonic()
        elif time.monotonic() - since >= settle_s and _all_ran(ran, _ran(*found)):
            return
        if time.monotonic() > deadline:
            raise GatewayError(f"packets still move at the provider after {_MOST_S:.0f} s")
        time.sleep(_LOOK_S)


def _moved(ours: counters_pb.Counters, theirs: counters_pb.Counters) -> tuple[int, ...]:
    ports = [count for port in theirs.ports for count in (port.inc.packets, port.out.packets)]
    queues = [module.waiting for module in theirs.modules if module.HasField("waiting")]
    sent = [port.out.packets for port in ours.ports if port.name == "provider"]
    left = [module.waiting for module in ours.modules if module.name == "provider_out"]
    return (*ports, *queues, *sent, *left)


Runs = dict[tuple[str, str, int], int]


def _ran(ours: counters_pb.Counters, theirs: counters_pb.Counters) -> Runs:
    """How long each task that runs has run: of the provider, and of who sends there."""
    return {
        (whose, task.module, task.number): task.busy_ns
        for whose, found in (("ours", ours), ("theirs", theirs))
        for task in found.tasks
        if task.wid in {worker.wid for worker in found.workers if worker.running}
        and (whose == "theirs" or task.module == "provider_out")
    }


def _all_ran(before: Runs | None, now: Runs) -> bool:
    return before is not None and all(spent > before.get(task, 0) for task, spent in now.items())
