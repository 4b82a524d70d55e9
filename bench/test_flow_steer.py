# SPDX-License-Identifier: BSD-3-Clause
"""FlowSteer: packets per second over how many flows are active, and what a split costs.

Packets come from Source, Rewrite and RandomUpdate, each of a flow drawn at random, which is the
worst order for caches; `source_mpps` is what these do alone, and `steer_ns` the difference. The
figures to beat are 40 Mpps at 100,000 flows, and 2 ms per split of 10,000 flows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bess_plugins._engine import Engine

SECONDS = float(os.environ.get("E2_BENCH_SECONDS", "0.2"))
ROUNDS = 5
GOAL_MPPS = {100_000: 40.0}
GOAL_SPLIT_US = 2000.0
SPLIT_FLOWS = 20_000  # of which half are above the cut
END = 1 << 32
TABLE = "FlowSteer: one worker, 60-byte packets of random flows"
PACKET = bytes.fromhex(
    "02000000000202000000000108004500002e000000004011000000000000000a00000113880050001a0000"
).ljust(60, b"\0")

Report = Callable[[str, dict[str, float], str], None]


def ranges(*gates: int) -> list[dict[str, int]]:
    width = END // len(gates)
    return [
        {"start": n * width, "end": (n + 1) * width, "gate": gate} for n, gate in enumerate(gates)
    ]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    engine.add_worker(0, max(os.sched_getaffinity(0)))
    yield engine
    engine.pause_all()
    engine.reset_modules()


def build(engine: Engine, flows: int, steer: dict[str, Any] | None, tags: bool = False) -> None:
    """Packets of so many flows, into FlowSteer or, without arguments for it, away; with an
    attribute that holds an id, if need be."""
    field = {"offset": 26, "size": 4, "min": 0x0A000000, "max": 0x0A000000 + flows - 1}
    engine.create_module("source", "Source", {"pkt_size": 60})
    engine.create_module("rewrite", "Rewrite", {"templates": [PACKET]})
    engine.create_module("vary", "RandomUpdate", {"fields": [field]})
    engine.connect("source", 0, "rewrite", 0)
    engine.connect("rewrite", 0, "vary", 0)
    before = "vary"
    if tags:
        before = "tag"
        attr = {"name": "tag", "size": 2, "offset": 28}  # which vary between flows
        engine.create_module("tag", "SetMetadata", {"attrs": [attr]})
        engine.connect("vary", 0, "tag", 0)
    if steer is not None:
        engine.create_module("steer", "FlowSteer", steer)
        engine.connect(before, 0, "steer", 0)
        before = "steer"
    for gate in range(4 if steer is not None else 1):
        engine.create_module(f"sink{gate}", "Sink", {})
        engine.connect(before, gate, f"sink{gate}", 0)


def active(engine: Engine) -> int:
    return int(engine.module_command("steer", "get_status", {})["flows"])


def measure(engine: Engine) -> float:
    """Median Mpps of several intervals."""
    found = []
    for _ in range(ROUNDS):
        before = engine.tc_stats("!leaf_source:0")
        time.sleep(SECONDS)
        after = engine.tc_stats("!leaf_source:0")
        packets = after["packets"] - before["packets"]
        found.append(packets / (after["timestamp"] - before["timestamp"]) / 1e6)
    return median(found)


@pytest.mark.parametrize("kind", ["", "symmetric", "id_attr"])
@pytest.mark.parametrize("flows", [1_000, 100_000, 1_000_000])
def test_active_flows(
    flows: int, kind: str, engine: Engine, benchmark: BenchmarkFixture, report: Report
) -> None:
    tags = kind == "id_attr"
    build(engine, flows, None, tags)
    engine.resume_all()
    time.sleep(SECONDS / 2)
    alone = measure(engine)
    engine.pause_all()
    engine.reset_modules()
    args: dict[str, Any] = {"ranges": ranges(0, 1, 2, 3), "max_flows": flows}
    args |= {"symmetric": kind == "symmetric", "id_attr": "tag" if tags else ""}
    build(engine, flows, args, tags)
    engine.resume_all()
    while active(engine) < flows * 0.999:
        time.sleep(0.01)
    mpps: list[float] = []
    pedantic: Any = benchmark.pedantic
    pedantic(lambda: mpps.append(measure(engine)), rounds=1, iterations=1)
    assert active(engine) <= flows
    assert engine.module_command("steer", "get_status", {})["untracked_packets"] == 0
    figures = {"mpps": mpps[0], "source_mpps": alone, "steer_ns": 1e3 / mpps[0] - 1e3 / alone}
    if flows in GOAL_MPPS:
        figures["goal_mpps"] = GOAL_MPPS[flows]
    benchmark.extra_info.update(figures)
    report(f"{flows:,} flows{kind and ', ' + kind}", figures, TABLE)


@pytest.mark.parametrize("running", [False, True], ids=["idle", "worker running"])
def test_split(running: bool, engine: Engine, benchmark: BenchmarkFixture, report: Report) -> None:
    """10,000 of 20,000 flows become exceptions; the time is the whole command's, pause included."""
    build(engine, SPLIT_FLOWS, {"ranges": ranges(0)})
    engine.resume_all()
    while active(engine) < SPLIT_FLOWS:
        time.sleep(0.01)
    if not running:
        engine.pause_all()
    times: list[float] = []

    def split() -> None:
        args = {"gate": 0, "new_gate": 1, "cut": END // 2}
        started = time.perf_counter()
        answer = engine.module_command("steer", "split", args)
        times.append(time.perf_counter() - started)
        assert 0.45 * SPLIT_FLOWS < answer["exceptions"] < 0.55 * SPLIT_FLOWS

    def undo() -> None:
        engine.module_command("steer", "update", {"ranges": ranges(0)})

    pedantic: Any = benchmark.pedantic
    pedantic(split, setup=undo, rounds=20, iterations=1)
    figures = {"us_per_split": median(times) * 1e6, "goal_us": GOAL_SPLIT_US}
    benchmark.extra_info.update(figures)
    report(f"split of 10,000 flows, {'running' if running else 'idle'}", figures, TABLE)
