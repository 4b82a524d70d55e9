# SPDX-License-Identifier: BSD-3-Clause
"""BESS's tests of its modules, in BESS's own bessctl, with our daemon."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from expected import TWO_CORES, judge
from peer_support import BESS_HOME, ROOT_FOLDER, TESTS, launch, needs_bess, scripts

pytestmark = needs_bess

# As unittest prints it; a test may print in between.
OUTCOME = re.compile(r"^(test_\w+) \(.*?\.\.\. .*?\b(ok|FAIL|ERROR)$", re.MULTILINE | re.DOTALL)


METHOD = re.compile(r"^    def (test_\w+)\(self", re.MULTILINE)
# How BESS keeps a test from running.
QUOTED = re.compile(r"\'\'\'.*?\'\'\'", re.DOTALL)


def methods(*, quoted: bool) -> list[str]:
    """FILE::TEST of each; the files have BESS's notation in them, so Python can't parse them."""
    found = []
    for name in scripts(TESTS, "*.py"):
        source = (Path(BESS_HOME) / ROOT_FOLDER / name).read_text()
        names = METHOD.findall(source if quoted else QUOTED.sub("", source))
        found += [f"{name}::{method}" for method in names]
    return found


TESTS_FOUND = methods(quoted=False)


@pytest.fixture(scope="module")
def outcomes(tree: Path, daemon: str) -> Callable[[str], tuple[dict[str, str], str]]:
    """Outcome by test of a file, and all that it printed."""

    @cache
    def run(file: str) -> tuple[dict[str, str], str]:
        output = launch(
            "bessctl", tree, daemon, f"run file {tree / ROOT_FOLDER / file}", patience_s=240
        ).stdout
        return dict(OUTCOME.findall(output)), output

    return run


@pytest.mark.parametrize("name", TESTS_FOUND)
def test_module(name: str, outcomes: Callable[[str], tuple[dict[str, str], str]]) -> None:
    if name in TWO_CORES and not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("it names cores 0 and 1, which this process may not use")
    file, test = name.split("::")
    results, output = outcomes(file)
    assert test in results, output
    judge(name, "bessctl", results[test] == "ok", output)


def test_all_of_them_are_there() -> None:
    assert len(methods(quoted=True)) >= 63
    assert set(methods(quoted=True)) - set(TESTS_FOUND) == {
        "module_tests/etherencap.py::test_run_etherencap"
    }
