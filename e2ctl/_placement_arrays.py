# SPDX-License-Identifier: BSD-3-Clause
"""A placement problem's numbers as arrays, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2ctl._placement import Layout, Search

if TYPE_CHECKING:
    from e2ctl.placement import Problem

__all__ = ["Arrays", "to_arrays"]

_BITS = 52  # of all traffic in quanta: so whole numbers of bit/s stay what they are


@dataclass(frozen=True)
class Arrays:
    """A problem's numbers, checked; traffic in bit/s, and in quanta for the search."""

    cores: NDArray[np.int32]
    ends: NDArray[np.int32]  # two rows: from, to
    rates: NDArray[np.float64]
    outside: NDArray[np.float64]  # two rows: in, out
    fixed: NDArray[np.int32]
    rooms: NDArray[np.int32]
    nics: NDArray[np.float64]
    kinds: NDArray[np.int32]  # of servers: equal ones are of one kind
    quanta: NDArray[np.int64]  # of edges
    outside_quanta: NDArray[np.int64]
    nic_quanta: NDArray[np.int64]

    def layout(self, quanta: NDArray[np.int64], fixed: NDArray[np.int32]) -> Layout:
        """Units on servers, or nowhere (-1), with other traffic than the problem's."""
        return Layout(*self._graph(quanta, fixed, 0))

    def search(self, seed: int) -> Search:
        """Fixed units on their servers, all others nowhere."""
        return Search(*self._graph(self.quanta, self.fixed, seed % 2**64))

    def _graph(
        self, quanta: NDArray[np.int64], fixed: NDArray[np.int32], seed: int
    ) -> tuple[Any, ...]:
        graph = (self.cores, *self.ends, quanta, *self.outside_quanta)
        return (*graph, fixed, self.rooms, self.nic_quanta, self.kinds, seed)

    def free(self, servers: NDArray[np.int32]) -> NDArray[np.int64]:
        """Cores that units leave, which may be below 0; those on server -1 take none."""
        on = servers >= 0
        taken = np.bincount(servers[on], self.cores[on], len(self.rooms))
        return self.rooms.astype(np.int64) - taken.astype(np.int64)

    def loads(self, servers: NDArray[np.int32]) -> NDArray[np.float64]:
        """What each NIC carries in and out, in bit/s; units on server -1 are left out."""
        tails, heads = servers[self.ends]
        crosses = (tails != heads) & (tails >= 0) & (heads >= 0)
        rates = self.rates[crosses]
        on = servers >= 0
        count = len(self.rooms)
        into = np.bincount(heads[crosses], rates, count)
        out = np.bincount(tails[crosses], rates, count)
        ports = [np.bincount(servers[on], way[on], count) for way in self.outside]
        return np.array((into + ports[0], out + ports[1]))


def to_arrays(problem: Problem) -> Arrays:
    """The numbers of a problem. Raises ValueError where they make no sense."""
    units, count = len(problem.names), len(problem.servers)
    if not len(problem.cores) == len(problem.outside) == units:
        raise ValueError("expected as many cores and rates from outside as names")
    if len(problem.server_names) != count:
        raise ValueError("expected as many names of servers as servers")
    edges = np.fromiter(chain.from_iterable(problem.edges), np.float64, 3 * len(problem.edges))
    ends = edges.reshape(-1, 3)[:, :2].T.astype(np.int32, order="C")
    rates = edges[2::3].copy()
    outside = np.fromiter(chain.from_iterable(problem.outside), np.float64, 2 * units)
    outside = np.ascontiguousarray(outside.reshape(-1, 2).T)
    nics = np.array([room.nic_bps for room in problem.servers], np.float64)
    cores = np.array(problem.cores, np.int32)
    rooms = np.array([room.cores for room in problem.servers], np.int32)
    if ends.min(initial=0) < 0 or ends.max(initial=-1) >= units:
        raise ValueError(f"an edge ends at a unit that is none of the {units}")
    total = float(rates.sum() + outside.sum())
    if not math.isfinite(total) or rates.min(initial=0) < 0 or outside.min(initial=0) < 0:
        raise ValueError("traffic is a finite number of bit/s, and not negative")
    if not (nics >= 0).all() or cores.min(initial=0) < 0 or rooms.min(initial=0) < 0:
        raise ValueError("cores and NICs are not negative")
    fixed = np.full(units, -1, np.int32)
    for unit, server in problem.fixed.items():
        if not (0 <= unit < units and 0 <= server < count):
            raise ValueError(f"unit {unit} is fixed to server {server}; one of them is none")
        fixed[unit] = server
    kinds: dict[object, int] = {}
    numbers = [kinds.setdefault(room, len(kinds)) for room in problem.servers]
    shift = _BITS - math.frexp(total)[1]
    most = np.minimum(nics, 2 * total)
    return Arrays(
        cores,
        ends,
        rates,
        outside,
        fixed,
        rooms,
        nics,
        np.array(numbers, np.int32),
        _in_quanta(rates, shift),
        _in_quanta(outside, shift),
        _in_quanta(most, shift),
    )


def _in_quanta(rates: NDArray[np.float64], shift: int) -> NDArray[np.int64]:
    quanta: NDArray[np.int64] = np.rint(np.ldexp(rates, shift)).astype(np.int64)
    return quanta
