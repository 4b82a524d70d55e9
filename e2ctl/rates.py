# SPDX-License-Identifier: BSD-3-Clause
"""What passes instances, edges and servers per second, from a plan and two readings of counters.

A counter that has become smaller was made anew in between, as all are when a daemon was restarted:
what it shows now is what it has counted since. What an instance receives is what its queue handed
on, and what it sends is what came out of its gates, before edges part; drops are those of all its
modules, with packets that no edge takes. Frames are counted without what a wire adds to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bess_plugins.pb import e2_agent_pb2 as pb
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from e2ctl.plan import Plan
from e2ctl.server_plan import EdgeTap

__all__ = ["EdgeRate", "InstanceRate", "NicRate", "Rate", "Rates", "instance_of", "measure"]

# Kinds of modules that belong to the instance in their name; others lead there.
_PARTS = frozenset({"hold", "queue", "load", "in", "out", "match", "copy", "drop"})
_NIC = "nic"
Reading = Mapping[str, pb.AgentCounters]
K = TypeVar("K")


@dataclass(frozen=True)
class Rate:
    """Packets per second, and bits per second in them."""

    packets: float = 0.0
    bits: float = 0.0

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.packets + other.packets, self.bits + other.bits)


@dataclass(frozen=True)
class InstanceRate:
    """Of one instance. ``queue`` and ``cpu``, that of its worker, are parts of 1.

    A program of the kernel has no worker, so that ``cpu`` is None.
    """

    instance: str
    nf: str
    server: str
    received: Rate
    sent: Rate
    drops: float
    queue: float
    cpu: float | None


@dataclass(frozen=True)
class EdgeRate:
    """What one instance or port sends along an edge of the policy."""

    source: str
    target: str
    label: str
    rate: Rate


@dataclass(frozen=True)
class NicRate:
    """Of the link between a server and the switch; ``cpu`` is that of the dataplane's worker."""

    server: str
    received: Rate
    sent: Rate
    drops: float
    cpu: float


@dataclass(frozen=True)
class Rates:
    """Of a cluster. Servers without two readings have no part in it."""

    instances: tuple[InstanceRate, ...]
    edges: tuple[EdgeRate, ...]
    nics: tuple[NicRate, ...]


def instance_of(module: str, instances: Iterable[str]) -> str | None:
    """The instance that a module belongs to, if it is one's."""
    words = re.split("[:~]", module)
    known = {*instances}
    if words[0] in known:
        return words[0]  # the NF itself
    if words[0] not in _PARTS:
        return None
    return next((word for word in words[1:] if word in known), None)


def measure(plan: Plan, before: Reading, after: Reading) -> Rates:
    """Rates between two readings, as `e2ctl.controller.agents.Agents.counters` takes them."""
    instances: list[InstanceRate] = []
    nics: list[NicRate] = []
    edges: dict[tuple[str, str, str], Rate] = {}
    for server, target in plan.servers.items():
        if server not in before or server not in after:
            continue
        change = _Change(plan, server, before[server], after[server])
        if change.seconds <= 0:
            continue
        instances += map(change.instance, plan.layout.on(server))
        nics.append(change.nic())
        for tap in target.taps:
            key = tap.source, tap.target, tap.label
            edges[key] = edges.get(key, Rate()) + change.crossed(tap)
    measured = (EdgeRate(*key, rate) for key, rate in edges.items())
    return Rates(tuple(instances), tuple(measured), tuple(nics))


class _Change:
    """How much the counters of one server have grown."""

    def __init__(
        self, plan: Plan, server: str, before: pb.AgentCounters, after: pb.AgentCounters
    ) -> None:
        self.server = server
        self.nfs = {name: plan.instance(name).nf for name in plan.layout.on(server)}
        self.programs = {program.instance for program in plan.servers[server].programs}
        self.now = after.daemon
        self.seconds = (after.daemon.time_ns - before.daemon.time_ns) / 1e9
        kept = before.restarts == after.restarts
        old = before.daemon if kept else counters_pb.Counters()
        self.gates = _grown(_gates(old), _gates(self.now))
        self.tasks = _grown(_tasks(old), _tasks(self.now))
        self.drops = _grown(_drops(old), _drops(self.now))
        self.ports = _grown(_ports(old), _ports(self.now))

    def rate(self, packets: int, size: int) -> Rate:
        return Rate(packets / self.seconds, 8 * size / self.seconds)

    def task(self, name: str) -> Rate:
        packets, size, _ = self.tasks.get(name, (0, 0, 0))
        return self.rate(packets, size)

    def crossed(self, tap: EdgeTap) -> Rate:
        return self.rate(*self.gates.get((tap.module, tap.ogate), (0, 0)))

    def instance(self, name: str) -> InstanceRate:
        queue = f"queue:{name}"
        outs = (task for task in self.tasks if task.startswith(f"out:{name}:"))
        return InstanceRate(
            name,
            self.nfs[name],
            self.server,
            self.task(queue),
            sum(map(self.task, outs), Rate()),
            self.lost(name) / self.seconds,
            self.fill(queue),
            None if name in self.programs else self.cpu(queue),
        )

    def lost(self, name: str) -> int:
        """Packets that ended in an instance's modules, its devices, or where no edge leads."""
        reasons = ((module, lost) for module, (lost,) in self.drops.items())
        lost = sum(n for module, n in reasons if instance_of(module, self.nfs) == name)
        for module in self.now.modules:
            for gate in module.ogates:
                if gate.target == f"drop:{name}":
                    lost += self.gates[module.name, gate.ogate][0]
        devices = (port for port in self.ports if port.startswith(f"{name}:"))
        return lost + sum(self.ports[port][4] for port in devices)

    def fill(self, queue: str) -> float:
        for module in self.now.modules:
            if module.name == queue and module.most_waiting:
                return float(module.waiting / module.most_waiting)
        return 0.0

    def cpu(self, task: str) -> float:
        """The part of its time that the worker of a task spends on tasks."""
        wid = next((t.wid for t in self.now.tasks if t.module == task), -1)
        busy = sum(self.tasks[t.module][2] for t in self.now.tasks if t.wid == wid >= 0)
        return min(busy / 1e9 / self.seconds, 1.0)

    def nic(self) -> NicRate:
        arrived, size, left, sent, lost = self.ports.get(_NIC, (0, 0, 0, 0, 0))
        return NicRate(
            self.server,
            self.rate(arrived, size),
            self.rate(left, sent),
            lost / self.seconds,
            self.cpu("nic_in"),
        )


# Counters as tuples, by what they count.


def _gates(found: counters_pb.Counters) -> dict[tuple[str, int], tuple[int, ...]]:
    return {
        (module.name, gate.ogate): (gate.packets, gate.bytes)
        for module in found.modules
        for gate in module.ogates
    }


def _tasks(found: counters_pb.Counters) -> dict[str, tuple[int, ...]]:
    return {task.module: (task.packets, task.bytes, task.busy_ns) for task in found.tasks}


def _drops(found: counters_pb.Counters) -> dict[str, tuple[int, ...]]:
    return {module.name: (sum(module.drops.values()),) for module in found.modules}


def _ports(found: counters_pb.Counters) -> dict[str, tuple[int, ...]]:
    return {
        port.name: (
            port.inc.packets,
            port.inc.bytes,
            port.out.packets,
            port.out.bytes,
            port.inc.dropped + port.out.dropped,
        )
        for port in found.ports
    }


def _grown(
    before: Mapping[K, tuple[int, ...]], after: Mapping[K, tuple[int, ...]]
) -> dict[K, tuple[int, ...]]:
    """By how much each counter has grown; all that began anew count from 0."""
    grown: dict[K, tuple[int, ...]] = {}
    for key, now in after.items():
        then = before.get(key, ())
        began = len(then) != len(now) or any(a < b for a, b in zip(now, then, strict=True))
        grown[key] = now if began else tuple(a - b for a, b in zip(now, then, strict=True))
    return grown
