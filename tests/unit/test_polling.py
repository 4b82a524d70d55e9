# SPDX-License-Identifier: BSD-3-Clause
"""A worker that polls keeps shares of cycles; shares that change while it runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Engine, EngineError, new_engine, wait_until


def cycles(engine: Engine, module: str) -> int:
    used: int = engine.tc_stats(f"!leaf_{module}:0")["cycles"]
    return used


def runs(engine: Engine, module: str) -> int:
    count: int = engine.tc_stats(f"!leaf_{module}:0")["count"]
    return count


def place(engine: Engine, module: str, parent: str = "", **where: int) -> None:
    engine.update_tc_parent({"leaf_module_name": module, "parent": parent, **where})


def with_sink(engine: Engine, name: str, mclass: str) -> None:
    engine.create_module(name, mclass, {})
    engine.create_module(f"{name}_sink", "Sink", {})
    engine.connect(name, 0, f"{name}_sink", 0)


def one_queue_starved(scheduler: str) -> Engine:
    """Queues that share cycles 3 to 1; nothing comes to the first, much to the other."""
    engine = new_engine()
    engine.add_worker(0, -1, scheduler)
    engine.add_tc({"name": "fair", "policy": "weighted_fair", "resource": "cycle", "wid": 0})
    for name, share in (("starved", 3), ("fed", 1)):
        with_sink(engine, name, "Queue")
        place(engine, name, "fair", share=share)
    engine.create_module("source", "Source", {})
    engine.connect("source", 0, "fed", 0)
    place(engine, "source", wid=0)  # in turn with the two
    return engine


def holds_after(engine: Engine, module: str, count: int, ratio: Callable[[], bool]) -> None:
    """Once `module` ran so often, the ratio comes true: a run that the machine interrupted counts
    as a long one, which the next ones make up for."""
    engine.resume_all()
    wait_until(lambda: runs(engine, module) >= count)
    wait_until(ratio)
    engine.pause_all()


def test_polling_spends_a_share_that_finds_no_packets() -> None:
    engine = one_queue_starved("polling")
    holds_after(
        engine,
        "fed",
        20_000,
        lambda: cycles(engine, "starved") == pytest.approx(3 * cycles(engine, "fed"), rel=0.02),
    )
    assert runs(engine, "starved") > 3 * runs(engine, "fed")
    assert engine.tc_stats("!leaf_starved:0")["packets"] == 0


@pytest.mark.parametrize("scheduler", ["", "experimental"])
def test_without_polling_the_others_get_what_a_class_leaves(scheduler: str) -> None:
    engine = one_queue_starved(scheduler)
    holds_after(
        engine, "fed", 20_000, lambda: cycles(engine, "starved") < 0.2 * cycles(engine, "fed")
    )


def test_polling_lets_a_lower_class_run_while_the_group_is_idle() -> None:
    engine = new_engine()
    engine.add_worker(0, -1, "polling")
    engine.add_tc({"name": "order", "policy": "priority", "wid": 0})
    engine.add_tc(
        {
            "name": "fair",
            "policy": "weighted_fair",
            "resource": "cycle",
            "parent": "order",
            "priority": 0,
        }
    )
    for name, share in (("left", 3), ("right", 1)):
        with_sink(engine, name, "Queue")
        place(engine, name, "fair", share=share)
    with_sink(engine, "lower", "Source")
    place(engine, "lower", "order", priority=1)
    engine.resume_all()
    wait_until(lambda: runs(engine, "lower") > 20_000)
    engine.pause_all()
    assert runs(engine, "left") > 0
    assert runs(engine, "right") > 0


def test_a_scheduler_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(EngineError, match=r"'fast': one of '', 'experimental'.*, 'polling'"):
        new_engine().add_worker(0, -1, "fast")


def fair_sources(resource: str) -> Engine:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "fair", "policy": "weighted_fair", "resource": resource, "wid": 0})
    for name in ("left", "right"):
        with_sink(engine, name, "Source")
        place(engine, name, "fair", share=1)
    return engine


def packets(engine: Engine, module: str) -> int:
    count: int = engine.tc_stats(f"!leaf_{module}:0")["packets"]
    return count


@pytest.mark.parametrize("share", [2, 5, 1000])
def test_counts_follow_a_share_that_changes_while_packets_flow(share: int) -> None:
    engine = fair_sources("packet")
    engine.resume_all()
    wait_until(lambda: packets(engine, "left") > 10_000)
    place(engine, "left", "fair", share=share)
    assert {tc["leaf_module_name"]: tc.get("share") for tc in engine.tcs() if "share" in tc} == {
        "left": share,
        "right": 1,
    }
    engine.pause_all()
    left, right = packets(engine, "left"), packets(engine, "right")
    engine.resume_all()
    wait_until(lambda: packets(engine, "right") > right + 32 * 200)
    engine.pause_all()
    gained = packets(engine, "left") - left, packets(engine, "right") - right
    assert gained[0] == pytest.approx(share * gained[1], abs=32 * (share + 1))
    for refused in (0, -1, (1 << 20) + 1):
        with pytest.raises(EngineError, match="'share' must be between 1 and 1048576"):
            place(engine, "left", "fair", share=refused)
    with pytest.raises(EngineError, match="needs a 'share'"):
        place(engine, "left", "fair")
    assert [tc["share"] for tc in engine.tcs() if "share" in tc] == [share, 1]


def test_a_share_changes_while_a_batch_is_on_its_way() -> None:
    """Whoever pauses a worker waits for its batch, which is counted by then."""
    engine = fair_sources("cycle")
    for name in ("left", "right"):
        engine.disconnect(name, 0)
        engine.create_module(f"{name}_slow", "Bypass", {"cycles_per_batch": 50_000_000})
        engine.connect(name, 0, f"{name}_slow", 0)
        engine.connect(f"{name}_slow", 0, f"{name}_sink", 0)
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("fair")["count"] > 0)

    def nobody_waited(share: int = 3) -> bool:
        before = engine.tc_stats("fair")["count"]
        place(engine, "left", "fair", share=share)
        return bool(engine.tc_stats("fair")["count"] == before)

    wait_until(nobody_waited)
    engine.pause_all()


def test_a_priority_changes_under_the_same_parent() -> None:
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.add_tc({"name": "order", "policy": "priority", "wid": 0})
    for priority, name in enumerate(("first", "second")):
        with_sink(engine, name, "Source")
        place(engine, name, "order", priority=priority)
    engine.resume_all()
    wait_until(lambda: runs(engine, "first") > 100)
    place(engine, "first", "order", priority=7)
    wait_until(lambda: runs(engine, "second") > 100)
    engine.pause_all()
    assert [tc["priority"] for tc in engine.tcs() if "priority" in tc] == [7, 1]
