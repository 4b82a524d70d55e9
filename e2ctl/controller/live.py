# SPDX-License-Identifier: BSD-3-Clause
"""Whether daemons and switch have what a trace says, and what they have counted there.

Each hop names the parts of the plan by which packets come to it. Modules need no look inside: what
may not change is in their names. So there are four kinds of parts: an entry of the switch, a link
between gates, a range of a FlowSteer, and an entry of a tunnel's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl.affinity import FLOW_IDS, Affinity
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.switches import SwitchDriver, SwitchError
from e2ctl.filters import Term, covers
from e2ctl.nfs import Catalog
from e2ctl.openflow import LiveRules, OpenFlowSwitch
from e2ctl.plan import Plan
from e2ctl.softswitch.driver import SoftwareSwitch
from e2ctl.switch_rules import SwitchRule, flow_terms
from e2ctl.trace import EntryUse, Hop, LinkUse, RangeUse, Use

__all__ = ["Live", "Said", "look"]

_STEER = ("get_status", "FlowSteerCommandGetStatusArg")
_FLOWS = ("get_flows", "FlowSteerCommandGetFlowsArg")
_DECAP = ("get_stats", "TunnelDecapCommandGetStatsArg")
_FLOWS_AT_ONCE = 5000


@dataclass(frozen=True)
class Said:
    """What there is to say about something live. It ``differs`` from the plan, or not."""

    text: str
    differs: bool = False


@dataclass(frozen=True)
class Live:
    """What was found, by what the trace names. ``notes`` are about all of it."""

    found: Mapping[Use, Said]
    notes: tuple[Said, ...]

    def about(self, hop: Hop) -> tuple[str, Iterable[str]]:
        """Counters of the parts by which packets come to a hop, and warnings.

        All links that lead to it one after the other have one count: the last is enough.
        """
        here = [(use, self.found[use]) for use in hop.uses if use in self.found]
        well = [(use, said.text) for use, said in here if not said.differs]
        flows = [text for use, text in well if isinstance(use, RangeUse)]
        packets = [text for use, text in well if not isinstance(use, RangeUse)]
        warnings = [f"warning: {said.text}" for _, said in here if said.differs]
        return ", ".join((*packets[-1:], *flows)), warnings

    @property
    def differs(self) -> bool:
        """Whether anything is not as the plan has it."""
        return any(said.differs for said in (*self.notes, *self.found.values()))


@dataclass(frozen=True)
class _Packets:
    """What is known of packets, and how each NF tells flows apart."""

    terms: tuple[Term, ...]
    affinities: Mapping[str, Affinity]

    def are(self, nf: str, flow: Mapping[str, Any]) -> bool:
        """Whether all of them are of a flow that a FlowSteer has listed."""
        given = tuple((name, value) for name, value in flow.items() if value != "")
        ways = flow_terms(given, self.affinities[nf])
        return any(covers(terms, self.terms) for terms in ways)


async def look(
    plan: Plan,
    catalog: Catalog,
    hop: Hop,
    agents: Agents,
    switch: SwitchDriver,
    terms: tuple[Term, ...],
) -> Live:
    """Ask agents and switch about all that the ways behind ``hop`` name.

    ``terms`` are what is known of the packets; where they tell a flow, its exceptions are found.
    """
    steering = plan.igraph.steering
    types = {instance.nf: instance.type for instance in plan.igraph.instances}
    affinities = {
        nf: catalog[types[nf]].grouping if how.switch_hash is not None else how.affinity
        for nf, how in steering.items()
    }
    packets = _Packets(terms, affinities)
    uses = list(dict.fromkeys(_uses(hop)))
    found: dict[Use, Said] = {}
    notes: list[Said] = []
    rules = [use for use in uses if isinstance(use, SwitchRule)]
    if isinstance(switch, OpenFlowSwitch | SoftwareSwitch):
        try:
            live = await switch.compare(plan.switch)
            found |= {rule: _rule(rule, live) for rule in rules}
            if live.foreign:
                text = f"entries that the switch has and the plan has not: {len(live.foreign)}"
                notes.append(Said(f"{text}, the first: {live.foreign[0]}", differs=True))
        except SwitchError as error:
            notes.append(Said(str(error), differs=True))
    elif rules:
        notes.append(Said("the switch is simulated: its entries are those of the plan"))
    counters = await agents.counters()
    for server in dict.fromkeys(use.server for use in uses if not isinstance(use, SwitchRule)):
        here = [u for u in uses if not isinstance(u, SwitchRule) and u.server == server]
        counts = counters[server]
        try:
            if isinstance(counts, AgentError):
                raise counts
            found |= await _server(agents, counts, here, packets)
        except AgentError as error:
            notes.append(Said(str(error), differs=True))
    return Live(found, tuple(notes))


def _uses(hop: Hop) -> Iterator[Use]:
    yield from hop.uses
    for then in hop.then:
        yield from _uses(then)


def _rule(rule: SwitchRule, live: LiveRules) -> Said:
    if rule not in live.found:
        return Said(f"the switch lacks the entry '{rule}'", differs=True)
    return Said(f"{live.found[rule].packets:,} packets")


async def _server(
    agents: Agents,
    counts: pb.AgentCounters,
    uses: Iterable[LinkUse | RangeUse | EntryUse],
    packets: _Packets,
) -> dict[Use, Said]:
    """What one server has of these."""
    gates = {
        (module.name, gate.ogate): gate
        for module in counts.daemon.modules
        for gate in module.ogates
    }
    names = {module.name for module in counts.daemon.modules}
    found: dict[Use, Said] = {}
    for use in uses:
        if isinstance(use, LinkUse):
            found[use] = _link(use, gates.get((use.link.source, use.link.ogate)))
            continue
        module = "decap" if isinstance(use, EntryUse) else use.module
        if module not in names:
            found[use] = Said(f"{use.server} has no module {module}", differs=True)
        elif isinstance(use, EntryUse):
            found[use] = _entry(use, await agents[use.server].command(module, *_DECAP))
        else:
            found[use] = await _range(agents, use, packets)
    return found


def _link(use: LinkUse, gate: Any) -> Said:
    link = use.link
    if gate is None:
        text = f"gate {link.ogate} of {link.source} leads nowhere on {use.server}"
        return Said(f"{text}, and should to {link.target}", differs=True)
    if (gate.target, gate.igate) != (link.target, link.igate):
        text = f"gate {link.ogate} of {link.source} leads to {gate.target} on {use.server}"
        return Said(f"{text}, and should to {link.target}", differs=True)
    return Said(f"{gate.packets:,} packets")


def _entry(use: EntryUse, stats: Mapping[str, Any]) -> Said:
    for edge in stats["edges"]:
        if edge["vni"] == use.number and edge["gate"] == use.number:
            return Said(f"{int(edge['packets']):,} packets")
    return Said(f"{use.server} has no entry {use.number} for tunnels", differs=True)


async def _range(agents: Agents, use: RangeUse, packets: _Packets) -> Said:
    status = await agents[use.server].command(use.module, *_STEER)
    gates = {
        part["gate"]
        for part in status["ranges"]
        if part["start"] < use.end and use.start < part["end"]
    }
    if gates != {use.gate}:
        listed = ", ".join(f"{use.nf}.{gate}" for gate in sorted(gates))
        text = f"flow ids {use.start:#010x}-{use.end - 1:#010x} go to {listed} on {use.server}"
        return Said(f"{text}, and should to {use.nf}.{use.gate}", differs=True)
    counts = {gate["gate"]: gate for gate in status["gates"]}
    mine = counts.get(use.gate, {"flows": 0, "exceptions": 0})
    text = f"{int(mine['flows']):,} flows"
    if int(status["exceptions"]):
        text += f", {int(status['exceptions']):,} exceptions in all"
        kept = await _exception(agents, use, int(status["flows"]), packets)
        if kept is not None:
            text += f"; this flow is one, and goes to {use.nf}.{kept}"
    return Said(text)


async def _exception(agents: Agents, use: RangeUse, flows: int, packets: _Packets) -> int | None:
    """The gate that these packets' flow keeps, if it is an exception; few flows in each answer."""
    parts = -(-flows // _FLOWS_AT_ONCE)
    step = -(-FLOW_IDS // parts)
    for start in range(0, FLOW_IDS, step):
        arg = {"limit": flows, "start": start, "end": min(start + step, FLOW_IDS)}
        listed = await agents[use.server].command(use.module, *_FLOWS, arg)
        for entry in listed["flows"]:
            if entry["exception"] and packets.are(use.nf, entry["flow"]):
                return int(entry["gate"])
    return None
