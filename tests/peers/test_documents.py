# SPDX-License-Identifier: BSD-3-Clause
"""docs/bess.md lists what cannot pass; this runs without a checkout, too."""

from __future__ import annotations

from pathlib import Path

from expected import IMPOSSIBLE, MODES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bess.md"


def test_the_page_has_the_list() -> None:
    lines = PAGE.read_text().splitlines()
    for name, impossible in IMPOSSIBLE.items():
        modes = "both" if impossible.modes == MODES else f"`{impossible.modes[0]}`"
        assert f"| `{name}` | {modes} | {impossible.reason} |" in lines
    listed = [line for line in lines if line.startswith(("| `conf/", "| `module_tests/"))]
    assert len(listed) == len(IMPOSSIBLE)
