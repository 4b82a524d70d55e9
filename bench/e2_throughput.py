# SPDX-License-Identifier: BSD-3-Clause
"""Figure 3.8: the most traffic that a rack carries under a placement, before anything saturates.

A load is carried if sizing finds as many instances as it needs, placement finds cores for them, no
NIC carries more than it can either way, and no external port does. All of that is e2ctl's own; the
highest such load is searched for by halving. NICs are the switch's ports to servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import fmean

from e2ctl import igraph as igraphs
from e2ctl.hardware import Hardware, Server, Switch
from e2ctl.layout import problem_of
from e2ctl.nfs import Catalog, NfType
from e2ctl.pgraph import PEdge, PGraph, PNode
from e2ctl.placement import PlacementError, Problem, place
from e2ctl.sizing import estimate, size

__all__ = ["CHAIN", "GRAPH", "Service", "gap_to_exact", "most_load", "rack"]

NIC_BPS = 10e9
PORTS = 24
STEPS = 9


@dataclass(frozen=True)
class Service:
    """NFs with what a core carries of each, and edges with the part of all traffic on them."""

    name: str
    capacities: tuple[float, ...]
    edges: tuple[tuple[str, str, float], ...]


def _chain() -> Service:
    names = ["in", *(f"n{i}" for i in range(5)), "out"]
    edges = tuple((a, b, 1.0) for a, b in zip(names, names[1:], strict=False))
    return Service("chain of 5", (6e9, 4e9, 3e9, 4e9, 6e9), edges)


def _graph(seed: int = 10) -> Service:
    """Ten NFs; each but the last sends to one to three of the four behind it."""
    random = Random(seed)
    share = [0.0] * 10
    edges: list[tuple[str, str, float]] = []
    share[0] = 1.0
    edges.append(("in", "n0", 1.0))
    for i in range(9):
        behind = range(i + 1, min(10, i + 5))
        chosen = {i + 1, *random.sample(behind, min(len(behind), random.randint(1, 3)))}
        weights = {j: random.uniform(0.5, 1.5) for j in sorted(chosen)}
        for j, weight in weights.items():
            part = share[i] * weight / sum(weights.values())
            edges.append((f"n{i}", f"n{j}", part))
            share[j] += part
    edges.append(("n9", "out", share[9]))
    capacities = tuple(random.uniform(3e9, 6e9) for _ in range(10))
    return Service("graph of 10", capacities, tuple(edges))


CHAIN, GRAPH = _chain(), _graph()


def rack(servers: int = 24, cores: int = 16) -> Hardware:
    """Servers of one kind; external traffic comes and goes by `PORTS` ports of 10 Gbps."""
    return Hardware(
        servers={
            f"s{i}": Server(
                cores=cores,
                ghz=1.0,
                nic=NIC_BPS,
                agent=f"a{i}",
                port=100 + i,
                ip=f"10.0.0.{i + 1}",
                mac=f"02:00:00:00:00:{i:02x}",
            )
            for i in range(servers)
        },
        switch=Switch(ports={"in": (1,), "out": (2,)}),
    )


def problem_for(service: Service, load_bps: float, hardware: Hardware) -> Problem | None:
    """The placement problem of a load, or None if it needs more instances than there may be."""
    count = len(service.capacities)
    catalog = Catalog(
        {
            f"T{i}": NfType(scaling="servers", capacity=capacity)
            for i, capacity in enumerate(service.capacities)
        }
    )
    nodes = [PNode("in", "port"), PNode("out", "port")]
    nodes += [PNode(f"n{i}", "nf", f"T{i}") for i in range(count)]
    graph = PGraph(
        tuple(nodes), tuple(PEdge(a, b, rate=load_bps * part) for a, b, part in service.edges)
    )
    loads = estimate(graph)
    counts = size(graph, catalog, hardware, loads).counts
    if sum(counts.values()) > sum(s.nf_cores for s in hardware.servers.values()):
        return None
    made = igraphs.build(graph, catalog, counts, loads)
    return problem_of(made, catalog, hardware)[0]


def carries(
    service: Service, load_bps: float, hardware: Hardware, strategy: str, seed: int
) -> bool:
    """Whether nothing saturates."""
    if load_bps > PORTS * NIC_BPS:
        return False
    problem = problem_for(service, load_bps, hardware)
    if problem is None:
        return False
    try:
        return place(problem, strategy=strategy, seed=seed).saturation <= 1.0
    except PlacementError:
        return False


def most_load(
    service: Service, strategy: str, seeds: int, hardware: Hardware | None = None
) -> float:
    """The highest load in bit/s that is carried, mean of seeds."""
    machines = hardware or rack()
    found = []
    for seed in range(seeds):
        low, high = 0.0, PORTS * NIC_BPS
        if carries(service, high, machines, strategy, seed):
            low = high
        for _ in range(STEPS):
            middle = (low + high) / 2
            if carries(service, middle, machines, strategy, seed):
                low = middle
            else:
                high = middle
        found.append(low)
    return fmean(found)


def gap_to_exact(service: Service, servers: int, cores: int, load_bps: float) -> float | None:
    """Traffic between servers above the optimum's, of a load that few instances carry."""
    problem = problem_for(service, load_bps, rack(servers, cores))
    if problem is None:
        return None
    best = place(problem, strategy="exact").cross_bps
    return place(problem).cross_bps / best - 1 if best else 0.0
