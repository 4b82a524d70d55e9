# SPDX-License-Identifier: BSD-3-Clause
"""LoadMonitor in running graphs; its figures on a clock of their own: test_load_monitor.cc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from harness import Engine, EngineError, new_engine, run, wait_until

CORE = min(os.sched_getaffinity(0))
FAST = {"time_constant_ns": 1_000_000, "hold_ns": 1_000_000, "interval_ns": 100_000}


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = new_engine()
    yield engine
    engine.pause_all()
    engine.reset_modules()


def status(engine: Engine) -> dict[str, Any]:
    return engine.module_command("monitor", "get_status", {})


def kinds(engine: Engine) -> list[str]:
    return [event["kind"] for event in engine.events()["events"]]


def test_a_queue_that_nothing_empties_and_then_something_does(engine: Engine) -> None:
    engine.create_module("queue", "Queue", {"size": 64})
    engine.create_module("sink", "Sink", {})
    engine.create_module("monitor", "LoadMonitor", {"queue": "queue", **FAST})
    engine.connect("queue", 0, "sink", 0)
    engine.add_worker(0, CORE)
    # The queue waits for a worker that does not run.
    engine.add_worker(1, CORE)
    place = {"leaf_module_taskid": 0}
    engine.update_tc_parent({"leaf_module_name": "queue", "wid": 1, **place})
    engine.update_tc_parent({"leaf_module_name": "monitor", "wid": 0, **place})
    engine.run_packets("queue", [bytes(60)] * 64)
    engine.resume_worker(0)
    wait_until(lambda: bool(status(engine)["overloaded"]))
    assert engine.module_info("monitor")["desc"] == "overload"
    assert status(engine)["occupancy"] > 0.8
    engine.resume_worker(1)
    wait_until(lambda: not status(engine)["overloaded"])
    assert (status(engine)["overloads"], status(engine)["reliefs"]) == (1, 1)
    assert kinds(engine) == ["overload", "relief"]
    first = engine.events()["events"][0]
    assert first["module"] == "monitor"
    assert 800_000 <= first["values"]["occupancy_ppm"] <= 1_000_000
    assert engine.module_info("monitor")["desc"] == "normal"


def test_delay_between_timestamp_and_monitor(engine: Engine) -> None:
    steps = [
        ("source", "Source", {}),
        ("stamp", "Timestamp", {}),
        ("monitor", "LoadMonitor", {"high_delay_ns": 1, **FAST}),
        ("sink", "Sink", {}),
    ]
    for name, mclass, args in steps:
        engine.create_module(name, mclass, args)
    for (before, *_), (after, *_) in pairwise(steps):
        engine.connect(before, 0, after, 0)
    engine.add_worker(0, CORE)
    engine.resume_all()
    wait_until(lambda: status(engine)["delay_ns"] > 0)
    wait_until(lambda: status(engine)["overloads"] == 1)


def test_its_task_leads_nowhere(engine: Engine) -> None:
    """On another worker than the packets: what follows it may still be for one worker only."""
    engine.create_module("source", "Source", {})
    engine.create_module("stamp", "Timestamp", {})
    engine.create_module("monitor", "LoadMonitor", {"high_delay_ns": 1, **FAST})
    engine.create_module("next", "WebCache", {})
    engine.create_module("sink", "Sink", {})
    order = ["source", "stamp", "monitor", "next", "sink"]
    for before, after in pairwise(order):
        engine.connect(before, 0, after, 0)
    for wid, module in enumerate(("source", "monitor")):
        engine.add_worker(wid, CORE)
        engine.update_tc_parent({"leaf_module_name": module, "leaf_module_taskid": 0, "wid": wid})
    assert engine.scheduling_violations() == []
    engine.resume_all()
    wait_until(lambda: status(engine)["overloads"] == 1)


def test_without_packets_it_needs_no_stamp_upstream(engine: Engine) -> None:
    engine.create_module("monitor", "LoadMonitor", {"high_delay_ns": 1})
    engine.add_worker(0, CORE)
    engine.resume_all()
    assert not status(engine)["overloaded"]


def test_packets_without_a_stamp_upstream_are_refused(engine: Engine) -> None:
    engine.create_module("source", "Source", {})
    engine.create_module("monitor", "LoadMonitor", {"high_delay_ns": 1})
    engine.connect("source", 0, "monitor", 0)
    engine.add_worker(0, CORE)
    with pytest.raises(EngineError, match="timestamp"):
        engine.resume_all()


def test_packets_pass(engine: Engine) -> None:
    packets = [bytes(n) for n in range(100)]
    assert run("LoadMonitor", {"high_delay_ns": 5}, packets).out[0] == packets


def test_a_queue_that_goes_away(engine: Engine) -> None:
    engine.create_module("queue", "Queue", {})
    engine.create_module("monitor", "LoadMonitor", {"queue": "queue", **FAST})
    engine.add_worker(0, CORE)
    engine.resume_all()
    assert status(engine)["queue"] == "queue"
    engine.destroy_module("queue")
    assert status(engine)["queue"] == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "'queue'.*or 'high_delay_ns'"),
        ({"queue": "nobody"}, "no module 'nobody'"),
        ({"queue": "bypass"}, r"'bypass' \(Bypass\) keeps no packets"),
        ({"queue": "queue", "high_occupancy": 1.5}, "'high_occupancy'"),
        ({"queue": "queue", "high_occupancy": float("nan")}, "'high_occupancy'"),
        ({"queue": "queue", "high_occupancy": 0.5, "low_occupancy": 0.5}, "'low_occupancy'"),
        ({"queue": "queue", "low_occupancy": -1.0}, "'low_occupancy'"),
        ({"high_delay_ns": 5, "low_delay_ns": 5}, "'low_delay_ns'"),
        ({"queue": "queue", "low_delay_ns": 5}, "'low_delay_ns'"),
        ({"high_delay_ns": 5, "hold_ns": 10**18 + 1}, "'hold_ns'"),
    ],
)
def test_bad_arguments(engine: Engine, args: dict[str, Any], message: str) -> None:
    engine.create_module("queue", "Queue", {})
    engine.create_module("bypass", "Bypass", {})
    with pytest.raises(EngineError, match=message):
        engine.create_module("monitor", "LoadMonitor", args)
