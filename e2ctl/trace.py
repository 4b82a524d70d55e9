# SPDX-License-Identifier: BSD-3-Clause
"""The way of packets through a plan: which rules, instances and servers, and why.

What is known of the packets is a conjunction of terms; wherever it doesn't decide, the trace shows
every way that is left and what it takes. The same walk, with all fields and choices known, is how
the tests hold a plan against the policy that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from e2ctl.affinity import FLOW_IDS
from e2ctl.filters import FIELD_BITS, Term, covers, join
from e2ctl.hardware import Hardware
from e2ctl.igraph import SPAN_STEP, Instance
from e2ctl.nfs import Catalog
from e2ctl.plan import Plan
from e2ctl.server_plan import ServerPlan
from e2ctl.switch_rules import CLASSIFY, STEER, WITH_PORTS, Action, SwitchRule, exact
from e2ctl.wiring import Link, ModuleSpec

__all__ = ["EntryUse", "Hop", "LinkUse", "RangeUse", "Use", "trace"]

Terms = tuple[Term, ...]
# Which of an instance's output gates packets leave by; None: any.
Choice = Callable[[Instance], int | None]
# The flow id of packets for an NF, as the dataplane computes it; None: unknown.
FlowId = Callable[[str, Terms], int | None]


@dataclass(frozen=True)
class LinkUse:
    """Packets leave a module of a server by this link."""

    server: str
    link: Link


@dataclass(frozen=True)
class RangeUse:
    """A FlowSteer of a server sends these flow ids of an NF to a gate."""

    server: str
    module: str
    nf: str
    start: int
    end: int
    gate: int


@dataclass(frozen=True)
class EntryUse:
    """Packets come out of a tunnel at an entry of a server."""

    server: str
    number: int


Use = SwitchRule | LinkUse | RangeUse | EntryUse


@dataclass(frozen=True)
class Hop:
    """A place on the way: what happens there, under which condition, and where it goes on.

    ``uses`` are the parts of the plan by which packets come here.
    """

    where: str
    what: str
    why: str = ""
    then: tuple[Hop, ...] = field(default=())
    uses: tuple[Use, ...] = field(default=())

    def lines(self, depth: int = 0, tell: Tell = lambda hop: ("", ())) -> Iterable[str]:
        """The way as indented text; what ``tell`` says of each place goes behind and below it."""
        indent = "  " * depth
        behind, below = tell(self)
        parts = (f"({self.why})" if self.why else "", f"[{behind}]" if behind else "")
        yield "  ".join([f"{indent}{self.where}: {self.what}", *filter(None, parts)])
        yield from (f"{indent}  {line}" for line in below)
        for hop in self.then:
            yield from hop.lines(depth + 1, tell)

    def ends(self) -> Iterable[Hop]:
        """Where the ways end."""
        if not self.then:
            yield self
        for hop in self.then:
            yield from hop.ends()


# What else to say of a place: words for its line, and further lines.
Tell = Callable[[Hop], tuple[str, Iterable[str]]]


def trace(
    plan: Plan,
    catalog: Catalog,
    hardware: Hardware,
    port: str,
    terms: Terms,
    *,
    choice: Choice = lambda instance: None,
    flow_id: FlowId = lambda nf, terms: None,
) -> Hop:
    """Follow packets that come in by an external port and of which ``terms`` are known."""
    number = hardware.switch.ports[port][0]
    tracer = _Tracer(plan, catalog, hardware, choice, flow_id)
    hops = tracer.switch(CLASSIFY, (exact("port", number), exact("tagged", 0), *terms))
    return Hop("switch", f"in by port {port}", describe(terms), tuple(hops))


def describe(terms: Iterable[Term]) -> str:
    """Terms as text; what says nothing about the packet itself is left out."""
    shown = {*FIELD_BITS, "id"}
    names = [term for term in terms if term.field in shown or term.field.startswith("meta.")]
    parts = []
    for term in names:
        full = term.mask & (term.mask + 1) == 0
        parts.append(f"{term.field} {term.value:#x}" + ("" if full else f"/{term.mask:#x}"))
    return " and ".join(parts) or "any"


class _Tracer:
    def __init__(
        self, plan: Plan, catalog: Catalog, hardware: Hardware, choice: Choice, flow_id: FlowId
    ) -> None:
        self.plan = plan
        self.catalog = catalog
        self.hardware = hardware
        self.choice = choice
        self.flow_id = flow_id
        self.instances = {i.name: i for i in plan.igraph.instances}
        self.ports = {n: name for name, ns in hardware.switch.ports.items() for n in ns}
        self.by_port = {server.port: name for name, server in hardware.servers.items()}

    def switch(self, table: int, terms: Terms) -> Iterable[Hop]:
        """Every rule of a table that these packets may meet."""
        rules = [rule for rule in self.plan.switch if rule.table == table]
        for rule in sorted(rules, key=lambda rule: -rule.priority):
            both = narrowed(terms, rule.terms)
            if both is None:
                continue
            hop = self.act(both, rule.actions, describe(rule.terms))
            yield replace(hop, uses=(rule,))
            if covers(rule.terms, terms):
                return
        if table == CLASSIFY:  # spans take all flow ids
            yield Hop("switch", "dropped", "no entry")

    def act(self, terms: Terms, actions: Iterable[Action], why: str) -> Hop:
        known = {term.field: term for term in terms}
        text = ", ".join(map(str, actions)) or "dropped"
        then: tuple[Hop, ...] = ()
        for action in actions:
            if action.kind == "class":
                nf = list(self.plan.routing.switch.hashes)[int(action.value) - 1]
                number = self.flow_id(nf, terms)
                steer = [*without(terms, "class", "id"), exact("class", int(action.value))]
                if number is not None:
                    steer.append(exact("id", number // SPAN_STEP))
                then = tuple(self.switch(STEER, tuple(steer)))
            elif action.kind == "tag":
                known["tag"] = exact("tag", int(action.value))
            elif action.kind == "output" and int(action.value) in self.by_port:
                server = self.by_port[int(action.value)]
                number = known["tag"].value
                name = next(n for n, _, entry in self.plan.entries if entry == number)
                arrived = without(tuple(known.values()), "port", "tag", "tagged", "class")
                then = (self.arrive(server, "arrive", number, arrived, name),)
            elif action.kind == "output":
                text = f"out by port {self.ports[int(action.value)]}"
        return Hop("switch", text, why, then)

    def arrive(self, server: str, by: str, number: int, terms: Terms, name: str) -> Hop:
        (hop,) = self.links(self.plan.servers[server], by, number, terms)
        uses = (EntryUse(server, number),) if by == "decap" else ()
        return Hop(server, f"entry {number}, {name}", "", (hop,), uses)

    def links(self, server: ServerPlan, module: str, gate: int, terms: Terms) -> list[Hop]:
        """Where an output gate leads."""
        for link in server.links:
            if (link.source, link.ogate) == (module, gate):
                spec = next(m for m in server.modules if m.name == link.target)
                hop = self.module(server, spec, terms)
                return [replace(hop, uses=(LinkUse(server.server, link), *hop.uses))]
        return [Hop(server.server, "dropped", f"gate {gate} of {module} leads nowhere")]

    def module(self, server: ServerPlan, spec: ModuleSpec, terms: Terms) -> Hop:
        place, name = server.server, spec.name
        if spec.mclass == "FlowSteer":
            return Hop(place, name, "", tuple(self.steer(server, spec, terms)))
        if spec.mclass == "MetadataMatch":
            return Hop(place, name, "", tuple(self.match(server, spec, terms)))
        if spec.mclass == "Replicate":
            ways = [self.links(server, name, gate, terms) for gate in spec.args["gates"]]
            return Hop(place, name, "a copy each", tuple(hop for way in ways for hop in way))
        if spec.mclass == "Sink":
            return Hop(place, "dropped", "no edge matches")
        if spec.mclass == "TunnelEncap":
            return self.tunnel(server, spec, terms)
        if spec.role == "nf":
            return self.nf(server, spec.node, terms)
        if spec.mclass == "VLANPush":
            return Hop(place, name, "", (Hop("switch", f"out by port {spec.node}"),))
        (hop,) = self.links(server, name, 0, terms)  # passes packets on unchanged
        return hop

    def steer(self, server: ServerPlan, spec: ModuleSpec, terms: Terms) -> Iterable[Hop]:
        nf = spec.node.partition(".")[0]
        number = self.flow_id(nf, terms)
        if self.plan.igraph.steering[nf].switch_hash is not None:
            given = next((t for t in terms if t.field == "id"), None)
            number = number if given is None else given.value * SPAN_STEP
        for part in spec.args["ranges"]:
            if number is None or part["start"] <= number < part["end"]:
                whole = part["end"] - part["start"] == FLOW_IDS
                why = "" if whole else f"flow ids {part['start']:#010x}-{part['end'] - 1:#010x}"
                use = RangeUse(
                    server.server, spec.name, nf, part["start"], part["end"], part["gate"]
                )
                for hop in self.links(server, spec.name, part["gate"], terms):
                    yield replace(hop, why=why or hop.why, uses=(use, *hop.uses))

    def match(self, server: ServerPlan, spec: ModuleSpec, terms: Terms) -> Iterable[Hop]:
        for rule in sorted(spec.args["rules"], key=lambda rule: -rule["priority"]):
            wanted = tuple(_term(term) for term in rule["terms"])
            both = narrowed(terms, wanted)
            if both is None:
                continue
            for hop in self.links(server, spec.name, rule["gate"], both):
                yield replace(hop, why=describe(wanted))
            if covers(wanted, terms):
                return
        yield from self.links(server, spec.name, spec.args["default_gate"], terms)

    def tunnel(self, server: ServerPlan, spec: ModuleSpec, terms: Terms) -> Hop:
        number = spec.args["vni"]
        name, target = next((n, s) for n, s, entry in self.plan.entries if entry == number)
        there = self.arrive(target, "decap", number, terms, name)
        return Hop(server.server, f"tunnel to {target}", "", (there,))

    def nf(self, server: ServerPlan, name: str, terms: Terms) -> Hop:
        instance = self.instances[name]
        kind = self.catalog[instance.type]
        behind = without(terms, *kind.mangles)
        chosen = self.choice(instance)
        hops = []
        for gate in kind.gates if chosen is None else (chosen,):
            said = [
                f"{attribute} is {value}"
                for attribute, bound in kind.bindings.items()
                for value, number in bound.gates.items()
                if number == gate
            ]
            for hop in self.links(server, f"out:{name}:{gate}", 0, behind):
                why = " and ".join([*said, *([hop.why] if hop.why else [])])
                hops.append(replace(hop, why=why))
        return Hop(server.server, f"NF {name}", instance.type, tuple(hops))


def without(terms: Iterable[Term], *names: str) -> Terms:
    """Terms about other fields."""
    return tuple(term for term in terms if term.field not in names)


def narrowed(terms: Terms, rule: Terms) -> Terms | None:
    """What is known of packets that match a rule; None if none can."""
    both = join(terms, rule)
    if both is None:
        return None
    protocol = next((t for t in both if t.field == "ip.proto" and t.mask == 0xFF), None)
    has_ports = protocol is None or protocol.value in WITH_PORTS
    return both if has_ports or not any(t.field.startswith("l4.") for t in both) else None


def _term(term: Mapping[str, Any]) -> Term:
    if "value_bin" in term:
        value, mask = term["value_bin"], term["mask_bin"]
        return Term(term["field"], int.from_bytes(value, "big"), int.from_bytes(mask, "big"))
    return Term(term["field"], term["value"], term["mask"])
