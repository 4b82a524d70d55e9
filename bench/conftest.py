# SPDX-License-Identifier: BSD-3-Clause
"""The summary table of the benchmarks; it reports and never judges."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Row = tuple[str, dict[str, float]]
ROWS = pytest.StashKey[list[Row]]()
COLUMNS = (
    ("mpps", 9, 1),
    ("cycles_per_packet", 18, 1),
    ("bessd_mpps", 11, 1),
    ("ratio", 7, 2),
    ("us_per_rule", 12, 2),
)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Callable[[str, dict[str, float]], None]:
    """Adds a line to the table at the end of the run."""

    def add(name: str, figures: dict[str, float]) -> None:
        pytestconfig.stash[ROWS].append((name, dict(figures)))

    return add


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    wide = max(len(name) for name, _ in rows)
    terminalreporter.section("dataplane: one worker, 60-byte packets")
    heading = "".join(f"{column:>{width}}" for column, width, _ in COLUMNS)
    terminalreporter.write_line(f"{'line':<{wide}}{heading}")
    for name, figures in rows:
        cells = "".join(
            f"{figures[column]:>{width},.{digits}f}" if column in figures else " " * width
            for column, width, digits in COLUMNS
        )
        terminalreporter.write_line(f"{name:<{wide}}{cells}".rstrip())
