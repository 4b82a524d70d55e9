# SPDX-License-Identifier: BSD-3-Clause
"""A simulated cluster: flows through pipelines of NFs on servers, scaled by the policy as it runs.

Each pipeline's first NF is steered by a switch, within its table and at its speed; the others by
FlowSteers of servers. Functions from packets to flow ids are one for a pipeline, so that edges
between its NFs are direct where spans meet.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2ctl import scaling
from e2ctl.changes import Change, Room, Seen, abandon, after, entries_of, finish, hosts_of
from e2ctl.igraph import Span
from e2ctl.placement import PlacementError
from e2ctl.placement import Room as ServerRoom
from e2ctl.scaling import AvoidMigration, Policy, Settings
from e2ctl.simulator.model import Model, Pipeline
from e2ctl.simulator.places import Places
from e2ctl.simulator.samples import sample
from e2ctl.simulator.steering import NONE

__all__ = ["Cluster"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Cluster:
    """Runs pipelines on servers. ``samples`` and ``events`` are what was seen, by time."""

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        servers: Sequence[ServerRoom],
        places: Mapping[tuple[int, int, int], int],
        *,
        policy: Policy | None = None,
        settings: Settings | None = None,
        model: Model | None = None,
        hot: Callable[[float, float], bool] | None = None,
    ) -> None:
        self.pipelines = list(pipelines)
        self.settings = settings or Settings()
        self.policy = policy or AvoidMigration(self.settings)
        self.model = model or Model()
        self.places = Places(servers, places)
        self.now_s = 0.0
        self.samples: list[dict[str, Any]] = []
        self.events: list[tuple[float, str]] = []
        self.controller_s = 0.0
        self.decisions = 0
        self.flows_lost = 0
        self.flows_moved = 0
        self._hot = hot or (lambda load, _: load > self.model.high)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._loads: dict[tuple[int, int], dict[int, float]] = {}
        self.down: set[tuple[int, int, int]] = set()
        for pipeline in self.pipelines:
            self._begin_flows(pipeline)

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Have something happen at a time."""
        heapq.heappush(self._queue, (when_s, next(self._number), what))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now_s + seconds
        self._every(self.model.control_s, self._control, end)
        self._every(self.model.sample_s, lambda: self.samples.append(sample(self)), end)
        while self._queue and self._queue[0][0] <= end:
            when, _, what = heapq.heappop(self._queue)
            self._advance(when)
            what()
        self._advance(end)

    def _every(self, period_s: float, what: Callable[[], None], end_s: float) -> None:
        steps = round((end_s - self.now_s) / period_s)
        for step in range(steps + 1):
            self.at(self.now_s + step * period_s, what)

    def _advance(self, to_s: float) -> None:
        if to_s > self.now_s:
            self.now_s = to_s
            for pipeline in self.pipelines:
                self._begin_flows(pipeline)

    def _begin_flows(self, pipeline: Pipeline) -> None:
        flows = pipeline.flows
        end = int(np.searchsorted(flows.start_s, self.now_s, side="right"))
        for steering in pipeline.steering:
            steering.begin(pipeline.begun, end)
        alive = np.concatenate((pipeline.alive, np.arange(pipeline.begun, end)))
        pipeline.alive = alive[flows.end_s[alive] > self.now_s]
        pipeline.begun = end

    # What the controller sees and does.

    def _control(self) -> None:
        groups, seen, rooms, where = {}, {}, {}, {}
        for p, pipeline in enumerate(self.pipelines):
            for n, nf in enumerate(pipeline.nfs):
                name = pipeline.groups[n].nf
                where[name] = (p, n)
                groups[name] = pipeline.groups[n]
                seen[name] = self._seen(p, n)
                entries = pipeline.switch.free(self.now_s) if n == 0 else None
                rooms[name] = Room(1 << 30, entries, nf.most, switch=str(id(pipeline.switch)))
        state = self._state()
        started = time.process_time()
        hosts = hosts_of(seen, groups)
        localities = self.places.localities(state)
        for name, place in where.items():
            rooms[name] = replace(rooms[name], locality=localities[place], hosts=hosts)
        free = self.places.free_cores
        decided = list(scaling.decide_all(self.policy, groups, seen, rooms, free, self.now_s))
        for decision in decided:
            p, n = where[decision.group.nf]
            self.pipelines[p].groups[n] = decision.group
            self.events += [(self.now_s, text) for text in decision.events]
            for act in decision.acts:
                self.decisions += 1
                if act.what == "start":
                    self._start(p, n, act.change)
                elif act.what == "push":
                    self._push(p, n, act.change)
                else:
                    self.places.share((p, n, act.change.holder), core=False)
        self.controller_s += time.process_time() - started

    def _seen(self, p: int, n: int) -> dict[int, Seen]:
        pipeline = self.pipelines[p]
        steering, alive, group = pipeline.steering[n], pipeline.alive, pipeline.groups[n]
        owner, rates = steering.owner[alive] + 1, pipeline.flows.rate_bps[alive]
        size = max(group.instances) + 2
        loads = np.bincount(owner, rates, size)[1:] / pipeline.nfs[n].capacity_bps
        flows = np.bincount(owner, minlength=size)[1:]
        kept = self._loads.get((p, n), {})
        weight = min(1.0, self.model.control_s / self.model.average_s)
        result, means = {}, {}
        for index in group.instances:
            if (p, n, index) in self.down:
                continue
            now = float(loads[index])
            mean = means[index] = kept.get(index, now) + weight * (now - kept.get(index, now))
            change = group.change_of(index)
            left = 0
            if change is not None and change.holder == index:
                left = len(steering.staying(change, alive))
            buckets: Sequence[float] = ()
            hot = self._hot(mean, self.now_s)
            if hot and index in group.spans:
                span = group.spans[index]
                low, high = span.start >> 20, span.end >> 20
                mine = alive[owner == index + 1]
                ids = pipeline.flows.buckets[mine] - low
                inside = (ids >= 0) & (ids < high - low)
                weights = pipeline.flows.rate_bps[mine[inside]]
                buckets = np.bincount(ids[inside], weights, high - low).tolist()
            result[index] = Seen(
                mean, int(flows[index]), hot, left, buckets, self.places.server_of((p, n, index))
            )
        self._loads[p, n] = means
        return result

    def _start(self, p: int, n: int, change: Change) -> None:
        pipeline = self.pipelines[p]
        if change.kind == "split":
            key = (p, n, change.holder)
            try:
                self.places.split(key, (p, n, change.gets), change.ids, self._state())
            except PlacementError as error:
                group = pipeline.groups[n]
                pipeline.groups[n] = abandon(group, change, self.now_s, self.settings)
                self.events.append((self.now_s, f"{group.nf}.{change.holder}: {error}"))
                return
        elif change.kind == "resume":
            self.places.share((p, n, change.holder), core=True)
        carry_out = {
            "avoid": self._hand_over,
            "migrate": self._migrate,
            "entries": self._enter,
        }[self.policy.way]
        self.at(self.now_s + self.model.replica_s, lambda: carry_out(p, n, change))

    def _state(self) -> list[tuple[list[Ints], float]]:
        """Tables and load of each pipeline, which traffic between instances follows from."""
        return [
            (
                [steering.table for steering in pipeline.steering],
                float(pipeline.flows.rate_bps[pipeline.alive].sum()),
            )
            for pipeline in self.pipelines
        ]

    def _hand_over(self, p: int, n: int, change: Change) -> None:
        if change in self.pipelines[p].groups[n].changes:  # nothing has ended it meanwhile
            self.pipelines[p].steering[n].start(change)
            self.places.stale()

    def _migrate(self, p: int, n: int, change: Change) -> None:
        """New flows go over at once, and active ones one after the other."""
        pipeline = self.pipelines[p]
        steering = pipeline.steering[n]
        self._hand_over(p, n, change)
        pause = scaling.AlwaysMigrate.pause_s
        flows = steering.staying(change, pipeline.alive)

        def move(place: int) -> None:
            while place < len(flows) and pipeline.flows.end_s[flows[place]] <= self.now_s:
                place += 1
            if place == len(flows):
                self._push(p, n, change)
                return
            steering.owner[flows[place]] = change.gets
            self.flows_moved += 1
            self.at(self.now_s + pause, lambda: move(place + 1))

        move(0)

    def _enter(self, p: int, n: int, change: Change) -> None:
        """Entries for active flows, until all have one or the table is full."""
        pipeline = self.pipelines[p]
        steering, switch, flows = pipeline.steering[n], pipeline.switch, pipeline.flows

        def step() -> None:
            lacking = steering.staying(change, pipeline.alive)
            late = self.now_s - change.began_s > self.model.give_up_s
            if not len(lacking) or late or switch.free(self.now_s) <= self.settings.spare:
                # The newest flows are never all done, and are moved.
                old = lacking[flows.start_s[lacking] < self.now_s - self.model.control_s]
                lowest = int(flows.buckets[old].max()) + 1 if len(old) else 0
                self._narrow(p, n, change, lowest << 20)
                return
            flow = int(lacking[flows.buckets[lacking].argmax()])
            switch.promised += 1
            self.at(switch.update(self.now_s), lambda: done(flow))

        def done(flow: int) -> None:
            switch.promised -= 1
            if flows.end_s[flow] > self.now_s:
                switch.add(self.now_s, float(flows.end_s[flow]))
                steering.exception[flow] = change.stays
            step()

        step()

    def _narrow(self, p: int, n: int, change: Change, start: int) -> None:
        """Push of a split only the ids from ``start``, or nothing if there are none."""
        pipeline = self.pipelines[p]
        start = max(start, change.ids.start)
        group = pipeline.groups[n]
        others = tuple(one for one in group.changes if one != change)
        if start >= change.ids.end:
            pipeline.groups[n] = abandon(group, change, self.now_s, self.settings)
            self.places.remove((p, n, change.gets))
            return
        ids = Span(start, change.ids.end)
        narrowed = Change("split", change.holder, change.stays, change.gets, ids, change.began_s)
        pipeline.groups[n] = replace(group, changes=(*others, narrowed))
        self._push(p, n, narrowed)

    def _push(self, p: int, n: int, change: Change) -> None:
        """Exceptions first, then spans."""
        pipeline = self.pipelines[p]
        steering, switch, group = pipeline.steering[n], pipeline.switch, pipeline.groups[n]
        flows = steering.staying(change, pipeline.alive)
        if change.kind == "drain" or self.policy.way != "avoid":
            flows = flows[:0]
        spans = sum(map(entries_of, after(group.spans, change).values()))
        more = spans - sum(map(entries_of, group.spans.values()))
        if n == 0:
            promised = len(flows) + max(0, more)
            switch.promised += promised
            done_s = switch.update(self.now_s, len(flows) + abs(more) + 1)
        else:
            promised = 0
            done_s = self.now_s + self.model.rule_s * (len(flows) + spans)
        self.at(done_s, lambda: self._pushed(p, n, change, flows, promised))

    def _pushed(self, p: int, n: int, change: Change, flows: Ints, promised: int) -> None:
        pipeline = self.pipelines[p]
        steering, switch = pipeline.steering[n], pipeline.switch
        before = pipeline.groups[n]
        group = finish(before, change, self.now_s, self.settings)
        left = flows[pipeline.flows.end_s[flows] > self.now_s]
        left = left[steering.owner[left] != NONE]
        steering.exception[left] = change.stays
        if n == 0:
            switch.promised -= promised
            for flow in left.tolist():
                switch.add(self.now_s, float(pipeline.flows.end_s[flow]))
            used = [sum(map(entries_of, one.spans.values())) for one in (before, group)]
            switch.set_spans(self.now_s, used[1] - used[0])
        pipeline.groups[n] = group
        steering.push(change, group, pipeline.alive)
        if change.kind == "drain":
            self.places.remove((p, n, change.holder))
            self._up((p, n, change.holder))
        self.places.stale()

    # Servers that fail.

    def fail(self, server: int) -> None:
        """A server is lost, with all that runs there; the controller notices a little later."""
        gone = self.places.fail(server)
        self.down.update(gone)
        for p, n, index in gone:
            pipeline = self.pipelines[p]
            self.flows_lost += pipeline.steering[n].lose(index, pipeline.alive)
        self.events.append((self.now_s, f"server {server} is lost with {len(gone)} instances"))
        self.at(self.now_s + self.model.detect_s, lambda: self._recover(server, gone))

    def _recover(self, server: int, gone: Sequence[tuple[int, int, int]]) -> None:
        started = time.process_time()
        for p, n, index in gone:
            pipeline = self.pipelines[p]
            decision = scaling.lost(pipeline.groups[n], index, self.now_s)
            pipeline.groups[n] = decision.group
            self.events += [(self.now_s, text) for text in decision.events]
            for act in decision.acts:
                self._push(p, n, act.change)
        for key in gone:
            p, n, index = key
            change = self.pipelines[p].groups[n].change_of(index)
            if change is not None and change.kind == "drain" and change.holder == index:
                continue  # it was on its way out
            self._again(key)
        self.controller_s += time.process_time() - started

    def _again(self, key: tuple[int, int, int]) -> None:
        p, n, index = key
        pipeline = self.pipelines[p]
        try:
            self.places.again(key, self._state())
        except PlacementError as error:
            self.events.append((self.now_s, f"{pipeline.name}/{index}: {error}"))
            self.at(self.now_s + 1.0, lambda: self._again(key))
            return
        ready = self.now_s + self.model.replica_s
        if n == 0 and index in pipeline.groups[n].spans:
            entries = entries_of(pipeline.groups[n].spans[index])
            ready = max(ready, pipeline.switch.update(self.now_s, entries))

        self.at(ready, lambda: self._up(key))

    def _up(self, key: tuple[int, int, int]) -> None:
        """An instance runs again, or will not be missed any more."""
        p, n, index = key
        steering = self.pipelines[p].steering[n]
        steering.down.discard(index)
        steering.restart(self.pipelines[p].alive)
        if key in self.down:
            self.down.discard(key)
            if not self.down:
                self.events.append((self.now_s, "all instances run again"))

    @property
    def broken(self) -> int:
        """Flows that were sent to another instance than before, by no failure."""
        return sum(one.broken for pipeline in self.pipelines for one in pipeline.steering)
