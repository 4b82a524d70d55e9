# SPDX-License-Identifier: BSD-3-Clause
"""When instances are split and joined again: a function of what is seen of them, and of the time.

A *change* hands new flows of some ids from one instance to another; flows that are active stay
where they are until they end (migration avoidance, section 3.4.4 of the dissertation)::

            overloaded                         few flows left
    steady ------------> running (detour) ------------------------> pushing ---> resting -> steady
              or idle     |  new flows of `ids` go to `gets`          upstream     cool-down
                          |  by way of the FlowSteer of `holder`,     learns
                          |  active ones stay with `stays`            `ids`
                          `--> resumed, where a drain meets overload

=======  =====================================================  ======  =====  ======  ============
kind     what for                                               holder  stays  gets    is over when
=======  =====================================================  ======  =====  ======  ============
split    A is overloaded: a new instance A' gets half           A       A      A'      few are left
shift    A is overloaded, its neighbour B is not: B gets some   A       A      B       few are left
drain    A' and A have little to do: A' goes                    A'      A'     A       none is left
resume   A' was being drained and A is overloaded: A' stays     A'      A      A'      few are left
=======  =====================================================  ======  =====  ======  ============

"Few" is what a push may leave: those flows become exceptions above the spans, which end as their
flows do. On a switch that is bounded by the room in its table.

Instances have at most one change at a time, on either side of it, and rest after one. Load is
shifted on one server only, so that it does not come to cross the switch. A group only shrinks where
neighbours were idle for a while. `AlwaysMigrate` and `NeverMigrate` are what
section 3.6.2 compares with.

Whoever carries out a decision has to do these things, and tells with `finish`, `abandon` and `lost`
how it went:

* start: place and start `gets` if it is new (`split_server`); have the FlowSteer of `holder` send
  new flows of `ids` to `gets`;
* push: exceptions upstream first, then spans, so that no packet finds neither; then the FlowSteer
  of `holder` sends all to itself again; an instance that was drained goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal, Protocol

from e2ctl.changes import (
    Act,
    Change,
    Decision,
    Group,
    Room,
    Seen,
    Settings,
    abandon,
    after,
    cut_at,
    due,
    entries_of,
    finish,
    group_of,
    lost,
    with_change,
)
from e2ctl.igraph import Span

__all__ = [
    "POLICIES",
    "Act",
    "AlwaysMigrate",
    "AvoidMigration",
    "Change",
    "Decision",
    "Group",
    "NeverMigrate",
    "Policy",
    "Room",
    "Seen",
    "Settings",
    "abandon",
    "decide_all",
    "finish",
    "group_of",
    "lost",
]


class Policy(Protocol):
    """A way to scale. ``way`` tells how flows that are active in a change's ids are treated."""

    @property
    def way(self) -> Literal["avoid", "migrate", "entries"]: ...

    def decide(
        self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Decision: ...


class _Splitting:
    """What all policies share: splits of overloaded instances."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def _busy(self, group: Group, index: int, now_s: float) -> str:
        change = group.change_of(index)
        if change is not None:
            return f"a {change.kind} is {'being pushed' if change.pushing else 'running'}"
        if group.rest_until_s.get(index, now_s) > now_s:
            return f"it rests for {group.rest_until_s[index] - now_s:.1f} s"
        return ""

    def _patience(self, group: Group, index: int, seen: Mapping[int, Seen]) -> float:
        return 0.0

    def _part(self, seen: Seen, room: Room) -> float:
        return 0.5

    def _split(
        self, group: Group, index: int, seen: Seen, room: Room, now_s: float
    ) -> Change | str:
        count = len(group.instances)
        if room.most is not None and count >= room.most:
            return f"its description allows {room.most} instances"
        if room.cores < 1:
            return "no core is free"
        cut = cut_at(group.spans[index], seen.buckets, self._part(seen, room))
        if cut is None:
            return "its span can't be divided"
        number = next(n for n in range(count + 1) if n not in group.instances)
        ids = Span(cut, group.spans[index].end)
        return Change("split", index, index, number, ids, now_s)

    def _splits(
        self, decision: Decision, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Decision:
        """Splits of all that are overloaded, the busiest first."""
        group, acts, events = decision.group, [*decision.acts], [*decision.events]
        hot = [i for i in group.spans if i in seen and seen[i].overloaded]
        since = {i: group.hot_since_s.get(i, now_s) for i in hot}
        group = replace(group, hot_since_s=since)
        for index in sorted(hot, key=lambda i: (-seen[i].load, i)):
            name = f"{group.nf}.{index}"
            busy = self._busy(group, index, now_s)
            if not busy and now_s - since[index] < self._patience(group, index, seen):
                busy = "flows that belong elsewhere are to end"
            found: Change | str = busy
            if not busy:
                shift = self._shift(group, index, seen, now_s)
                found = shift or self._split(group, index, seen[index], room, now_s)
            if isinstance(found, str):
                events.append(f"{name} is overloaded and not split: {found}")
                continue
            if found.kind == "split":
                room = replace(room, cores=room.cores - 1)
            group = with_change(group, None, found)
            acts.append(Act("start", found))
            events.append(f"{name} is overloaded: {found.kind} of {found.ids} to {found.gets}")
        return Decision(group, tuple(acts), tuple(events))

    def _shift(
        self, group: Group, index: int, seen: Mapping[int, Seen], now_s: float
    ) -> Change | None:
        return None


class AvoidMigration(_Splitting):
    """Flows stay until they end, by way of the FlowSteer of their instance."""

    way: Literal["avoid"] = "avoid"

    def decide(self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float) -> Decision:
        """Go on with what runs, then split, then join."""
        decision = self._pushes(group, seen, room)
        decision = self._resumed(decision, seen, now_s)
        decision = self._splits(decision, seen, room, now_s)
        return self._drains(decision, seen, now_s)

    def few(self, group: Group, change: Change, room: Room) -> int:
        """How many exceptions a push may leave; below 0: not even the spans have room."""
        if room.entries is None:
            return self.settings.exceptions
        now = sum(map(entries_of, group.spans.values()))
        then = sum(map(entries_of, after(group.spans, change).values()))
        free = room.entries - self.settings.spare - max(0, then - now)
        return min(self.settings.exceptions, free // room.per_exception)

    def _pushes(self, group: Group, seen: Mapping[int, Seen], room: Room) -> Decision:
        acts, events = [], []
        for change in sorted(group.changes, key=lambda one: one.began_s):
            if change.pushing or change.holder not in seen:
                continue
            left = seen[change.holder].left
            most = self.few(group, change, room)
            few = min(most, 0) if change.kind == "drain" else most
            if left > few:
                if most < self.settings.exceptions and left <= self.settings.exceptions:
                    events.append(
                        f"{group.nf}.{change.holder}: {change.kind} waits with {left} flows; the "
                        f"switch's table has room for {max(0, most)}"
                    )
                continue
            pushed = replace(change, pushing=True)
            group = with_change(group, change, pushed)
            if room.entries is not None:
                room = replace(room, entries=room.entries - left * room.per_exception)
            acts.append(Act("push", pushed))
            events.append(f"{group.nf}.{change.holder}: {change.kind} is pushed, {left} flows left")
        return Decision(group, tuple(acts), tuple(events))

    def _resumed(self, decision: Decision, seen: Mapping[int, Seen], now_s: float) -> Decision:
        group, acts, events = decision.group, [*decision.acts], [*decision.events]
        for change in group.changes:
            hot = change.gets in seen and seen[change.gets].overloaded
            if change.kind != "drain" or change.pushing or not hot:
                continue
            back = Change("resume", change.holder, change.gets, change.holder, change.ids, now_s)
            group = with_change(group, change, back)
            acts.append(Act("start", back))
            events.append(f"{group.nf}.{change.gets} is overloaded: {change.holder} stays")
        return Decision(group, tuple(acts), tuple(events))

    def _patience(self, group: Group, index: int, seen: Mapping[int, Seen]) -> float:
        waits = due(group, seen)[index] < self.settings.due_most
        return self.settings.patience_s if waits else 0.0

    def _shift(
        self, group: Group, index: int, seen: Mapping[int, Seen], now_s: float
    ) -> Change | None:
        """From its neighbour's neighbour on, if need be: room moves towards it step by step."""
        run = next((run for run in self._runs(group, seen) if index in run), [index])
        place, loads = run.index(index), due(group, seen)
        for way in sorted((run[place::-1], run[place:]), key=len):
            for giver, taker in pairwise(way):
                if self._busy(group, giver, now_s) or self._busy(group, taker, now_s):
                    break
                most = min(self.settings.shift_below, loads[giver])
                if max(seen[taker].load, loads[taker]) < most:
                    part = (loads[giver] - loads[taker]) / (2 * loads[giver])
                    return self._move(group, giver, taker, part, seen, now_s)
        return None

    def _move(
        self,
        group: Group,
        giver: int,
        taker: int,
        part: float,
        seen: Mapping[int, Seen],
        now_s: float,
    ) -> Change | None:
        span = group.spans[giver]
        above = group.spans[taker].start >= span.end
        cut = cut_at(span, seen[giver].buckets, 1 - part if above else part)
        if cut is None:
            return None
        ids = Span(cut, span.end) if above else Span(span.start, cut)
        return Change("shift", giver, giver, taker, ids, now_s)

    def _runs(self, group: Group, seen: Mapping[int, Seen]) -> list[list[int]]:
        """Instances side by side on one server. What is shifted among them stays on the server."""
        runs: list[list[int]] = []
        for index in group.ordered:
            if index not in seen:
                continue
            last = runs[-1][-1] if runs else None
            beside = last is not None and group.spans[last].end == group.spans[index].start
            if last is not None and beside and seen[last].server == seen[index].server:
                runs[-1].append(index)
            else:
                runs.append([index])
        return runs

    def _drains(self, decision: Decision, seen: Mapping[int, Seen], now_s: float) -> Decision:
        group, acts, events = decision.group, [*decision.acts], [*decision.events]
        idle: dict[tuple[int, int], float] = {}
        for change in self._idle(group, seen, now_s):
            pair = (change.holder, change.gets)
            idle[pair] = group.idle_since_s.get(pair, now_s)
            if now_s - idle[pair] >= self.settings.hold_s and not any(map(group.change_of, pair)):
                group = with_change(group, None, change)
                acts.append(Act("start", change))
                events.append(f"{group.nf} is idle: {change.kind} of {pair[0]} to {pair[1]}")
        idle = {pair: at for pair, at in idle.items() if not any(map(group.change_of, pair))}
        return Decision(replace(group, idle_since_s=idle), tuple(acts), tuple(events))

    def _idle(self, group: Group, seen: Mapping[int, Seen], now_s: float) -> Iterator[Change]:
        """What would make the group smaller, or lead there."""

        def able(*instances: int) -> bool:
            return not any(self._busy(group, index, now_s) for index in instances)

        def drain(pair: tuple[int, int]) -> Change:
            goes, stays = sorted(pair, key=lambda i: (seen[i].flows, -group.spans[i].start))
            return Change("drain", goes, goes, stays, group.spans[goes], now_s)

        later = due(group, seen)
        loads = {index: max(one.load, later[index]) for index, one in seen.items()}
        runs = self._runs(group, seen)
        for before, behind in pairwise(runs):
            pair = (before[-1], behind[0])
            if able(*pair) and sum(loads[i] for i in pair) < self.settings.joined / 2:
                yield drain(pair)
        for run in runs:
            pairs = [pair for pair in pairwise(run) if able(*pair)]
            if not pairs:
                continue
            pair = min(pairs, key=lambda two: sum(loads[i] for i in two))
            both = sum(loads[i] for i in pair)
            if both < self.settings.joined:
                yield drain(pair)
                continue
            staying = [i for i in run if not self._leaves(group, i)]
            if sum(later[i] for i in run) >= self.settings.packed * (len(staying) - 1):
                continue
            # One of the pair gives to its other neighbour as much as the pair has too much.
            over = both - self.settings.joined * 0.95
            place = run.index(pair[0])
            for giver, taker in ((pair[0], place - 1), (pair[1], place + 2)):
                if not 0 <= taker < len(run) or not able(run[taker]):
                    continue
                room = self.settings.shift_below - loads[run[taker]]
                if over < min(room, loads[giver]):
                    part = over / loads[giver]
                    change = self._move(group, giver, run[taker], part, seen, now_s)
                    if change is not None:
                        yield change
                        break

    @staticmethod
    def _leaves(group: Group, index: int) -> bool:
        change = group.change_of(index)
        return change is not None and change.kind == "drain" and change.holder == index


class AlwaysMigrate(_Splitting):
    """Strawman: active flows of the ids move, each paused for ``pause_s`` (of [79])."""

    way: Literal["migrate"] = "migrate"
    pause_s = 0.005

    def decide(self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float) -> Decision:
        """Only splits; their end is when all flows have moved."""
        return self._splits(Decision(group), seen, room, now_s)


class NeverMigrate(_Splitting):
    """Strawman: all active flows of the ids become entries of the switch, so that ids are few."""

    way: Literal["entries"] = "entries"

    def decide(self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float) -> Decision:
        """Only splits; as large as the table allows."""
        return self._splits(Decision(group), seen, room, now_s)

    def _part(self, seen: Seen, room: Room) -> float:
        if room.entries is None or not seen.flows:
            return 0.5
        free = max(0, room.entries - self.settings.spare) // room.per_exception
        return 1 - min(0.5, free / seen.flows)


POLICIES: Mapping[str, type[AvoidMigration | AlwaysMigrate | NeverMigrate]] = {
    "migration avoidance": AvoidMigration,
    "always migrate": AlwaysMigrate,
    "never migrate": NeverMigrate,
}


def decide_all(
    policy: Policy,
    groups: Mapping[str, Group],
    seen: Mapping[str, Mapping[int, Seen]],
    rooms: Mapping[str, Room],
    cores: int,
    now_s: float,
) -> Iterator[Decision]:
    """Decide for a cluster whose NFs share ``cores``: who is overloaded the most is first."""

    def heat(nf: str) -> float:
        return max((one.load for one in seen[nf].values() if one.overloaded), default=0.0)

    for nf in sorted(groups, key=lambda name: (-heat(name), name)):
        room = replace(rooms[nf], cores=min(cores, rooms[nf].cores))
        decision = policy.decide(groups[nf], seen[nf], room, now_s)
        cores -= sum(act.change.kind == "split" for act in decision.acts if act.what == "start")
        yield decision
