# SPDX-License-Identifier: BSD-3-Clause
"""What the vector instructions bring: daemons that differ in E2_ISA alone, measured in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bess_plugins.client import Client
from graphs import DaemonGraph, Graph
from harness import real_daemon
from lines import LINES
from measuring import measure_in_turn

LEVELS = ("portable", "avx2", "avx512")
NAMES = (
    "Rewrite(32)",
    "Rewrite(32)->HashLB(5 fields,4)",
    "Rewrite(32)->ExactMatch(dport,4)",
    "Rewrite(32)->WildcardMatch(4 masks)",
    "Rewrite(32)->IPLookup(1000)",
    "Rewrite(32)->Split(dport)",
)


def works_here(level: str) -> bool:
    """Whether the engine starts with it."""
    code = "from bess_plugins._engine import Engine; Engine()"
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "E2_ISA": level},
        capture_output=True,
        check=False,
    )
    return run.returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_isa(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    benchmark: BenchmarkFixture,
    report: Callable[..., None],
) -> None:
    (line,) = (line for line in LINES if line.name == name)
    graphs: dict[str, Graph] = {}
    with ExitStack() as stack:
        for level in filter(works_here, LEVELS):
            monkeypatch.setenv("E2_ISA", level)
            daemon = stack.enter_context(real_daemon(tmp_path))
            graph = DaemonGraph(stack.enter_context(Client(daemon.address)))
            line.build(graph)
            graphs[level] = graph
        measured, steal = measure_in_turn(benchmark, graphs)
    mpps = {level: figures["mpps"] for level, figures in measured.items()}
    figures = {f"{level}_mpps": rate for level, rate in mpps.items()}
    figures |= {f"{level}_ratio": mpps[level] / mpps["portable"] for level in [*mpps][1:]}
    figures["worker_percent"] = min(figures["worker_percent"] for figures in measured.values())
    report(name, {**figures, "steal_percent": steal}, "E2_ISA: against portable kernels")
