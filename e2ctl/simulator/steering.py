# SPDX-License-Identifier: BSD-3-Clause
"""One NF's flows and who steers them: upstream by ids and exceptions, then instances' FlowSteers.

A flow's instance is settled when it begins. Afterwards upstream and the FlowSteers have to lead its
packets there: `broken` counts those that they don't.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from e2ctl.changes import Change, Group
from e2ctl.igraph import SPAN_STEP, Span
from e2ctl.simulator.flows import BUCKETS, Flows

__all__ = ["Steering"]

Ints = NDArray[np.int64]
NONE = -1


def _slice(span: Span) -> slice:
    return slice(span.start // SPAN_STEP, span.end // SPAN_STEP)


class Steering:
    """Tables of an NF, and the instance of each flow (`NONE` before it begins)."""

    def __init__(self, group: Group, flows: Flows) -> None:
        self.flows = flows
        self.upstream = np.zeros(BUCKETS, np.int64)
        for index, span in group.spans.items():
            self.upstream[_slice(span)] = index
        self.owner = np.full(len(flows), NONE, np.int64)
        self.exception = np.full(len(flows), NONE, np.int64)
        self.broken = 0
        self.down: set[int] = set()
        self._holds: dict[int, Ints] = {}
        self.table = self.upstream.copy()

    def begin(self, first: int, end: int) -> None:
        """Flows of these numbers begin."""
        self.owner[first:end] = self._new(np.arange(first, end))

    def start(self, change: Change) -> None:
        """The holder sends new flows of the change's ids on."""
        hold = self._holds.setdefault(change.holder, np.full(BUCKETS, change.holder, np.int64))
        hold[_slice(change.ids)] = change.gets
        self._compose()

    def staying(self, change: Change, alive: Ints) -> Ints:
        """Flows that would need an exception if upstream were told; of a drain, all that it has."""
        mine: Ints = alive[self.owner[alive] == change.stays]
        if change.kind == "drain":
            return mine
        ids = _slice(change.ids)
        buckets = self.flows.buckets[mine]
        inside = (buckets >= ids.start) & (buckets < ids.stop)
        lacking: Ints = mine[inside & (self.exception[mine] == NONE)]
        return lacking

    def push(self, change: Change, group: Group, alive: Ints) -> None:
        """Upstream has the spans of the group, and the holder passes nothing on any more."""
        for index, span in group.spans.items():
            self.upstream[_slice(span)] = index
        self._holds.pop(change.holder, None)
        self._compose()
        known = alive[self.owner[alive] != NONE]
        leads = self.first(known)
        # FlowSteers that pass flows on know where theirs are; where an instance is down is nobody.
        lost = (leads != self.owner[known]) & ~np.isin(leads, [*self._holds, *self.down])
        self.broken += int(lost.sum())
        self.owner[known[lost]] = leads[lost]

    def first(self, flows: Ints) -> Ints:
        """The instance whose FlowSteer upstream sends packets of flows to."""
        exceptions = self.exception[flows]
        by_id = self.upstream[self.flows.buckets[flows]]
        found: Ints = np.where(exceptions == NONE, by_id, exceptions)
        return found

    def lose(self, index: int, alive: Ints) -> int:
        """An instance's server is gone, with what its FlowSteer knew; how many flows it had.

        While it is ``down``, flows that would be its are nowhere.
        """
        self.down.add(index)
        self._holds.pop(index, None)
        self._compose()
        flows = alive[self.owner[alive] == index]
        self.owner[flows] = NONE
        self.exception[flows] = NONE
        return len(flows)

    def restart(self, alive: Ints) -> None:
        """Flows that are nowhere begin once more."""
        flows = alive[self.owner[alive] == NONE]
        self.owner[flows] = self._new(flows)

    def _new(self, flows: Ints) -> Ints:
        found: Ints = self.table[self.flows.buckets[flows]]
        return np.where(np.isin(found, list(self.down)), NONE, found) if self.down else found

    def _compose(self) -> None:
        self.table = self.upstream.copy()
        for index, hold in self._holds.items():
            here = self.upstream == index
            self.table[here] = hold[here]
