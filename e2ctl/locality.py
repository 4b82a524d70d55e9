# SPDX-License-Identifier: BSD-3-Clause
"""Whether a change of an NF's spans makes more traffic cross the switch, or less.

Where the functions from packets to flow ids agree, the instances of a server exchange what their
spans have in common (case d of section 3.4.1 of the dissertation). So traffic stays on a server as
long as the spans of all NFs there end at the same ids; `e2ctl.scaling` keeps them that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from e2ctl.igraph import SPAN_STEP, Span
from e2ctl.replicas import Traffic

__all__ = ["Locality"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Locality:
    """Instances of an NF by number, each as one of those that exchange ``traffic``."""

    traffic: Traffic
    units: Mapping[int, int]

    def free(self, index: int) -> int:
        """Cores that are free on the server of an instance."""
        return int(self.traffic.free[self.traffic.servers[self.units[index]]])

    def crossing(self, giver: int, taker: int, ids: Span) -> float:
        """What more would cross the switch if ids changed hands, as a part of the NF's traffic.

        It is below 0 where less would.
        """
        return float(self._crossing(giver, taker, np.array([ids.start]), np.array([ids.end]))[0])

    def border(self, giver: int, taker: int, ids: Span, most: int) -> tuple[Span, float]:
        """At most so many ids next to the taker's that had better be there, but not all.

        Returns what less would cross as well, which is 0 where all are in their place.
        """
        unit = self.units[giver]
        upper = int(self.traffic.starts[self.units[taker]]) >= ids.end
        most = most // SPAN_STEP * SPAN_STEP
        if upper:
            low, high = max(ids.start + SPAN_STEP, ids.end - most), ids.end
        else:
            low, high = ids.start, min(ids.end - SPAN_STEP, ids.start + most)
        if low >= high:
            return Span(ids.end, ids.end), 0.0
        others = self.traffic.others(unit, self.traffic.edges_of(unit))
        ends = np.concatenate((self.traffic.starts[others], self.traffic.ends[others]))
        # Between ends of others' spans, what crosses changes evenly.
        cuts = np.unique(np.concatenate((ends[(low < ends) & (ends < high)], [low, high])))
        near = np.full(len(cuts), ids.end if upper else ids.start)
        starts, stops = (cuts, near) if upper else (near, cuts)
        gains = -self._crossing(giver, taker, starts, stops)
        best = int(gains.argmax())
        return Span(int(starts[best]), int(stops[best])), max(0.0, float(gains[best]))

    @cached_property
    def _total_bps(self) -> float:
        """What reaches the NF."""
        units = [*self.units.values()]
        into = self.traffic.rates[np.isin(self.traffic.heads, units)].sum()
        return float(into + self.traffic.outside[0, units].sum()) or 1.0

    def _crossing(self, giver: int, taker: int, starts: Ints, ends: Ints) -> Floats:
        traffic, unit = self.traffic, self.units[giver]
        here, there = traffic.servers[unit], traffic.servers[self.units[taker]]
        edges = traffic.edges_of(unit)
        servers = traffic.servers[traffic.others(unit, edges)]
        away = (servers == here).astype(np.int64) - (servers == there)
        moved = traffic.shares(unit, edges, starts[:, None], ends[:, None]) * traffic.rates[edges]
        found: Floats = (moved * away).sum(axis=1) / self._total_bps
        return found
