# SPDX-License-Identifier: BSD-3-Clause
"""Traffic classes against what their policies promise, and against a plain stride scheduler."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from harness import Engine, new_engine, wait_until


def sources(engine: Engine, count: int, burst: int = 32) -> list[str]:
    names = [f"source{i}" for i in range(count)]
    for name in names:
        engine.create_module(name, "Source", {})
        engine.module_command(name, "set_burst", {"burst": burst})
        engine.create_module(f"{name}_sink", "Sink", {})
        engine.connect(name, 0, f"{name}_sink", 0)
    return names


def attach(engine: Engine, module: str, parent: str, **place: int) -> None:
    engine.update_tc_parent(
        {"leaf_module_name": module, "leaf_module_taskid": 0, "parent": parent, **place}
    )


def run_until(engine: Engine, leaf: str, count: int) -> Mapping[str, int]:
    """Runs until `leaf` was scheduled `count` times; returns how often each leaf was."""
    engine.resume_all()
    wait_until(lambda: engine.tc_stats(leaf)["count"] >= count)
    engine.pause_all()
    return {
        tc["leaf_module_name"]: engine.tc_stats(tc["name"])["count"]
        for tc in engine.tcs()
        if tc["policy"] == "leaf"
    }


def stride_twin(shares: list[int], runs: int) -> list[int]:
    """How often each child runs when each run costs one unit: stride scheduling, spelled out."""
    passes = [0.0] * len(shares)
    counts = [0] * len(shares)
    for _ in range(runs):
        child = passes.index(min(passes))
        passes[child] += 1 / shares[child]
        counts[child] += 1
    return counts


@pytest.mark.parametrize("resource", ["count", "packet", "bit"])
@pytest.mark.parametrize("shares", [[1, 1], [1, 3], [5, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_weighted_fair_follows_the_twin(resource: str, shares: list[int]) -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "wf", "policy": "weighted_fair", "resource": resource, "wid": 0})
    names = sources(engine, len(shares))
    for name, share in zip(names, shares, strict=True):
        attach(engine, name, "wf", share=share)
    counts = run_until(engine, "wf", 20_000)
    total = sum(counts.values())
    for name, expected in zip(names, stride_twin(shares, total), strict=True):
        assert abs(counts[name] - expected) <= len(shares)


def test_weighted_fair_by_packets_accounts_for_burst_sizes() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "wf", "policy": "weighted_fair", "resource": "packet", "wid": 0})
    big, small = sources(engine, 2)
    engine.module_command(small, "set_burst", {"burst": 4})
    attach(engine, big, "wf", share=1)
    attach(engine, small, "wf", share=1)
    counts = run_until(engine, "wf", 20_000)
    assert counts[small] / counts[big] == pytest.approx(8, rel=0.01)


def test_priority_serves_the_lower_number_only() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "prio", "policy": "priority", "wid": 0})
    low, high = sources(engine, 2)
    attach(engine, low, "prio", priority=5)
    attach(engine, high, "prio", priority=1)
    counts = run_until(engine, "prio", 1_000)
    assert counts[low] == 0
    assert counts[high] >= 1_000


def test_priority_falls_through_a_throttled_child() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "prio", "policy": "priority", "wid": 0})
    engine.add_tc(
        {
            "name": "limited",
            "parent": "prio",
            "priority": 0,
            "policy": "rate_limit",
            "resource": "packet",
            "limit": {"packet": 1},
            "max_burst": {"packet": 0},
        }
    )
    first, second = sources(engine, 2)
    attach(engine, first, "limited")
    attach(engine, second, "prio", priority=1)
    counts = run_until(engine, f"!leaf_{second}:0", 1_000)
    assert 1 <= counts[first] <= 2


def test_priority_falls_through_an_idle_child() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "prio", "policy": "priority", "wid": 0})
    engine.create_module("empty", "Queue", {})
    (busy,) = sources(engine, 1)
    attach(engine, "empty", "prio", priority=0)
    attach(engine, busy, "prio", priority=1)
    counts = run_until(engine, f"!leaf_{busy}:0", 1_000)
    assert counts["empty"] >= 1


def test_round_robin_takes_turns() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "rr", "policy": "round_robin", "wid": 0})
    names = sources(engine, 5)
    for name in names:
        attach(engine, name, "rr")
    counts = run_until(engine, "rr", 5_000)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_rate_limit_never_exceeds_its_budget() -> None:
    rate_pps, burst = 20_000, 1_000
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc(
        {
            "name": "limited",
            "policy": "rate_limit",
            "resource": "packet",
            "wid": 0,
            "limit": {"packet": rate_pps},
            "max_burst": {"packet": burst},
        }
    )
    (name,) = sources(engine, 1)
    attach(engine, name, "limited")
    start = time.monotonic()
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("limited")["packets"] > 2_000)
    engine.pause_all()
    budget = (time.monotonic() - start) * rate_pps + burst + 32
    assert engine.tc_stats("limited")["packets"] <= budget


def test_usage_adds_up_to_the_root() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "root", "policy": "round_robin", "wid": 0})
    engine.add_tc({"name": "inner", "policy": "round_robin", "parent": "root"})
    names = sources(engine, 3)
    attach(engine, names[0], "root")
    attach(engine, names[1], "inner")
    attach(engine, names[2], "inner")
    run_until(engine, "root", 3_000)
    for key in ("count", "packets", "bits", "cycles"):
        leaves = sum(engine.tc_stats(f"!leaf_{name}:0")[key] for name in names)
        assert engine.tc_stats("root")[key] == leaves


def test_a_refused_move_leaves_the_class_where_it_was() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "wf", "policy": "weighted_fair", "resource": "count", "wid": 0})
    (name,) = sources(engine, 1)
    attach(engine, name, "wf", share=7)
    before = engine.tcs()
    with pytest.raises(RuntimeError, match="share"):
        attach(engine, name, "wf", share=0)
    assert engine.tcs() == before


def blocked(engine: Engine) -> set[str]:
    return {tc["leaf_module_name"] for tc in engine.tcs() if tc["blocked"]}


def runs(engine: Engine, module: str) -> int:
    count: int = engine.tc_stats(f"!leaf_{module}:0")["count"]
    return count


def run_more(engine: Engine, module: str) -> None:
    before = runs(engine, module)
    wait_until(lambda: runs(engine, module) > before + 1_000)


def test_a_full_queue_with_backpressure_stops_its_sources_instead_of_dropping() -> None:
    engine = new_engine()
    for wid in (0, 1):
        engine.add_worker(wid, -1)
    engine.create_module("queue", "Queue", {"size": 256, "backpressure": True})
    engine.create_module("sink", "Sink", {})
    engine.create_module("far", "Bypass", {})
    engine.connect("queue", 0, "sink", 0)
    engine.connect("far", 0, "queue", 0)
    (name, unrelated) = sources(engine, 2)
    engine.disconnect(name, 0)
    engine.connect(name, 0, "far", 0)
    engine.update_tc_parent({"leaf_module_name": "queue", "parent": "", "wid": 1})
    for source in (name, unrelated):
        engine.update_tc_parent({"leaf_module_name": source, "parent": "", "wid": 0})
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("!leaf_queue:0")["packets"] > 50_000)
    # Nobody empties it any more: it fills to its high mark and no further, and others go on.
    engine.pause_worker(1)
    wait_until(lambda: blocked(engine) == {name})
    run_more(engine, unrelated)
    stuck = runs(engine, name)
    run_more(engine, unrelated)
    assert runs(engine, name) == stuck
    assert 38 <= engine.module_command("queue", "get_status", {})["count"] <= 256
    engine.resume_worker(1)
    run_more(engine, name)
    engine.pause_all()
    assert engine.module_command("queue", "get_status", {})["dropped"] == 0


def test_destroying_an_overloaded_queue_lets_its_sources_go() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_worker(1, -1)
    engine.create_module("queue", "Queue", {"size": 64, "backpressure": True})
    (name,) = sources(engine, 1)
    engine.disconnect(name, 0)
    engine.connect(name, 0, "queue", 0)
    engine.update_tc_parent({"leaf_module_name": "queue", "parent": "", "wid": 1})
    engine.update_tc_parent({"leaf_module_name": name, "parent": "", "wid": 0})
    engine.resume_worker(0)
    wait_until(lambda: blocked(engine) == {name})
    engine.destroy_module("queue")
    run_more(engine, name)
    engine.pause_all()


def test_resume_hooks_are_there_from_the_start_and_can_be_removed() -> None:
    engine = new_engine()
    for hook in ("setup_metadata", "setup_taskgraph"):
        with pytest.raises(RuntimeError, match="already installed"):
            engine.configure_resume_hook(hook, True)
    with pytest.raises(RuntimeError, match="there are setup_metadata and setup_taskgraph"):
        engine.configure_resume_hook("none", True)
    engine.create_module("source", "Source", {})
    field = {"attr_name": "timestamp", "num_bytes": 8}
    engine.create_module("match", "ExactMatch", {"fields": [field]})
    engine.connect("source", 0, "match", 0)
    with pytest.raises(RuntimeError, match="reads attribute 'timestamp'"):
        engine.resume_all()
    engine.configure_resume_hook("setup_metadata", False)
    engine.configure_resume_hook("setup_metadata", False)  # removing what is gone is no error
    engine.resume_all()  # nobody looks at metadata any more
    engine.pause_all()
    engine.configure_resume_hook("setup_metadata", True)
    with pytest.raises(RuntimeError, match="reads attribute 'timestamp'"):
        engine.resume_all()
