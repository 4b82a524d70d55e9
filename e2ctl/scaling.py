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
shifted on one server where that helps, for then it does not come to cross the switch, and to other
servers otherwise. A group grows where its instances are full on average, or one of them can't wait,
and only shrinks where it was idle for a while. `AlwaysMigrate` and `NeverMigrate` are what section
3.6.2 compares with.

Whoever carries out a decision has to do these things, and tells with `finish`, `abandon` and `lost`
how it went:

* start: place and start `gets` if it is new (`e2ctl.replicas`); have the FlowSteer of `holder` send
  new flows of `ids` to `gets`; its `split` does that for the upper part of a range, and twice for
  a lower part: all to `gets`, and the rest back;
* push: exceptions upstream first, then spans, so that no packet finds neither; then the FlowSteer
  of `holder` sends all to itself again; an instance that was drained goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from e2ctl._scaling_splits import AlwaysMigrate, NeverMigrate, Policy, Splitting
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

_LEAST = 0.03  # of what an instance carries: less is not worth a shift


class AvoidMigration(Splitting):
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
        free = room.entries - self.settings.spare - _growth(group, change)
        return min(self.settings.exceptions, free // 2 // room.per_exception)

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
                room = replace(room, entries=room.entries - _taken(group, change, seen, room))
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

    def _room_beside(self, group: Group, seen: Mapping[int, Seen]) -> str:
        """Whether shifts will do, if not just now: room moves towards who needs it."""
        mean = sum(one.load for one in seen.values()) / self._staying(group)
        return "others have room, and it moves up" if mean < self.settings.full else ""

    @staticmethod
    def _staying(group: Group) -> int:
        """Instances without those that are being drained, and with those that begin."""
        leaving = {change.holder for change in group.changes if change.kind == "drain"}
        return len(group.instances - leaving)

    def _waits(self, group: Group, index: int, seen: Mapping[int, Seen]) -> str:
        elsewhere = due(group, seen)[index] < self.settings.due_most
        return "flows that belong elsewhere are to end" if elsewhere else ""

    def _shift(
        self, group: Group, index: int, seen: Mapping[int, Seen], now_s: float
    ) -> Change | None:
        """From its neighbour's neighbour on, if need be: room moves towards it step by step."""
        for runs in (self._runs(group, seen), self._runs(group, seen, across=True)):
            run = next((run for run in runs if index in run), [index])
            found = self._shift_along(group, run, index, seen, now_s)
            if found is not None:
                return found
        return None

    def _shift_along(
        self, group: Group, run: list[int], index: int, seen: Mapping[int, Seen], now_s: float
    ) -> Change | None:
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

    def _runs(
        self, group: Group, seen: Mapping[int, Seen], *, across: bool = False
    ) -> list[list[int]]:
        """Instances side by side on one server. What is shifted among them stays on the server."""
        runs: list[list[int]] = []
        for index in group.ordered:
            if index not in seen:
                continue
            last = runs[-1][-1] if runs else None
            beside = last is not None and group.spans[last].end == group.spans[index].start
            together = last is not None and (across or seen[last].server == seen[index].server)
            if beside and together:
                runs[-1].append(index)
            else:
                runs.append([index])
        return runs

    def _drains(self, decision: Decision, seen: Mapping[int, Seen], now_s: float) -> Decision:
        """One instance fewer, or a step towards that, where the group has been idle for long."""
        group, count = decision.group, self._staying(decision.group)
        total = sum(one.load for one in seen.values())
        if count < 2 or total >= self.settings.packed * (count - 1):
            return replace(decision, group=replace(group, idle_since_s=None))
        since = now_s if group.idle_since_s is None else group.idle_since_s
        group = replace(group, idle_since_s=since)
        if now_s - since < self.settings.hold_s:
            return replace(decision, group=group)
        changes = self._smaller(group, seen, now_s)
        events = [*decision.events]
        for change in changes:
            again = now_s if change.kind == "drain" else since
            group = replace(with_change(group, None, change), idle_since_s=again)
            events.append(f"{group.nf} is idle: {change.kind} of {change.holder} to {change.gets}")
        acts = (*decision.acts, *(Act("start", change) for change in changes))
        return Decision(group, acts, tuple(events))

    def _smaller(self, group: Group, seen: Mapping[int, Seen], now_s: float) -> list[Change]:
        """Steps to one instance fewer: of the fewest side by side that can do without, one goes.

        On one server if there are such. What it has goes to both sides, where others make room from
        the outside; once one neighbour can take the rest, it does.
        """
        loads = due(group, seen)
        for across in (False, True):
            windows = [
                (len(run), sum(loads[i] for i in run), run)
                for run in self._windows(group, seen, loads, across=across)
            ]
            if windows:
                return self._emptied(group, min(windows)[2], loads, seen, now_s)
        return []

    def _windows(
        self,
        group: Group,
        seen: Mapping[int, Seen],
        loads: Mapping[int, float],
        *,
        across: bool,
    ) -> Iterator[list[int]]:
        """Instances side by side whose load one fewer could carry."""
        leaving = {i for one in group.changes if one.kind != "shift" for i in one.instances}
        for run in self._runs(group, seen, across=across):
            for first in range(len(run)):
                total = 0.0
                for last in range(first, len(run)):
                    if run[last] in leaving:
                        break
                    total += loads[run[last]]
                    if last > first and total < self.settings.joined * (last - first):
                        yield run[first : last + 1]
                        break

    def _emptied(
        self,
        group: Group,
        run: list[int],
        loads: Mapping[int, float],
        seen: Mapping[int, Seen],
        now_s: float,
    ) -> list[Change]:
        """Next steps towards one of a run having no load."""
        goes = min(run, key=lambda i: (round(loads[i], 2), seen[i].flows, -i))
        place = run.index(goes)
        able = {index for index in run if not self._busy(group, index, now_s)}
        found = []
        for way in (run[place::-1], run[place:]):
            for giver, taker in pairwise(way):
                if giver not in able or taker not in able or seen[taker].overloaded:
                    break
                room = self.settings.joined - loads[taker]
                if giver == goes and loads[goes] < room:
                    return [Change("drain", goes, goes, taker, group.spans[goes], now_s)]
                if room > _LEAST:
                    part = min(room, loads[goes], loads[giver] / 2) / loads[giver]
                    change = self._move(group, giver, taker, part, seen, now_s)
                    if change is not None:
                        found.append(change)
                        able -= change.instances
                    break
        return found


def _growth(group: Group, change: Change) -> int:
    """Entries that spans take more once upstream knows of a change."""
    now = sum(map(entries_of, group.spans.values()))
    return max(0, sum(map(entries_of, after(group.spans, change).values())) - now)


def _taken(group: Group, change: Change, seen: Mapping[int, Seen], room: Room) -> int:
    """Entries that a push takes."""
    left = 0 if change.kind == "drain" or change.holder not in seen else seen[change.holder].left
    return left * room.per_exception + _growth(group, change)


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
    """Decide for NFs that share ``cores`` and switches: who is overloaded the most is first."""

    def heat(nf: str) -> float:
        return max((one.load for one in seen[nf].values() if one.overloaded), default=0.0)

    taken: dict[str, int] = {}
    for nf in sorted(groups, key=lambda name: (-heat(name), name)):
        room = replace(rooms[nf], cores=min(cores, rooms[nf].cores))
        if room.entries is not None:
            room = replace(room, entries=room.entries - taken.get(room.switch, 0))
        decision = policy.decide(groups[nf], seen[nf], room, now_s)
        for act in decision.acts:
            if act.what == "push" and room.entries is not None:
                more = _taken(groups[nf], act.change, seen[nf], room)
                taken[room.switch] = taken.get(room.switch, 0) + more
        cores -= sum(act.change.kind == "split" for act in decision.acts if act.what == "start")
        yield decision
