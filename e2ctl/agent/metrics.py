# SPDX-License-Identifier: BSD-3-Clause
"""What an agent tells Prometheus: the counters of its daemon, by what they mean in its plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bess_plugins.client import BessError
from bess_plugins.pb import e2_agent_pb2 as pb
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from e2ctl.agent.server import AgentServer
from e2ctl.rates import instance_of
from e2ctl.server_plan import ServerPlan

__all__ = ["AgentCollector"]

_ABOUT = ("nf", "instance")
# Label, help, and further labels of each family; all have the server's name as a label.
_COUNTERS: Mapping[str, tuple[str, Sequence[str]]] = {
    "e2_gate_packets": ("Packets that crossed a gate", ("module", "gate", *_ABOUT, "edge")),
    "e2_gate_bytes": ("Bytes that crossed a gate", ("module", "gate", *_ABOUT, "edge")),
    "e2_module_drops": ("Packets dropped by reason", ("module", "reason", *_ABOUT)),
    "e2_task_packets": ("Packets that a task brought", ("module", "worker", *_ABOUT)),
    "e2_task_bytes": ("Bytes that a task brought", ("module", "worker", *_ABOUT)),
    "e2_task_busy_seconds": ("Time that a task took", ("module", "worker", *_ABOUT)),
    "e2_device_packets": ("Packets moved", ("device", "direction", *_ABOUT)),
    "e2_device_bytes": ("Bytes moved", ("device", "direction", *_ABOUT)),
    "e2_device_drops": ("Packets lost", ("device", "direction", *_ABOUT)),
    "e2_daemon_restarts": ("How often the daemon was started again", ()),
}
_GAUGES: Mapping[str, tuple[str, Sequence[str]]] = {
    "e2_daemon_up": ("1 while the daemon answers", ()),
    "e2_plan_info": ("1, with the digest of the committed plan", ("digest",)),
    "e2_queue_packets": ("Packets that a queue holds", ("module", *_ABOUT)),
    "e2_queue_size": ("Packets that a queue may hold", ("module", *_ABOUT)),
    "e2_worker_running": ("1 while a worker runs", ("worker", "core")),
}


class AgentCollector(Collector):
    """Asks the daemon when metrics are fetched."""

    def __init__(self, agent: AgentServer) -> None:
        self._agent = agent

    def describe(self) -> Iterator[Metric]:
        """Give no names ahead, so that registering asks nobody."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all current values; without a daemon, that there is none."""
        families = _Families(self._agent.server, self._agent.plan)
        try:
            found = self._agent.get_counters(pb.AgentCountersRequest())
        except (BessError, ValueError):  # it is about to be started again
            found = None
        families.add("e2_daemon_up", (), found is not None)
        families.add("e2_daemon_restarts", (), self._agent.restarts)
        if found is not None:
            families.add("e2_plan_info", (found.plan,), 1)
            families.daemon(found.daemon)
        yield from families.made.values()


class _Families:
    """The families of one answer."""

    def __init__(self, server: str, plan: ServerPlan | None) -> None:
        self.server = server
        modules = plan.modules if plan else ()
        programs = plan.programs if plan else ()
        self.instances = {m.node for m in modules if m.role == "nf"}
        self.instances |= {program.instance for program in programs}
        self.edges = {(t.module, t.ogate): t for t in (plan.taps if plan else ())}
        self.made: dict[str, Metric] = {
            name: CounterMetricFamily(name, text, labels=("server", *labels))
            for name, (text, labels) in _COUNTERS.items()
        }
        self.made |= {
            name: GaugeMetricFamily(name, text, labels=("server", *labels))
            for name, (text, labels) in _GAUGES.items()
        }

    def add(self, name: str, labels: Sequence[str], value: float) -> None:
        family = self.made[name]
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric([self.server, *labels], value)

    def about(self, module: str) -> tuple[str, str]:
        """NF and instance of a module, empty where it is none's."""
        instance = instance_of(module, self.instances) or ""
        return instance.rpartition(".")[0], instance

    def daemon(self, found: counters_pb.Counters) -> None:
        for module in found.modules:
            self.module(module)
        for task in found.tasks:
            labels = task.module, str(task.wid), *self.about(task.module)
            self.add("e2_task_packets", labels, task.packets)
            self.add("e2_task_bytes", labels, task.bytes)
            self.add("e2_task_busy_seconds", labels, task.busy_ns / 1e9)
        for worker in found.workers:
            self.add("e2_worker_running", (str(worker.wid), str(worker.core)), worker.running)
        for port in found.ports:
            instance = port.name.partition(":")[0]
            known = instance if instance in self.instances else ""
            about = known.rpartition(".")[0], known
            for direction, counts in (("in", port.inc), ("out", port.out)):
                self.add("e2_device_packets", (port.name, direction, *about), counts.packets)
                self.add("e2_device_bytes", (port.name, direction, *about), counts.bytes)
                self.add("e2_device_drops", (port.name, direction, *about), counts.dropped)

    def module(self, module: counters_pb.ModuleCounters) -> None:
        about = self.about(module.name)
        for gate in module.ogates:
            tap = self.edges.get((module.name, gate.ogate))
            edge = "" if tap is None else f"{tap.source} -> {tap.target}"
            labels = module.name, str(gate.ogate), *about, edge
            self.add("e2_gate_packets", labels, gate.packets)
            if tap is not None:  # others don't count bytes
                self.add("e2_gate_bytes", labels, gate.bytes)
        for reason, drops in module.drops.items():
            self.add("e2_module_drops", (module.name, reason, *about), drops)
        if module.HasField("waiting"):
            self.add("e2_queue_packets", (module.name, *about), module.waiting)
            self.add("e2_queue_size", (module.name, *about), module.most_waiting)
