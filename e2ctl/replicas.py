# SPDX-License-Identifier: BSD-3-Clause
"""Where the new instance of a split goes, and which flow ids it gets.

`place_one` answers that for a whole placement problem. Here a cluster's traffic is kept as arrays,
and a decision makes a problem of one unit per server, with all that the server's NIC carries, and
the new instance: the answer is the same, as running instances don't move, and takes as long for a
thousand of them as for ten. Adding the instance to the arrays gives those of the next decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2ctl.changes import cut_at
from e2ctl.hardware import Hardware
from e2ctl.igraph import IGraph, Span
from e2ctl.placement import PlacementError, Problem, Room, place_one

__all__ = ["Replica", "Traffic", "split_decision", "traffic_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Replica:
    """A new instance that gets the ids of ``span`` from an old one, and its server."""

    server: int
    span: Span


@dataclass(frozen=True, eq=False)
class Traffic:
    """Instances on servers and what they exchange in bit/s.

    ``starts`` and ``ends`` are the spans of instances. Edges whose ends tell flows apart by one
    function are ``direct``: they carry the ids of both. ``outside`` has two rows, from and to
    external ports.
    """

    servers: Ints
    cores: Ints
    starts: Ints
    ends: Ints
    tails: Ints
    heads: Ints
    rates: Floats
    direct: NDArray[np.bool_]
    outside: Floats
    rooms: tuple[Room, ...]
    names: tuple[str, ...]  # of servers

    @cached_property
    def free(self) -> Ints:
        """Cores that each server has left."""
        taken = np.bincount(self.servers, self.cores, len(self.rooms)).astype(np.int64)
        return np.array([room.cores for room in self.rooms], np.int64) - taken

    @cached_property
    def nics(self) -> Floats:
        """What each NIC carries: a row in, a row out."""
        count = len(self.rooms)
        tails, heads = self.servers[self.tails], self.servers[self.heads]
        cross = np.where(tails != heads, self.rates, 0.0)
        return np.array(
            [
                np.bincount(ends, cross, count) + np.bincount(self.servers, outside, count)
                for ends, outside in zip((heads, tails), self.outside, strict=True)
            ]
        )

    def edges_of(self, unit: int) -> Ints:
        """Numbers of an instance's edges."""
        return np.flatnonzero((self.tails == unit) | (self.heads == unit))

    def others(self, unit: int, edges: Ints) -> Ints:
        """The instances at the other ends of its edges."""
        found: Ints = np.where(self.tails[edges] == unit, self.heads[edges], self.tails[edges])
        return found

    def shares(self, unit: int, edges: Ints, starts: int | Ints, ends: int | Ints) -> Floats:
        """How much of what an instance's edges carry has ids from ``starts`` up to ``ends``.

        Columns of numbers give a row for each.
        """
        start, end = self.starts[unit], self.ends[unit]
        other = self.others(unit, edges)
        low, high = self.starts[other], self.ends[other]
        whole = np.minimum(high, end) - np.maximum(low, start)
        part = np.minimum(high, ends) - np.maximum(low, starts)
        meets = np.maximum(part, 0) / np.maximum(whole, 1)
        found: Floats = np.where(self.direct[edges], meets, (ends - starts) / (end - start))
        return found

    def part(self, unit: int, span: Span) -> tuple[Ints, Floats, Floats]:
        """Edges of an instance, and how much of each, and of its outside, has the span's ids."""
        edges = self.edges_of(unit)
        share = (span.end - span.start) / (self.ends[unit] - self.starts[unit])
        moved = self.rates[edges] * self.shares(unit, edges, span.start, span.end)
        return edges, moved, self.outside[:, unit] * share

    def split(self, unit: int, replica: Replica) -> Traffic:
        """With the new instance, as the last one."""
        edges, moved, outside = self.part(unit, replica.span)
        new = len(self.servers)
        rates, ways = self.rates.copy(), self.outside.copy()
        rates[edges] -= moved
        ways[:, unit] -= outside
        tails, heads = self.tails[edges], self.heads[edges]
        ends = self.ends.copy()
        ends[unit] = replica.span.start

        def grown(array: NDArray[Any], item: object) -> NDArray[Any]:
            return np.concatenate((array, np.atleast_1d(np.asarray(item, array.dtype))))

        return replace(
            self,
            servers=grown(self.servers, replica.server),
            cores=grown(self.cores, self.cores[unit]),
            starts=grown(self.starts, replica.span.start),
            ends=grown(ends, replica.span.end),
            tails=grown(self.tails, np.where(tails == unit, new, tails)),
            heads=grown(self.heads, np.where(heads == unit, new, heads)),
            rates=grown(rates, moved),
            direct=grown(self.direct, self.direct[edges]),
            outside=np.concatenate((ways, outside[:, None]), axis=1),
        )

    def server_for(self, unit: int, span: Span) -> int:
        """The server of a new instance that gets these ids from an old one.

        Raises PlacementError where no server has room.
        """
        edges, moved, outside = self.part(unit, span)
        count, home = len(self.rooms), int(self.servers[unit])
        tails, heads = self.tails[edges], self.heads[edges]
        nics = self.nics.copy()
        nics[:, home] -= outside
        ways: list[Floats] = []
        for row, mine, others in ((0, heads, tails), (1, tails, heads)):
            at = mine == unit  # this way the old instance receives, or sends
            there = _sums(self.servers[others[at]], moved[at], count)
            ways.append(there)
            crosses = there.copy()
            crosses[home] = 0.0
            nics[row, home] -= crosses.sum()
            nics[1 - row] -= crosses
        return self._best(ways, nics, (float(outside[0]), float(outside[1])), int(self.cores[unit]))

    def server_again(self, unit: int) -> int:
        """A server for an instance that is nowhere (its server is lost, and has no cores)."""
        at = (self.tails == unit) | (self.heads == unit)
        lone = replace(self, rates=np.where(at, 0.0, self.rates), outside=self.outside.copy())
        lone.outside[:, unit] = 0.0
        count, rates = len(self.rooms), self.rates
        into, out = self.heads == unit, self.tails == unit
        ways = [
            _sums(self.servers[self.tails[into]], rates[into], count),
            _sums(self.servers[self.heads[out]], rates[out], count),
        ]
        outside = (float(self.outside[0, unit]), float(self.outside[1, unit]))
        return self._best(ways, lone.nics, outside, int(self.cores[unit]))

    def _best(
        self, ways: Sequence[Floats], nics: Floats, outside: tuple[float, float], cores: int
    ) -> int:
        """By `place_one`, among servers that stand for all that runs there."""
        count = len(self.rooms)
        into, out = (way.tolist() for way in ways)
        edges = [(s, count, rate) for s, rate in enumerate(into) if rate]
        edges += [(count, s, rate) for s, rate in enumerate(out) if rate]
        carried = np.maximum(nics, 0.0).T.tolist()
        free = np.maximum(self.free, 0).tolist()
        problem = Problem(
            names=(*self.names, "the new instance"),
            cores=(*(0,) * count, cores),
            edges=tuple(edges),
            outside=(*((i, o) for i, o in carried), outside),
            servers=tuple(
                Room(here, room.nic_bps) for here, room in zip(free, self.rooms, strict=True)
            ),
            server_names=self.names,
        )
        return place_one(problem, count, [*range(count), -1])


def _sums(servers: Ints, rates: Floats, count: int) -> Floats:
    sums: Floats = np.bincount(servers, rates, count).astype(np.float64)
    return sums


def split_decision(
    traffic: Traffic, unit: int, buckets: Sequence[float] = (), *, cut: int | None = None
) -> Replica:
    """Halve an instance: by its load per `SPAN_STEP` ids if given, else by ids.

    Raises PlacementError where no server has room, or its span has no inside.
    """
    span = Span(int(traffic.starts[unit]), int(traffic.ends[unit]))
    where = cut_at(span, buckets) if cut is None else cut
    if where is None:
        raise PlacementError(f"flow ids {span} can't be divided")
    upper = Span(where, span.end)
    return Replica(traffic.server_for(unit, upper), upper)


def traffic_of(
    graph: IGraph, hardware: Hardware, servers: Mapping[str, str]
) -> tuple[Traffic, dict[str, int]]:
    """Arrays of an instance graph and its layout, and the number of each instance in them."""
    number = {instance.name: i for i, instance in enumerate(graph.instances)}
    names = tuple(hardware.servers)
    place = {name: i for i, name in enumerate(names)}
    nf = {instance.name: instance.nf for instance in graph.instances}
    inner = [e for e in graph.edges if e.source in number and e.target in number]
    outside = np.zeros((2, len(number)))
    for edge in graph.edges:
        if edge.source in number and edge.target not in number:
            outside[1, number[edge.source]] += edge.rate
        elif edge.target in number and edge.source not in number:
            outside[0, number[edge.target]] += edge.rate
    steering = graph.steering
    direct = [steering[nf[e.source]] == steering[nf[e.target]] for e in inner]
    traffic = Traffic(
        servers=np.array([place[servers[name]] for name in number], np.int64),
        cores=np.array([one.cores for one in graph.instances], np.int64),
        starts=np.array([one.span.start for one in graph.instances], np.int64),
        ends=np.array([one.span.end for one in graph.instances], np.int64),
        tails=np.array([number[e.source] for e in inner], np.int64),
        heads=np.array([number[e.target] for e in inner], np.int64),
        rates=np.array([e.rate for e in inner], np.float64),
        direct=np.array(direct, np.bool_),
        outside=outside,
        rooms=tuple(Room(s.nf_cores, s.nic) for s in hardware.servers.values()),
        names=names,
    )
    return traffic, number
