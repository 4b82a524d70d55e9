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
from typing import Literal

from e2ctl._scaling_splits import AlwaysMigrate, NeverMigrate, Policy
from e2ctl._scaling_tidy import Tidying
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
    due,
    entries_of,
    finish,
    group_of,
    lost,
    with_change,
)

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

_HALF_FULL = 0.55  # an instance below that has room for others before it is split


class AvoidMigration(Tidying):
    """Flows stay until they end, by way of the FlowSteer of their instance."""

    way: Literal["avoid"] = "avoid"

    def decide(self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float) -> Decision:
        """Go on with what runs, then split, then join, and then tidy up."""
        decision = self._pushes(group, seen, room)
        decision = self._resumed(decision, seen, room, now_s)
        decision = self._splits(decision, seen, room, now_s)
        decision = self._drains(decision, seen, room, now_s)
        decision = self._shared(decision, seen, room)
        return self._tidied(decision, seen, room, now_s)

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

    def _resumed(
        self, decision: Decision, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Decision:
        group, acts, events = decision.group, [*decision.acts], [*decision.events]
        for change in group.changes:
            hot = change.gets in seen and seen[change.gets].overloaded
            if change.kind != "drain" or change.pushing or not hot:
                continue
            where = room.locality if change.guest else None
            if where is not None and where.free(change.holder) < 1:
                events.append(
                    f"{group.nf}.{change.gets} is overloaded; {change.holder} can't stay, as its "
                    f"server has no core for it"
                )
                continue
            back = Change("resume", change.holder, change.gets, change.holder, change.ids, now_s)
            group = with_change(group, change, back)
            acts.append(Act("start", back))
            events.append(f"{group.nf}.{change.gets} is overloaded: {change.holder} stays")
        return Decision(group, tuple(acts), tuple(events))

    def _shared(self, decision: Decision, seen: Mapping[int, Seen], room: Room) -> Decision:
        """An instance with hardly any flows left needs no core of its own for them."""
        group, acts, events = decision.group, [*decision.acts], [*decision.events]
        hosts = dict(room.hosts)
        for change in group.changes:
            fresh = change.guest or change.pushing or Act("start", change) in acts
            if change.kind != "drain" or fresh or change.holder not in seen:
                continue
            one = seen[change.holder]
            host = hosts.get(one.server)
            if host is None or one.load >= self.settings.guest:
                continue
            if host.load + one.load < self.settings.joined:
                hosts[one.server] = host._replace(load=host.load + one.load)
                guest = replace(change, guest=True)
                group = with_change(group, change, guest)
                acts.append(Act("share", guest, host.name))
                events.append(f"{group.nf}.{change.holder} shares the core of {host.name}")
        return Decision(group, tuple(acts), tuple(events))

    def _waits(self, group: Group, index: int, seen: Mapping[int, Seen]) -> str:
        elsewhere = due(group, seen)[index] < self.settings.due_most
        return "flows that belong elsewhere are to end" if elsewhere else ""

    def _shift(
        self, group: Group, index: int, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Change | None:
        """From its neighbour's neighbour on, if need be: room moves towards it step by step.

        Across servers where that has little more cross the switch, or there is no other room.
        """
        for across in (False, True):
            runs = self._runs(group, seen, across=across)
            run = next((run for run in runs if index in run), [index])
            found = self._shift_along(group, run, index, seen, now_s)
            if found is not None and self._crossing([found], room) <= self.settings.crosses_shift:
                return found
        full = room.locality is not None and room.locality.free(index) < 1
        return found if full else None

    def _room_beside(
        self, group: Group, index: int, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Change | str:
        """Where others have room, it moves towards who needs it, if not just now.

        Else, where its server is full, the next instance beside that isn't on a full one is split.
        """
        mean = sum(one.load for one in seen.values()) / self._staying(group)
        if mean < self.settings.full:
            return "others have room, and it moves up"
        if room.locality is None or room.locality.free(index) or room.cores < 1:
            return ""
        place = group.ordered.index(index)
        near = sorted(enumerate(group.ordered), key=lambda one: abs(one[0] - place))
        others = [i for _, i in near if i in seen and room.locality.free(i)]
        for other in others:
            if not self._busy(group, other, now_s):
                if seen[other].load < _HALF_FULL:
                    return f"its server is full, and {group.nf}.{other} has room, which moves up"
                return self._split(group, other, seen[other], room, now_s)
        return f"its server is full; {group.nf}.{others[0]} is next to grow" if others else ""


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
