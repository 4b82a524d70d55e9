# SPDX-License-Identifier: BSD-3-Clause
"""What can be known about a plugin for bessd without one: which sources, for which tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import manual
from bess_plugins.bessd import building, checking, tree
from bess_plugins.bessd.__main__ import app
from bess_plugins.bessd.tree import PluginError, open_tree
from harness import new_engine

ROOT = Path(__file__).resolve().parents[2]


def make_tree(home: Path, batch: int = 64, classes: tuple[str, ...] = ("Sink", "NAT")) -> Path:
    """As little of a BESS tree as `open_tree` looks at."""
    core = home / "core"
    for folder in (core / "pb", core / "modules"):
        folder.mkdir(parents=True)
    for name in tree._ABI_HEADERS:
        (core / name).write_text(f"// {name}\n")
    (core / "pktbatch.h").write_text(f"inline static const size_t kMaxBurst = {batch};\n")
    (core / "version.h").write_text('#define VERSION "v1.2-3-gabc/dirty"\n')
    (core / "pb" / "module_msg.pb.h").write_text("\n")
    for name in classes:
        (core / "modules" / f"{name}.cc").write_text(f'ADD_MODULE({name}, "x", "y")\n')
    return home


def test_identity_tells_daemons_apart(tmp_path: Path) -> None:
    omec = open_tree(make_tree(tmp_path / "omec"))
    netsys = open_tree(make_tree(tmp_path / "netsys", batch=32))
    assert (omec.version, omec.batch, netsys.batch) == ("v1.2-3-gabc/dirty", 64, 32)
    assert re.fullmatch(r"v1\.2-3-gabc-dirty-b64-[0-9a-f]{8}", omec.identity)
    assert omec.abi != netsys.abi
    (tmp_path / "omec" / "core" / "task.h").write_text("class Task { int more; };\n")
    assert open_tree(tmp_path / "omec").identity != omec.identity


def test_sources_are_those_of_modules_that_the_tree_lacks(tmp_path: Path) -> None:
    known = set(new_engine().module_classes())
    lacking = {"FlowSteer", "TunnelEncap"}
    found = open_tree(make_tree(tmp_path, classes=tuple(sorted(known - lacking))))
    sources = building.sources_for(found)
    assert all(path.is_file() for path in sources)
    names = {path.name for path in sources}
    classes = {name for path in sources for name in building._classes(path)}
    assert classes == lacking | {"Trial"}
    # Its parts, what it needs, and the adapter.
    assert {"flow_steer_commands.cc", "flow_affinity.cc", "headers.cc", "module.cc"} <= names
    assert "acl_rules.cc" not in names
    assert not any("ports" in path.parts for path in sources)


def test_own_sources_bring_what_they_need(tmp_path: Path) -> None:
    own = tmp_path / "mine.cc"
    own.write_text('#include "host/module.h"\n#include "crypto/aes.h"\n')
    sources = building.sources_for(open_tree(make_tree(tmp_path / "tree")), [own])
    names = {path.name for path in sources}
    assert {"mine.cc", "aes.cc", "aes_ni.cc", "isa.cc", "module_control.cc"} <= names
    assert "flow_steer.cc" not in names
    assert len(sources) == len(set(sources))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("module.h", "is no BESS source tree"),
        ("version.h", "build bessd in this tree first"),
        ("pb/module_msg.pb.h", "build bessd in this tree first"),
        ("worker.h", "modules are written against it"),
    ],
)
def test_trees_that_will_not_do(tmp_path: Path, missing: str, message: str) -> None:
    (make_tree(tmp_path) / "core" / missing).unlink()
    with pytest.raises(PluginError, match=message):
        open_tree(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build"], "say which tree with --bess-home or BESS_HOME"),
        (["build", "--bess-home", "/nowhere"], "/nowhere is no BESS source tree"),
        (["load"], "say which tree"),
        (["unload", "--address", "127.0.0.1:1"], "no bessd at 127.0.0.1:1"),
        (["check", "--address", "127.0.0.1:1"], "no bessd at 127.0.0.1:1"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"BESS_HOME": None, "BESSD_ADDRESS": None})
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


def test_every_module_that_no_bess_has_is_checked(tmp_path: Path) -> None:
    """By something that comes out the same twice."""
    classes = set(new_engine().module_classes())
    pages = manual.read_pages(("modules", "nf"), classes, manual.MODULE_HEADINGS)
    ours = {
        n for n, page in pages.items() if "the module of this name in" not in page.text("Origin")
    }
    cases = checking.cases(tmp_path)
    assert set(cases) == ours
    for name, case in cases.items():
        if not case.there_and_back:
            first, again = (checking._run(new_engine(), name, case) for _ in range(2))
            assert first == again and (first["out"] or first["drops"]), name


def test_modules_find_every_method_in_either_host() -> None:
    """What ext/host/module.h offers to modules, the adapter's header does too."""
    ours = (ROOT / "ext" / "host" / "module.h").read_text()
    theirs = (ROOT / "bess_plugins" / "bessd" / "src" / "host" / "module.h").read_text()
    body = ours[
        ours.index("class Module {") : ours.index(" private:", ours.index("class Module {"))
    ]
    methods = set(
        re.findall(r"(\w+)\([^()]*(?:\([^()]*\))?[^()]*\)(?: const)?(?: override)?(?:;| \{)", body)
    )
    methods -= {"Module", "name", "profile"}  # bessd's, or counted by its profiler
    assert {"emit", "emit_by_gate", "drop", "add_attr", "add_task", "post_event"} <= methods
    assert {method for method in methods if f"{method}(" not in theirs} == set()
