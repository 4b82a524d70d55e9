# SPDX-License-Identifier: BSD-3-Clause
"""Other rules or another key while traffic flows: no packet meets what isn't its own.

Rules that change may change how every address is encrypted, and a key does, so rules, the state of
NATs and what the gateway encrypts by have to change as one (section 4.3.2 of the dissertation):

1. *prepare*: the new maps are copied and tried, and what the provider lacks is found out. Nothing
   changes.
2. *hold*: the gateway takes packets of both keys. Its workers stop, and packets wait in its queues;
   what is on its way at the provider passes under the old rules.
3. *swap*: rules, the mappings of NATs and the connections of L4LBs, whose endpoints the gateway can
   tell in the new encryption, and the pool's addresses change at the provider; then the gateway's
   maps or key. What fails is taken back.
4. *resume*; after a while, packets of the old key are not taken any more, and the provider forgets
   what the pool's addresses were under it.

A journal (`embark_gw.journal`) says how far that is. Whoever finds it without an owner (another
`update-rules` or `rotate`, or the gateway that runs) goes on from there. Where neither the new
rules nor the old ones can be had, as the provider doesn't answer, packets stay in the gateway,
which tries again: the provider never waits for a gateway, and no packet meets rules that aren't
its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bess_plugins.client import BessError, Client
from embark_gw.gateway import (
    GatewayError,
    check_private,
    refusals,
    update_receiving,
    update_sending,
)
from embark_gw.journal import (
    Journal,
    JournalError,
    Phase,
    Swap,
    journal_of,
    note_in_force,
    owned,
    put_in_place,
    stage,
    staged_maps,
    unstage,
)
from embark_gw.middleboxes import Middleboxes
from embark_gw.per_flow import PerFlowUpdate, check_free
from embark_gw.pipelines import encrypt_args
from embark_gw.quiet import until_quiet
from embark_gw.site import Gateway, Key, way_of_new_flows
from embark_gw.stateful import Carried, pool_of
from embark_gw.swaps import SwapResult

__all__ = ["finish_swap", "release", "rotate", "update_rules"]


InUse = Callable[[SwapResult], None]


def _nobody(done: SwapResult) -> None:
    """Waits to hear of it."""


def update_rules(gateway: Gateway, swap: Swap) -> SwapResult:
    """Have a gateway and its provider use another rule set; a `GatewayError` changes nothing."""
    with _alone(gateway):
        check_private(Path(swap.maps))
        stage(gateway, Path(swap.maps))
        try:
            return _start(gateway, swap)
        except BaseException:
            if not journal_of(gateway).exists():
                unstage(gateway)
            raise


def rotate(gateway: Gateway, swap: Swap, in_use: InUse = _nobody) -> SwapResult:
    """Encrypt by another key from now on, with no packet lost; a `GatewayError` changes nothing.

    ``in_use`` is told when the new key is, and packets of the old one are still taken.
    """
    with _alone(gateway):
        return _start(gateway, swap, in_use)


def finish_swap(gateway: Gateway) -> SwapResult | None:
    """Finish an update that nobody works on any more, if there is one."""
    if not journal_of(gateway).exists():
        return None
    with owned(gateway) as mine:
        left = _read(gateway) if mine else None
        return None if left is None else _finish(gateway, left)


def release(gateway: Gateway) -> bool:
    """Have workers run that were built to wait for an update; false while there is one."""
    with owned(gateway) as mine:
        if not mine or journal_of(gateway).exists():
            return False
        with refusals(gateway.daemon), Client(gateway.daemon) as ours:
            for wid in _workers(gateway):
                ours.resume(wid)
        return True


@contextmanager
def _alone(gateway: Gateway) -> Iterator[None]:
    """As the one who changes the gateway; with nothing left of an earlier update."""
    with owned(gateway) as mine:
        if not mine:
            raise GatewayError("another change of the rules or the key is under way")
        if (left := _read(gateway)) is not None:
            _finish(gateway, left)
            if left.swap.key is not None:
                raise GatewayError(
                    "an earlier change of the key was left over, and is finished now; try again"
                )
        unstage(gateway)  # of an update that was killed before it began
        yield


def _start(gateway: Gateway, swap: Swap, in_use: InUse = _nobody) -> SwapResult:
    journal = Journal(swap, Phase.HOLD)
    per_flow = swap.way is not None
    journal = (PerFlowUpdate if per_flow else _Update)(gateway, journal).prepare()
    journal.write(gateway)
    return _finish(gateway, journal, in_use)


def _finish(gateway: Gateway, journal: Journal, in_use: InUse = _nobody) -> SwapResult:
    if journal.swap.way is None:
        return _Update(gateway, journal).go_on(in_use)
    return SwapResult(0.0, kept=PerFlowUpdate(gateway, journal).go_on())


def _read(gateway: Gateway) -> Journal | None:
    try:
        return Journal.read(gateway)
    except JournalError as error:
        raise GatewayError(str(error)) from None


def _workers(gateway: Gateway) -> range:
    return range(1, 1 + gateway.workers)


def _with_key(gateway: Gateway, key: Key | None) -> Gateway:
    """A gateway that encrypts by this key and takes packets of the one before as well."""
    if key is None or key == gateway.key:
        return gateway
    others = (known for known in gateway.keys if known != key)
    return gateway.model_copy(update={"key": key, "accept": tuple(others)})


class _Update:
    """An update of a gateway, from wherever its journal says that it is."""

    def __init__(self, gateway: Gateway, journal: Journal) -> None:
        self._old = gateway
        self._new = _with_key(gateway, journal.swap.new_key)
        self._journal = journal

    @contextmanager
    def _daemons(self) -> Iterator[tuple[Client, Middleboxes | None]]:
        swap = self._journal.swap
        with ExitStack() as stack:
            ours = stack.enter_context(Client(self._old.daemon))
            theirs = None
            if swap.provider:
                theirs = Middleboxes(stack.enter_context(Client(swap.provider)), ours, swap)
            yield ours, theirs

    @property
    def _maps(self) -> Path:
        """The new maps, wherever they are by now."""
        staged = staged_maps(self._old)
        return staged if self._journal.swap.maps and staged.exists() else self._old.maps

    @property
    def _plan(self) -> dict[str, Any]:
        return {**encrypt_args(self._new), "maps_file": str(self._maps)}

    def _note(self, phase: Phase) -> None:
        self._journal = replace(self._journal, phase=phase)
        self._journal.write(self._old)

    def prepare(self) -> Journal:
        """What is to be done; `GatewayError` for what would be refused."""
        with self._daemons() as (ours, theirs):
            if self._old.provider.backup is not None:
                check_free(ours, way_of_new_flows(self._old))
            moved = self._moved(ours)
            if theirs is None:
                return self._journal
            return replace(self._journal, before=theirs.look(moved), moved=moved)

    def _moved(self, ours: Client) -> dict[str, str]:
        """Addresses of the pool, as they are encrypted now, with what they are to be."""
        swap = self._journal.swap
        now, then = pool_of(ours), pool_of(ours, self._plan)
        if swap.maps and len(swap.pool) != len(now):
            raise GatewayError(
                f"the rules are for a pool of {len(swap.pool)} addresses, the gateway has "
                f"{len(now)}; encrypt them with the same --pool"
            )
        if swap.maps and swap.pool != [one.encrypted for one in then]:
            raise GatewayError(
                "the rules' pool is encrypted in another way than the gateway would; give the maps "
                "that were written with these rules, and the key that is in use"
            )
        changed = [
            (old.clear, old.encrypted, new.encrypted)
            for old, new in zip(now, then, strict=True)
            if old.encrypted != new.encrypted
        ]
        if changed and swap.provider and not (swap.nats or swap.lbs):
            raise GatewayError(
                f"{changed[0][0]} of the pool would have another encryption, which the provider "
                "does not know; name its NATs by --nat and its L4LBs by --lb, or encrypt the rules "
                f"with --previous {self._old.maps}"
            )
        return {old: new for _, old, new in changed}

    def go_on(self, in_use: InUse) -> SwapResult:
        """To the end."""
        began = time.monotonic()
        done = Carried()
        with self._daemons() as (ours, theirs):
            if self._journal.phase is Phase.BACK:
                self._back(ours, theirs)
                return SwapResult(time.monotonic() - began, taken_back=True)
            if self._journal.phase in (Phase.HOLD, Phase.FORWARD):
                done = self._forward(ours, theirs)
            self._finish(ours)
            result = SwapResult(time.monotonic() - began, done, self._journal.moved)
            in_use(result)
            return replace(result, unforgotten=self._drain(ours, theirs))

    def _forward(self, ours: Client, theirs: Middleboxes | None) -> Carried:
        done = Carried()
        try:
            self._hold(ours, theirs)
            if theirs is not None:
                with refusals("waiting for packets to pass"):
                    until_quiet(ours, theirs.client, self._journal.swap.settle_s)
            self._note(Phase.FORWARD)
            if theirs is not None:
                done = theirs.give_new(self._journal, self._plan)
            update_sending(ours, self._new, self._maps)
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

    def _back(self, ours: Client, theirs: Middleboxes | None) -> None:
        """To what was before."""
        self._hold(ours, theirs)
        if theirs is not None:
            theirs.give_old(self._journal, encrypt_args(self._old))
        update_sending(ours, self._old)
        self._let_go(ours)

    def _finish(self, ours: Client) -> None:
        """All have what is new; again where a daemon was restarted since."""
        if self._journal.swap.key is not None:
            update_receiving(ours, self._new)
        update_sending(ours, self._new, self._maps)
        if self._journal.swap.maps:
            put_in_place(self._old)
        if self._journal.swap.key is None:
            self._let_go(ours)
            return
        note_in_force(self._old, self._new.key, self._new.accept)
        self._resume(ours)
        if self._journal.phase is not Phase.DRAIN:
            self._note(Phase.DRAIN)

    def _drain(self, ours: Client, theirs: Middleboxes | None) -> tuple[str, ...]:
        """Once nothing of the old key can be on its way any more, it opens nothing.

        A provider that can't be told to forget addresses stands in nobody's way; tells why.
        """
        if self._journal.swap.key is None:
            return ()
        time.sleep(self._journal.drain_left_s(self._old))
        unforgotten = () if theirs is None else theirs.forget(self._journal)
        instead = self._journal.swap.instead
        accept = tuple(known for known in self._new.accept if known.epoch != instead)
        update_receiving(ours, self._new.model_copy(update={"accept": accept}))
        note_in_force(self._old, self._new.key, accept)
        journal_of(self._old).unlink()
        return unforgotten

    def _hold(self, ours: Client, theirs: Middleboxes | None) -> None:
        """Before packets of another key can come; packets wait where the provider has to change."""
        if self._journal.swap.key is not None:
            update_receiving(ours, self._new)
        if theirs is None:
            return
        with refusals(self._old.daemon):
            for wid in _workers(self._old):
                ours.pause(wid)

    def _resume(self, ours: Client) -> None:
        with suppress(BessError):  # a daemon without workers gets its pipelines again
            for wid in _workers(self._old):
                ours.resume(wid)

    def _let_go(self, ours: Client) -> None:
        """Workers first: who is killed before the journal goes leaves them to others."""
        self._resume(ours)
        if self._journal.swap.key is not None:
            with suppress(GatewayError):  # a daemon that is gone has the old keys when it is built
                update_receiving(ours, self._old)
        journal_of(self._old).unlink(missing_ok=True)
        unstage(self._old)
