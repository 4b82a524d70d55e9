# SPDX-License-Identifier: BSD-3-Clause
"""Placement once more: what it costs by its definition, the optimum by trying all, and the
dissertation's search as section 3.4.1 prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

from e2ctl.placement import Problem


class Cost(NamedTuple):
    """In the order of what counts first."""

    share: float  # of the busiest NIC, from 1
    cross: float  # bit/s


def nic_loads(problem: Problem, servers: Sequence[int]) -> list[list[float]]:
    """Of each server what comes in and what goes out; units on -1 don't exist."""
    loads = [[0.0, 0.0] for _ in problem.servers]
    for unit, server in enumerate(servers):
        if server >= 0:
            loads[server][0] += problem.outside[unit][0]
            loads[server][1] += problem.outside[unit][1]
    for tail, head, rate in problem.edges:
        if -1 not in (servers[tail], servers[head]) and servers[tail] != servers[head]:
            loads[servers[tail]][1] += rate
            loads[servers[head]][0] += rate
    return loads


def excess(problem: Problem, servers: Sequence[int]) -> float:
    """What leads away from busy NICs: squares of what they carry too much, both ways."""
    loads = zip(nic_loads(problem, servers), problem.servers, strict=True)
    return sum(max(0.0, load - room.nic_bps) ** 2 for ways, room in loads for load in ways)


def cross(problem: Problem, servers: Sequence[int]) -> float:
    return sum(
        rate
        for tail, head, rate in problem.edges
        if -1 not in (servers[tail], servers[head]) and servers[tail] != servers[head]
    )


def cost(problem: Problem, servers: Sequence[int]) -> Cost:
    return Cost(max(1.0, round(saturation(problem, servers), 9)), cross(problem, servers))


def saturation(problem: Problem, servers: Sequence[int]) -> float:
    shares = [0.0]
    for ways, room in zip(nic_loads(problem, servers), problem.servers, strict=True):
        for load in ways:
            if load > 0:
                shares.append(load / room.nic_bps if room.nic_bps else float("inf"))
    return max(shares)


def fits(problem: Problem, servers: Sequence[int]) -> bool:
    """Whether cores do, and what runs already has stayed."""
    taken = [0] * len(problem.servers)
    for unit, server in enumerate(servers):
        if server >= 0:
            taken[server] += problem.cores[unit]
    room = all(t <= s.cores for t, s in zip(taken, problem.servers, strict=True))
    return room and all(servers[unit] == server for unit, server in problem.fixed.items())


def placements(problem: Problem) -> Iterator[tuple[int, ...]]:
    """All there are."""
    for servers in product(range(len(problem.servers)), repeat=len(problem.names)):
        if fits(problem, servers):
            yield servers


def optimum(problem: Problem) -> Cost | None:
    """The least cost of all placements."""
    return min((cost(problem, servers) for servers in placements(problem)), default=None)


def outside_is_too_much(problem: Problem) -> bool:
    """Whether NICs can't carry what comes from outside or goes there, whatever is where."""
    nics = [room.nic_bps for room in problem.servers]
    for way in (0, 1):
        rates = [ways[way] for ways in problem.outside]
        bound = [0.0] * len(nics)
        for unit, server in problem.fixed.items():
            bound[server] += rates[unit]
        moving = [rate for unit, rate in enumerate(rates) if unit not in problem.fixed]
        if sum(rates) > sum(nics) or max(moving, default=0.0) > max(nics):
            return True
        if any(rate > nic for rate, nic in zip(bound, nics, strict=True)):
            return True
    return False


def greedy_swaps(problem: Problem, servers: Sequence[int]) -> tuple[int, ...]:
    """Swap the pair that takes most traffic from between servers, until no pair takes any."""
    at = list(servers)
    units = range(len(at))
    rates: list[dict[int, float]] = [{} for _ in units]
    for tail, head, rate in problem.edges:
        if tail != head:
            rates[tail][head] = rates[tail].get(head, 0.0) + rate
            rates[head][tail] = rates[head].get(tail, 0.0) + rate
    pairs = [p for p in combinations(units, 2) if not problem.fixed.keys() & set(p)]
    while True:
        free = [room.cores for room in problem.servers]
        bound = [[0.0] * len(free) for _ in units]  # traffic of a unit with those of a server
        for unit in units:
            free[at[unit]] -= problem.cores[unit]
            for other, rate in rates[unit].items():
                bound[unit][at[other]] += rate
        best, swap = 0.0, (0, 0)
        for one, other in pairs:
            a, b = at[one], at[other]
            more = problem.cores[one] - problem.cores[other]
            if a == b or more > free[b] or -more > free[a]:
                continue
            gain = bound[one][b] - bound[one][a] + bound[other][a] - bound[other][b]
            gain -= 2 * rates[one].get(other, 0.0)
            if gain > best * (1 + 1e-9) + 1e-3:
                best, swap = gain, (one, other)
        if not best:
            return tuple(at)
        one, other = swap
        at[one], at[other] = at[other], at[one]
