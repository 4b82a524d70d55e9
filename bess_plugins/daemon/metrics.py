# SPDX-License-Identifier: BSD-3-Clause
"""Prometheus metrics of a daemon: what its engine has, and the calls that it served."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bess_plugins.daemon._base import EngineApi
from bess_plugins.metrics import serving

log = logging.getLogger(__name__)


class EngineCollector(Collector):
    """Reads the engine when metrics are fetched."""

    def __init__(self, engine: EngineApi) -> None:
        self._engine = engine

    def describe(self) -> Iterator[Metric]:
        """Give no names ahead, so that registering does not read the engine."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all current values; what vanishes meanwhile is left out."""
        yield from self._ports()
        yield from self._workers()
        yield from self._traffic_classes()
        yield from self._modules()
        yield from self._memory()

    def _ports(self) -> Iterator[Metric]:
        labels = ["port", "direction"]
        families = {
            "packets": CounterMetricFamily("e2d_port_packets", "Packets moved", labels=labels),
            "bytes": CounterMetricFamily("e2d_port_bytes", "Bytes moved", labels=labels),
            "dropped": CounterMetricFamily("e2d_port_dropped", "Packets dropped", labels=labels),
        }
        for port in self._engine.ports():
            stats = _attempt(self._engine.port_stats, port["name"])
            for direction in ("inc", "out") if stats else ():
                for key, family in families.items():
                    family.add_metric([port["name"], direction], stats[direction][key])
        yield from families.values()

    def _workers(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("e2d_worker_running", "1 while running", labels=["worker"])
        drops = CounterMetricFamily(
            "e2d_worker_silent_drops", "Packets sent to unconnected gates", labels=["worker"]
        )
        for worker in self._engine.workers():
            label = [str(worker["wid"])]
            running.add_metric(label, float(worker["running"]))
            drops.add_metric(label, worker["silent_drops"])
        yield running
        yield drops

    def _traffic_classes(self) -> Iterator[Metric]:
        families = {
            key: CounterMetricFamily(f"e2d_tc_{key}", text, labels=["tc"])
            for key, text in (
                ("count", "Times scheduled"),
                ("cycles", "CPU cycles used"),
                ("packets", "Packets processed"),
                ("bits", "Bits processed"),
            )
        }
        for tc in self._engine.tcs():
            stats = _attempt(self._engine.tc_stats, tc["name"])
            for key, family in families.items() if stats else ():
                family.add_metric([tc["name"]], stats[key])
        yield from families.values()

    def _modules(self) -> Iterator[Metric]:
        deadends = CounterMetricFamily(
            "e2d_module_deadends", "Packets that ended in a module", labels=["module"]
        )
        drops = CounterMetricFamily(
            "e2d_module_drops", "Packets dropped by reason", labels=["module", "reason"]
        )
        for module in self._engine.modules():
            info = _attempt(self._engine.module_info, module["name"])
            if not info:
                continue
            deadends.add_metric([module["name"]], info["deadends"])
            for reason, count in (info.get("drops") or {}).items():
                drops.add_metric([module["name"], reason], count)
        yield deadends
        yield drops

    def _memory(self) -> Iterator[Metric]:
        pool = self._engine.mempool()
        yield GaugeMetricFamily("e2d_packets_size", "Packet buffers", value=pool["size"])
        yield GaugeMetricFamily("e2d_packets_in_use", "Buffers in use", value=pool["in_use"])


def _attempt(read: Any, name: str) -> dict[str, Any]:
    """Read an object that another call may have removed in the meantime."""
    try:
        result: dict[str, Any] = read(name)
    except Exception as error:
        if getattr(error, "code", None) != errno.ENOENT:
            log.warning("reading '%s' for metrics failed: %s", name, error)
        return {}
    return result


class Metrics:
    """The state of an engine and the calls it served."""

    def __init__(self, engine: EngineApi) -> None:
        self._engine = EngineCollector(engine)
        self._calls = Counter("e2d_rpc", "Calls served", ["method", "code"], registry=None)
        self._duration = Histogram(
            "e2d_rpc_duration_seconds", "Time taken by calls", ["method"], registry=None
        )
        self._serving = ExitStack()
        self.port = 0  # where metrics are served, 0 while they are not

    def observe(self, method: str, code: int, seconds: float) -> None:
        """Account for one finished call."""
        self._calls.labels(method, str(code)).inc()
        self._duration.labels(method).observe(seconds)

    def serve(self, address: str) -> None:
        """Serve the metrics, as `serving` does."""
        collectors = (self._engine, self._calls, self._duration)
        self.port = self._serving.enter_context(serving(address, *collectors))

    def close(self) -> None:
        """Stop serving."""
        self._serving.close()
        self.port = 0
