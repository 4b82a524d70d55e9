# SPDX-License-Identifier: BSD-3-Clause
"""Random instance graphs: chains of NFs that are split into instances, and graphs of any shape."""

from __future__ import annotations

from random import Random

from e2ctl.placement import Problem, Room

CORES = 12  # of a server: with ten units for each of them, 83 % are taken
NIC_BPS = 40e9


def _problem(
    cores: list[int],
    edges: list[tuple[int, int, float]],
    outside: list[tuple[float, float]],
    servers: int,
    room: Room,
) -> Problem:
    names = tuple(f"u{unit}" for unit in range(len(cores)))
    hosts = tuple(f"s{server}" for server in range(servers))
    return Problem(names, tuple(cores), tuple(edges), tuple(outside), (room,) * servers, hosts)


def chains(units: int, seed: int) -> Problem:
    """Chains of 5 to 10 NFs for 1 to 8 Gbps, each of 1 to 5 instances of one core.

    Between NFs with as many instances traffic goes straight half of the time (figure 3.3(d)), else
    from every instance to every one.
    """
    random = Random(seed)
    edges: list[tuple[int, int, float]] = []
    outside = [[0.0, 0.0] for _ in range(units)]
    made = 0
    while made < units:
        rate = random.uniform(1e9, 8e9)
        before: list[int] = []
        for _ in range(random.randint(5, 10)):
            count = min(random.randint(1, 5), units - made)
            now = list(range(made, made + count))
            made += count
            if not now:
                break
            if not before:
                for unit in now:
                    outside[unit][0] = rate / count
            elif len(before) == count and random.random() < 0.5:
                edges += [(a, b, rate / count) for a, b in zip(before, now, strict=True)]
            else:
                edges += [(a, b, rate / count / len(before)) for a in before for b in now]
            before = now
        for unit in before:
            outside[unit][1] = rate / len(before)
    ways = [(into, out) for into, out in outside]
    servers = max(2, -(-units // 10))
    return _problem([1] * units, edges, ways, servers, Room(CORES, NIC_BPS))


def tangle(units: int, seed: int, servers: int, room: Room) -> Problem:
    """Every unit but the first gets traffic from one to three of the eight before it."""
    random = Random(seed)
    cores = [random.choice((1, 1, 2)) for _ in range(units)]
    edges = []
    outside = [(float(random.randint(0, 20)) * 1e8, 0.0) for _ in range(units)]
    for unit in range(1, units):
        before = range(max(0, unit - 8), unit)
        for other in random.sample(before, min(len(before), random.randint(1, 3))):
            edges.append((other, unit, float(random.randint(1, 20)) * 1e8))
    return _problem(cores, edges, outside, servers, room)
