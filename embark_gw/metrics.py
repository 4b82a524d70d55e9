# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embark_gw.keeper import Keeper

__all__ = ["GatewayCollector"]


class GatewayCollector(Collector):
    """Shows what was counted last; nobody is asked for it."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def describe(self) -> Iterator[Metric]:
        """Give no names ahead, so that registering asks nobody."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all current values; without a daemon, that there is none."""
        status = self._keeper.status
        yield GaugeMetricFamily(
            "embark_up", "1 while the daemon has all pipelines", status is not None
        )
        yield CounterMetricFamily(
            "embark_rebuilt", "How often a daemon got its pipelines again", self._keeper.rebuilt
        )
        if status is None:
            return
        sides = CounterMetricFamily(
            "embark_side_packets", "Packets moved, by side", labels=["side", "direction"]
        )
        for direction, counts in (("in", status.received), ("out", status.sent)):
            for side, count in counts.items():
                sides.add_metric([side, direction], count)
        yield sides
        yield CounterMetricFamily("embark_encrypted_packets", "Encrypted", status.encrypted)
        yield CounterMetricFamily("embark_decrypted_packets", "Decrypted", status.decrypted)
        drops = CounterMetricFamily(
            "embark_drops", "Packets dropped, by module and reason", labels=["module", "reason"]
        )
        for (module, reason), count in status.drops.items():
            drops.add_metric([module, reason], count)
        yield drops
        waiting = GaugeMetricFamily(
            "embark_queue_packets", "Packets that wait for a worker", labels=["queue"]
        )
        for queue, (count, _) in status.waiting.items():
            waiting.add_metric([queue], count)
        yield waiting
        if (flows := status.flows) is not None:
            yield GaugeMetricFamily("embark_flows", "Flows that are remembered", flows.flows)
            yield GaugeMetricFamily(
                "embark_flows_left", "Flows under the rules before the latest", flows.left
            )
