# SPDX-License-Identifier: BSD-3-Clause
"""From a policy graph to what a dataplane is to create, as data.

Each NF is a module of its own name, each port a ``PortInc`` named ``in_PORT``, a ``PortOut`` named
``out_PORT``, or both. Packets that leave a node follow the edges whose filter they pass:

* always the same edges: no classifier;
* otherwise a ``MetadataMatch`` named ``match_NODE`` with one output gate per set of edges;
* several edges at once: a ``Replicate`` named ``copy_...`` behind that gate;
* no edge: a ``Sink`` named ``drop_NODE``, which counts the packets that no edge matches.

Attributes bound to ports are known at each output gate of the NF. Such an NF has a classifier
``match_NODE_GATE`` per gate, or a direct link where nothing else is tested. Where several links
enter a node by one gate they meet in a ``Merge`` named ``merge_NODE``, or ``merge_NODE_GATE``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from e2ctl.filters import FIELD_BITS, VERSION_OF, FilterError, Rule, Term, rule_list
from e2ctl.nfs import Catalog
from e2ctl.pgraph import PEdge, PGraph, bound_filters
from e2ctl.policy import PolicyError

__all__ = [
    "MAX_COPIES",
    "EdgeTaps",
    "Link",
    "LocalPlan",
    "ModuleSpec",
    "PortSpec",
    "Role",
    "classifier",
    "wire",
]

# Output gates of a Replicate.
MAX_COPIES = 32

Role = Literal["input", "output", "nf", "classifier", "copy", "merge", "drop"]


@dataclass(frozen=True)
class PortSpec:
    """A port, and which ways packets pass it."""

    name: str
    incoming: bool
    outgoing: bool


@dataclass(frozen=True)
class ModuleSpec:
    """A module to create, for one node of the policy graph."""

    name: str
    mclass: str
    role: Role
    node: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A connection between gates."""

    source: str
    ogate: int
    target: str
    igate: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.ogate} -> {self.igate}:{self.target}"


@dataclass(frozen=True)
class EdgeTaps:
    """The output gates whose packets, together, are those of an edge."""

    source: str
    target: str
    label: str
    taps: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class LocalPlan:
    """Everything to create."""

    ports: tuple[PortSpec, ...]
    modules: tuple[ModuleSpec, ...]
    links: tuple[Link, ...]
    edges: tuple[EdgeTaps, ...]

    def __str__(self) -> str:
        ways = {(True, False): "in", (False, True): "out", (True, True): "in and out"}
        ports = [f"port {p.name} {ways[p.incoming, p.outgoing]}" for p in self.ports]
        modules = [f"module {m.name} {m.mclass} {dict(m.args)}" for m in self.modules]
        return "\n".join([*ports, *modules, *(f"link {link}" for link in self.links)]) + "\n"


def wire(graph: PGraph, catalog: Catalog) -> LocalPlan:
    """LocalPlan modules and links for a policy graph."""
    return _Wiring(graph, catalog).plan()


class _Wiring:
    def __init__(self, graph: PGraph, catalog: Catalog) -> None:
        self.graph = graph
        self.catalog = catalog
        self.types = {node.name: node.type for node in graph.nodes if node.kind == "nf"}
        self.modules: dict[str, ModuleSpec] = {}
        self.links: list[Link] = []
        self.entering: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self.taps: dict[tuple[str, str], list[tuple[str, int]]] = {}

    def plan(self) -> LocalPlan:
        ports = []
        for node in self.graph.nodes:
            out_edges = self.graph.edges_from(node.name)
            in_edges = self.graph.edges_to(node.name)
            if node.kind == "nf":
                kind = self.catalog[node.type]
                mclass = self.catalog.mclass(node.type)
                self.add(ModuleSpec(node.name, mclass, "nf", node.name, kind.args_of(0)))
                for gate in kind.gates:
                    self.leave(node.name, node.name, gate, out_edges, len(kind.gates) > 1)
                continue
            ports.append(PortSpec(node.name, bool(out_edges), bool(in_edges)))
            args = {"port": node.name}
            if out_edges:
                name = self.add(ModuleSpec(f"in_{node.name}", "PortInc", "input", node.name, args))
                self.leave(node.name, name, 0, out_edges, False)
            if in_edges:
                self.add(ModuleSpec(f"out_{node.name}", "PortOut", "output", node.name, args))
        for (target, igate), sources in self.entering.items():
            self.enter(target, igate, sources)
        edges = [
            EdgeTaps(e.source, e.target, e.label, tuple(self.taps.get((e.source, e.target), ())))
            for e in self.graph.edges
        ]
        return LocalPlan(
            tuple(ports), tuple(self.modules.values()), tuple(self.links), tuple(edges)
        )

    def add(self, module: ModuleSpec) -> str:
        if module.name in self.modules:
            first = self.graph.edges[0].where
            message = f"the name '{module.name}' is needed for {module.node}; rename that NF"
            raise PolicyError(first, message)
        self.modules[module.name] = module
        return module.name

    def leave(
        self, node: str, module: str, gate: int, edges: Sequence[PEdge], several: bool
    ) -> None:
        """Lead packets from an output gate of a node along its edges."""
        try:
            rules = rule_list(bound_filters(edges, gate, self.catalog, self.types))
        except FilterError as error:
            raise PolicyError(edges[0].where, str(error)) from None
        suffix = f"{node}_{gate}" if several else node
        if len(rules) == 1:
            self.send(node, module, gate, self.chosen(edges, rules[0]), suffix)
            return
        outcomes = list(dict.fromkeys(rule.edges for rule in rules))
        name = f"match_{suffix}"
        args = classifier(rules, outcomes, self.sizes(node))
        self.add(ModuleSpec(name, "MetadataMatch", "classifier", node, args))
        self.links.append(Link(module, gate, name))
        for ogate, outcome in enumerate(outcomes):
            targets = [edges[index] for index in sorted(outcome)]
            self.send(node, name, ogate, targets, f"{suffix}_{ogate}")

    @staticmethod
    def chosen(edges: Sequence[PEdge], rule: Rule) -> list[PEdge]:
        return [edges[index] for index in sorted(rule.edges)]

    def sizes(self, node: str) -> dict[str, int]:
        """Sizes of a node's metadata that differ from the classifier's assumption."""
        if node not in self.types:
            return {}
        attributes = self.catalog[self.types[node]].attributes
        return {f"meta.{n}": a.size for n, a in attributes.items() if a.method == "metadata"}

    def send(self, node: str, module: str, gate: int, edges: Sequence[PEdge], suffix: str) -> None:
        """Lead all packets of a gate along all of the given edges."""
        if not edges:
            name = f"drop_{node}"
            if name not in self.modules or self.modules[name].role != "drop":
                self.add(ModuleSpec(name, "Sink", "drop", node))
            self.links.append(Link(module, gate, name))
            return
        taps = [(module, gate)]
        if len(edges) > MAX_COPIES:
            message = f"a packet at {node} may follow {len(edges)} edges; at most {MAX_COPIES} can"
            raise PolicyError(edges[MAX_COPIES].where, message)
        if len(edges) > 1:
            copies = tuple(range(len(edges)))
            name = f"copy_{suffix}"
            self.add(ModuleSpec(name, "Replicate", "copy", node, {"gates": list(copies)}))
            self.links.append(Link(module, gate, name))
            taps = [(name, copy) for copy in copies]
        for edge, tap in zip(edges, taps, strict=True):
            self.taps.setdefault((edge.source, edge.target), []).append(tap)
            self.entering.setdefault((edge.target, edge.igate), []).append(tap)

    def enter(self, target: str, igate: int, sources: Sequence[tuple[str, int]]) -> None:
        name = target if target in self.types else f"out_{target}"
        if len(sources) == 1:
            self.links.append(Link(*sources[0], name, igate))
            return
        suffix = f"_{igate}" if igate else ""
        merge = self.add(ModuleSpec(f"merge_{target}{suffix}", "Merge", "merge", target))
        for number, (module, gate) in enumerate(sources):
            self.links.append(Link(module, gate, merge, number))
        self.links.append(Link(merge, 0, name, igate))


def classifier(
    rules: Sequence[Rule], outcomes: Sequence[frozenset[int]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Arguments of a ``MetadataMatch``; the last rule has no terms and is its default.

    Of rules with the same terms only the first can decide, and the module refuses the others.
    """
    distinct: dict[tuple[Term, ...], Rule] = {}
    for rule in rules[:-1]:
        distinct.setdefault(_said_once(rule.terms), rule)
    args: dict[str, Any] = {
        "rules": [
            {
                "gate": outcomes.index(rule.edges),
                "priority": rule.priority,
                "terms": [_term(term) for term in terms],
            }
            for terms, rule in distinct.items()
        ],
        "default_gate": outcomes.index(rules[-1].edges),
    }
    wide = {
        name.removeprefix("meta."): sizes[name]
        for name in sorted(_fields(rules))
        if sizes.get(name, 1) != 1
    }
    return {**args, "meta": wide} if wide else args


def _said_once(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Without the version that an address says already."""
    has_address = any(term.field in VERSION_OF for term in terms)
    return tuple(term for term in terms if not (has_address and term.field == "ip.version"))


def _fields(rules: Iterable[Rule]) -> set[str]:
    return {term.field for rule in rules for term in rule.terms}


def _term(term: Term) -> dict[str, Any]:
    bits = FIELD_BITS.get(term.field, 64)
    if bits <= 64:
        return {"field": term.field, "value": term.value, "mask": term.mask}
    return {
        "field": term.field,
        "value_bin": term.value.to_bytes(bits // 8, "big"),
        "mask_bin": term.mask.to_bytes(bits // 8, "big"),
    }
