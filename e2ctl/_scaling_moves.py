# SPDX-License-Identifier: BSD-3-Clause
"""Shifts of flow ids between instances side by side, which other changes are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from e2ctl._scaling_splits import Splitting
from e2ctl.changes import Change, Group, Room, Seen, cut_at, due
from e2ctl.igraph import Span

__all__ = ["Moving"]


class Moving(Splitting):
    """What shifts, drains and tidying share."""

    @staticmethod
    def _staying(group: Group) -> int:
        """Instances without those that are being drained, and with those that begin."""
        leaving = {change.holder for change in group.changes if change.kind == "drain"}
        return len(group.instances - leaving)

    @staticmethod
    def _crossing(changes: Sequence[Change], room: Room) -> float:
        """What more crosses the switch by these, as a part of the NF's traffic."""
        if room.locality is None:
            return 0.0
        return sum(room.locality.crossing(one.holder, one.gets, one.ids) for one in changes)

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
