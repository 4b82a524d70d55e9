# SPDX-License-Identifier: BSD-3-Clause
"""Tidying: ends of spans move to where those of the NFs before and behind are on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from e2ctl._scaling_drains import Draining
from e2ctl.changes import Act, Change, Decision, Group, Room, Seen, due, with_change
from e2ctl.igraph import ALL_IDS

__all__ = ["Tidying"]

_UNEVEN = 0.1  # instances on a server with loads that differ by less are left alone


class Tidying(Draining):
    """Less and less crosses the switch while nothing else is to be done."""

    def _tidied(
        self, decision: Decision, seen: Mapping[int, Seen], room: Room, now_s: float
    ) -> Decision:
        group, acts, events = decision.group, [*decision.acts], [*decision.events]
        early = now_s - group.tidied_s < self.settings.tidy_s
        if room.locality is None or early or any(one.overloaded for one in seen.values()):
            return decision
        group = replace(group, tidied_s=now_s)
        for left, right in pairwise(self._runs(group, seen)):
            if group.spans[left[-1]].end != group.spans[right[0]].start:
                continue
            for giver, takers in ((left[-1], right), (right[0], left[::-1])):
                change = self._tidier(group, giver, takers, seen, room, now_s)
                if change is not None:
                    group = with_change(group, None, change)
                    acts.append(Act("start", change))
                    events.append(
                        f"{group.nf}: {change.ids} of {change.holder} to {change.gets}, so that "
                        f"less crosses the switch"
                    )
        return Decision(group, tuple(acts), tuple(events))

    def _tidier(
        self,
        group: Group,
        giver: int,
        takers: Sequence[int],
        seen: Mapping[int, Seen],
        room: Room,
        now_s: float,
    ) -> Change | None:
        """A shift to the first of a server's instances, or one that makes room for it there."""
        assert room.locality is not None
        taker, span = takers[0], group.spans[giver]
        if self._busy(group, giver, now_s) or self._busy(group, taker, now_s):
            return None
        _, gain = room.locality.border(giver, taker, span, span.end - span.start)
        if gain < self.settings.tidy:
            return None
        loads = due(group, seen)
        left = self.settings.joined - max(loads[taker], seen[taker].load)
        total = sum(one.load for one in seen.values())
        most = int(left / total * ALL_IDS.end) if total > 0 else ALL_IDS.end
        ids, gain = room.locality.border(giver, taker, span, most)
        if gain >= self.settings.tidy:
            return Change("shift", giver, giver, taker, ids, now_s)
        for full, other in pairwise(takers):
            if self._busy(group, full, now_s) or self._busy(group, other, now_s):
                return None
            if loads[full] - loads[other] > _UNEVEN:
                part = (loads[full] - loads[other]) / (2 * loads[full])
                return self._move(group, full, other, part, seen, now_s)
        return None
