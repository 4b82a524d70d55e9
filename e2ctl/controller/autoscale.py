# SPDX-License-Identifier: BSD-3-Clause
"""What is seen of a running cluster, as `e2ctl.scaling` decides on it, and what becomes of that.

An instance's load is what it receives as a part of its capacity: what its description says, or else
what it received while it was overloaded. Overload is told by its LoadMonitor or by the NF itself,
or seen: a full queue, or more than the capacity that is described.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl import scaling
from e2ctl.changes import Change, Group, Room, Seen, abandon, finish, group_of, hosts_of
from e2ctl.controller import flows
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import ApplyError
from e2ctl.controller.notices import Notice, Notices
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import Inputs
from e2ctl.igraph import SPAN_STEP, Span
from e2ctl.locality import Locality
from e2ctl.placement import PlacementError
from e2ctl.plan import Plan
from e2ctl.rates import InstanceRate, measure
from e2ctl.replicas import traffic_of
from e2ctl.routing import PlanError
from e2ctl.scaling import AvoidMigration
from e2ctl.switch_rules import flow_terms
from e2ctl.transitions import TransitionError, is_pushed

__all__ = ["Autoscaler"]

_FULL_QUEUE = 0.8
# Of a flow whose 5-tuple is known, to count entries with.
_ANY_FLOW = (("src", "10.0.0.1"), ("dst", "10.0.0.2"), ("sport", 1), ("dport", 2), ("proto", 6))
_REFUSALS = (AgentError, ApplyError, PlacementError, PlanError, TransitionError)


class Autoscaler:
    """Splits, shifts and drains instances as traffic comes and goes."""

    def __init__(
        self,
        scaler: Scaler,
        agents: Agents,
        notices: Notices,
        policy: AvoidMigration | None = None,
    ) -> None:
        self._scaler = scaler
        self._agents = agents
        self._notices = notices
        self._policy = policy or AvoidMigration()
        self._groups: dict[str, Group] = {}
        self._overloaded: set[str] = set()
        self._carried_bps: dict[str, float] = {}  # by type of NF, while overloaded
        self._reading: Mapping[str, pb.AgentCounters] = {}

    def told(self, notice: Notice) -> None:
        """Take note of what an agent tells."""
        if notice.kind == "overload":
            self._overloaded.add(notice.subject)
        elif notice.kind == "relief":
            self._overloaded.discard(notice.subject)
        elif notice.kind in ("daemon down", "agent down"):
            self._overloaded.clear()  # its relief may be missed; that of others shows by queues

    async def step(self, inputs: Inputs, plan: Plan) -> None:
        """Look, decide, and carry out."""
        rates = await self._rates(inputs, plan)
        names = [name for name in rates if flows.hold_of(plan, name) is not None]
        found = await asyncio.gather(
            *(flows.status_of(plan, self._agents, name) for name in names), return_exceptions=True
        )
        seen: dict[str, dict[int, Seen]] = {}
        for name, status in zip(names, found, strict=True):
            if isinstance(status, AgentError):
                continue
            if isinstance(status, BaseException):
                raise status
            instance = plan.instance(name)
            one = await self._seen(inputs, plan, rates[name], status)
            seen.setdefault(instance.nf, {})[instance.index] = one
        now_s = time.monotonic()
        self._groups = {nf: self._group(nf, plan, now_s) for nf in seen}
        rooms = self._rooms(inputs, plan, seen)
        cores = sum(server.nf_cores for server in inputs.cluster().servers.values())
        free = cores - sum(instance.cores for instance in plan.igraph.instances)
        decided = scaling.decide_all(self._policy, self._groups, seen, rooms, free, now_s)
        for decision in list(decided):
            self._groups[decision.group.nf] = decision.group
            for text in decision.events:
                self._notices.tell(Notice("scaling", subject=decision.group.nf, text=text))
            for act in decision.acts:
                await self._carry_out(decision.group.nf, act)

    async def _rates(self, inputs: Inputs, plan: Plan) -> dict[str, InstanceRate]:
        """Rates of instances since the last look."""
        answers = await self._agents.counters(inputs.lost)
        after = {s: one for s, one in answers.items() if not isinstance(one, AgentError)}
        before, self._reading = self._reading, after
        return {rate.instance: rate for rate in measure(plan, before, after).instances}

    async def _seen(
        self, inputs: Inputs, plan: Plan, rate: InstanceRate, status: Mapping[str, object]
    ) -> Seen:
        instance = plan.instance(rate.instance)
        kind = inputs.catalog()[instance.type]
        cluster = inputs.cluster()
        hot = rate.instance in self._overloaded or rate.queue >= _FULL_QUEUE
        received = rate.received.bits
        if kind.capacity is not None:
            capacity = kind.capacity * cluster.servers[rate.server].ghz * kind.cores
            hot = hot or received > capacity
        else:
            if hot:
                known = self._carried_bps.get(instance.type, received)
                self._carried_bps[instance.type] = (known + received) / 2
            capacity = self._carried_bps.get(instance.type, 0.0)
        load = received / capacity if capacity else rate.queue
        change = plan.detours.get(rate.instance)
        gates = status["gates"]
        assert isinstance(gates, list)
        held = sum(int(gate["flows"]) for gate in gates if gate["gate"] == instance.index)
        buckets: Sequence[float] = ()
        if hot and not instance.span.empty:
            ids = await flows.active(plan, self._agents, rate.instance, instance.span)
            buckets = _histogram(ids, instance.span)
        return Seen(
            max(load, 1.0) if hot else load,
            held,
            hot,
            flows.left(plan, rate.instance, dict(status)) if change else 0,
            buckets,
            [*cluster.servers].index(rate.server),
        )

    def _rooms(
        self, inputs: Inputs, plan: Plan, seen: Mapping[str, Mapping[int, Seen]]
    ) -> dict[str, Room]:
        """What NFs may still take. The kernel runs legacy ones, on no core of theirs."""
        traffic, number = traffic_of(plan.igraph, inputs.cluster(), plan.layout.servers)
        catalog = inputs.catalog()
        native = {nf for nf in seen if catalog[plan.igraph.of(nf)[0].type].kind == "native"}
        hosts = hosts_of({nf: seen[nf] for nf in native}, self._groups)
        rooms = {}
        for nf in seen:
            units = {one.index: number[one.name] for one in plan.igraph.of(nf)}
            rooms[nf] = replace(
                _room(nf, inputs, plan),
                locality=Locality(traffic, units),
                hosts=hosts if nf in native else {},
            )
        return rooms

    def _group(self, nf: str, plan: Plan, now_s: float) -> Group:
        """An NF as it runs, with what is remembered of it."""
        index = {instance.name: instance.index for instance in plan.igraph.of(nf)}
        spans = {i.index: i.span for i in plan.igraph.of(nf) if not i.span.empty}
        known = self._groups.get(nf) or group_of(nf, spans)
        changes = []
        for holder, detour in plan.detours.items():
            if holder not in index:
                continue
            here, there = index[holder], index[detour.target]
            stays, gets = (there, here) if detour.kind == "resume" else (here, there)
            change = Change(
                detour.kind, here, stays, gets, detour.ids, now_s, guest=bool(detour.host)
            )
            same = [one for one in known.changes if replace(one, began_s=now_s) == change]
            changes.append(same[0] if same else change)
        return replace(known, spans=spans, changes=tuple(changes))

    async def _carry_out(self, nf: str, act: scaling.Act) -> None:
        change = act.change
        holder, gets = f"{nf}.{change.holder}", f"{nf}.{change.gets}"
        group, now_s = self._groups[nf], time.monotonic()
        try:
            if act.what == "push":
                await self._scaler.push(holder)
            elif act.what == "share":
                await self._scaler.share(holder, act.host)
            elif change.kind == "split":
                await self._scaler.split(holder, cut=change.ids.start)
            elif change.kind == "shift":
                await self._scaler.shift(holder, gets, change.ids)
            elif change.kind == "drain":
                await self._scaler.drain(holder, gets)
            else:
                await self._scaler.resume(holder)
        except _REFUSALS as error:
            self._groups[nf] = abandon(group, change, now_s, self._policy.settings)
            text = f"{act.what} of {holder}'s {change.kind}: {error}"
            self._notices.tell(Notice("scaling failed", subject=nf, text=text))
            return
        if act.what == "push":
            self._groups[nf] = finish(group, change, now_s, self._policy.settings)

    async def finish_pushed(self, plan: Plan) -> None:
        """End the detours that a controller left which was killed after a push."""
        for holder in plan.detours:
            if is_pushed(plan.running, holder):
                await self._scaler.push(holder)


def _histogram(ids: Sequence[int], span: Span) -> list[float]:
    """How many flows each `SPAN_STEP` ids of a span have."""
    buckets = [0.0] * ((span.end - span.start) // SPAN_STEP)
    for number in ids:
        buckets[(number - span.start) // SPAN_STEP] += 1
    return buckets


def _room(nf: str, inputs: Inputs, plan: Plan) -> Room:
    """What an NF may still take."""
    cluster, instances = inputs.cluster(), plan.igraph.of(nf)
    kind = inputs.catalog()[instances[0].type]
    cores = sum(server.nf_cores for server in cluster.servers.values())
    taken = [(plan.layout.servers[i.name], i.cores) for i in plan.igraph.instances]
    if kind.scaling == "cores":
        place = plan.layout.servers[instances[0].name]
        cores = cluster.servers[place].nf_cores
        taken = [(server, used) for server, used in taken if server == place]
    free = cores - sum(used for _, used in taken)
    if nf not in plan.routing.switch.hashes:
        return Room(free, None, kind.most_instances)
    entries = cluster.switch.table - len(plan.switch)
    each = len(list(flow_terms(_ANY_FLOW, kind.grouping)))
    return Room(free, entries, kind.most_instances, each, "switch")
