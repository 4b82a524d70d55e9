# SPDX-License-Identifier: BSD-3-Clause
"""Splitting and draining instances of a running cluster; see `e2ctl.transitions`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from e2ctl import transitions
from e2ctl.controller import flows
from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import ApplyError, Progress, apply
from e2ctl.controller.flows import FEW, hold_of
from e2ctl.controller.store import Inputs, Store
from e2ctl.controller.switches import SwitchDriver
from e2ctl.igraph import Span
from e2ctl.plan import Plan, Running
from e2ctl.replicas import split_decision, traffic_of
from e2ctl.transitions import TransitionError

__all__ = ["Scaler"]

_POLL_S = 0.25


class Scaler:
    """Changes how many instances there are, with everything else as it is.

    One change at a time; ``changing`` is held meanwhile, by others as well that change the cluster.
    """

    def __init__(
        self,
        store: Store,
        agents: Agents,
        switch: SwitchDriver,
        progress: Progress = lambda step: None,
    ) -> None:
        self.changing = asyncio.Lock()
        self._store = store
        self._agents = agents
        self._switch = switch
        self._progress = progress

    async def split(
        self,
        instance: str,
        *,
        cut: int | None = None,
        server: str | None = None,
    ) -> str:
        """Give flow ids of an instance to a new one; returns the new one's name.

        Those from ``cut`` on, by default half of them. New flows go there at once, and upstream is
        told by `push`.
        """
        made = ""

        def change(inputs: Inputs, plan: Plan) -> Running:
            nonlocal made
            self._check_scales(inputs, plan, instance)
            place, at = self._decide(inputs, plan, instance, cut)
            after, made = transitions.split(plan.running, instance, at, server or place)
            return after

        await self._change(change)
        return made

    async def shift(self, instance: str, target: str, ids: Span) -> None:
        """Have an instance give new flows of ``ids`` to the one that has what is next to them."""
        await self._change(lambda _, plan: transitions.shift(plan.running, instance, target, ids))

    async def drain(self, instance: str, target: str | None = None) -> str:
        """Have an instance get no new flows; returns the name of the one that gets them."""
        plan = await self._change(lambda _, plan: transitions.drain(plan.running, instance, target))
        return plan.detours[instance].target

    async def resume(self, instance: str) -> None:
        """Have an instance that is being drained stay."""
        await self._change(lambda _, plan: transitions.resume(plan.running, instance))

    async def share(self, instance: str, host: str) -> None:
        """Have an instance that is being drained run on another's core."""
        await self._change(lambda _, plan: transitions.share(plan.running, instance, host))

    async def left(self, instance: str) -> int:
        """Flows that the change of an instance still keeps from where new ones go."""
        plan = self._current()[1]
        return flows.left(plan, instance, await flows.status_of(plan, self._agents, instance))

    async def push(self, instance: str) -> None:
        """Tell upstream of a change, with the flows that stay; a drained instance goes.

        One that has got a flow again meanwhile, which came as an exception from an earlier change,
        is left for another time.
        """
        async with self.changing:
            inputs, plan = self._current()
            if instance not in plan.detours:
                raise TransitionError(f"{instance} is neither being split nor drained")
            old = [exception for exception in plan.exceptions if exception.instance == instance]
            if plan.detours[instance].kind == "drain" and old:
                plan = await self._apply(inputs, transitions.forget(plan.running, old))
                status = await flows.status_of(plan, self._agents, instance)
                if flows.left(plan, instance, status) > 0:
                    return
            stays = await flows.staying(plan, self._agents, instance)
            drained = plan.detours[instance].kind == "drain"
            plan = await self._apply(
                inputs, transitions.push(plan.running, instance, () if drained else stays)
            )
            end = transitions.remove if drained else transitions.settle
            await self._apply(inputs, end(plan.running, instance))

    async def forget(self) -> int:
        """Take away exceptions whose flows have ended; returns how many are left."""
        async with self.changing:
            inputs, plan = self._current()
            ended = await flows.ended(plan, self._agents, plan.exceptions)
            if ended:
                await self._apply(inputs, transitions.forget(plan.running, ended))
            return len(plan.exceptions) - len(ended)

    async def finish_change(self, instance: str, few: int = FEW) -> None:
        """Wait until few flows are left, `push`, and wait until the exceptions for them go.

        A drained instance goes when it has no flow left.
        """
        plan = self._current()[1]
        if instance in plan.detours:
            drained = plan.detours[instance].kind == "drain"
            while instance in self._current()[1].detours:
                while await self.left(instance) > (0 if drained else few):
                    await asyncio.sleep(_POLL_S)
                await self.push(instance)
        elif not any(exception.instance == instance for exception in plan.exceptions):
            raise TransitionError(f"{instance} is neither being split nor drained")
        while any(e.instance == instance for e in self._current()[1].exceptions):
            await self.forget()
            await asyncio.sleep(_POLL_S)

    def _current(self) -> tuple[Inputs, Plan]:
        current = self._store.read().current
        if current is None:
            raise ApplyError("nothing runs; apply a policy first")
        return current, current.plan()

    @staticmethod
    def _decide(inputs: Inputs, plan: Plan, instance: str, cut: int | None) -> tuple[str, int]:
        """The server where a new instance adds least traffic between servers, and where to cut."""
        at = transitions.middle(plan.instance(instance).span) if cut is None else cut
        cluster, kind = inputs.cluster(), inputs.catalog()[plan.instance(instance).type]
        traffic, number = traffic_of(plan.igraph, cluster, plan.layout.servers)
        found = split_decision(traffic, number[instance], cut=at)
        place = traffic.names[found.server]
        if kind.scaling == "cores":
            place = plan.layout.servers[instance]
            if traffic.free[traffic.names.index(place)] < kind.cores:
                raise TransitionError(
                    f"{instance} scales over cores of {place}, which are all taken"
                )
        return place, at

    @staticmethod
    def _check_scales(inputs: Inputs, plan: Plan, instance: str) -> None:
        nf = plan.instance(instance).nf
        most = inputs.catalog()[plan.instance(instance).type].most_instances
        if hold_of(plan, instance) is None:
            raise TransitionError(f"{instance} can't be split: its type does not scale")
        count = len(plan.igraph.of(nf))
        if most is not None and count >= most:
            raise TransitionError(f"{nf} has {count} instances, and its description allows no more")

    async def _change(self, change: Callable[[Inputs, Plan], Running]) -> Plan:
        async with self.changing:
            inputs, plan = self._current()
            return await self._apply(inputs, change(inputs, plan))

    async def _apply(self, inputs: Inputs, after: Running) -> Plan:
        changed = replace(inputs, running=after)
        return await apply(changed, self._store, self._agents, self._switch, self._progress)
