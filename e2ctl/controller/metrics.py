# SPDX-License-Identifier: BSD-3-Clause
"""What a controller tells Prometheus: how its cluster does, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from e2ctl.controller.resident import Controller
from e2ctl.plan import Plan

__all__ = ["ControllerCollector"]


class ControllerCollector(Collector):
    """Shows what the controller saw last; nobody is asked for it."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def describe(self) -> Iterator[Metric]:
        """Give no names ahead, so that registering asks nobody."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all current values."""
        seen = self._controller
        yield GaugeMetricFamily(
            "e2_controller_leads", "1 for the one controller, 0 for a standby", seen.leads
        )
        told = CounterMetricFamily(
            "e2_controller_notices", "What happened, by its kind", labels=["kind"]
        )
        for kind, count in dict(seen.notices.told).items():
            told.add_metric([kind], count)
        yield told
        if seen.shown is not None:
            inputs, plan = seen.shown
            yield _servers(plan, {*inputs.lost}, {*seen.down_since})
            yield from _plan(plan)
            yield GaugeMetricFamily(
                "e2_switch_table_size", "Entries there is room for", inputs.cluster().switch.table
            )


def _servers(plan: Plan, lost: set[str], down: set[str]) -> Metric:
    family = GaugeMetricFamily(
        "e2_server_state", "1 for the state that a server is in", labels=["server", "state"]
    )
    for server in sorted({*plan.servers} | lost | down):
        state = "lost" if server in lost else "down" if server in down else "up"
        for name in ("up", "down", "lost"):
            family.add_metric([server, name], name == state)
    return family


def _plan(plan: Plan) -> Iterator[Metric]:
    instances = GaugeMetricFamily(
        "e2_nf_instances", "Instances that run, or begin or end", labels=["nf"]
    )
    for nf, count in Counter(instance.nf for instance in plan.igraph.instances).items():
        instances.add_metric([nf], count)
    yield instances
    changes = GaugeMetricFamily(
        "e2_changes_under_way", "Changes of instances, by kind", labels=["kind"]
    )
    under_way = Counter(detour.kind for detour in plan.detours.values())
    for kind in ("split", "shift", "drain", "resume"):
        changes.add_metric([kind], under_way[kind])
    yield changes
    yield GaugeMetricFamily(
        "e2_flow_exceptions", "Flows that stay though their ids are another's", len(plan.exceptions)
    )
    yield GaugeMetricFamily("e2_switch_entries", "Entries that the plan needs", len(plan.switch))
