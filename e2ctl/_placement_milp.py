# SPDX-License-Identifier: BSD-3-Clause
"""Placement as mixed-integer programs: the optimum of small graphs, and whether sizes fit at all.

A binary says that a unit is on a server; a variable for a pair of units and a server, at most
either one's binary, says that both are there. What a server sends and receives, and what crosses,
is linear in those. Servers that are alike are told apart by their first unit: the next one is only
for units after that, so that one placement is not looked at under many names.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from alpine.errors import SolverError
from alpine.linear import Answer, Model, solve_model

__all__ = ["Numbers", "best_servers", "fit_sizes"]

_TIME_LIMIT_S = 60.0
_ALL = 1000.0  # all traffic in the model: what solvers take for equal is a part in 10^9 of it
_TOLERANCE = 1e-6  # of that 1000, and of a NIC
_LEAST_NIC = 1e-3  # of that 1000: as much as if it carried nothing


@dataclass(frozen=True)
class Numbers:
    """Of units cores, traffic (bit/s; outside: in, out) and servers; of servers cores and NIC."""

    cores: Sequence[int]
    edges: Sequence[tuple[int, int, float]]
    outside: Sequence[tuple[float, float]]
    fixed: Mapping[int, int]
    rooms: Sequence[tuple[int, float]]


def best_servers(numbers: Numbers) -> list[int] | None:
    """The least busy of busiest NICs, then the least traffic between servers.

    None if cores don't do.
    """
    build = _Build(numbers)
    if build.tight:
        build.aim({build.busiest: -1.0})
        answer = _solve(build.model)
        if answer is None:
            return None
        build.model.row({build.busiest: 1.0}, high=_TOLERANCE - answer.objective)
    build.aim(build.together)
    answer = _solve(build.model)
    if answer is None:
        return None
    return [max(row, key=lambda s: answer.values[row[s]]) for row in build.on]


class _Build:
    """The model of a problem."""

    def __init__(self, numbers: Numbers) -> None:
        self.model = Model()
        self.numbers = numbers
        self.own = [list(ways) for ways in numbers.outside]
        self.pairs: dict[tuple[int, int], float] = defaultdict(float)
        for tail, head, rate in numbers.edges:
            if tail != head:
                self.own[head][0] += rate
                self.own[tail][1] += rate
                self.pairs[min(tail, head), max(tail, head)] += rate
        most = sum(map(max, self.own))
        self.scale = _ALL / most if most else 0.0
        self.tight = any(nic < most for _, nic in numbers.rooms)
        self.servers = self.usable()
        self.on = [self.binaries(unit) for unit in range(len(numbers.cores))]
        self.together: dict[int, float] = {}
        self.busiest = self.model.variable(1.0)  # share of a NIC
        loads = [defaultdict[int, float](float) for _ in numbers.rooms]
        self.add_pairs(loads)
        for server in self.servers:
            self.add_server(server, loads[server])
        self.break_symmetry()

    def alike(self) -> list[list[int]]:
        """Servers that are interchangeable."""
        kinds: dict[tuple[int, float], list[int]] = defaultdict(list)
        for server, room in enumerate(self.numbers.rooms):
            if server not in self.numbers.fixed.values():
                kinds[room].append(server)
        return list(kinds.values())

    def usable(self) -> list[int]:
        """Servers that some optimum is content with.

        No more than units, of servers that are alike; and where NICs are wide, no two of those
        whose units would fit into one.
        """
        usable = set(self.numbers.fixed.values())
        moving = [u for u in range(len(self.numbers.cores)) if u not in self.numbers.fixed]
        for servers in self.alike():
            most = len(moving)
            if not self.tight:
                room = self.numbers.rooms[servers[0]][0]
                sizes = sum(self.numbers.cores[unit] for unit in moving)
                most = min(most, max(1, 2 * sizes // (room + 1)))
            usable |= set(servers[:most])
        return sorted(usable)

    def binaries(self, unit: int) -> dict[int, int]:
        """A variable for each server that a unit may be on; one of them is 1."""
        fixed = self.numbers.fixed.get(unit)
        row = {s: self.model.binary() for s in self.servers if fixed in (None, s)}
        self.model.row(dict.fromkeys(row.values(), 1.0), 1.0, 1.0)
        return row

    def add_pairs(self, loads: list[defaultdict[int, float]]) -> None:
        """Variables for two units on one server, which take from its load each way."""
        for (one, other), rate in self.pairs.items():
            for server in self.on[one].keys() & self.on[other].keys():
                both = self.model.variable(0.0, 1.0)
                self.model.row({both: 1.0, self.on[one][server]: -1.0}, high=0.0)
                self.model.row({both: 1.0, self.on[other][server]: -1.0}, high=0.0)
                self.together[both] = rate * self.scale
                loads[server][both] = -rate * self.scale

    def add_server(self, server: int, load: Mapping[int, float]) -> None:
        """Cores hold the units, and no NIC is busier, in or out, than the busiest."""
        cores, nic = self.numbers.rooms[server]
        units = {u: row[server] for u, row in enumerate(self.on) if server in row}
        self.model.row({x: float(self.numbers.cores[u]) for u, x in units.items()}, high=cores)
        if nic * self.scale < _ALL:
            for way in (0, 1):
                own = {x: self.own[u][way] * self.scale for u, x in units.items()}
                most = {self.busiest: -max(nic * self.scale, _LEAST_NIC)}
                self.model.row({**own, **load, **most}, high=0.0)

    def break_symmetry(self) -> None:
        moving = [u for u in range(len(self.on)) if u not in self.numbers.fixed]
        for servers in self.alike():
            used = [server for server in servers if server in self.servers]
            for before, server in pairwise(used):
                for at, unit in enumerate(moving):
                    earlier = {self.on[other][before]: -1.0 for other in moving[:at]}
                    self.model.row({self.on[unit][server]: 1.0, **earlier}, high=0.0)

    def aim(self, costs: Mapping[int, float]) -> None:
        """Maximise this and nothing else."""
        self.model.cost = [costs.get(n, 0.0) for n in range(len(self.model.cost))]


def _solve(model: Model) -> Answer | None:
    try:
        answer = solve_model(model, time_limit_s=_TIME_LIMIT_S)
    except SolverError as error:
        raise SolverError(f"HiGHS knows no placement after {_TIME_LIMIT_S:g} s") from error
    if answer is not None and answer.gap * abs(answer.objective) > _TOLERANCE:
        raise SolverError(f"HiGHS doesn't know the best placement after {_TIME_LIMIT_S:g} s")
    return answer


def fit_sizes(cores: Sequence[int], free: Sequence[int]) -> tuple[list[int], list[int]]:
    """A server for each unit by its cores alone, and the fewest cores that servers lack."""
    model = Model()
    lacks = [model.variable(cost=-1.0, integer=True) for _ in free]
    counts: dict[int, list[int]] = {}
    for size, units in Counter(cores).items():
        counts[size] = [model.variable(0.0, units, integer=True) for _ in free]
        model.row(dict.fromkeys(counts[size], 1.0), units, units)
    for server, room in enumerate(free):
        sizes = {on[server]: float(size) for size, on in counts.items()}
        model.row({**sizes, lacks[server]: -1.0}, high=room)
    answer = _solve(model)
    assert answer is not None  # all is possible where cores may lack
    whole = [round(value) for value in answer.values]
    queues = {
        size: [server for server, count in enumerate(on) for _ in range(whole[count])]
        for size, on in counts.items()
    }
    return [queues[size].pop() for size in cores], [whole[lack] for lack in lacks]
