# SPDX-License-Identifier: BSD-3-Clause
"""The instance graph: every NF of the policy graph in as many instances as it needs.

Instances share the flow ids of their NF. An edge of the policy graph becomes edges between
instances (Figure 3.3 of the dissertation), and one rule makes all its cases:

* an edge into one of several instances takes only packets whose flow id is in that instance's
  span: cases (b) and (c);
* where both ends tell flows apart by the same function, packets of an instance can only have flow
  ids of its own span. So edges to instances whose span doesn't meet it are left out, and one whose
  span holds all of it needs no test: case (d).

An NF takes over the function of an NF in front of it if that keeps together what it needs
together, and if that NF doesn't rewrite what the function looks at. All edges into an NF use its
one function, so that a flow finds the same instance on every path. A function of the switch can't
be computed again: ids travel with the packets, so that an NF takes it over only if all packets
bring theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx

from e2ctl import _svg
from e2ctl.affinity import FLOW_IDS, WHOLE, Affinity, parse
from e2ctl.nfs import Catalog, NfType
from e2ctl.pgraph import PEdge, PGraph, format_rate
from e2ctl.sizing import Loads

__all__ = [
    "ALL_IDS",
    "SPAN_STEP",
    "SWITCH_HASHES",
    "IEdge",
    "IGraph",
    "Instance",
    "Span",
    "Steering",
    "build",
    "even_spans",
]

# Spans begin and end at multiples of this, so that a switch needs few entries for them.
SPAN_STEP = FLOW_IDS >> 12
# Hashes that Open vSwitch computes, the finest first, and what each keeps together.
SWITCH_HASHES: Mapping[str, Affinity] = {
    "symmetric_l3l4+udp": Affinity(WHOLE.masks, symmetric=True),
    "symmetric_l3": parse(["ip.src", "ip.dst"], symmetric=True),
    "nw_src": parse(["ip.src"]),
    "nw_dst": parse(["ip.dst"]),
}


@dataclass(frozen=True, order=True)
class Span:
    """Flow ids from ``start`` up to, but without, ``end``."""

    start: int
    end: int

    @property
    def empty(self) -> bool:
        """Whether it has no ids, as that of an instance which only gets what another passes on."""
        return self.start >= self.end

    @property
    def share(self) -> float:
        """Its part of all flow ids."""
        return (self.end - self.start) / FLOW_IDS

    def meets(self, other: Span) -> Span | None:
        """The ids of both."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Span(start, end) if start < end else None

    def joined(self, other: Span) -> Span:
        """The ids of both, which lie side by side, and those between them."""
        if self.empty or other.empty:
            return other if self.empty else self
        return Span(min(self.start, other.start), max(self.end, other.end))

    def __str__(self) -> str:
        return "none" if self.empty else f"{self.start:#010x}-{self.end - 1:#010x}"


ALL_IDS = Span(0, FLOW_IDS)


@dataclass(frozen=True)
class Steering:
    """The function from packets to flow ids: over which fields, and the hash if a switch's."""

    affinity: Affinity
    switch_hash: str | None = None

    def behind(self, kind: NfType) -> bool:
        """Whether packets have the same flow id behind an NF as in front of it."""
        if self.switch_hash is not None and kind.kind == "legacy":
            return False  # the kernel forgets what travels with packets
        return not self.affinity.fields & set(kind.mangles)


@dataclass(frozen=True)
class Instance:
    """One of the instances of an NF, counted from 0; ``load_bps`` is an estimate.

    Flow ids of ``span`` are sent to it. Those of ``reach`` may leave it, which are more while
    instances are split or drained (see `e2ctl.transitions`).
    """

    nf: str
    index: int
    type: str
    span: Span = ALL_IDS
    reach: Span = ALL_IDS
    cores: int = 1
    load_bps: float = 0.0

    @property
    def name(self) -> str:
        """Such as ``ids.0``."""
        return f"{self.nf}.{self.index}"

    def __str__(self) -> str:
        ids = "" if self.span == ALL_IDS else f", flow ids {self.span}"
        cores = "" if self.cores == 1 else f", {self.cores} cores"
        return f"instance {self.name} : {self.type}{ids}{cores}"


@dataclass(frozen=True)
class IEdge:
    """Traffic between two instances or ports: what passes ``edge`` and, if set, has these ids."""

    source: str
    target: str
    edge: PEdge
    span: Span | None = None
    rate: float = 0.0

    def __str__(self) -> str:
        conditions = [self.edge.label] if self.edge.label else []
        conditions += [f"flow ids {self.span}"] if self.span else []
        text = f" [{'; '.join(conditions)}]" if conditions else ""
        return f"{self.source}{text} -> {self.target} @ {format_rate(self.rate)}"


@dataclass(frozen=True)
class IGraph:
    """An immutable instance graph. ``steering`` says how each NF tells flows apart."""

    ports: tuple[str, ...]
    instances: tuple[Instance, ...]
    edges: tuple[IEdge, ...]
    steering: Mapping[str, Steering] = field(default_factory=dict)

    def of(self, nf: str) -> tuple[Instance, ...]:
        """Instances of an NF."""
        return tuple(instance for instance in self.instances if instance.nf == nf)

    def __str__(self) -> str:
        ports = (f"port {name}" for name in self.ports)
        return "\n".join([*ports, *map(str, self.instances), *map(str, self.edges)]) + "\n"

    def to_svg(self, servers: Mapping[str, str] | None = None) -> str:
        """Draw it from left to right; boxes name the servers of instances where known."""
        places = servers or {}
        boxes = {
            instance.name: _svg.Box(instance.name, places.get(instance.name, instance.type))
            for instance in self.instances
        }
        arrows = []
        for edge in self.edges:
            source, target = edge.source, edge.target
            if source in self.ports:
                source = f"{edge.source}>"
                boxes[source] = _svg.Box(edge.source, "port in", rounded=True)
            if target in self.ports:
                target = f">{edge.target}"
                boxes[target] = _svg.Box(edge.target, "port out", rounded=True)
            note = str(edge.span) if edge.span else ""
            arrows.append(_svg.Arrow(source, target, edge.edge.label, note))
        return _svg.draw(boxes, arrows)


def even_spans(count: int) -> tuple[Span, ...]:
    """Divide all flow ids among ``count`` instances."""
    steps = FLOW_IDS // SPAN_STEP
    cuts = [round(i * steps / count) * SPAN_STEP for i in range(count + 1)]
    return tuple(Span(start, end) for start, end in pairwise(cuts))


def build(
    graph: PGraph,
    catalog: Catalog,
    counts: Mapping[str, int],
    loads: Loads,
    hashes: Mapping[str, str] | None = None,
    running: Mapping[str, tuple[Span, Span]] | None = None,
    guests: Collection[str] = (),
) -> IGraph:
    """Divide each NF into as many instances as ``counts`` says.

    ``hashes`` holds the NFs whose traffic the switch divides, and by which of its hashes. NFs that
    have instances in ``running`` keep these, their spans and reach, whatever ``counts`` says: to
    move a span would move flows. ``guests`` have no core of their own.
    """
    kept = _by_nf(running or {})
    instances: dict[str, tuple[Instance, ...]] = {}
    for node in graph.nodes:
        if node.kind == "nf":
            spans = kept.get(node.name) or {
                index: (span, span) for index, span in enumerate(even_spans(counts[node.name]))
            }
            load, kind = loads.nodes[node.name], catalog[node.type]
            instances[node.name] = tuple(
                Instance(
                    node.name,
                    i,
                    node.type,
                    span,
                    reach,
                    0 if f"{node.name}.{i}" in guests else kind.cores,
                    load * span.share,
                )
                for i, (span, reach) in sorted(spans.items())
            )
    counts = {nf: len(group) for nf, group in instances.items()}
    types = {node.name: catalog[node.type] for node in graph.nodes if node.kind == "nf"}
    steering = _steering(graph, types, counts, loads, hashes or {})
    edges = [
        made
        for edge in graph.edges
        for made in _between(edge, instances, steering, types, loads.edges)
    ]
    ports = tuple(node.name for node in graph.nodes if node.kind == "port")
    flat = tuple(instance for group in instances.values() for instance in group)
    return IGraph(ports, flat, tuple(edges), steering)


def _by_nf(
    running: Mapping[str, tuple[Span, Span]],
) -> dict[str, dict[int, tuple[Span, Span]]]:
    """Span and reach of running instances by the number of each."""
    found: dict[str, dict[int, tuple[Span, Span]]] = {}
    for name, spans in running.items():
        nf, _, index = name.rpartition(".")
        found.setdefault(nf, {})[int(index)] = spans
    return found


def _steering(
    graph: PGraph,
    types: Mapping[str, NfType],
    counts: Mapping[str, int],
    loads: Loads,
    hashes: Mapping[str, str],
) -> dict[str, Steering]:
    """How each NF tells flows apart, in the order of the graph."""
    steering: dict[str, Steering] = {}
    for name in nx.topological_sort(graph.nfs):
        if name in hashes:
            steering[name] = Steering(SWITCH_HASHES[hashes[name]], hashes[name])
            continue
        steering[name] = Steering(types[name].grouping)
        before = [edge.source for edge in graph.edges_to(name)]
        before.sort(key=lambda source: -loads.edges[source, name])
        for source in before:
            if source in types and counts[source] > 1:
                given = steering[source]
                bring = {
                    s in types and steering[s] == given and given.behind(types[s]) for s in before
                }
                arrives = given.behind(types[source]) if given.switch_hash is None else all(bring)
                own = types[name].aggregates
                if arrives and (own is None or given.affinity.keeps_together(own)):
                    steering[name] = given
                    break
    return steering


def _between(
    edge: PEdge,
    instances: Mapping[str, Sequence[Instance]],
    steering: Mapping[str, Steering],
    types: Mapping[str, NfType],
    rates: Mapping[tuple[str, str], float],
) -> list[IEdge]:
    """Edges between the instances of both ends of an edge."""
    rate = rates[edge.source, edge.target]
    sources = [(i.name, i.reach) for i in instances.get(edge.source, ())]
    targets = [(i.name, i.span) for i in instances.get(edge.target, ()) if not i.span.empty]
    sources, targets = sources or [(edge.source, ALL_IDS)], targets or [(edge.target, ALL_IDS)]
    same = (
        {edge.source, edge.target} <= {*types}
        and steering[edge.source] == steering[edge.target]
        and steering[edge.source].behind(types[edge.source])
    )
    made = []
    for source, have in sources:
        for target, want in targets:
            if not same:
                span = None if want == ALL_IDS else want
                made.append(IEdge(source, target, edge, span, rate * have.share * want.share))
                continue
            both = have.meets(want)
            if both is not None:
                span = None if both == have else want
                made.append(IEdge(source, target, edge, span, rate * both.share))
    return made
