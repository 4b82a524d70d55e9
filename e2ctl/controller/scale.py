# SPDX-License-Identifier: BSD-3-Clause
"""Splitting and draining instances of a running cluster; see `e2ctl.transitions`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from e2ctl import transitions
from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import ApplyError, Progress, Store, apply
from e2ctl.controller.flows import FEW, hold_of, steer
from e2ctl.controller.store import Inputs
from e2ctl.controller.switches import SwitchDriver
from e2ctl.layout import problem_of
from e2ctl.nfs import Catalog
from e2ctl.placement import place_one
from e2ctl.plan import Detour, FlowException, Plan, Running, instances_for
from e2ctl.transitions import TransitionError

__all__ = ["Scaler"]

# Asking stops a server's workers for 10 ns per flow.
_POLL_S = 0.25
_FLOWS = ("get_flows", "FlowSteerCommandGetFlowsArg")
_MOST_FLOWS = 1 << 21


class Scaler:
    """Changes how many instances there are, with everything else as it is."""

    def __init__(
        self,
        store: Store,
        agents: Agents,
        switch: SwitchDriver,
        progress: Progress = lambda step: None,
    ) -> None:
        self._store = store
        self._agents = agents
        self._switch = switch
        self._progress = progress

    async def split(
        self, instance: str, *, cut: int | None = None, server: str | None = None
    ) -> str:
        """Give half of an instance's flow ids to a new one; returns the new one's name.

        New flows go there at once. Upstream is told when `finish_change` is called.
        """
        inputs, plan = self._current()
        span = plan.running.spans.get(instance, (None, None))[0]
        if cut is None and span is not None:
            cut = transitions.middle(span)
        where = server or self._place(inputs, plan, instance)
        after, name = transitions.split(plan.running, instance, cut or 0, where)
        self._check_limit(inputs, instance, after)
        self._check_scales(plan, instance)
        await self._apply(inputs, after)
        return name

    async def drain(self, instance: str) -> str:
        """Have an instance get no new flows; returns the name of the one that gets them."""
        inputs, plan = self._current()
        after = transitions.drain(plan.running, instance)
        await self._apply(inputs, after)
        return after.detours[instance].target

    async def finish_change(self, instance: str, few: int = FEW) -> None:
        """Wait until few flows are left that a split or drain keeps, tell upstream, and settle.

        A drained instance goes when it has no flow left.
        """
        drained = _is_drained(self._current()[1], instance)
        await self._until(instance, 0 if drained else few)
        inputs, plan = self._current()
        exceptions = [] if drained else await self._exceptions(plan, instance)
        await self._apply(inputs, transitions.push(plan.running, instance, exceptions))
        await self._until(instance, 0)
        inputs, plan = self._current()
        if drained:
            await self._apply(inputs, transitions.remove(plan.running, instance))
        else:
            await self._apply(inputs, transitions.settle(plan.running, instance))

    async def left(self, instance: str) -> int:
        """Flows that a split or drain of an instance still keeps there."""
        return len(await self._kept(self._current()[1], instance))

    async def _kept(self, plan: Plan, instance: str) -> list[dict[str, Any]]:
        """The flows that stay with an instance though new ones like them go elsewhere.

        Its FlowSteer may remember others from an earlier split, which have gone on elsewhere.
        """
        detour, here = _detour(plan, instance), plan.instance(instance)
        arg = {"gate": here.index, "limit": _MOST_FLOWS}
        found = await steer(plan, self._agents, instance, *_FLOWS, arg)
        return [
            entry["flow"]
            for entry in found["flows"]
            if detour.cut <= entry.get("id", 0) < here.reach.end
        ]

    def _current(self) -> tuple[Inputs, Plan]:
        current = self._store.read().current
        if current is None:
            raise ApplyError("nothing runs; apply a policy first")
        return current, current.plan()

    def _place(self, inputs: Inputs, plan: Plan, instance: str) -> str:
        """The server with room where a twin of an instance adds least traffic between servers."""
        cluster, catalog = inputs.cluster(), inputs.catalog()
        after, name = transitions.split(
            plan.running, instance, transitions.middle(plan.instance(instance).span), ""
        )
        graph = instances_for(inputs.parsed(), catalog, cluster, after).igraph
        problem, units = problem_of(graph, catalog, cluster, plan.layout.servers)
        number = next(i for i, unit in enumerate(units) if name in {one.name for one in unit})
        placed = [problem.fixed.get(i, -1) for i in range(len(units))]
        return problem.server_names[place_one(problem, number, placed)]

    @staticmethod
    def _check_scales(plan: Plan, instance: str) -> None:
        if hold_of(plan, instance) is None:
            raise TransitionError(f"{instance} can't be split: its type does not scale")

    @staticmethod
    def _check_limit(inputs: Inputs, instance: str, after: Running) -> None:
        catalog: Catalog = inputs.catalog()
        nf = instance.rpartition(".")[0]
        kind = catalog[inputs.parsed().nfs[nf]]
        count = sum(name.rpartition(".")[0] == nf for name in after.servers)
        if kind.most_instances is not None and count > kind.most_instances:
            raise TransitionError(
                f"{nf} has {count - 1} instances, and its description allows no more"
            )

    async def _exceptions(self, plan: Plan, instance: str) -> list[FlowException]:
        return [
            FlowException(instance, tuple(sorted((k, v) for k, v in flow.items() if v)))
            for flow in await self._kept(plan, instance)
        ]

    async def _until(self, instance: str, few: int) -> None:
        plan = self._current()[1]
        while len(await self._kept(plan, instance)) > few:
            await asyncio.sleep(_POLL_S)

    async def _apply(self, inputs: Inputs, after: Running) -> None:
        changed = replace(inputs, running=after)
        await apply(changed, self._store, self._agents, self._switch, self._progress)


def _detour(plan: Plan, instance: str) -> Detour:
    detour = plan.detours.get(instance)
    if detour is None:
        raise TransitionError(f"{instance} is neither being split nor drained")
    return detour


def _is_drained(plan: Plan, instance: str) -> bool:
    """Whether an instance passes on all of its flow ids, rather than a part."""
    return _detour(plan, instance).cut <= plan.instance(instance).span.start
