# SPDX-License-Identifier: BSD-3-Clause
"""Which server each instance runs on.

Instances of an NF that scales over cores only share a server, so they are placed as one unit. All
traffic of external ports crosses the switch anyway; what placement saves is traffic between
servers (section 3.4.1 of the dissertation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from e2ctl.hardware import Hardware
from e2ctl.igraph import IGraph, Instance
from e2ctl.nfs import Catalog
from e2ctl.pgraph import format_rate
from e2ctl.placement import Problem, Room, place

__all__ = ["Layout", "lay_out", "problem_of"]


@dataclass(frozen=True)
class Layout:
    """Server of each instance, by name; traffic between servers in bit/s.

    ``saturation`` is the highest share of a server's link in use, in one direction.
    """

    servers: Mapping[str, str]
    cross_bps: float = 0.0
    saturation: float = 0.0
    unused: tuple[str, ...] = field(default=())

    def on(self, server: str) -> tuple[str, ...]:
        """Names of the instances on a server."""
        return tuple(name for name, place in self.servers.items() if place == server)

    def __str__(self) -> str:
        lines = []
        for server in dict.fromkeys([*self.servers.values(), *self.unused]):
            names = self.on(server)
            lines.append(f"server {server}: {', '.join(names) if names else 'nothing'}")
        lines.append(
            f"between servers: {format_rate(self.cross_bps)}; "
            f"busiest link: {100 * self.saturation:.0f} %"
        )
        return "\n".join(lines) + "\n"


def units_of(graph: IGraph, catalog: Catalog) -> tuple[tuple[Instance, ...], ...]:
    """What has to stay together."""
    units: dict[str, list[Instance]] = {}
    for instance in graph.instances:
        together = catalog[instance.type].scaling == "cores"
        units.setdefault(instance.nf if together else instance.name, []).append(instance)
    return tuple(map(tuple, units.values()))


def problem_of(
    graph: IGraph, catalog: Catalog, hardware: Hardware, running: Mapping[str, str] | None = None
) -> tuple[Problem, tuple[tuple[Instance, ...], ...]]:
    """The placement problem of an instance graph, and what its units are.

    Instances that run already stay on their server, if the cluster still has it.
    """
    units = units_of(graph, catalog)
    number = {instance.name: i for i, unit in enumerate(units) for instance in unit}
    outside = [[0.0, 0.0] for _ in units]
    edges = []
    for edge in graph.edges:
        source, target = number.get(edge.source), number.get(edge.target)
        if source is None and target is not None:
            outside[target][0] += edge.rate
        elif target is None and source is not None:
            outside[source][1] += edge.rate
        elif source is not None and target is not None and source != target:
            edges.append((source, target, edge.rate))
    servers = list(hardware.servers)
    fixed = {
        number[name]: servers.index(server)
        for name, server in (running or {}).items()
        if name in number and server in servers
    }
    problem = Problem(
        names=tuple(", ".join(instance.name for instance in unit) for unit in units),
        cores=tuple(sum(instance.cores for instance in unit) for unit in units),
        edges=tuple(edges),
        outside=tuple((into, out) for into, out in outside),
        servers=tuple(Room(s.nf_cores, s.nic) for s in hardware.servers.values()),
        server_names=tuple(servers),
        fixed=fixed,
    )
    return problem, units


def lay_out(
    graph: IGraph,
    catalog: Catalog,
    hardware: Hardware,
    *,
    running: Mapping[str, str] | None = None,
    strategy: str = "e2",
    seed: int = 0,
) -> Layout:
    """Place every instance; a `PlacementError` says what the cluster lacks."""
    problem, units = problem_of(graph, catalog, hardware, running)
    found = place(problem, strategy=strategy, seed=seed)
    servers = _by_instance(units, found.servers, problem.server_names)
    unused = tuple(name for name in problem.server_names if name not in servers.values())
    return Layout(servers, found.cross_bps, found.saturation, unused)


def _by_instance(
    units: Sequence[Sequence[Instance]], places: Sequence[int], names: Sequence[str]
) -> dict[str, str]:
    return {
        instance.name: names[place]
        for unit, place in zip(units, places, strict=True)
        for instance in unit
    }
