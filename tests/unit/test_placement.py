# SPDX-License-Identifier: BSD-3-Clause
"""Which workers may run a module, and that nobody gets past that."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from harness import Engine, EngineError, new_engine, wait_until

NAT = {"ext_addrs": [{"ext_addr": "192.0.2.1"}]}


def two_workers() -> Engine:
    engine = new_engine()
    for wid in (0, 1):
        engine.add_worker(wid, -1)
    return engine


def source(engine: Engine, name: str, wid: int, to: str, in_gate: int = 0) -> None:
    engine.create_module(name, "Source", {})
    engine.connect(name, 0, to, in_gate)
    place(engine, name, wid)


def place(engine: Engine, module: str, wid: int, task: int = 0) -> None:
    engine.update_tc_parent(
        {"leaf_module_name": module, "leaf_module_taskid": task, "parent": "", "wid": wid}
    )


def fatal(engine: Engine) -> list[str]:
    return [v["name"] for v in engine.scheduling_violations() if v["fatal"]]


def test_a_module_with_state_runs_on_one_worker_only() -> None:
    engine = two_workers()
    engine.create_module("nat", "NAT", NAT)
    source(engine, "a", 0, "nat", 0)
    source(engine, "b", 1, "nat", 1)
    assert fatal(engine) == ["nat"]
    with pytest.raises(
        EngineError, match=r"'nat' \(NAT\) is reached from workers 0 and 1"
    ) as error:
        engine.resume_all()
    assert error.value.code == errno.EBUSY
    assert not any(worker["running"] for worker in engine.workers())
    place(engine, "b", 0)
    assert fatal(engine) == []
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("!leaf_b:0")["packets"] > 0)
    engine.pause_all()


def test_it_is_reached_through_other_modules_but_not_through_a_queue() -> None:
    engine = two_workers()
    engine.create_module("merge", "Merge", {})
    engine.create_module("queue", "Queue", {})
    engine.create_module("nat", "NAT", NAT)
    engine.connect("queue", 0, "nat", 0)
    source(engine, "a", 0, "merge")
    source(engine, "b", 1, "merge", 1)
    engine.connect("merge", 0, "queue", 0)
    assert fatal(engine) == []
    engine.disconnect("merge", 0)
    engine.connect("merge", 0, "nat", 0)
    assert fatal(engine) == ["nat"]


def test_tasks_without_a_place_go_where_they_break_nothing() -> None:
    engine = two_workers()
    engine.create_module("nat", "NAT", NAT)
    engine.create_module("merge", "Merge", {})
    for i, (to, in_gate) in enumerate([("nat", 0), ("nat", 1), ("merge", 0), ("merge", 1)]):
        engine.create_module(f"source{i}", "Source", {})
        engine.connect(f"source{i}", 0, to, in_gate)
    engine.resume_all()
    engine.pause_all()
    wids = {tc["leaf_module_name"]: tc["wid"] for tc in engine.tcs() if tc["policy"] == "leaf"}
    assert wids["source0"] == wids["source1"]
    assert set(wids.values()) == {0, 1}


def test_nobody_gets_there_while_workers_run() -> None:
    engine = two_workers()
    engine.create_module("nat", "NAT", NAT)
    engine.create_module("sink", "Sink", {})
    source(engine, "a", 0, "nat", 0)
    source(engine, "b", 1, "sink")
    engine.create_module("c", "Source", {})
    place(engine, "c", 1)
    engine.resume_all()
    with pytest.raises(EngineError, match="workers 0 and 1"):
        engine.connect("c", 0, "nat", 1)
    assert engine.module_info("c")["ogates"] == []
    place(engine, "c", 0)
    engine.connect("c", 0, "nat", 1)
    before = engine.tcs()
    with pytest.raises(EngineError, match="workers 0 and 1"):
        place(engine, "c", 1)
    assert engine.tcs() == before
    engine.pause_all()


@pytest.mark.parametrize(
    ("mclass", "args"),
    [
        ("RoundRobin", {"gates": [0]}),
        ("Measure", {"offset": 14}),
        ("NetworkMonitor", {}),
        ("IDS", {}),
        ("WebCache", {}),
        ("TrafficNormalizer", {}),
        ("HashLB", {"gates": [0]}),
        ("ExactMatch", {"fields": [{"offset": 26, "num_bytes": 4}]}),
    ],
)
def test_two_workers_may_share_what_keeps_its_state_apart(
    mclass: str, args: dict[str, Any]
) -> None:
    engine = two_workers()
    engine.create_module("m", mclass, args)
    engine.create_module("sink", "Sink", {})
    engine.connect("m", 0, "sink", 0)
    for wid in (0, 1):
        source(engine, f"source{wid}", wid, "m")
    engine.resume_all()
    wait_until(
        lambda: all(engine.tc_stats(f"!leaf_source{w}:0")["packets"] > 10_000 for w in (0, 1))
    )
    engine.pause_all()
    sent = sum(engine.tc_stats(f"!leaf_source{w}:0")["packets"] for w in (0, 1))
    info = engine.module_info("m")
    assert info["ogates"][0]["pkts"] + sum(info["drops"].values()) == sent
    assert engine.module_info("sink")["igates"][0]["pkts"] == info["ogates"][0]["pkts"]


def test_a_queue_of_a_port_has_one_sender() -> None:
    engine = two_workers()
    engine.create_port("port", "MemoryPort", 1, 1, 64, 64)
    engine.create_module("out", "PortOut", {"port": "port"})
    for wid in (0, 1):
        source(engine, f"source{wid}", wid, "out")
    with pytest.raises(EngineError, match=r"queue 0 of port 'port' \(outgoing\) is used from work"):
        engine.resume_all()


def test_workers_take_the_queues_of_a_port_in_turn() -> None:
    engine = new_engine()
    for wid in (3, 5):
        engine.add_worker(wid, -1)
    engine.create_port("port", "MemoryPort", 2, 2, 64, 64)
    engine.create_module("out", "PortOut", {"port": "port"})
    for wid in (3, 5):
        source(engine, f"source{wid}", wid, "out")
    engine.create_module("sink", "Sink", {})
    for queue in (0, 1):
        engine.create_module(f"in{queue}", "QueueInc", {"port": "port", "qid": queue})
        engine.connect(f"in{queue}", 0, "sink", 0)
        place(engine, f"in{queue}", 3)
    engine.resume_all()
    wait_until(lambda: all(engine.tc_stats(f"!leaf_in{q}:0")["packets"] > 1_000 for q in (0, 1)))
    engine.pause_all()
    stats = engine.port_stats("port")
    received = sum(engine.tc_stats(f"!leaf_in{q}:0")["packets"] for q in (0, 1))
    assert stats["inc"]["packets"] == received  # one counter a queue: none is lost
    made = sum(engine.tc_stats(f"!leaf_source{w}:0")["packets"] for w in (3, 5))
    assert stats["out"]["packets"] + stats["out"]["dropped"] == made


def test_a_queue_of_a_port_has_one_receiver() -> None:
    engine = two_workers()
    engine.create_port("port", "MemoryPort", 1, 1, 64, 64)
    for wid in (0, 1):
        engine.create_module(f"in{wid}", "PortInc", {"port": "port"})
        place(engine, f"in{wid}", wid)
    assert sorted(fatal(engine)) == ["in0", "in1"]
    place(engine, "in1", 0)
    assert fatal(engine) == []


def test_packets_to_open_gates_count_for_their_worker() -> None:
    engine = two_workers()
    engine.create_module("source", "Source", {})
    place(engine, "source", 1)
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("!leaf_source:0")["packets"] > 100)
    engine.pause_all()
    sent = engine.tc_stats("!leaf_source:0")["packets"]
    assert [worker["silent_drops"] for worker in engine.workers()] == [0, sent]


def test_a_queue_that_nothing_fills_is_told_but_not_refused() -> None:
    engine = two_workers()
    engine.create_module("queue", "Queue", {})
    assert [(v["name"], v["fatal"]) for v in engine.scheduling_violations()] == [("queue", False)]
    engine.resume_all()
    engine.pause_all()
