# SPDX-License-Identifier: BSD-3-Clause
"""WorkerSplit: gates by worker, and what the placement check makes of them; MetadataTest."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from harness import Engine, EngineError, new_engine, run, wait_until

NAT = {"ext_addrs": [{"ext_addr": "192.0.2.1"}]}


def graph(worker_gates: dict[int, int], after: str, args: dict[str, Any]) -> Engine:
    """Two workers with a source each lead to a WorkerSplit, whose gates 0 and 1 to one module."""
    engine = new_engine()
    engine.create_module("split", "WorkerSplit", {"worker_gates": worker_gates})
    for n in (0, 1):
        engine.add_worker(n, -1)
        engine.create_module(f"source{n}", "Source", {})
        engine.connect(f"source{n}", 0, "split", 0)
        place = {"leaf_module_name": f"source{n}", "leaf_module_taskid": 0, "wid": n}
        engine.update_tc_parent(place)
        engine.create_module(f"after{n}", after, args)
        engine.connect("split", n, f"after{n}", 0)
    return engine


def counts(engine: Engine) -> dict[int, int]:
    return {gate["ogate"]: gate["pkts"] for gate in engine.module_info("split")["ogates"]}


def sent(engine: Engine, worker: int) -> int:
    return int(engine.tc_stats(f"!leaf_source{worker}:0")["packets"])


def test_each_worker_has_its_gate() -> None:
    engine = graph({}, "Sink", {})
    engine.resume_all()
    wait_until(lambda: min(sent(engine, 0), sent(engine, 1)) > 0)
    engine.pause_all()
    assert counts(engine) == {0: sent(engine, 0), 1: sent(engine, 1)}


def test_gates_may_be_listed_and_change() -> None:
    engine = graph({0: 1, 1: 0}, "Sink", {})
    engine.resume_all()
    wait_until(lambda: min(sent(engine, 0), sent(engine, 1)) > 0)
    engine.pause_all()
    before = {0: sent(engine, 1), 1: sent(engine, 0)}
    assert counts(engine) == before
    engine.module_command("split", "reset", {"worker_gates": {0: 1}})
    engine.resume_all()
    drops = "no gate for this worker"
    wait_until(lambda: engine.module_info("split")["drops"][drops] > 0)
    wait_until(lambda: sent(engine, 0) > before[1])
    engine.pause_all()
    assert counts(engine) == {0: before[0], 1: sent(engine, 0)}
    assert engine.module_info("split")["drops"][drops] == sent(engine, 1) - before[0]


def test_what_follows_is_reached_by_the_gates_worker_only() -> None:
    engine = graph({}, "NAT", NAT)
    engine.resume_all()
    engine.pause_all()
    engine.module_command("split", "reset", {"worker_gates": {0: 1, 1: 1}})
    with pytest.raises(EngineError, match=r"'after1' \(NAT\) is reached from workers 0 and 1"):
        engine.resume_all()


def test_a_reset_that_is_not_safe_leaves_the_workers_paused() -> None:
    engine = graph({}, "NAT", NAT)
    engine.resume_all()
    with pytest.raises(EngineError, match="all workers are paused") as error:
        engine.module_command("split", "reset", {"worker_gates": {0: 0, 1: 0}})
    assert error.value.code == errno.EBUSY
    assert not any(worker["running"] for worker in engine.workers())
    engine.module_command("split", "reset", {})
    engine.resume_all()
    engine.module_command("split", "reset", {"worker_gates": {0: 1, 1: 0}})
    assert all(worker["running"] for worker in engine.workers())
    engine.pause_all()


@pytest.mark.parametrize("gates", [{64: 0}, {0: 64}, {1 << 31: 1}])
def test_bad_gates(gates: dict[int, int]) -> None:
    with pytest.raises(EngineError, match=r"WorkerSplit\.worker_gates.*must be below 64"):
        run("WorkerSplit", {"worker_gates": gates}, [])
    with pytest.raises(EngineError, match=r"reset: worker_gates.*must be below 64"):
        run("WorkerSplit", {}, [], [("reset", {"worker_gates": gates})])


@pytest.mark.parametrize("gate", [0, 3])
def test_metadata_test_sends_packets_straight_on(gate: int) -> None:
    args = {"write": {"a": 4, "b": 2}}
    assert run("MetadataTest", args, [b"x"], in_gate=gate).out == {gate: [b"x"]}


def test_metadata_test_declares_attributes() -> None:
    engine = new_engine()
    engine.create_module("w", "MetadataTest", {"write": {"a": 4, "b": 2}})
    engine.create_module("m", "MetadataTest", {"read": {"a": 4}, "update": {"b": 2}})
    engine.connect("w", 0, "m", 0)
    engine.run_packets("w", [b"x"])
    found = {
        (attr["name"], attr["size"], attr["mode"]): attr["offset"]
        for attr in engine.module_info("m")["metadata"]
    }
    assert set(found) == {("a", 4, "read"), ("b", 2, "update")}
    assert min(found.values()) >= 0


@pytest.mark.parametrize(
    "args", [{"read": {"a": 0}}, {"write": {"a": 33}}, {"read": {"": 4}}, {"update": {"a": -1}}]
)
def test_metadata_test_bad_arguments(args: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"MetadataTest\.\w+\['.*'\] is .* 1 to 32 bytes"):
        run("MetadataTest", args, [])


def test_metadata_test_declares_a_name_once() -> None:
    with pytest.raises(EngineError, match="declared already"):
        run("MetadataTest", {"read": {"a": 1}, "write": {"a": 1}}, [])
