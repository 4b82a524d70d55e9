# SPDX-License-Identifier: BSD-3-Clause
"""What a server's dataplane is to do, as data: ports, modules, links and workers.

::

    switch -> nic_in -> arrive (by tag) ----------+-> an entry
                          `-> decap (by tunnel) --'

    entry of an instance:  hold -> queue -> load -> NF -> out -> match -> (copy) -> ...
                           (with a queue for each gate that packets come in by)
    entry of an NF:        steer -> hold of an instance here, or tunnel to one elsewhere
    entry of a port:       match -> ...
    ... -> steer, hold, tunnel, or leave (tagged for an external port) -> nic_out -> switch

``hold`` is the FlowSteer that keeps flows with an instance when it is split (section 3.4.4 of the
dissertation); its gates are numbers of instances. One worker runs the dataplane, and each NF has
one of its own, between two queues. A legacy NF is a network namespace behind TAP devices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import networkx as nx

from e2ctl._tunnel_options import ID_OPTION, tunnel_options
from e2ctl.affinity import FLOW_IDS
from e2ctl.filters import FilterError, rule_list
from e2ctl.hardware import Hardware
from e2ctl.igraph import IEdge, IGraph, Instance, Span
from e2ctl.layout import Layout
from e2ctl.nfs import Catalog, Program
from e2ctl.pgraph import PEdge, PGraph, bound_filters
from e2ctl.policy import PolicyError
from e2ctl.routing import Routing, egress_tag, entry_of
from e2ctl.server_plan import DATAPLANE, FLOW_ID, Device, EdgeTap, ProgramSpec, ServerPlan
from e2ctl.wiring import MAX_COPIES, Link, ModuleSpec, Role, classifier

__all__ = ["wire_server"]

# Behind both MAC addresses: the identifier, then what the tag's 16 bits say.
_TCI_OFFSET = 14
_QUEUE_PACKETS = 4096

# All instances of an NF have the same, and so has the next plan.
_rule_list = lru_cache(256)(rule_list)


def wire_server(
    server: str,
    pgraph: PGraph,
    igraph: IGraph,
    layout: Layout,
    routing: Routing,
    catalog: Catalog,
    hardware: Hardware,
    detours: Mapping[str, tuple[str, Span | None]],
    hosts: Mapping[str, str],
) -> ServerPlan:
    """Plan the dataplane of one server.

    ``detours`` holds the instances that pass on flows: to which, and new ones of which ids, and
    ``hosts`` those that run on the core of another.
    """
    return _Wiring(
        server, pgraph, igraph, layout, routing, catalog, hardware, detours, hosts
    ).plan()


class _Wiring:
    def __init__(
        self,
        server: str,
        pgraph: PGraph,
        igraph: IGraph,
        layout: Layout,
        routing: Routing,
        catalog: Catalog,
        hardware: Hardware,
        detours: Mapping[str, tuple[str, Span | None]],
        hosts: Mapping[str, str],
    ) -> None:
        self.server = server
        self.detours = detours
        self.hosts = hosts
        self.pgraph = pgraph
        self.igraph = igraph
        self.layout = layout
        self.routing = routing
        self.catalog = catalog
        self.hardware = hardware
        self.types = {node.name: node.type for node in pgraph.nodes if node.kind == "nf"}
        self.instances = {instance.name: instance for instance in igraph.instances}
        self.options = tunnel_options(self.types, catalog)
        self.devices: list[Device] = []
        self.modules: dict[str, ModuleSpec] = {}
        self.links: dict[Link, None] = {}
        self.tasks: dict[str, str] = {}
        self.programs: list[ProgramSpec] = []
        self.taps: list[EdgeTap] = []

    def plan(self) -> ServerPlan:
        here = self.hardware.servers[self.server]
        interface: dict[str, Any] = {"ifname": here.device, "promiscuous": True}
        self.devices.append(
            Device("nic", "AFPacketPort", interface)
            if here.socket is None
            else Device("nic", "UnixSocketPort", {"path": here.socket})
        )
        self.add("nic_in", "PortInc", "input", {"port": "nic"}, worker=DATAPLANE)
        self.add("nic_out", "PortOut", "output", {"port": "nic"})
        self.add("arrive", "VLANSplit", "classifier")
        self.link("nic_in", 0, "arrive")
        entries = self.routing.on(self.server)
        options = [*(option for option, _ in self.options.values()), ID_OPTION]
        edges = {number: number for number in entries.values()}
        self.add("decap", "TunnelDecap", "classifier", {"edges": edges, "options": options})
        self.link("arrive", 0, "decap")
        for name in self.layout.on(self.server):
            self.instance(self.instances[name])
        for name, number in entries.items():
            target = self.entry(name)
            self.link("decap", number, target)
            first = self.untag(name, target)
            self.link("arrive", number, first)
            tap = ("arrive", number) if first == target else (f"untag:{name}", 0)
            self.tap_switch(name, *tap)
        return ServerPlan(
            self.server,
            tuple(self.devices),
            tuple(self.modules.values()),
            tuple(self.links),
            self.tasks,
            tuple(self.programs),
            tuple(self.taps),
        )

    def tap_switch(self, entry: str, module: str, ogate: int) -> None:
        """What the switch sends to an NF is an edge's, too, where it comes from one port alone."""
        nf = self.instances[entry].nf if entry in self.instances else entry
        led = [e for e in self.pgraph.edges_to(nf) if e.source in self.routing.switch.classified]
        if nf in self.types and len(led) == 1:
            self.taps.append(EdgeTap(led[0].source, nf, led[0].label, module, ogate))

    def add(
        self,
        name: str,
        mclass: str,
        role: Role,
        args: Mapping[str, Any] | None = None,
        *,
        node: str = "",
        worker: str | None = None,
    ) -> str:
        self.modules[name] = ModuleSpec(name, mclass, role, node, args or {})
        if worker is not None:
            self.tasks[name] = worker
        return name

    def link(self, source: str, ogate: int, target: str, igate: int = 0) -> None:
        self.links[Link(source, ogate, target, igate)] = None

    def entry(self, name: str) -> str:
        """The module behind an entry."""
        instance, _, igate = name.partition(":")
        if instance in self.instances:
            return self.first(instance, int(igate or 0))
        if name in self.types:
            return self.steer(name)
        gate = self.add(f"port:{name}", "Bypass", "classifier")
        self.leave(name, name, gate, 0, self.pgraph.edges_from(name))
        return gate

    def untag(self, entry: str, target: str) -> str:
        """Take off the tag with the flow id where the switch put one on."""
        instance = self.instances.get(entry)
        if instance is None or instance.nf not in self.routing.switch.hashes:
            return target
        attr = {"name": FLOW_ID, "size": 2, "offset": _TCI_OFFSET}
        read = self.add(f"id:{entry}", "SetMetadata", "classifier", {"attrs": [attr]})
        pop = self.add(f"untag:{entry}", "VLANPop", "classifier")
        self.link(read, 0, pop)
        self.link(pop, 0, target)
        return read

    def first(self, name: str, igate: int = 0) -> str:
        """Where packets for an instance on this server go."""
        instance = self.instances[name]
        if self.catalog[instance.type].most_instances == 1:
            return f"queue:{entry_of(name, igate)}"
        return _named(f"hold:{name}", self.steer_args(instance.nf))

    def instance(self, instance: Instance) -> None:
        name, kind = instance.name, self.catalog[instance.type]
        if kind.most_instances != 1:
            args = self.steer_args(instance.nf)
            hold = self.first(name)
            args["ranges"] = self.hold(instance, hold)
            args["other_gate"] = instance.index  # what is not IP has no flow
            self.add(hold, "FlowSteer", "classifier", args, node=name)
        edges = self.pgraph.edges_from(instance.nf)
        if kind.program is not None:
            self.program(instance, kind.program, edges)
            return
        mclass, given = self.catalog.mclass(instance.type), kind.args_of(instance.index)
        nf = self.add(_named(name, {mclass: given}), mclass, "nf", given, node=name)
        for igate in self.igates(instance.nf):
            worker = self.hosts.get(name, name)
            self.link(self.queue(name, igate, worker=worker), 0, nf, igate)
        for gate in kind.gates:
            out = self.add(
                f"out:{name}:{gate}",
                "Queue",
                "classifier",
                {"size": _QUEUE_PACKETS},
                worker=DATAPLANE,
            )
            self.link(nf, gate, out)
            self.leave(name, instance.nf, out, gate, edges)

    def igates(self, nf: str) -> list[int]:
        """Gates by which packets come to an NF."""
        return sorted({0, *(edge.igate for edge in self.pgraph.edges_to(nf))})

    def queue(self, instance: str, igate: int, worker: str) -> str:
        """Where packets for an input gate wait; the module that they come out of."""
        entry, args = entry_of(instance, igate), {"size": _QUEUE_PACKETS}
        queue = self.add(f"queue:{entry}", "Queue", "classifier", args, worker=worker)
        watched = {"queue": queue}
        load = self.add(f"load:{entry}", "LoadMonitor", "classifier", watched, worker=DATAPLANE)
        self.link(queue, 0, load)
        return load

    def hold(self, instance: Instance, module: str) -> list[dict[str, int]]:
        """Ranges of an instance's own FlowSteer: everything is for it, or some is passed on."""
        self.link(module, instance.index, f"queue:{instance.name}")
        parts = [(0, FLOW_IDS, instance.index)]
        if instance.name in self.detours:
            target, ids = self.detours[instance.name]
            index = self.instances[target].index
            self.link(module, index, self.towards(target))
            if ids is not None:
                above = (ids.end, FLOW_IDS, instance.index)
                parts = [(0, ids.start, instance.index), (ids.start, ids.end, index), above]
        return [{"start": a, "end": b, "gate": gate} for a, b, gate in parts if a < b]

    def program(self, instance: Instance, program: Program, edges: Sequence[PEdge]) -> None:
        """A legacy NF: packets go in and come out by the devices of its gates."""
        name, igates = instance.name, self.igates(instance.nf)
        self.programs.append(ProgramSpec(name, program))
        for number, device in enumerate(program.devices):
            port = f"{name}:{device}"
            # The kernel's names are short; the namespace gives it the right one.
            self.devices.append(Device(port, "TAPPort", {"ifname": f"e2{_digest(port)}"}))
            if number in igates:
                self.add(f"in:{port}", "PortOut", "nf", {"port": port}, node=name)
                self.link(self.queue(name, number, worker=DATAPLANE), 0, f"in:{port}")
            if number in self.catalog[instance.type].gates:
                out = self.add(
                    f"out:{name}:{number}", "PortInc", "input", {"port": port}, worker=DATAPLANE
                )
                self.leave(name, instance.nf, out, number, edges)

    def steer_args(self, nf: str) -> dict[str, Any]:
        """How a FlowSteer tells flows of an NF apart."""
        steering = self.igraph.steering[nf]
        if steering.switch_hash is None:
            return steering.affinity.steer_args()
        return {**self.catalog[self.types[nf]].grouping.steer_args(), "id_attr": FLOW_ID}

    def leave(self, source: str, node: str, module: str, gate: int, edges: Sequence[PEdge]) -> None:
        """Lead what an output gate of a node sends along its edges."""
        try:
            rules = _rule_list(tuple(bound_filters(edges, gate, self.catalog, self.types)))
        except FilterError as error:
            raise PolicyError(edges[0].where, str(error)) from None
        outcomes = list(dict.fromkeys(rule.edges for rule in rules))
        place = f"{source}:{gate}"
        taps = [(module, 0)]
        if len(rules) > 1:
            args = classifier(rules, outcomes, self.sizes(node))
            match = self.add(_named(f"match:{place}", args), "MetadataMatch", "classifier", args)
            self.link(module, 0, match)
            taps = [(match, number) for number in range(len(outcomes))]
        for (tap, ogate), outcome in zip(taps, outcomes, strict=True):
            chosen = [edges[index] for index in sorted(outcome)]
            if not chosen:
                self.link(tap, ogate, self.add(f"drop:{source}", "Sink", "drop"))
            elif len(chosen) == 1:
                self.follow(source, chosen[0], tap, ogate)
            else:
                self.copy(source, chosen, tap, ogate)

    def copy(self, source: str, edges: Sequence[PEdge], tap: str, ogate: int) -> None:
        if len(edges) > MAX_COPIES:
            message = f"a packet may follow {len(edges)} edges here; at most {MAX_COPIES} can be"
            raise PolicyError(edges[MAX_COPIES].where, message)
        args = {"gates": list(range(len(edges)))}
        copy = self.add(_named(f"copy:{tap}:{ogate}", args), "Replicate", "copy", args)
        self.link(tap, ogate, copy)
        for number, edge in enumerate(edges):
            self.follow(source, edge, copy, number)

    def sizes(self, node: str) -> dict[str, int]:
        """Sizes of metadata that a node's filters test."""
        if node not in self.types:
            return {}
        attributes = self.catalog[self.types[node]].attributes
        return {f"meta.{n}": a.size for n, a in attributes.items() if a.method == "metadata"}

    def follow(self, source: str, edge: PEdge, tap: str, ogate: int) -> None:
        """Lead all packets of a gate along one edge."""
        ends = [e for e in self.igraph.edges if e.source == source and e.edge == edge]
        self.taps.append(EdgeTap(source, edge.target, edge.label, tap, ogate))
        if edge.target in self.igraph.ports:
            tag = {"tci": egress_tag(self.hardware, edge.target)}
            name = _named(f"leave:{edge.target}", tag)
            leave = self.add(name, "VLANPush", "output", tag, node=edge.target)
            self.link(leave, 0, "nic_out")
            self.link(tap, ogate, leave)
        elif _direct(ends):
            self.link(tap, ogate, self.towards(ends[0].target, edge.igate))
        else:
            self.link(tap, ogate, self.steer(edge.target))

    def towards(self, name: str, igate: int = 0) -> str:
        """Where packets for an instance, on whatever server, go from here."""
        entry = entry_of(name, igate)
        server, number = self.routing.entries[entry]
        if server == self.server:
            return self.first(name, igate)
        here, there = self.hardware.servers[self.server], self.hardware.servers[server]
        nf = self.instances[name].nf
        carried = nx.ancestors(self.pgraph.nfs, nf)
        options = [option for option, nfs in self.options.values() if nfs & carried]
        if self.igraph.steering[nf].switch_hash is not None:
            options.append(ID_OPTION)
        args = {
            "src_mac": here.mac,
            "dst_mac": there.mac,
            "src_ip": here.ip,
            "dst_ip": there.ip,
            "vni": number,
            "options": options,
        }
        tunnel = self.add(_named(f"tunnel:{entry}", args), "TunnelEncap", "output", args)
        self.link(tunnel, 0, "nic_out")
        return tunnel

    def steer(self, nf: str) -> str:
        """The stage that divides an NF's traffic; its gates are the numbers of instances."""
        args = self.steer_args(nf)
        name = _named(f"steer:{nf}", args)
        if name not in self.modules:
            args["ranges"] = [
                {"start": i.span.start, "end": i.span.end, "gate": i.index}
                for i in self.igraph.of(nf)
                if not i.span.empty
            ]
            args["other_gate"] = args["ranges"][0]["gate"]
            self.add(name, "FlowSteer", "classifier", args, node=nf)
            for instance in self.igraph.of(nf):
                if instance.span.empty:
                    continue
                self.link(name, instance.index, self.towards(instance.name))
        return name


def _direct(ends: Sequence[IEdge]) -> bool:
    """Whether all packets of an edge go to one instance."""
    return len(ends) == 1 and ends[0].span is None


def _named(name: str, args: Mapping[str, Any]) -> str:
    """A name that changes with the arguments: such modules are replaced, never changed."""
    text = json.dumps(args, sort_keys=True, default=lambda value: value.hex())
    return f"{name}~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
