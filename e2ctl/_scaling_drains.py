# SPDX-License-Identifier: BSD-3-Clause
"""Drains: how an NF comes to have one instance fewer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from e2ctl._scaling_moves import Moving
from e2ctl.changes import Act, Change, Decision, Group, Room, Seen, due, with_change

__all__ = ["Draining"]

_MUCH = 2.0  # instances' worth of traffic: of less, more may cross the switch
_LEAST = 0.03  # of what an instance carries: less is not worth a shift


class Draining(Moving):
    """Instances go that others can do without."""

    def _drains(
        self, decision: Decision, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Decision:
        """One instance fewer, or a step towards that, where the group has been idle for long."""
        group, count = decision.group, self._staying(decision.group)
        total = sum(one.load for one in seen.values())
        if count < 2 or total >= self.settings.packed * (count - 1):
            return replace(decision, group=replace(group, idle_since_s=None))
        since = now_s if group.idle_since_s is None else group.idle_since_s
        group = replace(group, idle_since_s=since)
        if now_s - since < self.settings.hold_s:
            return replace(decision, group=group)
        # The longer one too many was there, and the less traffic there is, the more may cross.
        waited = max(1.0, (now_s - since) / self.settings.crosses_s)
        crosses = self.settings.crosses_drain * waited * max(total, _MUCH)
        changes = self._smaller(group, seen, room, now_s, crosses)
        events = [*decision.events]
        for change in changes:
            again = now_s if change.kind == "drain" else since
            group = replace(with_change(group, None, change), idle_since_s=again)
            events.append(f"{group.nf} is idle: {change.kind} of {change.holder} to {change.gets}")
        acts = (*decision.acts, *(Act("start", change) for change in changes))
        return Decision(group, acts, tuple(events))

    def _smaller(
        self,
        group: Group,
        seen: Mapping[int, Seen],
        room: Room,
        now_s: float,
        crosses: float,
    ) -> list[Change]:
        """Steps to one instance fewer: of the fewest side by side that can do without, one goes.

        On one server if there are such. What it has goes to both sides, where others make room from
        the outside; once one neighbour can take the rest, it does. Traffic of ``crosses`` more, as
        loads are counted, may cross the switch then.
        """
        loads = due(group, seen)
        total = sum(one.load for one in seen.values())
        for across in (False, True):
            windows = sorted(
                (len(run), sum(loads[i] for i in run), run)
                for run in self._windows(group, seen, loads, across=across)
            )
            for _, _, run in windows:
                changes = self._emptied(group, run, loads, seen, now_s)
                if self._crossing(changes, room) * total <= crosses:
                    return changes
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
