# SPDX-License-Identifier: BSD-3-Clause
"""Another rule set while traffic flows: no packet meets new rules with an old encryption.

Rules that change may change how every address is encrypted, so rules, the state of NATs and what
the gateway encrypts by have to change as one (section 4.3.2 of the dissertation):

1. *prepare*: the new maps are read, and what the provider lacks is found out. Nothing changes.
2. *hold*: the gateway's workers stop, and packets wait in its queues; what is on its way at the
   provider passes under the old rules.
3. *swap*: rules and the mappings of NATs, whose internal endpoints the gateway can tell in the new
   encryption, change at the provider; then the gateway's maps. What fails before the gateway has
   the new maps is taken back.
4. *resume*.

A journal beside the maps says that a swap is under way: whoever finds it without an owner (another
`update-rules`, or the gateway that runs) does the swap once more, which does no harm, and resumes.
So the provider never waits for a gateway; only the gateway's packets do.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bess_plugins.client import BessError, Client
from embark_gw.gateway import GatewayError, refusals
from embark_gw.pipelines import encrypt_args
from embark_gw.site import Gateway

__all__ = ["Swap", "SwapResult", "finish_swap", "journal_of", "make_swap", "update_rules"]

_QUIET_S = 0.02
_MOST_S = 5.0
_CONFIG = "MetadataMatchConfig"
Rules = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Swap:
    """What is to change: maps, and the middleboxes of the provider's daemon.

    ``rules`` are those of MetadataMatch modules named ``firewalls``, in hexadecimal where they have
    bytes; ``default_gate`` is for packets that match none.
    """

    provider: str
    maps: str
    rules: list[dict[str, Any]]
    default_gate: int
    firewalls: list[str] = field(default_factory=lambda: ["firewall"])
    nats: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SwapResult:
    """How it went: how long packets waited, and how many mappings of NATs went over."""

    held_s: float
    mappings: int
    ended: int


def make_swap(
    provider: str,
    maps: Path,
    config: Mapping[str, Any],
    firewalls: Sequence[str],
    nats: Sequence[str],
) -> Swap:
    """``config`` is what MetadataMatch takes, as `embark_gw.provider.metadata_match` makes it."""
    rules = [
        {
            **rule,
            "terms": [
                {
                    name: value.hex() if isinstance(value, bytes) else value
                    for name, value in term.items()
                }
                for term in rule["terms"]
            ],
        }
        for rule in config["rules"]
    ]
    where = str(maps.absolute())
    return Swap(provider, where, rules, config["default_gate"], [*firewalls], [*nats])


def journal_of(gateway: Gateway) -> Path:
    """Where it is written that a swap is under way."""
    return gateway.maps.with_name(gateway.maps.name + ".swap")


@contextmanager
def _owned(gateway: Gateway) -> Iterator[bool]:
    """Be the one who swaps; false where another process is."""
    path = gateway.maps.with_name(gateway.maps.name + ".lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(lock)


def update_rules(gateway: Gateway, swap: Swap) -> SwapResult:
    """Have a gateway and its provider use another rule set; a `GatewayError` changes nothing."""
    with _owned(gateway) as owned:
        if not owned:
            raise GatewayError("another update of the rules is under way")
        if journal_of(gateway).exists():
            _swap(gateway, _read_journal(gateway))
        with Client(gateway.daemon) as ours, Client(swap.provider) as theirs:
            _prepare(ours, theirs, gateway, swap)
        _write_journal(gateway, swap)
        return _swap(gateway, swap)


def finish_swap(gateway: Gateway) -> SwapResult | None:
    """Finish a swap that nobody works on any more, if there is one."""
    if not journal_of(gateway).exists():
        return None
    with _owned(gateway) as owned:
        if not owned or not journal_of(gateway).exists():
            return None
        return _swap(gateway, _read_journal(gateway))


def _write_journal(gateway: Gateway, swap: Swap) -> None:
    path = journal_of(gateway)
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(swap), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def _read_journal(gateway: Gateway) -> Swap:
    path = journal_of(gateway)
    try:
        return Swap(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise GatewayError(f"{path}: {error}; remove it, and update the rules again") from None


def _new_plan(gateway: Gateway, swap: Swap) -> dict[str, Any]:
    return {**encrypt_args(gateway), "maps_file": swap.maps}


def _prepare(ours: Client, theirs: Client, gateway: Gateway, swap: Swap) -> None:
    """Find out what would be refused."""
    _reencrypted(ours, [], _new_plan(gateway, swap), gateway)
    with refusals(f"provider at {swap.provider}"):
        there = {module["name"]: module["mclass"] for module in theirs.list_modules()}
    wanted = {**dict.fromkeys(swap.firewalls, "MetadataMatch"), **dict.fromkeys(swap.nats, "NAT")}
    for name, mclass in wanted.items():
        if there.get(name) != mclass:
            known = ", ".join(n for n, kind in there.items() if kind == mclass) or "none"
            raise GatewayError(f"the provider has no {mclass} '{name}'; it has {known}")


def _swap(gateway: Gateway, swap: Swap) -> SwapResult:
    """Hold, swap, resume; may be done again."""
    with (
        refusals(gateway.daemon),
        Client(gateway.daemon) as ours,
        refusals(f"provider at {swap.provider}"),
        Client(swap.provider) as theirs,
    ):
        began = time.monotonic()
        workers = range(1, 1 + gateway.workers)
        try:
            for wid in workers:
                ours.pause(wid)
            _until_quiet(theirs)
            moved, ended = _swap_provider(ours, theirs, gateway, swap)
        except BaseException:
            # The provider has the old rules again, or nobody has begun.
            journal_of(gateway).unlink(missing_ok=True)
            _resume(ours, workers)
            raise
        # From here on there is no way back: the provider has the new rules.
        arg_type = "PrefixMatchEncryptCommandUpdateArg"
        with refusals("encrypt"):
            ours.run_module_command("encrypt", "update", arg_type, _new_plan(gateway, swap))
        if Path(swap.maps) != gateway.maps:
            _copy_private(Path(swap.maps), gateway.maps)
        _resume(ours, workers)
        held_s = time.monotonic() - began
        journal_of(gateway).unlink(missing_ok=True)
        return SwapResult(held_s, moved, ended)


def _resume(ours: Client, workers: range) -> None:
    with suppress(BessError):
        for wid in workers:
            ours.resume(wid)


def _copy_private(source: Path, target: Path) -> None:
    """A file for its owner only, as a whole or not at all."""
    fresh = target.with_name(target.name + ".new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    shutil.copyfile(source, fresh)
    fresh.rename(target)


def _until_quiet(theirs: Client) -> None:
    """Wait until nothing moves at the provider any more."""
    deadline = time.monotonic() + _MOST_S
    before = None
    while (now := _moved(theirs)) != before:
        if time.monotonic() > deadline:
            raise GatewayError(f"packets still move at the provider after {_MOST_S:.0f} s")
        before = now
        time.sleep(_QUIET_S)


def _moved(theirs: Client) -> tuple[int, ...]:
    found = theirs.counters()
    return tuple(
        count for port in found.ports for count in (port.inc.packets, port.out.packets)
    ) + tuple(module.waiting for module in found.modules if module.HasField("waiting"))


def _swap_provider(ours: Client, theirs: Client, gateway: Gateway, swap: Swap) -> tuple[int, int]:
    """Give the provider rules and mappings; what fails is taken back."""
    plan = _new_plan(gateway, swap)
    undo: list[tuple[str, str, str, Mapping[str, Any]]] = []
    moved = ended = 0
    theirs.pause()
    try:
        for name in swap.firewalls:
            config = theirs.run_module_command(name, "get_runtime_config", "EmptyArg")
            theirs.run_module_command(
                name,
                "set_runtime_config",
                _CONFIG,
                {"default_gate": swap.default_gate, "rules": _decoded(swap.rules)},
            )
            undo.append((name, "set_runtime_config", _CONFIG, config))
        for name in swap.nats:
            told = theirs.run_module_command(name, "get_mappings", "NATCommandGetMappingsArg")
            found = _reencrypted(ours, told["mappings"], plan, gateway)
            arg_type = "NATCommandReplaceMappingsArg"
            done = theirs.run_module_command(
                name, "replace_mappings", arg_type, {"mappings": found}
            )
            moved += int(done["replaced"])
            ended += int(done["ended"])
            back = [{**one, "old": one["new"], "new": one["old"]} for one in found]
            undo.append((name, "replace_mappings", arg_type, {"mappings": back}))
    except BaseException:
        for name, command, arg_type, arg in reversed(undo):
            with suppress(BessError):
                theirs.run_module_command(name, command, arg_type, arg)
        raise
    finally:
        theirs.resume()
    return moved, ended


def _reencrypted(
    ours: Client, mappings: Sequence[Mapping[str, Any]], plan: Mapping[str, Any], gateway: Gateway
) -> list[dict[str, Any]]:
    """Internal endpoints as they are encrypted from now on; those that hosts still use."""
    if not any(entry.nat for entry in gateway.pool):
        return []
    sources = [{"protocol": one["protocol"], "source": one["internal"]} for one in mappings]
    with refusals("reencrypt"):
        found = ours.run_module_command(
            "encrypt",
            "reencrypt",
            "PrefixMatchEncryptCommandReencryptArg",
            {"sources": sources, "plan": plan},
        )
    return [dict(one) for one in found["mappings"]]


def _decoded(rules: Rules) -> list[dict[str, Any]]:
    """Rules with bytes where the journal has hexadecimal."""
    return [
        {
            **rule,
            "terms": [
                {
                    name: bytes.fromhex(value) if name.endswith("_bin") else value
                    for name, value in term.items()
                }
                for term in rule["terms"]
            ],
        }
        for rule in rules
    ]
