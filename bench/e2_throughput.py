# SPDX-License-Identifier: BSD-3-Clause
"""Figure 3.8: the most traffic that a rack carries under a placement, before anything saturates.

For loads up to what external ports take, sizing finds as many instances as they need, and placement
finds cores for them. What such a placement carries is the load, or the part of it with which the
busiest NIC is full; the most of all loads counts. All of that is e2ctl's own code. NICs are the
switch's ports to servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import fmean

from e2ctl import igraph as igraphs
from e2ctl.hardware import Hardware, Server, Switch
from e2ctl.layout import problem_of
from e2ctl.nfs import Catalog, NfType
from e2ctl.pgraph import PEdge, PGraph, PNode
from e2ctl.placement import PlacementError, Problem, place
from e2ctl.sizing import estimate, size

__all__ = [
    "CHAIN",
    "GRAPH",
    "SERVICES",
    "Service",
    "gap_to_exact",
    "most_load",
    "problem_for",
    "rack",
]

NIC_BPS = 10e9
PORTS = 24
STEPS = 24


@dataclass(frozen=True)
class Service:
    """NFs with what a core carries of each, and edges with the part of all traffic on them."""

    name: str
    capacities: tuple[float, ...]
    edges: tuple[tuple[str, str, float], ...]


def _chain(per_core: float, name: str) -> Service:
    names = ["in", *(f"n{i}" for i in range(5)), "out"]
    edges = tuple((a, b, 1.0) for a, b in pairwise(names))
    capacities = tuple(part * per_core for part in (2.0, 1.33, 1.0, 1.33, 2.0))
    return Service(f"chain of 5, {name}", capacities, edges)


def _graph(per_core: float, name: str, seed: int = 10) -> Service:
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
    capacities = tuple(random.uniform(1.0, 2.0) * per_core for _ in range(10))
    return Service(f"graph of 10, {name}", capacities, tuple(edges))


# Fifteen cores carry less of a service than a NIC does, or more.
CHAIN, GRAPH = _chain(1.5e9, "cores scarce"), _graph(1.5e9, "cores scarce")
LIGHT_CHAIN, LIGHT_GRAPH = _chain(3e9, "NICs scarce"), _graph(3e9, "NICs scarce")
SERVICES = (CHAIN, GRAPH, LIGHT_CHAIN, LIGHT_GRAPH)


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
        switch=Switch.model_validate({"ports": {"in": 1, "out": 2}}),
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


def most_load(
    service: Service, strategy: str, seeds: int, hardware: Hardware | None = None
) -> float:
    """The highest load in bit/s that is carried, mean of seeds."""
    machines = hardware or rack()
    problems: list[tuple[float, Problem]] = []
    for step in range(1, STEPS + 1):
        load = PORTS * NIC_BPS * step / STEPS
        problem = problem_for(service, load, machines)
        if problem is not None:
            problems.append((load, problem))
    found = []
    for seed in range(seeds):
        best = 0.0
        for load, problem in problems:
            try:
                placed = place(problem, strategy=strategy, seed=seed)
            except PlacementError:
                continue
            best = max(best, load / max(1.0, placed.saturation))
        found.append(best)
    return fmean(found)


def gap_to_exact(service: Service, servers: int, cores: int, load_bps: float) -> float | None:
    """Traffic between servers above the optimum's, of a load that few instances carry."""
    problem = problem_for(service, load_bps, rack(servers, cores))
    if problem is None:
        return None
    best = place(problem, strategy="exact").cross_bps
    return place(problem).cross_bps / best - 1 if best else 0.0
