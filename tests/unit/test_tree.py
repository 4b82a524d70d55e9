# SPDX-License-Identifier: BSD-3-Clause
"""Rules that the code base keeps about itself."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "SPDX-License-Identifier: BSD-3-Clause"
MAX_LINES = 400
LIMITED = ("ext/", "bess_plugins/", "e2ctl/", "embark_gw/", "bench/")
# The protocol's messages keep BESS's files.
LONG = {
    "bess_plugins/proto/e2_msg.proto",
    "bess_plugins/proto/bess_msg.proto",
    "bess_plugins/proto/module_msg.proto",
}
FRAGMENT = re.compile(r"changelog\.d/[a-z0-9-]+\.(added|changed|fixed)\.md")


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in sorted(set(listed.stdout.split("\n"))) if (ROOT / name).is_file()]


FILES = tracked()
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in FILES
    if not name.endswith((".pcap", ".gz", ".png", ".svg"))
}
HEADERS = [name for name in FILES if name.startswith("ext/") and name.endswith(".h")]


def test_first_line_is_the_licence() -> None:
    """Second line where the first names an interpreter; fragments of the changelog have none."""
    wrong = []
    for name, text in TEXTS.items():
        lines = [line for line in text.splitlines() if not line.startswith("#!")]
        if lines and not name.startswith("changelog.d/") and LICENCE not in lines[0]:
            wrong.append(name)
    assert wrong == []


def test_files_are_short() -> None:
    lines = {name: text.count("\n") for name, text in TEXTS.items() if name.startswith(LIMITED)}
    assert {name for name, count in lines.items() if count > MAX_LINES} <= LONG


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_names_of_tests_are_unique(folder: str) -> None:
    """pytest imports a module of tests by its bare name: two of one name can't run together."""
    paths = [Path(name) for name in FILES if name.startswith(f"{folder}/")]
    names = Counter(path.name for path in paths if path.match("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_nothing_is_put_off() -> None:
    marks = re.compile("|".join((r"\bTO" r"DO\b", r"\bFIX" r"ME\b", r"\bX" r"XX\b")))
    assert [name for name, text in TEXTS.items() if marks.search(text)] == []


@pytest.mark.parametrize("name", HEADERS)
def test_header_compiles_alone(name: str) -> None:
    source = f'#include "{name.removeprefix("ext/")}"\n'
    result = subprocess.run(
        ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Iext", "-x", "c++", "-"],
        cwd=ROOT,
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def names_in(body: list[ast.stmt]) -> set[str]:
    """What a stub or one of its classes declares."""
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return public(names)


def public(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(
    "name",
    ["bess_plugins._arrays", "bess_plugins._crypto", "bess_plugins._engine", "e2ctl._placement"],
)
def test_stub_names_what_the_compiled_module_has(name: str) -> None:
    module = importlib.import_module(name)
    path = ROOT / f"{name.replace('.', '/')}.pyi"
    stub = ast.parse(path.read_text(encoding="utf-8"))
    assert names_in(stub.body) == public(set(dir(module)))
    for node in stub.body:
        if isinstance(node, ast.ClassDef) and names_in([node]):
            kind = getattr(module, node.name)
            inherited = {name for base in kind.__mro__[1:] for name in dir(base)}
            declared = names_in(node.body)
            if issubclass(kind, Exception):  # its attributes are set on instances
                assert public(set(dir(kind))) - inherited <= declared
            else:
                assert declared == public(set(dir(kind))) - inherited


def test_changelog_fragments() -> None:
    fragments = [name for name in FILES if name.startswith("changelog.d/")]
    assert [name for name in fragments if not FRAGMENT.fullmatch(name)] == []
    assert [name for name in fragments if TEXTS[name].strip().count("\n")] == []


def anchors(page: str) -> set[str]:
    """What a link may point at within a page, as GitHub names it."""
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_of_pages_lead_somewhere() -> None:
    broken = []
    for name, text in TEXTS.items():
        if not name.endswith(".md"):
            continue
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, anchor = link.partition("#")
            if "://" in target:
                continue
            path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
            if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_benchmarks_can_be_collected() -> None:
    """They run by hand, so that nobody else would notice what a change broke there."""
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "bench", "--collect-only", "-q"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
