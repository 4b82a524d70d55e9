# SPDX-License-Identifier: BSD-3-Clause
"""What the controller asks of a switch, and a switch that is only simulated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from e2ctl.openflow import SwitchError
from e2ctl.switch_rules import SwitchRule

__all__ = ["SimulatedSwitch", "SwitchDriver", "SwitchError"]

# What one update took on the dissertation's switch (section 3.6.2), in seconds.
_FASTEST_S, _SLOWEST_S = 0.001, 0.008
_SHAPE = (2.0, 5.0)  # of a beta distribution, so that the mean is 3 ms


class SwitchDriver(Protocol):
    """A switch with two tables of rules."""

    async def replace(self, rules: Sequence[SwitchRule]) -> None:
        """Have exactly these rules, without a moment of anything else."""

    async def entries(self) -> int:
        """How many it has."""


class SimulatedSwitch:
    """Stands in for a switch in studies: a small table, and slow updates, one at a time."""

    def __init__(
        self,
        table: int = 2048,
        seed: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rules: tuple[SwitchRule, ...] = ()
        self.updates = 0
        self._table = table
        self._random = random.Random(seed)
        self._sleep = sleep
        self._one_at_a_time = asyncio.Lock()

    def update_s(self) -> float:
        """How long the next update takes."""
        part = self._random.betavariate(*_SHAPE)
        return _FASTEST_S + part * (_SLOWEST_S - _FASTEST_S)

    async def replace(self, rules: Sequence[SwitchRule]) -> None:
        """Change what differs, one entry after the other."""
        async with self._one_at_a_time:
            if len(rules) > self._table:
                raise SwitchError(f"{len(rules):,} entries; the table has {self._table:,}")
            for _ in {*self.rules} ^ {*rules}:
                await self._sleep(self.update_s())
                self.updates += 1
            self.rules = tuple(rules)

    async def entries(self) -> int:
        """How many it has."""
        return len(self.rules)
