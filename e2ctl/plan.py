# SPDX-License-Identifier: BSD-3-Clause
"""From a policy to everything that a cluster is to have, as data.

``policy -> policy graph -> offload -> sizes -> instance graph -> layout -> routing -> plan``: each
step is a function of immutable values that can be printed, drawn, tested and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import ndiff
from typing import Any

from e2ctl import igraph as igraphs
from e2ctl.changes import Kind
from e2ctl.directions import split_connections
from e2ctl.hardware import Hardware
from e2ctl.igraph import IGraph, Instance, Span
from e2ctl.layout import Layout, lay_out
from e2ctl.nfs import Catalog
from e2ctl.offload import offload
from e2ctl.pgraph import PEdge, PGraph, build
from e2ctl.policy import Policy
from e2ctl.routing import (
    PlanError,
    Routing,
    SwitchWork,
    egress_tag,
    entry_of,
    route,
    switch_work,
)
from e2ctl.server_plan import ServerPlan
from e2ctl.server_wiring import wire_server
from e2ctl.sizing import estimate, size
from e2ctl.switch_rules import (
    CLASSIFY,
    STEER,
    Action,
    SwitchRule,
    exact,
    flow_terms,
    id_terms,
    spelled_out,
)

__all__ = ["Detour", "FlowException", "Plan", "Running", "diff", "make_plan", "switch_rules"]

# Types of VLAN tags.
TAGS = (0x8100, 0x88A8)
# Priorities: exceptions are above spans, filters above forwarding, wrong tags above all.
SPAN, EXCEPTION = 100, 200
_FORWARD, _EGRESS, _FILTER, _TAGGED = 10, 11, 100, 60_000


@dataclass(frozen=True)
class Detour:
    """New flows of ``ids`` go on to ``target``: an instance's own FlowSteer passes them on.

    Not any more where a drain is taken back ("resume"); then active ones still do. An instance that
    is being drained may be a guest on the core of ``host``, which is on the same server.
    """

    kind: Kind
    target: str
    ids: Span
    host: str = ""


@dataclass(frozen=True)
class FlowException:
    """A flow that stays with ``instance`` though its id is in another's span.

    ``flow`` holds what a FlowSteer calls it: src, dst, sport, dport and proto, where they count.
    """

    instance: str
    flow: tuple[tuple[str, int | str], ...]


@dataclass(frozen=True)
class Running:
    """What of a running plan a new one keeps.

    Servers, types, spans and reach of instances, numbers of entries, and splits that are under way.
    """

    servers: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, tuple[Span, Span]] = field(default_factory=dict)
    entries: Mapping[str, int] = field(default_factory=dict)
    detours: Mapping[str, Detour] = field(default_factory=dict)
    exceptions: tuple[FlowException, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)

    def spans_for(self, policy: Policy) -> dict[str, tuple[Span, Span]]:
        """Span and reach of the instances whose NF has still the type that it had."""
        return {
            name: spans
            for name, spans in self.spans.items()
            if policy.nfs.get(name.rpartition(".")[0]) == self.types[name]
        }


@dataclass(frozen=True)
class Plan:
    """All that is to be, and how it came about."""

    pgraph: PGraph
    igraph: IGraph
    layout: Layout
    routing: Routing
    servers: Mapping[str, ServerPlan]
    switch: tuple[SwitchRule, ...]
    offloaded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    detours: Mapping[str, Detour] = field(default_factory=dict)
    exceptions: tuple[FlowException, ...] = ()

    def instance(self, name: str) -> Instance:
        """The instance of a name; a `PlanError` where there is none."""
        for instance in self.igraph.instances:
            if instance.name == name:
                return instance
        known = ", ".join(instance.name for instance in self.igraph.instances)
        raise PlanError(f"there is no instance '{name}'; there are {known}")

    @property
    def running(self) -> Running:
        """What the next plan is to keep of this one."""
        numbers = {name: number for name, _, number in self.entries}
        spans = {i.name: (i.span, i.reach) for i in self.igraph.instances}
        types = {i.name: i.type for i in self.igraph.instances}
        return Running(self.layout.servers, spans, numbers, self.detours, self.exceptions, types)

    def __str__(self) -> str:
        parts = [str(self.igraph), str(self.layout)]
        parts += [f"the switch does {name}\n" for name in self.offloaded]
        parts += [f"entry {number} {name} on {server}\n" for name, server, number in self.entries]
        parts += [
            f"{name} passes new flows of {detour.ids} on to {detour.target}: {detour.kind}"
            f"{f', on the core of {detour.host}' if detour.host else ''}\n"
            for name, detour in self.detours.items()
        ]
        parts += [f"switch: {rule}\n" for rule in self.switch]
        parts += map(str, self.servers.values())
        parts += [f"note: {note}\n" for note in self.notes]
        return "".join(parts)

    @property
    def entries(self) -> tuple[tuple[str, str, int], ...]:
        """Name, server and number of each entry."""
        found = self.routing.entries.items()
        return tuple((name, server, number) for name, (server, number) in found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "instances": {
                i.name: {
                    "nf": i.nf,
                    "type": i.type,
                    "server": self.layout.servers[i.name],
                    "flow_ids": [i.span.start, i.span.end],
                    "load_bps": i.load_bps,
                }
                for i in self.igraph.instances
            },
            "edges": [
                {
                    "source": e.source,
                    "target": e.target,
                    "filter": e.edge.label,
                    "flow_ids": [e.span.start, e.span.end] if e.span else None,
                    "rate_bps": e.rate,
                }
                for e in self.igraph.edges
            ],
            "entries": {name: number for name, _, number in self.entries},
            "cross_bps": self.layout.cross_bps,
            "saturation": self.layout.saturation,
            "offloaded": list(self.offloaded),
            "switch": [str(rule) for rule in self.switch],
            "servers": {name: _plain(asdict(plan)) for name, plan in self.servers.items()},
            "notes": list(self.notes),
        }


def _plain(value: Any) -> Any:
    """Bytes as hexadecimal text, tuples as lists."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def diff(old: Plan, new: Plan) -> tuple[str, ...]:
    """Lines to take away (``- ``) and to add (``+ ``) to get from one plan to another."""
    lines = ndiff(str(old).splitlines(), str(new).splitlines())
    return tuple(line for line in lines if line.startswith(("- ", "+ ")))


@dataclass(frozen=True)
class _Sized:
    """A policy as instances that have no server yet, and what the switch does of it."""

    pgraph: PGraph
    igraph: IGraph
    work: SwitchWork
    offloaded: tuple[str, ...]
    notes: tuple[str, ...]


def instances_for(
    policy: Policy,
    catalog: Catalog,
    hardware: Hardware,
    running: Running,
    counts: Mapping[str, int] | None = None,
) -> _Sized:
    """How many instances of each NF there are to be, and what passes between them."""
    pgraph, offloaded = offload(build(policy, catalog), catalog, hardware.switch)
    loads = estimate(pgraph)
    sizes = size(pgraph, catalog, hardware, loads)
    wanted = {**sizes.counts, **{nf: n for nf, n in (counts or {}).items() if nf in sizes.counts}}
    work = switch_work(pgraph, catalog, hardware)
    guests = [name for name, detour in running.detours.items() if detour.host]
    spans = running.spans_for(policy)
    igraph = igraphs.build(pgraph, catalog, wanted, loads, work.hashes, spans, guests)
    notes = (*sizes.notes, *split_connections(pgraph, catalog))
    return _Sized(pgraph, igraph, work, offloaded, notes)


def make_plan(
    policy: Policy,
    catalog: Catalog,
    hardware: Hardware,
    *,
    running: Running | None = None,
    counts: Mapping[str, int] | None = None,
    strategy: str = "e2",
    seed: int = 0,
) -> Plan:
    """Plan a policy for a cluster. ``counts`` overrides how many instances some NFs get.

    Raises `SourceError` for what is wrong in a file, `PlacementError` where the cluster is too
    small, and `PlanError` where the switch can't do what it would have to.
    """
    before = running or Running()
    sized = instances_for(policy, catalog, hardware, before, counts)
    pgraph, igraph = sized.pgraph, sized.igraph
    layout = lay_out(
        igraph, catalog, hardware, running=before.servers, strategy=strategy, seed=seed
    )
    routing = route(pgraph, igraph, layout, sized.work, hardware, before.entries)
    names = before.spans_for(policy).keys()
    detours = {name: d for name, d in before.detours.items() if {name, d.target} <= names}
    exceptions = tuple(e for e in before.exceptions if e.instance in names)
    rules = switch_rules(pgraph, igraph, routing, hardware, catalog, exceptions)
    if len(rules) > hardware.switch.table:
        raise PlanError(
            f"the switch would need {len(rules):,} entries and has {hardware.switch.table:,}: "
            f"{len(rules) - hardware.switch.table:,} are missing; use fewer port ranges and "
            f"negations on edges that leave ports, or fewer instances behind them"
        )
    changes = {
        name: (d.target, None if d.kind == "resume" else d.ids) for name, d in detours.items()
    }
    places = layout.servers
    hosts = {
        name: d.host for name, d in detours.items() if d.host and places[name] == places.get(d.host)
    }
    servers = {
        name: wire_server(name, pgraph, igraph, layout, routing, catalog, hardware, changes, hosts)
        for name in hardware.servers
    }
    return Plan(
        pgraph,
        igraph,
        layout,
        routing,
        servers,
        rules,
        sized.offloaded,
        sized.notes,
        detours,
        exceptions,
    )


def switch_rules(
    pgraph: PGraph,
    igraph: IGraph,
    routing: Routing,
    hardware: Hardware,
    catalog: Catalog,
    exceptions: Sequence[FlowException] = (),
) -> tuple[SwitchRule, ...]:
    """The switch's tables."""
    rules: list[SwitchRule] = []
    classes = {nf: number for number, nf in enumerate(routing.switch.hashes, 1)}
    # The switch could not put its own tags in front of these.
    tag = exact("tagged", 1)
    unwanted = [(tag, exact("eth.type", t)) for t in TAGS] if hardware.switch.tagged else [(tag,)]
    for port, numbers in hardware.switch.ports.items():
        for number in numbers:
            here = exact("port", number)
            if port not in igraph.ports or not pgraph.edges_from(port):
                # Nobody outside may send what looks like traffic between servers.
                rules.append(SwitchRule(CLASSIFY, _FILTER, (here,), ()))
                continue
            rules += [SwitchRule(CLASSIFY, _TAGGED, (here, *terms), ()) for terms in unwanted]
            if port not in routing.switch.classified:
                actions = _to_entry(port, routing, hardware)
                rules.append(SwitchRule(CLASSIFY, _FILTER, (here,), actions))
                continue
            edges = pgraph.edges_from(port)
            for rule in routing.switch.classified[port]:
                followed = [edges[index] for index in rule.edges]
                actions = _towards(followed, routing, hardware, igraph, classes)
                priority = _FILTER + rule.priority
                rules += [
                    SwitchRule(CLASSIFY, priority, (here, *terms), actions)
                    for terms in spelled_out(rule.terms)
                ]
    for port in igraph.ports:
        if pgraph.edges_to(port):
            number = egress_tag(hardware, port)
            actions = (Action("untag"), Action("output", number))
            rules.append(SwitchRule(CLASSIFY, _EGRESS, (exact("tag", number),), actions))
    for server in hardware.servers.values():
        mac = exact("mac", int(server.mac.replace(":", ""), 16))
        rules.append(SwitchRule(CLASSIFY, _FORWARD, (mac,), (Action("output", server.port),)))
    for nf, number in classes.items():
        rules += steer_rules(nf, number, igraph, routing, hardware)
        grouping = catalog[igraph.of(nf)[0].type].grouping
        for exception in exceptions:
            if exception.instance.rpartition(".")[0] == nf:
                actions = (Action("tag_id"), *_to_entry(exception.instance, routing, hardware))
                rules += [
                    SwitchRule(STEER, EXCEPTION, (exact("class", number), *terms), actions)
                    for terms in flow_terms(exception.flow, grouping)
                ]
    return tuple(rules)


def steer_rules(
    nf: str, number: int, igraph: IGraph, routing: Routing, hardware: Hardware
) -> Iterator[SwitchRule]:
    """How the switch divides an NF's traffic among its instances."""
    for instance in igraph.of(nf):
        if instance.span.empty:
            continue
        actions = (Action("tag_id"), *_to_entry(instance.name, routing, hardware))
        for terms in id_terms(instance.span):
            yield SwitchRule(STEER, SPAN, (exact("class", number), *terms), actions)


def _to_entry(name: str, routing: Routing, hardware: Hardware) -> tuple[Action, ...]:
    server, number = routing.entries[name]
    return Action("tag", number), Action("output", hardware.servers[server].port)


def _towards(
    edges: Sequence[PEdge],
    routing: Routing,
    hardware: Hardware,
    igraph: IGraph,
    classes: Mapping[str, int],
) -> tuple[Action, ...]:
    """What to do with packets that follow one edge, or none."""
    if not edges:
        return ()
    target = edges[0].target
    if target in igraph.ports:
        return (Action("output", egress_tag(hardware, target)),)
    if target in classes:
        return Action("hash", routing.switch.hashes[target]), Action("class", classes[target])
    if edges[0].enters:  # it has one instance
        target = entry_of(igraph.of(target)[0].name, edges[0].igate)
    return _to_entry(target, routing, hardware)
