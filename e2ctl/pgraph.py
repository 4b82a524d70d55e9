# SPDX-License-Identifier: BSD-3-Clause
"""The policy graph: the union of all pipelines, one node per NF and port.

A pipeline's class limits the edges that leave ports. Behind them a packet stays in its pipeline by
where it is, except in an NF that several pipelines share and leave differently: there the class
decides once more. That is impossible after an NF that rewrites what the class tests, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import networkx as nx

from bess_plugins.sources import Location
from e2ctl import _svg
from e2ctl.filters import (
    ANY,
    And,
    Attr,
    Const,
    Expr,
    Match,
    Not,
    Or,
    Otherwise,
    Term,
    attributes,
    bind,
    fields,
)
from e2ctl.nfs import Catalog
from e2ctl.policy import Edge, Pipeline, Policy, PolicyError

__all__ = ["PEdge", "PGraph", "PNode", "build", "diff"]

_UNITS = ((1e12, "Tbps"), (1e9, "Gbps"), (1e6, "Mbps"), (1e3, "kbps"), (1.0, "bps"))


@dataclass(frozen=True)
class PNode:
    """An NF, whose ``type`` is described by the catalog, or a port."""

    name: str
    kind: Literal["nf", "port"]
    type: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" : {self.type}" if self.type else "")


@dataclass(frozen=True)
class PEdge:
    """Traffic between two nodes. ``filter`` is complete, ``label`` as it was written.

    It comes in by the port ``enters`` of its target, if that has ports, and the gate ``igate``.
    """

    source: str
    target: str
    filter: Expr = ANY
    label: str = ""
    rate: float | None = None
    where: Location = field(default=Location("", 0, 0), compare=False)
    enters: str = ""
    igate: int = 0

    def __str__(self) -> str:
        condition = f" [{self.label}]" if self.label else ""
        rate = f" @ {format_rate(self.rate)}" if self.rate is not None else ""
        port = f".{self.enters}" if self.enters else ""
        return f"{self.source}{condition} -> {self.target}{port}{rate}"


@dataclass(frozen=True)
class PGraph:
    """An immutable policy graph."""

    nodes: tuple[PNode, ...]
    edges: tuple[PEdge, ...]

    @cached_property
    def digraph(self) -> nx.DiGraph[str]:
        """The same as a frozen networkx graph; edges hold their `PEdge` as ``edge``."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, node=node)
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, edge=edge)
        frozen: nx.DiGraph[str] = nx.freeze(graph)
        return frozen

    @cached_property
    def nfs(self) -> nx.DiGraph[str]:
        """Its NFs alone, which have no cycle, in the order of the graph."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(node.name for node in self.nodes if node.kind == "nf")
        graph.add_edges_from(
            (edge.source, edge.target)
            for edge in self.edges
            if edge.source in graph and edge.target in graph
        )
        frozen: nx.DiGraph[str] = nx.freeze(graph)
        return frozen

    def node(self, name: str) -> PNode:
        """The node of a name."""
        found: Any = self.digraph.nodes[name]["node"]
        assert isinstance(found, PNode)
        return found

    def edges_from(self, name: str) -> tuple[PEdge, ...]:
        """Out edges of a node."""
        return tuple(edge for edge in self.edges if edge.source == name)

    def edges_to(self, name: str) -> tuple[PEdge, ...]:
        """In edges of a node."""
        return tuple(edge for edge in self.edges if edge.target == name)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.nodes), *map(str, self.edges)]) + "\n"

    def to_svg(self) -> str:
        """Draw the graph from left to right. A port used both ways appears at both ends."""
        boxes: dict[str, _svg.Box] = {}
        for node in self.nodes:
            if node.kind == "nf":
                boxes[node.name] = _svg.Box(node.name, node.type)
                continue
            if self.edges_from(node.name):
                boxes[f"{node.name}>"] = _svg.Box(node.name, "port in", rounded=True)
            if self.edges_to(node.name):
                boxes[f">{node.name}"] = _svg.Box(node.name, "port out", rounded=True)
        ports = {node.name for node in self.nodes if node.kind == "port"}
        arrows = []
        for edge in self.edges:
            source = f"{edge.source}>" if edge.source in ports else edge.source
            target = f">{edge.target}" if edge.target in ports else edge.target
            rate = format_rate(edge.rate) if edge.rate is not None else ""
            arrows.append(_svg.Arrow(source, target, edge.label, rate))
        return _svg.draw(boxes, arrows)


def format_rate(bits: float) -> str:
    """Write bits per second with the largest unit that keeps the number at 1 or more."""
    for scale, unit in _UNITS:
        if bits >= scale:
            return f"{bits / scale:g}{unit}"
    return f"{bits:g}bps"


def diff(old: PGraph, new: PGraph) -> tuple[str, ...]:
    """Lines to take away (``-``) and to add (``+``) to get from one graph to another."""
    before, after = str(old).splitlines(), str(new).splitlines()
    gone = [f"- {line}" for line in before if line not in after]
    return (*gone, *(f"+ {line}" for line in after if line not in before))


def build(policy: Policy, catalog: Catalog) -> PGraph:
    """Check a policy against NF descriptions and merge its pipelines."""
    for name, kind in policy.nfs.items():
        if kind not in catalog:
            known = ", ".join(catalog.types)
            message = f"NF '{name}' has the unknown type '{kind}'; described are {known}"
            raise PolicyError(policy.declared[name], message)
    for pipeline in policy.pipelines:
        for edge in pipeline.edges:
            _check_port(edge.source, edge.leaves, edge.where, policy, catalog)
            _check_port(edge.target, edge.enters, edge.arrives, policy, catalog)
            _check_attributes(edge, policy, catalog)
    _check_cycles(policy)
    for pipeline in policy.pipelines:
        _check_reach(pipeline, policy)
    merged: dict[tuple[str, str], PEdge] = {}
    for pipeline in policy.pipelines:
        for made in _complete(pipeline, policy, catalog):
            key = (made.source, made.target)
            if key in merged and merged[key].enters != made.enters:
                message = f"another pipeline leads {made.source} to '{merged[key].enters}' of"
                raise PolicyError(made.where, f"{message} {made.target}; expected the same here")
            merged[key] = _union(merged[key], made) if key in merged else made
    edges = tuple(merged.values())
    used = {name for edge in edges for name in (edge.source, edge.target)}
    nodes = [
        PNode(name, "nf", policy.nfs[name]) if name in policy.nfs else PNode(name, "port")
        for name in policy.declared
        if name in used
    ]
    return PGraph(tuple(nodes), edges)


def _union(first: PEdge, second: PEdge) -> PEdge:
    rates = [edge.rate for edge in (first, second) if edge.rate is not None]
    rate = sum(rates) if rates else None
    if first.filter == second.filter:
        return replace(first, rate=rate)
    if ANY in (first.filter, second.filter):
        return replace(first, filter=ANY, label="", rate=rate)
    label = f"{_either(first.label)} or {_either(second.label)}"
    return replace(first, filter=Or((first.filter, second.filter)), label=label, rate=rate)


def _either(label: str) -> str:
    return f"({label})" if " " in label and not label.startswith("(") else label


def _check_port(node: str, port: str, where: Location, policy: Policy, catalog: Catalog) -> None:
    ports = catalog[policy.nfs[node]].ports if node in policy.nfs else {}
    known = ", ".join(f"{node}.{name}" for name in ports)
    if port and not ports:
        raise PolicyError(where, f"'{node}.{port}': {node} has no ports that have names")
    if port and port not in ports:
        raise PolicyError(where, f"'{node}.{port}': {node} has no such port; expected {known}")
    if ports and not port:
        raise PolicyError(where, f"'{node}' has several ports; expected one of {known}")


def _check_attributes(edge: Edge, policy: Policy, catalog: Catalog) -> None:
    for attr in attributes(edge.filter):
        where = Location(policy.file, attr.line, attr.column)
        name = f"{attr.node}.{attr.name}"
        if attr.node not in policy.declared:
            raise PolicyError(where, f"'{name}': no NF is named '{attr.node}'")
        if attr.node != edge.source:
            message = f"'{name}' is tested on an edge that leaves {edge.source}, not {attr.node}"
            raise PolicyError(where, message)
        exported = catalog[policy.nfs[attr.node]].bindings if attr.node in policy.nfs else {}
        if attr.name not in exported:
            known = ", ".join(exported) or "none"
            message = f"'{name}': {attr.node} exports no '{attr.name}'; its attributes: {known}"
            raise PolicyError(where, message)
        if exported[attr.name].encode(attr.value) is None:
            value = str(attr.value).lower() if attr.value in (True, False) else repr(attr.value)
            message = f"'{name}' is never {value}; expected {exported[attr.name].expected()}"
            raise PolicyError(where, message)


def _check_cycles(policy: Policy) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    places: dict[tuple[str, str], Location] = {}
    for pipeline in policy.pipelines:
        for edge in pipeline.edges:
            if edge.source in policy.nfs and edge.target in policy.nfs:
                graph.add_edge(edge.source, edge.target)
                places[edge.source, edge.target] = edge.where
    try:
        cycle = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return
    steps = [(step[0], step[1]) for step in cycle]
    where = max(places[step] for step in steps)
    text = " -> ".join([*(source for source, _ in steps), steps[0][0]])
    raise PolicyError(where, f"the policy has a cycle: {text}")


def _check_reach(pipeline: Pipeline, policy: Policy) -> None:
    reached = {edge.source for edge in pipeline.edges if edge.source not in policy.nfs}
    waiting = list(pipeline.edges)
    while ready := [edge for edge in waiting if edge.source in reached]:
        reached |= {edge.target for edge in ready if edge.target in policy.nfs}
        waiting = [edge for edge in waiting if edge not in ready]
    if waiting:
        edge = waiting[0]
        message = f"no traffic of pipeline '{pipeline.name}' reaches '{edge.source}'"
        raise PolicyError(edge.where, message + "; expected a path from a port to it")


def _complete(pipeline: Pipeline, policy: Policy, catalog: Catalog) -> list[PEdge]:
    """Edges of a pipeline with the class and ``otherwise`` written out."""
    made = []
    for source in dict.fromkeys(edge.source for edge in pipeline.edges):
        siblings = [edge for edge in pipeline.edges if edge.source == source]
        limited = pipeline.traffic != ANY and (
            source not in policy.nfs or _leaves_differently(source, policy)
        )
        if limited and source in policy.nfs:
            _check_mangling(source, pipeline, siblings[0], policy, catalog)
        for edge in siblings:
            others = [
                other.filter
                for other in siblings
                if other.filter != Otherwise() and other.leaves == edge.leaves
            ]
            expr = edge.filter
            if expr == Otherwise():
                expr = Not(Or(tuple(others))) if others else ANY
            parts = [str(edge.filter)] if edge.filter != ANY else []
            if limited:
                expr = pipeline.traffic if expr == ANY else And((pipeline.traffic, expr))
                parts.insert(0, str(pipeline.traffic))
            if edge.leaves:
                port = Attr(source, edge.leaves, True)
                expr = port if expr == ANY else And((port, expr))
                parts.insert(0, str(port))
            label = " and ".join(f"({p})" if " or " in p and len(parts) > 1 else p for p in parts)
            expr = bind(expr, lambda attr: attr)
            ports = catalog[policy.nfs[edge.target]].ports if edge.enters else {}
            igate = ports.get(edge.enters, 0)
            made.append(
                PEdge(source, edge.target, expr, label, edge.rate, edge.where, edge.enters, igate)
            )
    return made


def _leaves_differently(name: str, policy: Policy) -> bool:
    exits = []
    for pipeline in policy.pipelines:
        edges = {
            (e.target, e.enters, e.leaves, e.filter)
            for e in map(_plain, pipeline.edges)
            if e.source == name
        }
        if edges or any(edge.target == name for edge in pipeline.edges):
            exits.append(edges)
    return any(edges != exits[0] for edges in exits)


def _plain(edge: Edge) -> Edge:
    """Without places in the file, which would tell equal filters apart."""
    return replace(edge, filter=_unplaced(edge.filter))


def _unplaced(expr: Expr) -> Expr:
    return bind(expr, lambda attr: replace(attr, line=0, column=0))


def _check_mangling(
    name: str, pipeline: Pipeline, edge: Edge, policy: Policy, catalog: Catalog
) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph((e.source, e.target) for e in pipeline.edges)
    tested = fields(pipeline.traffic)
    for nf in sorted({name, *nx.ancestors(graph, name)} & set(policy.nfs)):
        for changed in catalog[policy.nfs[nf]].mangles:
            if changed in tested:
                raise PolicyError(
                    edge.where,
                    f"pipelines share '{name}', and the class of '{pipeline.name}' tests "
                    f"{changed}, which {nf} rewrites; give each pipeline an NF of its own",
                )


def resolve(attr: Attr, gate: int, catalog: Catalog, types: Mapping[str, str]) -> Expr:
    """What an attribute means for packets that leave its NF by one gate."""
    bound = catalog[types[attr.node]].bindings[attr.name]
    number = bound.encode(attr.value)
    assert number is not None
    if bound.method == "port":
        return Const(number == gate)
    return _metadata(attr, number, bound.size)


def _metadata(attr: Attr, number: int, size: int) -> Match:
    mask = (1 << 8 * size) - 1
    return Match(str(attr), ((Term(f"meta.{attr.name}", number, mask),),))


def bound_filters(
    edges: Sequence[PEdge], gate: int, catalog: Catalog, types: Mapping[str, str]
) -> list[Expr]:
    """Filters of edges for packets that leave their node by one gate."""
    return [bind(e.filter, lambda a: resolve(a, gate, catalog, types)) for e in edges]
