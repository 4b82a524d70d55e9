# SPDX-License-Identifier: BSD-3-Clause
"""Where traffic enters and who divides it: choices that server plans and switch rules share.

Everything that the switch or a tunnel can lead to on a server is an *entry* with a number: an
instance, once for each gate that packets come in by; the stage that divides an NF's traffic among
its instances; or the stage that classifies what comes from an external port. Packets from the
switch carry the number in a VLAN tag, packets from other servers as the network identifier of the
tunnel. An entry keeps its number for as long as it exists, so that packets on their way stay right
while a plan changes.

The switch classifies a port's packets and divides an NF's traffic itself wherever it can, and
leaves both to one server otherwise:

* a port, where no packet follows several edges at once (copies are made by servers);
* an NF, where all its traffic comes from such ports, a hash of the switch keeps together what the
  NF needs together, and frames have no tags of their own: tags for entry and flow id are all that
  Open vSwitch has room for. Otherwise all who send to the NF use the dataplane's flow id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from e2ctl.affinity import Affinity
from e2ctl.filters import FilterError, Rule, fields, rule_list
from e2ctl.hardware import Hardware
from e2ctl.igraph import SWITCH_HASHES, IGraph
from e2ctl.layout import Layout
from e2ctl.nfs import Catalog
from e2ctl.pgraph import PEdge, PGraph
from e2ctl.policy import PolicyError

__all__ = [
    "PlanError",
    "Routing",
    "SwitchWork",
    "egress_tag",
    "entry_of",
    "number_entries",
    "route",
    "switch_work",
]

MAX_ENTRY = 4094


class PlanError(Exception):
    """No plan can be made; the message says what is missing or contradicts, and by how much."""


@dataclass(frozen=True)
class SwitchWork:
    """What the switch does: ``classified`` are ports, with the rules that tell their packets
    apart; ``hashes`` are NFs whose traffic it divides, and by which hash.
    """

    classified: Mapping[str, tuple[Rule, ...]]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Routing:
    """The server and the number of each entry, by name, beside what the switch does."""

    switch: SwitchWork
    entries: Mapping[str, tuple[str, int]]

    def on(self, server: str) -> dict[str, int]:
        """Entries of a server and their numbers."""
        return {name: number for name, (place, number) in self.entries.items() if place == server}


def number_entries(names: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """Numbers of entries: those that they had ``before``, or the lowest that are free."""
    wanted = list(names)
    numbers = {name: before[name] for name in wanted if name in before}
    taken = {*before.values()}
    free = (number for number in range(1, MAX_ENTRY + 1) if number not in taken)
    for name in wanted:
        if name not in numbers:
            try:
                numbers[name] = next(free)
            except StopIteration:
                raise PlanError(
                    f"{len(wanted):,} entries on servers, and {len(taken):,} that end with the "
                    f"running plan; VLAN tags can name {MAX_ENTRY:,}"
                ) from None
    return numbers


def entry_of(instance: str, igate: int) -> str:
    """The entry that leads to an input gate of an instance."""
    return f"{instance}:{igate}" if igate else instance


def egress_tag(hardware: Hardware, port: str) -> int:
    """The number by which servers name an external port."""
    ports = hardware.switch.ports[port]
    if len(ports) > 1:
        listed = ", ".join(map(str, ports))
        raise PlanError(
            f"traffic can leave by one port only, and '{port}' stands for switch ports {listed}"
        )
    if ports[0] > MAX_ENTRY:
        raise PlanError(f"switch port {ports[0]} of '{port}' is above {MAX_ENTRY}")
    return ports[0]


def switch_work(pgraph: PGraph, catalog: Catalog, hardware: Hardware) -> SwitchWork:
    """Give the switch what it can do."""
    ports = [node.name for node in pgraph.nodes if node.kind == "port"]
    for port in ports:
        if port not in hardware.switch.ports:
            known = ", ".join(hardware.switch.ports)
            raise PlanError(f"port '{port}' is none of the switch's ports: {known}")
    classified: dict[str, tuple[Rule, ...]] = {}
    for port in ports:
        edges = pgraph.edges_from(port)
        if not edges:
            continue
        try:
            rules = rule_list([edge.filter for edge in edges])
        except FilterError as error:
            raise PolicyError(edges[0].where, str(error)) from None
        _check_tags(edges, hardware)
        if all(len(rule.edges) <= 1 for rule in rules):
            classified[port] = rules
    hashes: dict[str, str] = {}
    for node in pgraph.nodes:
        sources = {edge.source for edge in pgraph.edges_to(node.name)}
        divided = node.kind == "nf" and not catalog[node.type].ports
        if divided and sources <= {*classified} and not hardware.switch.tagged:
            found = _finest_hash(catalog[node.type].aggregates)
            if found is not None:
                hashes[node.name] = found
    return SwitchWork(classified, hashes)


def _finest_hash(affinity: Affinity | None) -> str | None:
    """The finest hash of the switch that keeps flows of an affinity whole, if there is one."""
    for name, kept in SWITCH_HASHES.items():
        if affinity is None or kept.keeps_together(affinity):
            return name
    return None


def route(
    pgraph: PGraph,
    igraph: IGraph,
    layout: Layout,
    work: SwitchWork,
    hardware: Hardware,
    numbers: Mapping[str, int] | None = None,
) -> Routing:
    """Find servers for all entries; ``numbers`` are those of the entries that exist."""
    places: dict[str, str] = {}
    for nf in igraph.steering:
        led = any(e.source in work.classified and not e.enters for e in pgraph.edges_to(nf))
        if led and nf not in work.hashes:
            places[nf] = layout.servers[igraph.of(nf)[0].name]
    for instance in igraph.instances:
        for igate in sorted({0, *(edge.igate for edge in pgraph.edges_to(instance.nf))}):
            places[entry_of(instance.name, igate)] = layout.servers[instance.name]
    for port in igraph.ports:
        if pgraph.edges_from(port) and port not in work.classified:
            places[port] = _front(port, pgraph, layout, hardware)
    entries = number_entries(places, numbers or {})
    return Routing(work, {name: (server, entries[name]) for name, server in places.items()})


def _check_tags(edges: Sequence[PEdge], hardware: Hardware) -> None:
    for edge in edges:
        if "vlan.id" in fields(edge.filter) and not hardware.switch.tagged:
            message = "the filter tests VLANs, but the switch takes no tagged frames from outside"
            raise PolicyError(edge.where, f"{message}; expected 'tagged: true' in its description")


def _front(port: str, pgraph: PGraph, layout: Layout, hardware: Hardware) -> str:
    """The server that classifies a port's packets: one that has an NF next to it."""
    for edge in pgraph.edges_from(port):
        server = layout.servers.get(f"{edge.target}.0")
        if server is not None:
            return server
    return next(iter(hardware.servers))
