# SPDX-License-Identifier: BSD-3-Clause
"""The simulated switch in virtual time: its updates take as long as `SimulatedSwitch`'s do."""

from __future__ import annotations

import heapq

from e2ctl.controller.switches import SimulatedSwitch

__all__ = ["VirtualSwitch"]


class VirtualSwitch:
    """A table that updates change one after the other.

    Entries of exceptions go by themselves ``idle_s`` after their flow's last packet. ``promised``
    are entries of updates that are on their way.
    """

    def __init__(self, table: int = 2048, seed: int = 0, idle_s: float = 10.0) -> None:
        self.table = table
        self.idle_s = idle_s
        self.spans = 0
        self.promised = 0
        self.most_used = 0
        self.updates = 0
        self._busy_until_s = 0.0
        self._leave_s: list[float] = []
        self._times = SimulatedSwitch(table, seed)

    def used(self, now_s: float) -> int:
        """Entries in the table."""
        while self._leave_s and self._leave_s[0] <= now_s:
            heapq.heappop(self._leave_s)
        return self.spans + len(self._leave_s)

    def free(self, now_s: float) -> int:
        """Entries that nobody has been promised."""
        return self.table - self.used(now_s) - self.promised

    def update(self, now_s: float, count: int = 1) -> float:
        """When so many updates, which wait for those before them, will be done."""
        spent = sum(self._times.update_s() for _ in range(count))
        self._busy_until_s = max(now_s, self._busy_until_s) + spent
        self.updates += count
        return self._busy_until_s

    def add(self, now_s: float, flow_ends_s: float, count: int = 1) -> None:
        """Entries of an exception are there. Raises OverflowError where the table has no room."""
        if self.used(now_s) + count > self.table:
            raise OverflowError(f"the switch's table of {self.table:,} entries is full")
        for _ in range(count):
            heapq.heappush(self._leave_s, flow_ends_s + self.idle_s)
        self.most_used = max(self.most_used, self.used(now_s))

    def set_spans(self, now_s: float, change: int) -> None:
        """So many more, or fewer, entries of spans."""
        if self.used(now_s) + change > self.table:
            raise OverflowError(f"the switch's table of {self.table:,} entries is full")
        self.spans += change
        self.most_used = max(self.most_used, self.used(now_s))
