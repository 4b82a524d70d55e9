# SPDX-License-Identifier: BSD-3-Clause
"""The summary tables of the benchmarks; they report and never judge."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bess_plugins._engine import ISA
from bess_plugins.client import Client
from graphs import CORE
from machine import cpu_model, load

Row = tuple[str, str, dict[str, float]]  # of a table: the line and its figures
ROWS = pytest.StashKey[list[Row]]()
MACHINE = pytest.StashKey[dict[str, str]]()
COLUMNS = (
    ("rules", 8, 0),
    ("encrypted", 11, 0),
    ("one_prefix_each", 17, 0),
    ("prefixes", 10, 0),
    ("maps_mb", 9, 2),
    ("mpps", 9, 1),
    ("cycles_per_packet", 18, 1),
    ("peer_mpps", 10, 1),
    ("ratio", 7, 2),
    ("elsewhere_mpps", 15, 1),
    ("elsewhere_ratio", 16, 2),
    ("header_mpps", 12, 1),
    ("attribute_mpps", 15, 1),
    ("cost_percent", 13, 1),
    ("portable_mpps", 14, 1),
    ("avx2_mpps", 10, 1),
    ("avx512_mpps", 12, 1),
    ("avx2_ratio", 11, 2),
    ("avx512_ratio", 13, 2),
    ("median_ns", 10, 0),
    ("peer_ns", 8, 0),
    ("elsewhere_ns", 13, 0),
    ("worker_percent", 15, 1),
    ("peer_percent", 13, 1),
    ("steal_percent", 14, 1),
    ("us_per_rule", 12, 2),
    ("source_mpps", 12, 1),
    ("match_cycles", 13, 1),
    ("steer_ns", 9, 1),
    ("goal_mpps", 10, 1),
    ("us_per_split", 13, 0),
    ("goal_us", 8, 0),
    ("seconds", 9, 2),
    ("rss_mb", 8, 0),
    ("percent_of_core", 17, 2),
    ("idle_us", 9, 0),
    ("bessd_idle_us", 15, 0),
    ("running_us", 12, 0),
    ("bessd_running_us", 18, 0),
    ("ns", 11, 2),
    ("limit_ns", 10, 1),
    ("dissertation_ns", 17, 0),
    ("us", 14, 4),
    ("times_prefix_match", 20, 0),
    ("round_trips", 13, 1),
    ("dissertation_us", 17, 2),
    ("dissertation_times", 20, 0),
    ("decrypt_us", 12, 3),
    ("dissertation_decrypt_us", 25, 3),
    ("kb", 9, 0),
    ("dissertation_kb", 17, 0),
    ("dissertation_mpps", 19, 1),
    ("gbps", 8, 1),
    ("ms", 10, 3),
    ("dissertation_ms", 17, 1),
    ("to_packing", 12, 3),
    ("to_metis", 10, 3),
    ("to_random", 11, 3),
    ("to_swaps", 10, 3),
    ("metis_better", 14, 0),
    ("e2_gap_percent", 16, 2),
    ("metis_gap_percent", 19, 2),
    ("packing_gap_percent", 21, 2),
    ("not_optimal", 13, 0),
)
DATAPLANE = "dataplane: one worker, 60-byte packets"
NOTES = """\
peer_mpps, ratio: the daemon at BESSD_ADDRESS, in turn with ours on this core
elsewhere_mpps, elsewhere_ratio: bessd on ANOTHER machine, for want of BESSD_ADDRESS; a hint only
worker_percent, peer_percent: how much of the core the worker got; below 98, something else ran
there and the line is worth nothing
steal_percent: how much of the core the hypervisor took"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="also write the tables to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[MACHINE] = {
        "cpu": cpu_model(),
        "E2_ISA": ISA,
        "core": f"{CORE} of {os.cpu_count()}",
        "load before": load(),
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["bench"] = config.stash[MACHINE]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a benchmark makes is closed at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def peer(pytestconfig: pytest.Config) -> Iterator[Client | None]:
    """The daemon to compare with; what it holds is lost."""
    address = os.environ.get("BESSD_ADDRESS")
    if not address:
        yield None
        return
    with Client(address) as client:
        pytestconfig.stash[MACHINE]["peer"] = f"{client.version()} at {address}"
        yield client


@pytest.fixture
def report(pytestconfig: pytest.Config, benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Adds the test's line to a table at the end of the run, and to --benchmark-json."""

    def add(name: str, figures: dict[str, float], table: str = DATAPLANE) -> None:
        benchmark.extra_info.update(figures, table=table, line=name)
        pytestconfig.stash[MACHINE]["load after"] = load()
        pytestconfig.stash[ROWS].append((table, name, dict(figures)))

    return add


def table_lines(title: str, rows: list[tuple[str, dict[str, float]]]) -> Iterator[str]:
    columns = [column for column in COLUMNS if any(column[0] in figures for _, figures in rows)]
    wide = max(len(name) for name, _ in rows)
    heading = "".join(f"{column:>{width}}" for column, width, _ in columns)
    yield ""
    yield title
    yield f"{'line':<{wide}}{heading}"
    for name, figures in rows:
        cells = "".join(
            f"{figures[column]:>{width},.{digits}f}" if column in figures else " " * width
            for column, width, digits in columns
        )
        yield f"{name:<{wide}}{cells}".rstrip()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    text = [f"{name}: {value}" for name, value in config.stash[MACHINE].items()]
    text += NOTES.splitlines()
    for table in dict.fromkeys(table for table, _, _ in rows):
        text += table_lines(table, [row[1:] for row in rows if row[0] == table])
    terminalreporter.section("benchmarks")
    for line in text:
        terminalreporter.write_line(line)
    if config.getoption("table"):
        path: Path = config.getoption("table")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text) + "\n")
