# SPDX-License-Identifier: BSD-3-Clause
"""Our notation means what BESS's does: the same Python, statement by statement."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.script.sugar import SugarError, translate
from peer_support import BESS_HOME, CONF, ROOT_FOLDER, TESTS, needs_bess, scripts

pytestmark = needs_bess

SCRIPTS = scripts(CONF, "*.bess") + scripts(TESTS, "*.bess") + scripts(TESTS, "*.py")


@pytest.fixture(scope="module")
def theirs(tree: Path) -> Iterator[Any]:
    """BESS's bessctl.test_sugar."""
    sys.path.insert(0, str(tree))
    try:
        yield importlib.import_module("bessctl.test_sugar")
    finally:
        sys.path.remove(str(tree))
        for name in [name for name in sys.modules if name.partition(".")[0] == "bessctl"]:
            del sys.modules[name]


def meaning(text: str) -> str:
    return ast.dump(ast.parse(text))


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_mean_the_same(name: str, theirs: Any) -> None:
    path = Path(BESS_HOME) / ROOT_FOLDER / name
    ours = translate(path.read_text()).compile(name)
    assert ast.dump(ours) == meaning(theirs.sugar.xform_file(path))


def pairs(theirs: Any) -> list[tuple[str, str]]:
    """The table in BESS's own test of its notation."""
    found: list[tuple[str, str]] = []
    case = theirs.TestSugar("test_envvar")
    case.run_suite = found.extend
    case.test_envvar()
    case.test_module()
    return found


def test_the_table_of_its_own_test(theirs: Any) -> None:
    table = pairs(theirs)
    assert len(table) >= 46
    for source, expected in table:
        try:
            after = meaning(expected)
        except SyntaxError:  # it translates what never was a statement; ours says so
            with pytest.raises((SugarError, SyntaxError)):
                translate(source).compile("pair")
            continue
        assert ast.dump(translate(source).compile("pair")) == after, source
