# SPDX-License-Identifier: BSD-3-Clause
"""Instances of an NF as packets meet them: a dict of flows for upstream, and one for each hold.

Everything is looked up packet by packet, and nothing is known of `e2ctl.simulator`: upstream sends
by exceptions, then by spans; a hold keeps each flow at the instance that its first packet went to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from e2ctl.changes import Change, Group, after, entries_of
from e2ctl.igraph import ALL_IDS, Span


@dataclass
class Hold:
    """FlowSteer of an instance: parts of the ids that it passes on, and who has which flow."""

    me: int
    passes: list[tuple[Span, int]] = field(default_factory=list)
    flows: dict[int, int] = field(default_factory=dict)

    def first(self, number: int) -> int:
        for span, gate in self.passes:
            if span.start <= number < span.end:
                return gate
        return self.me


@dataclass
class Holds:
    """Upstream and all holds. A flow is a number, and its id another."""

    spans: dict[int, Span]
    table: int
    exceptions: dict[int, int] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    ids: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index in self.spans:
            self.holds[index] = Hold(index)
        self.check()

    @property
    def entries(self) -> int:
        return sum(map(entries_of, self.spans.values())) + len(self.exceptions)

    def check(self) -> None:
        """Spans divide all ids, and the table has room."""
        at = 0
        for span in sorted(self.spans.values()):
            assert span.start == at < span.end
            at = span.end
        assert at == ALL_IDS.end
        assert self.entries <= self.table

    def packet(self, flow: int, number: int) -> int:
        """The instance that a packet reaches, by way of at most two holds."""
        self.ids[flow] = number
        here = self.exceptions.get(flow)
        if here is None:
            here = next(i for i, s in self.spans.items() if s.start <= number < s.end)
        for _ in range(2):
            hold = self.holds[here]
            there = hold.flows.setdefault(flow, hold.first(number))
            if there == here:
                return here
            here = there
        raise AssertionError(f"flow {flow} goes round among holds")

    def end(self, flow: int) -> None:
        del self.ids[flow]
        self.exceptions.pop(flow, None)
        for hold in self.holds.values():
            hold.flows.pop(flow, None)

    def start(self, change: Change) -> None:
        self.holds.setdefault(change.gets, Hold(change.gets))
        hold = self.holds[change.holder]
        kept = [one for one in hold.passes if not one[0].meets(change.ids)]
        hold.passes = [(change.ids, change.gets), *kept]

    def left(self, change: Change) -> list[int]:
        """Flows that a push has to make exceptions of; for a drain, all that are there."""
        found = []
        for flow, number in self.ids.items():
            if self.holds[change.stays].flows.get(flow) != change.stays:
                continue
            inside = change.ids.start <= number < change.ids.end
            if change.kind == "drain" or (inside and flow not in self.exceptions):
                found.append(flow)
        return found

    def push(self, change: Change, group: Group) -> None:
        """Exceptions, then spans; then the holder passes nothing on."""
        if change.kind != "drain":
            for flow in self.left(change):
                self.exceptions[flow] = change.stays
                assert self.entries <= self.table
        assert dict(group.spans) == after(self.spans, change)
        self.spans = dict(group.spans)
        holder = self.holds[change.holder]
        holder.passes = []
        holder.flows = {f: gate for f, gate in holder.flows.items() if gate == change.holder}
        if change.kind == "drain":
            assert not holder.flows
            del self.holds[change.holder]
        self.check()
