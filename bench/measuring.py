# SPDX-License-Identifier: BSD-3-Clause
"""Graphs measured in turn on one core, round by round, so that slow phases meet all of them alike.

E2_BENCH_SECONDS sets how long a graph runs in a round; a figure is the median of the rounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bess_plugins._crypto import best_level
from graphs import CORE, Graph

SECONDS = float(os.environ.get("E2_BENCH_SECONDS", "0.2"))
ROUNDS = 5
WARMUP = 0.25  # of the time that counts
STEAL = 8  # its column in a line of /proc/stat

LEVELS = ("portable", "aesni", "avx2", "avx512")
Figures = dict[str, dict[str, float]]  # by line


def measured_at(level: str, program: Path, what: str, benchmark: BenchmarkFixture) -> Figures:
    """What the program prints under that instruction set, which is chosen once in a process."""
    if LEVELS.index(level) > LEVELS.index(best_level()):
        pytest.skip(f"this CPU has no {level}")
    environment = {**os.environ, "E2_ISA": level, "PYTHONPATH": os.pathsep.join(sys.path)}
    pedantic: Any = benchmark.pedantic
    ran = pedantic(
        lambda: subprocess.run(
            [sys.executable, str(program), what], env=environment, capture_output=True, check=True
        ),
        rounds=1,
    )
    figures: Figures = json.loads(ran.stdout)
    return figures


def run_rounds(
    benchmark: BenchmarkFixture,
    measured: Callable[[], None],
    setup: Callable[[], None] | None = None,
) -> None:
    pedantic: Any = benchmark.pedantic
    pedantic(measured, setup=setup, rounds=ROUNDS, iterations=1)


@dataclass
class Samples:
    """What one graph did, round by round."""

    mpps: list[float] = field(default_factory=list)
    cycles_per_packet: list[float] = field(default_factory=list)
    worker_percent: list[float] = field(default_factory=list)  # of the core, while it ran

    def take(self, graph: Graph) -> None:
        """Lets the graph run for a while."""
        graph.resume()
        time.sleep(WARMUP * SECONDS)
        threads, start_ns = graph.worker_ns(), time.monotonic_ns()
        cycles, before = graph.cycles(), graph.counts()
        time.sleep(SECONDS)
        after, cycles = graph.counts(), graph.cycles() - cycles
        spent_ns = time.monotonic_ns() - start_ns
        used_ns = [ns - threads[name] for name, ns in graph.worker_ns().items() if name in threads]
        graph.pause()
        packets = [b[0] - a[0] for a, b in zip(before, after, strict=True)]
        spans = [b[1] - a[1] for a, b in zip(before, after, strict=True)]
        rate = sum(count / span for count, span in zip(packets, spans, strict=True))
        self.mpps.append(rate / graph.copies / 1e6)
        self.cycles_per_packet.append(cycles * graph.copies / max(1, sum(packets)))
        if used_ns:
            self.worker_percent.append(100 * max(used_ns) / spent_ns)


def core_ticks() -> list[int]:
    """What the measured core spent on each kind of work."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{CORE}":
            return [int(tick) for tick in ticks[:STEAL]]
    raise LookupError(f"/proc/stat has no line for core {CORE}")


def measure_in_turn(
    benchmark: BenchmarkFixture, graphs: Mapping[str, Graph]
) -> tuple[dict[str, dict[str, float]], float]:
    """The figures of each graph, and how much of the core the hypervisor took meanwhile."""
    samples = {name: Samples() for name in graphs}

    def measure() -> None:
        for name, graph in graphs.items():
            samples[name].take(graph)

    before = core_ticks()
    run_rounds(benchmark, measure)
    spent = [b - a for a, b in zip(before, core_ticks(), strict=True)]
    for name, sample in samples.items():
        assert min(sample.mpps) > 0, f"no packets were forwarded: {name}"
    figures = {
        name: {what: median(rounds) for what, rounds in vars(sample).items() if rounds}
        for name, sample in samples.items()
    }
    return figures, 100 * spent[-1] / max(1, sum(spent))
