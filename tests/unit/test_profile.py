# SPDX-License-Identifier: BSD-3-Clause
"""`e2_profile` and `e2_stats`: where a task's cycles went."""

from __future__ import annotations

from typing import Any

import pytest

from harness import Engine, new_engine, wait_until

MODULES = ("source", "first", "queue", "second", "empty", "sink")


def profiled(**profile: bool) -> Engine:
    """A task that fills a queue, one that empties it, and one that finds nothing."""
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.create_module("first", "Bypass", {"cycles_per_batch": 3_000})
    engine.create_module("queue", "Queue", {"size": 64})
    engine.create_module("second", "Bypass", {"cycles_per_batch": 1_000})
    engine.create_module("empty", "Queue", {})
    engine.create_module("sink", "Sink", {})
    for upstream, downstream in (
        ("source", "first"),
        ("first", "queue"),
        ("queue", "second"),
        ("second", "sink"),
    ):
        engine.connect(upstream, 0, downstream, 0)
    engine.module_command("sink", "e2_profile", profile)
    return engine


def run_it(engine: Engine) -> dict[str, dict[str, Any]]:
    """What each module's figures are once the queue's task ran for a while."""
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("!leaf_queue:0")["count"] > 2_000)
    engine.pause_all()
    return {name: engine.module_command(name, "e2_stats", {}) for name in MODULES}


@pytest.mark.parametrize("scheduler", ["", "polling"])
def test_cycles_of_modules_add_up_to_those_of_their_tasks(scheduler: str) -> None:
    engine = profiled(enable=True)
    engine.add_worker(0, -1, scheduler)  # profiling is on for workers to come, too
    stats = run_it(engine)
    spent = ("cycles", "task_cycles", "idle_cycles", "overhead_cycles")
    total = sum(of_module[key] for of_module in stats.values() for key in spent)
    leaves = {name: engine.tc_stats(f"!leaf_{name}:0") for name in ("source", "queue", "empty")}
    assert total == sum(leaf["cycles"] for leaf in leaves.values())
    # By module: what came in by gates apart from what the tasks brought.
    for name, leaf in leaves.items():
        assert stats[name]["task_packets"] == leaf["packets"]
    assert stats["source"]["packets"] == stats["source"]["cycles"] == 0
    assert stats["source"]["task_cycles"] > 0
    assert stats["first"]["packets"] == stats["queue"]["packets"] == leaves["source"]["packets"]
    assert stats["sink"]["packets"] == leaves["queue"]["packets"]
    assert stats["sink"]["task_cycles"] == 0
    assert stats["queue"]["cycles"] > 0
    assert stats["queue"]["task_cycles"] > 0
    assert stats["empty"]["idle_cycles"] == leaves["empty"]["cycles"] > 0
    assert stats["empty"]["task_cycles"] == 0
    # A module that burns cycles has them, and who hands it packets does not.
    batches = engine.module_info("source")["ogates"][0]["cnt"]
    assert stats["first"]["cycles"] >= 2_500 * batches


def test_without_profiling_nothing_is_counted() -> None:
    engine = profiled(enable=True)
    engine.module_command("queue", "e2_profile", {"enable": False})
    engine.add_worker(0, -1)
    for of_module in run_it(engine).values():
        drops = of_module.pop("drops")
        assert set(drops) <= {"queue full"}
        assert set(of_module.values()) == {0}
