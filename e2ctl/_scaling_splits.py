# SPDX-License-Identifier: BSD-3-Clause
"""Splits of overloaded instances, which all policies share, and the strawmen among these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Protocol

from e2ctl.changes import Act, Change, Decision, Group, Room, Seen, Settings, cut_at, with_change
from e2ctl.igraph import Span

__all__ = ["AlwaysMigrate", "NeverMigrate", "Policy", "Splitting"]


class Policy(Protocol):
    """A way to scale. ``way`` tells how flows that are active in a change's ids are treated."""

    @property
    def way(self) -> Literal["avoid", "migrate", "entries"]: ...

    def decide(
        self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Decision: ...


class Splitting:
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

    def _waits(self, group: Group, index: int, seen: Mapping[int, Seen]) -> str:
        """Why an overloaded instance is left alone for a while."""
        return ""

    def _room_beside(
        self, group: Group, index: int, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Change | str:
        """Why an instance is not to be split for a while, or a split of another one instead."""
        return ""

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
            patient = (
                now_s - since[index] < self.settings.patience_s
                and seen[index].load <= self.settings.too_much
            )
            if not busy and patient:
                busy = self._waits(group, index, seen)
            found: Change | str = busy
            if not busy:
                found = (
                    self._shift(group, index, seen, room, now_s)
                    or (self._room_beside(group, index, seen, room, now_s) if patient else "")
                    or self._split(group, index, seen[index], room, now_s)
                )
            if isinstance(found, str):
                events.append(f"{name} is overloaded and not split: {found}")
                continue
            if found.kind == "split":
                room = replace(room, cores=room.cores - 1)
            group = with_change(group, None, found)
            acts.append(Act("start", found))
            whose = "" if found.holder == index else f" of {group.nf}.{found.holder}"
            events.append(
                f"{name} is overloaded: {found.kind}{whose} of {found.ids} to {found.gets}"
            )
        return Decision(group, tuple(acts), tuple(events))

    def _shift(
        self, group: Group, index: int, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Change | None:
        return None


class AlwaysMigrate(Splitting):
    """Strawman: active flows of the ids move, each paused for ``pause_s`` (of [79])."""

    way: Literal["migrate"] = "migrate"
    pause_s = 0.005

    def decide(self, group: Group, seen: Mapping[int, Seen], room: Room, now_s: float) -> Decision:
        """Only splits; their end is when all flows have moved."""
        return self._splits(Decision(group), seen, room, now_s)


class NeverMigrate(Splitting):
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
