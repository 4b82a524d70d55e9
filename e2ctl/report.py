# SPDX-License-Identifier: BSD-3-Clause
"""What a run did with its packets.

Every packet that entered is accounted for::

    in + copied + made = out + dropped

``copied`` counts the additional copies where packets follow several edges, ``made`` packets that an
NF sent beyond those it received. Each drop has a place and a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from e2ctl.wiring import LocalPlan

__all__ = [
    "Drop",
    "EdgeUse",
    "ModuleCounters",
    "NodeUse",
    "PortTotals",
    "Report",
    "make_report",
    "render",
]

NO_EDGE = "no edge matches"
NOT_READ = "too long for a packet buffer, or damaged"
NOT_SENT = "the port did not take it"
NO_GATE = "sent to an output gate without a link"
UNKNOWN = "dropped without a reason"


@dataclass(frozen=True)
class PortTotals:
    """Counters of a port."""

    packets_in: int = 0
    bytes_in: int = 0
    dropped_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    dropped_out: int = 0


@dataclass(frozen=True)
class ModuleCounters:
    """Counters of a module. Output gates map to (packets, bytes); cycles are None where unknown."""

    sent: Mapping[int, tuple[int, int]]
    dead_ends: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    cycles: int | None = None


@dataclass(frozen=True)
class EdgeUse:
    """Traffic of an edge."""

    source: str
    target: str
    filter: str
    packets: int
    bytes: int


@dataclass(frozen=True)
class NodeUse:
    """Traffic of a module and what it cost."""

    name: str
    mclass: str
    role: str
    packets: int
    bytes: int
    sent: int
    cycles_per_packet: float | None


@dataclass(frozen=True)
class Drop:
    """Packets lost in one place for one reason."""

    where: str
    reason: str
    packets: int


@dataclass(frozen=True)
class Report:
    """Result of a run."""

    packets_in: int
    copied: int
    made: int
    packets_out: int
    dropped: int
    seconds: float
    mpps: float
    ports: Mapping[str, PortTotals]
    edges: tuple[EdgeUse, ...]
    modules: tuple[NodeUse, ...]
    drops: tuple[Drop, ...]

    @property
    def balanced(self) -> bool:
        """No packet is unaccounted for."""
        return self.packets_in + self.copied + self.made == self.packets_out + self.dropped

    @property
    def nfs(self) -> tuple[NodeUse, ...]:
        """The modules that are NFs."""
        return tuple(module for module in self.modules if module.role == "nf")

    def balance(self) -> str:
        """The balance in words."""
        left = [f"{self.packets_in:,} in"]
        left += [f"{self.copied:,} copied"] if self.copied else []
        left += [f"{self.made:,} made by NFs"] if self.made else []
        sign = "=" if self.balanced else "DIFFERS FROM"
        return f"{' + '.join(left)} {sign} {self.packets_out:,} out + {self.dropped:,} dropped"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to ``report.json``."""
        return {**asdict(self), "balanced": self.balanced, "balance": self.balance()}


def make_report(
    plan: LocalPlan,
    ports: Mapping[str, PortTotals],
    counters: Mapping[str, ModuleCounters],
    seconds: float,
) -> Report:
    """Account for all packets of a run."""
    edges = []
    for edge in plan.edges:
        counts = [counters[module].sent.get(gate, (0, 0)) for module, gate in edge.taps]
        packets, size = sum(c[0] for c in counts), sum(c[1] for c in counts)
        edges.append(EdgeUse(edge.source, edge.target, edge.label, packets, size))
    modules = []
    drops: list[Drop] = []
    copied = made = 0
    for spec in plan.modules:
        seen = counters[spec.name]
        entering = [link for link in plan.links if link.target == spec.name]
        received = [counters[link.source].sent.get(link.ogate, (0, 0)) for link in entering]
        packets, size = sum(c[0] for c in received), sum(c[1] for c in received)
        sent = sum(count[0] for count in seen.sent.values())
        if spec.role == "input":
            packets, size = ports[spec.node].packets_in, ports[spec.node].bytes_in
        cost = None if seen.cycles is None or not packets else seen.cycles / packets
        modules.append(NodeUse(spec.name, spec.mclass, spec.role, packets, size, sent, cost))
        if spec.role == "drop":
            drops.append(Drop(spec.node, NO_EDGE, packets))
        elif spec.role != "output":
            # Each reason is its module's; a dead end is one of them where reasons are known.
            reasons = dict(seen.drops) or {NO_GATE: seen.dead_ends}
            excess = sent + sum(reasons.values()) - packets
            if spec.role == "copy":
                copied += max(excess, 0)
            else:
                made += max(excess, 0)
            reasons[UNKNOWN] = max(-excess, 0)
            drops += [Drop(spec.name, reason, count) for reason, count in reasons.items()]
    for name, port in ports.items():
        drops.append(Drop(name, NOT_READ, port.dropped_in))
        drops.append(Drop(name, NOT_SENT, port.dropped_out))
    drops = [drop for drop in drops if drop.packets]
    entered = sum(port.packets_in + port.dropped_in for port in ports.values())
    return Report(
        packets_in=entered,
        copied=copied,
        made=made,
        packets_out=sum(port.packets_out for port in ports.values()),
        dropped=sum(drop.packets for drop in drops),
        seconds=seconds,
        mpps=entered / seconds / 1e6 if seconds > 0 else 0.0,
        ports=dict(ports),
        edges=tuple(edges),
        modules=tuple(modules),
        drops=tuple(drops),
    )


def _table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        numeric = name in ("packets", "bytes", "sent", "cycles/packet")
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*row)
    return table


def render(report: Report, console: Console) -> None:
    """Print a report for people."""
    edges = (
        (f"{e.source} -> {e.target}", e.filter, f"{e.packets:,}", f"{e.bytes:,}")
        for e in report.edges
    )
    console.print(_table("Edges", ("edge", "filter", "packets", "bytes"), edges))
    modules = (
        (
            m.name,
            m.mclass,
            f"{m.packets:,}",
            f"{m.bytes:,}",
            f"{m.sent:,}",
            "-" if m.cycles_per_packet is None else f"{m.cycles_per_packet:,.0f}",
        )
        for m in report.modules
    )
    columns = ("module", "class", "packets", "bytes", "sent", "cycles/packet")
    console.print(_table("Modules", columns, modules))
    if report.drops:
        drops = ((d.where, d.reason, f"{d.packets:,}") for d in report.drops)
        console.print(_table("Drops", ("at", "reason", "packets"), drops))
    console.print(report.balance(), highlight=False, soft_wrap=True)
    console.print(f"{report.seconds:.3f} s, {report.mpps:.3f} Mpps", highlight=False)
