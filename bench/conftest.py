# SPDX-License-Identifier: BSD-3-Clause
"""The summary tables of the benchmarks; they report and never judge."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Row = tuple[str, str, dict[str, float]]  # of a table: the line and its figures
ROWS = pytest.StashKey[list[Row]]()
COLUMNS = (
    ("mpps", 9, 1),
    ("cycles_per_packet", 18, 1),
    ("bessd_mpps", 11, 1),
    ("ratio", 7, 2),
    ("us_per_rule", 12, 2),
    ("source_mpps", 12, 1),
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
)
DATAPLANE = "dataplane: one worker, 60-byte packets"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Adds a line to a table at the end of the run."""

    def add(name: str, figures: dict[str, float], table: str = DATAPLANE) -> None:
        pytestconfig.stash[ROWS].append((table, name, dict(figures)))

    return add


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash[ROWS]
    for table in dict.fromkeys(table for table, _, _ in rows):
        lines = [(name, figures) for title, name, figures in rows if title == table]
        columns = [column for column in COLUMNS if any(column[0] in line[1] for line in lines)]
        wide = max(len(name) for name, _ in lines)
        terminalreporter.section(table)
        heading = "".join(f"{column:>{width}}" for column, width, _ in columns)
        terminalreporter.write_line(f"{'line':<{wide}}{heading}")
        for name, figures in lines:
            cells = "".join(
                f"{figures[column]:>{width},.{digits}f}" if column in figures else " " * width
                for column, width, digits in columns
            )
            terminalreporter.write_line(f"{name:<{wide}}{cells}".rstrip())
