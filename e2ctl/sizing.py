# SPDX-License-Identifier: BSD-3-Clause
"""How much traffic each edge carries, and how many instances each NF needs for it.

Rates of a policy are estimates and may be absent (section 3.2.1 of the dissertation). What a node
receives is the sum of its edges; edges that leave it without a rate share evenly what those with
one leave over. Traffic that rests on no rate at all is unknown, and gets one instance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from e2ctl.hardware import Hardware
from e2ctl.nfs import Catalog
from e2ctl.pgraph import PGraph, format_rate

__all__ = ["Loads", "Sizes", "estimate", "size"]

# Weight of unknown traffic, so that placement keeps neighbours together.
UNKNOWN_BPS = 1e6


@dataclass(frozen=True)
class Loads:
    """Estimated traffic in bit/s. ``known`` holds the nodes whose traffic rests on rates."""

    edges: Mapping[tuple[str, str], float]
    nodes: Mapping[str, float]
    known: frozenset[str]


@dataclass(frozen=True)
class Sizes:
    """Instances of each NF, and where they are fewer than the load asks for."""

    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def estimate(graph: PGraph) -> Loads:
    """Spread the rates of a policy graph over all edges."""
    edges: dict[tuple[str, str], float] = {}
    nodes: dict[str, float] = {}
    known: set[str] = set()
    ports = [node.name for node in graph.nodes if node.kind == "port"]
    for name in (*ports, *nx.topological_sort(graph.nfs)):
        leaving = graph.edges_from(name)
        rated = sum(edge.rate or 0.0 for edge in leaving)
        share = UNKNOWN_BPS
        if name in graph.nfs:
            entering = [(edge.source, name) for edge in graph.edges_to(name)]
            nodes[name] = sum(edges[pair] for pair in entering)
            unrated = sum(edge.rate is None for edge in leaving)
            if name in known and unrated:
                share = max(nodes[name] - rated, UNKNOWN_BPS) / unrated
        for edge in leaving:
            edges[edge.source, edge.target] = share if edge.rate is None else edge.rate
            if edge.rate is not None or name in known:
                known.add(edge.target)
    for port in ports:
        nodes[port] = sum(edges[edge.source, edge.target] for edge in graph.edges_to(port))
    return Loads(edges, nodes, frozenset(known))


def size(graph: PGraph, catalog: Catalog, hardware: Hardware, loads: Loads) -> Sizes:
    """Instances of each NF: ⌈load ÷ (capacity x GHz x cores)⌉ within its scaling constraints."""
    counts: dict[str, int] = {}
    notes = []
    for node in graph.nodes:
        if node.kind != "nf":
            continue
        kind = catalog[node.type]
        wanted = 1
        if kind.capacity is not None and node.name in loads.known:
            one_bps = kind.capacity * hardware.slowest_ghz * kind.cores
            wanted = max(1, math.ceil(round(loads.nodes[node.name] / one_bps, 9)))
        most = kind.most_instances
        why = "its description gives arguments to no more" if kind.instances else "it can't scale"
        if kind.scaling == "cores":
            room = max(server.nf_cores for server in hardware.servers.values()) // kind.cores
            if room and (most is None or room < most):
                most, why = room, "all of them must share a server"
        counts[node.name] = wanted if most is None else min(wanted, most)
        if counts[node.name] < wanted:
            notes.append(
                f"{node.name}: {counts[node.name]} instead of {wanted} instances for "
                f"{format_rate(loads.nodes[node.name])}; {why}"
            )
    return Sizes(counts, tuple(notes))
