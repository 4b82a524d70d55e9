# SPDX-License-Identifier: BSD-3-Clause
"""Other rules for new flows, while old ones stay with the rules that they began under.

Section 4.3.2 of the dissertation, at its end: buffering until all flows have ended would take too
long, so where the provider has backup middleboxes, flows aren't moved at all, as in E2's migration
avoidance. The gateway's FlowSteer knows the flows and sends each one's packets by one of two ways,
with maps of their own, to one of two chains of middleboxes, with rules of their own:

1. the chain that no flow uses any more gets the new rules, its way the new maps;
2. the FlowSteer is split: flows that it knows stay, those that begin go the other way;
3. the new maps become the gateway's. With the last old flow, the other chain is free for the next
   rules.

Nothing waits, and nothing has to be taken back: until 2, nobody uses what is new. A journal says
how far that is; each step may be done again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bess_plugins.client import Client
from embark_gw.files import replaced
from embark_gw.gateway import GatewayError, flows_of, refusals, update_way
from embark_gw.journal import Journal, Phase, Swap, journal_of, put_in_place, staged_maps, unstage
from embark_gw.middleboxes import Middleboxes
from embark_gw.pipelines import FLOW_IDS, encrypt_args
from embark_gw.site import Gateway, way_file
from embark_gw.stateful import pool_of

__all__ = ["PerFlowUpdate", "check_free"]


class PerFlowUpdate:
    """A change of rules for new flows, from wherever its journal says that it is."""

    def __init__(self, gateway: Gateway, journal: Journal) -> None:
        self._gateway = gateway
        self._journal = journal

    @property
    def _swap(self) -> Swap:
        return self._journal.swap

    @property
    def _plan(self) -> dict[str, Any]:
        return {**encrypt_args(self._gateway), "maps_file": str(staged_maps(self._gateway))}

    def prepare(self) -> Journal:
        """Look what there is; `GatewayError` for what would be refused."""
        with Client(self._gateway.daemon) as ours, Client(self._swap.provider) as theirs:
            if (way := flows_of(ours).way) == self._swap.way:
                raise GatewayError("rules have changed meanwhile; try again")
            check_free(ours, way)
            moved = [
                now.clear
                for now, then in zip(pool_of(ours), pool_of(ours, self._plan), strict=True)
                if now.encrypted != then.encrypted
            ]
            if moved:
                raise GatewayError(
                    f"{moved[0]} of the pool would have another encryption, and old flows need the "
                    f"one that it has; encrypt the rules with --previous {self._gateway.maps}"
                )
            Middleboxes(theirs, ours, self._swap).look({})
        return self._journal

    def go_on(self) -> int:
        """To the end; how many flows stay with the old rules."""
        way = self._swap.way
        assert way is not None
        with Client(self._gateway.daemon) as ours:
            if self._journal.phase is not Phase.DONE:
                self._give(ours, way)
            staged = staged_maps(self._gateway)
            maps = staged if staged.exists() else self._gateway.maps
            update_way(ours, self._gateway, self._gateway.provider.ways[way], maps)
            self._turn(ours, way)
            self._note(Phase.DONE)
            put_in_place(self._gateway)
            with replaced([way_file(self._gateway)]) as (fresh,):
                fresh.write_text(f"{way}\n", encoding="ascii")
            journal_of(self._gateway).unlink()
            unstage(self._gateway)
            return flows_of(ours).left

    def _give(self, ours: Client, way: int) -> None:
        """New rules for the chain that nobody uses; on an error there is nothing to take back."""
        try:
            with Client(self._swap.provider) as theirs:
                Middleboxes(theirs, ours, self._swap).configure_firewalls()
            self._note(Phase.FORWARD)
        except BaseException:
            if self._journal.phase is Phase.HOLD and flows_of(ours).way != way:
                journal_of(self._gateway).unlink(missing_ok=True)
                unstage(self._gateway)
            raise

    def _turn(self, ours: Client, way: int) -> None:
        """Have flows that begin from now on go this way."""
        if flows_of(ours).way == way:
            return
        arg = {"gate": 1 - way, "new_gate": way, "cut": 0, "end": FLOW_IDS}
        with refusals("steer"):
            ours.run_module_command("steer", "split", "FlowSteerCommandSplitArg", arg)

    def _note(self, phase: Phase) -> None:
        if self._journal.phase is not phase:
            self._journal = replace(self._journal, phase=phase)
            self._journal.write(self._gateway)


def check_free(ours: Client, way: int) -> None:
    """A `GatewayError` where flows still have the rules before those of a way."""
    found = flows_of(ours)
    if found.way != way or found.left:
        raise GatewayError(
            f"{found.left} flows have the rules before the latest still; wait until they have "
            "ended, as `embark-gw status` tells"
        )
    if found.flows >= found.most:
        raise GatewayError(
            f"all {found.most} flows that can be remembered are in use, so that some of them might "
            "meet two rule sets; raise provider.backup.flows"
        )
