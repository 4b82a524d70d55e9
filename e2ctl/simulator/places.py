# SPDX-License-Identifier: BSD-3-Clause
"""Servers of simulated instances, and their traffic as the controller's placement wants it.

An instance is known by pipeline, NF and number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from e2ctl.igraph import SPAN_STEP, Span
from e2ctl.locality import Locality
from e2ctl.placement import Room
from e2ctl.replicas import Replica, Traffic, split_decision
from e2ctl.simulator.flows import BUCKETS

__all__ = ["Key", "Places"]

Key = tuple[int, int, int]
Ints = NDArray[np.int64]
State = Sequence[tuple[Sequence[Ints], float]]


class Places:
    """Where instances are, and where one more goes."""

    def __init__(self, rooms: Sequence[Room], servers: Mapping[Key, int]) -> None:
        self._rooms = list(rooms)
        self._servers = dict(servers)
        self._traffic: Traffic | None = None
        self._units: dict[Key, int] = {}
        self._guests: set[Key] = set()

    @property
    def count(self) -> int:
        """Instances that run."""
        return len(self._servers)

    @property
    def cores(self) -> int:
        """Cores that instances have."""
        return len(self._servers) - len(self._guests)

    @property
    def free_cores(self) -> int:
        """Cores that no instance has, on all servers."""
        having = [server for key, server in self._servers.items() if key not in self._guests]
        taken = np.bincount(having, minlength=len(self._rooms))
        return int(sum(max(0, r.cores - t) for r, t in zip(self._rooms, taken, strict=True)))

    def share(self, key: Key, *, core: bool) -> None:
        """Give an instance's core away, or one to it."""
        (self._guests.discard if core else self._guests.add)(key)
        self.stale()

    def servers_of(self, p: int, n: int) -> Ints:
        """The server of each instance of an NF by its number, and -1 at the end for none."""
        mine = {index: s for (q, m, index), s in self._servers.items() if (q, m) == (p, n)}
        found = np.full(max(mine, default=0) + 2, -1, np.int64)
        for index, server in mine.items():
            found[index] = server
        return found

    def server_of(self, key: Key) -> int:
        """The server of an instance."""
        return self._servers[key]

    def stale(self) -> None:
        """Traffic is no longer what it was."""
        self._traffic = None

    def remove(self, key: Key) -> None:
        """An instance is gone."""
        self._servers.pop(key, None)
        self._guests.discard(key)
        self.stale()

    def split(self, old: Key, new: Key, ids: Span, state: State) -> Replica:
        """Place a new instance that gets these ids from an old one."""
        traffic = self._known(state)
        unit = self._units[old]
        replica = split_decision(traffic, unit, cut=ids.start)
        self._units[new] = len(traffic.servers)
        self._traffic = traffic.split(unit, replica)
        self._servers[new] = replica.server
        return replica

    def localities(self, state: State) -> dict[tuple[int, int], Locality]:
        """What each NF exchanges with others."""
        traffic = self._known(state)
        units: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for (p, n, index), unit in self._units.items():
            units[p, n][index] = unit
        return {nf: Locality(traffic, mine) for nf, mine in units.items()}

    def fail(self, server: int) -> list[Key]:
        """A server is lost: it has no core any more. Returns what ran there."""
        self._rooms[server] = Room(0, self._rooms[server].nic_bps)
        self.stale()
        return [key for key, place in self._servers.items() if place == server]

    def again(self, key: Key, state: State) -> int:
        """Place an instance whose server is lost."""
        traffic, unit = self._known(state), self._units[key]
        server = traffic.server_again(unit)
        self._servers[key] = server
        servers = traffic.servers.copy()
        servers[unit] = server
        self._traffic = replace(traffic, servers=servers)
        return server

    def _known(self, state: State) -> Traffic:
        if self._traffic is None:
            self._traffic = self._made(state)
        return self._traffic

    def _made(self, state: State) -> Traffic:
        """From tables of ids: what two NFs' tables say of a bucket is an edge."""
        keys = sorted(self._servers)
        self._units = {key: unit for unit, key in enumerate(keys)}
        count = len(keys)
        starts, ends = np.zeros(count, np.int64), np.ones(count, np.int64)
        outside = np.zeros((2, count))
        tails, heads, rates = [], [], []
        for p, (tables, load) in enumerate(state):
            before: Ints | None = None
            for n, table in enumerate(tables):
                units = np.array(
                    [self._units.get((p, n, i), -1) for i in range(int(table.max()) + 1)]
                )
                now = units[table]
                seen, first, size = np.unique(now, return_index=True, return_counts=True)
                starts[seen], ends[seen] = first * SPAN_STEP, (first + size) * SPAN_STEP
                share = load * size / BUCKETS
                if n == 0:
                    outside[0, seen] = share
                if n == len(tables) - 1:
                    outside[1, seen] = share
                if before is not None:
                    pairs, sizes = np.unique(before * count + now, return_counts=True)
                    tails.append(pairs // count)
                    heads.append(pairs % count)
                    rates.append(load * sizes / BUCKETS)
                before = now
        none = [np.zeros(0, np.int64)]
        edges = np.concatenate(tails or none)
        return Traffic(
            servers=np.array([self._servers[key] for key in keys], np.int64),
            cores=np.array([key not in self._guests for key in keys], np.int64),
            starts=starts,
            ends=ends,
            tails=edges,
            heads=np.concatenate(heads or none),
            rates=np.concatenate(rates or [np.zeros(0)]),
            direct=np.ones(len(edges), np.bool_),
            outside=outside,
            rooms=tuple(self._rooms),
            names=tuple(f"s{i}" for i in range(len(self._rooms))),
        )
