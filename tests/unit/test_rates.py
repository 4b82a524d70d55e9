# SPDX-License-Identifier: BSD-3-Clause
"""Rates from readings of counters that are made up here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bess_plugins.pb import e2_agent_pb2 as pb
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from e2ctl import hardware, nfs
from e2ctl.edges import taps_of
from e2ctl.plan import Plan, make_plan
from e2ctl.policy import load
from e2ctl.rates import Rate, Rates, instance_of, measure
from e2ctl.routing import PlanError
from e2ctl.server_plan import ProgramSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
PLAN = make_plan(
    load(EXAMPLES / "central_office.e2"),
    nfs.load(EXAMPLES / "nfs.yaml"),
    hardware.load(EXAMPLES / "rack.yaml"),
)
SERVER = PLAN.layout.servers["ids.0"]
SECOND = 10**9
numbers = st.integers(0, 1 << 40)


def reading(
    time_ns: int,
    packets: int,
    *,
    size: int = 100,
    drops: int = 0,
    waiting: int = 0,
    busy_ns: int = 0,
    restarts: int = 0,
    server: str = SERVER,
) -> pb.AgentCounters:
    """A server on which everything has counted the same."""
    target = PLAN.servers[server]
    gates: dict[str, list[counters_pb.GateCounters]] = {}
    for link in target.links:
        gates.setdefault(link.source, []).append(
            counters_pb.GateCounters(
                ogate=link.ogate,
                target=link.target,
                igate=link.igate,
                packets=packets,
                bytes=packets * size,
            )
        )
    modules = [
        counters_pb.ModuleCounters(
            name=module.name,
            mclass=module.mclass,
            ogates=gates.get(module.name, ()),
            drops={"queue full": drops} if module.mclass == "Queue" else {},
            waiting=waiting if module.mclass == "Queue" else None,
            most_waiting=4096 if module.mclass == "Queue" else None,
        )
        for module in target.modules
    ]
    workers = list(dict.fromkeys(target.tasks.values()))
    tasks = [
        counters_pb.TaskCounters(
            module=module,
            wid=workers.index(worker),
            busy_ns=busy_ns,
            packets=packets,
            bytes=packets * size,
        )
        for module, worker in target.tasks.items()
    ]
    moved = counters_pb.DirectionCounters(packets=packets, bytes=packets * size, dropped=drops)
    ports = [counters_pb.PortCounters(name="nic", driver="AFPacketPort", inc=moved, out=moved)]
    return pb.AgentCounters(
        daemon=counters_pb.Counters(time_ns=time_ns, modules=modules, tasks=tasks, ports=ports),
        restarts=restarts,
    )


def rates(before: pb.AgentCounters, after: pb.AgentCounters, plan: Plan = PLAN) -> Rates:
    return measure(plan, {SERVER: before}, {SERVER: after})


def only(found: Rates, instance: str = "ids.0") -> Mapping[str, object]:
    (one,) = (i for i in found.instances if i.instance == instance)
    return vars(one)


def passes(rate: Rate, packets: float, size: int) -> bool:
    """But for rounding."""
    return (rate.packets, rate.bits) == pytest.approx((packets, 8 * packets * size))


@given(numbers, st.integers(0, 1 << 20), st.integers(1, 100 * SECOND), st.integers(0, 1500))
def test_what_grows_in_a_time_passes_in_that_time(
    start: int, grown: int, elapsed_ns: int, size: int
) -> None:
    found = rates(reading(5, start, size=size), reading(5 + elapsed_ns, start + grown, size=size))
    once = grown * SECOND / elapsed_ns
    assert all(passes(edge.rate, once, size) for edge in found.edges)
    assert passes(found.nics[0].received, once, size)
    assert passes(found.nics[0].sent, once, size)
    (here,) = (i for i in found.instances if i.instance == "ids.0")
    assert passes(here.received, once, size)
    # An IDS has two output gates, and the sum of both is what it sends.
    assert passes(here.sent, 2 * once, size)


def test_shares_and_drops() -> None:
    found = rates(
        reading(0, 10, drops=1), reading(2 * SECOND, 10, drops=11, waiting=1024, busy_ns=SECOND)
    )
    here = only(found)
    # Its queue and those behind its gates are three that dropped ten each in two seconds.
    assert (here["drops"], here["queue"], here["cpu"]) == (15.0, 0.25, 0.5)
    assert found.nics[0].drops == 10.0
    assert found.nics[0].cpu == 1.0  # several tasks; never more than all of a worker


@given(numbers, numbers, st.booleans())
def test_what_begins_anew_counts_from_zero(before: int, after: int, restarted: bool) -> None:
    found = rates(reading(0, before), reading(SECOND, after, restarts=int(restarted)))
    grown = after - before if after >= before and not restarted else after
    assert only(found)["received"] == Rate(grown, 800 * grown)


def test_servers_without_two_readings_have_no_part() -> None:
    assert measure(PLAN, {}, {SERVER: reading(0, 1)}) == Rates((), (), ())
    assert rates(reading(7, 1), reading(7, 2)) == Rates((), (), ())
    found = rates(reading(0, 0), reading(SECOND, 1))
    assert {i.instance for i in found.instances} == {*PLAN.layout.on(SERVER)}
    assert {edge.source for edge in found.edges} <= {*PLAN.layout.on(SERVER), "subscribers"}


def test_an_edge_from_the_switch_adds_up_over_servers() -> None:
    servers = [*taps_of(PLAN, "subscribers -> ids")]
    assert len(servers) == 2
    before, after = (
        {server: reading(time_ns, packets, server=server) for server in servers}
        for time_ns, packets in ((0, 0), (SECOND, 3))
    )
    (entering,) = (e for e in measure(PLAN, before, after).edges if e.source == "subscribers")
    assert (entering.target, entering.rate.packets) == ("ids", 6.0)


def test_a_program_has_no_worker() -> None:
    target = PLAN.servers[SERVER]
    legacy = replace(target, programs=(ProgramSpec("ids.0", nfs.Program(devices=("a",))),))
    plan = replace(PLAN, servers={**PLAN.servers, SERVER: legacy})
    assert only(rates(reading(0, 0), reading(SECOND, 1), plan))["cpu"] is None


def test_whose_a_module_is() -> None:
    known = ["ids.0", "cache.0"]
    for module in ("ids.0~ab", "hold:ids.0~ab", "queue:ids.0", "copy:match:ids.0:0~a:1~b"):
        assert instance_of(module, known) == "ids.0"
    for module in ("tunnel:ids.0~ab", "untag:ids.0", "steer:ids~ab", "match:subscribers:0~a"):
        assert instance_of(module, known) is None


def test_where_an_edge_can_be_seen() -> None:
    every = taps_of(PLAN, "ids -> cache")
    assert {tap.source for taps in every.values() for tap in taps} == {"ids.0", "ids.1"}
    one = taps_of(PLAN, " ids.1->cache ")
    assert list(one) == [PLAN.layout.servers["ids.1"]]
    assert {tap.target for tap in taps_of(PLAN, "subscribers -> ids")[SERVER]} == {"ids"}
    with pytest.raises(PlanError, match="'ids' is no edge; expected one such as 'ids -> cache'"):
        taps_of(PLAN, "ids")
    with pytest.raises(PlanError, match=r"no server sees packets of 'cache -> ids'.*ids -> cache"):
        taps_of(PLAN, "cache -> ids")
