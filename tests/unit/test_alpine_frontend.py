# SPDX-License-Identifier: BSD-3-Clause
"""From scripts to programs: graphs, classes, objectives, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpine.errors import AlpineError
from alpine.frontend import load
from alpine.graph import build_forest
from alpine.objectives import Kind, Member, Policy
from alpine.program import Program
from bess_plugins.script import ScriptError

EXAMPLES = Path(__file__).parents[2] / "examples"
GRAPH = """\
inc::Source()
wm::RoundRobin(gates=[0, 1, 2])
inc -> wm
wm:0 -> out::Sink()
wm:1 -> 0:log::Sink()
"""
CLASSES = GRAPH + "alpine.add_tc('a', [inc, wm, out])\nalpine.add_tc('b', ['inc', 'wm', 'log'])\n"


def program(folder: Path, text: str, **variables: str) -> Program:
    path = folder / "test.alpine"
    path.write_text(text, encoding="utf-8")
    return load(path, variables)


def failure(folder: Path, text: str) -> str:
    """The message, where the place is line:column."""
    with pytest.raises((AlpineError, ScriptError)) as caught:
        program(folder, text)
    prefix = f"{folder / 'test.alpine'}:"
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_listings(tmp_path: Path) -> None:
    text = CLASSES + (
        "alpine.add_policy('p', 'priority')\n"
        "alpine.attach_tc('a', parent='p', priority=1)\n"
        "alpine.attach_tc('b', parent='p', priority=0)\n"
    )
    read = program(tmp_path, text)
    assert read.objective == Policy("p", Kind.PRIORITY, (Member(1.0, 0), Member(0.0, 1)))
    assert [(path.name, path.modules, path.implicit) for path in read.paths] == [
        ("a", ("inc", "wm", "out"), False),
        ("b", ("inc", "wm", "log"), False),
    ]
    assert [edge.key for edge in read.paths[1].edges] == [("inc", 0), ("wm", 1)]
    assert (read.workers, read.graph.inputs()) == (1, ["inc"])
    assert str(read.graph.modules["log"].place).endswith(":5:11")
    assert str(read.paths[1].edges[1].place).endswith(":5:6")


def test_nested_policies(tmp_path: Path) -> None:
    text = CLASSES + (
        "alpine.add_policy('in', 'cpu_time', parent='top', share=3, useful=True)\n"
        "alpine.attach_tc('a', 'in', share=2.5)\n"
        "alpine.add_policy('top', 'throughput')\n"
        "alpine.attach_tc('b', 'top', share=1)\n"
        "alpine.workers(2)\n"
    )
    read = program(tmp_path, text)
    inner = Policy("in", Kind.CPU_TIME, (Member(2.5, 0),), useful=True)
    assert read.objective == Policy("top", Kind.THROUGHPUT, (Member(3.0, inner), Member(1.0, 1)))
    assert read.workers == 2


def test_implicit_classes(tmp_path: Path) -> None:
    text = GRAPH + (
        "wm:2 -> out\nalpine.add_tc('x', [inc, wm * 2, out])\n"
        "alpine.add_policy('p', 'priority')\nalpine.attach_tc('x', 'p', priority=1)\n"
    )
    read = program(tmp_path, text)
    assert [(path.name, path.implicit) for path in read.paths] == [
        ("x", False),
        ("inc -> wm:0 -> out", True),
        ("inc -> wm -> log", True),
    ]
    assert read.paths[0].edges[-1].ogate == 2


def test_all_paths_are_of_the_graph_so_far(tmp_path: Path) -> None:
    text = GRAPH + (
        "for path in alpine.all_paths():\n"
        "    alpine.add_tc(path[-1].name, path)\n"
        "wm:2 -> late::Sink()\n"
        "alpine.add_policy('p', 'weighted_fair')\n"
        "for name in ('out', 'log'):\n"
        "    alpine.attach_tc(name, 'p', share=len(name))\n"
    )
    read = program(tmp_path, text)
    assert [path.name for path in read.paths] == ["out", "log", "inc -> wm -> late"]


def test_all_paths_tell_parallel_connections_apart(tmp_path: Path) -> None:
    text = GRAPH + (
        "wm:2 -> out\n"
        "for number, path in enumerate(alpine.all_paths()):\n"
        "    alpine.add_tc(f'c{number}', path)\n"
        "alpine.add_policy('p', 'weighted_fair')\n"
        "for number in range(3):\n"
        "    alpine.attach_tc(f'c{number}', 'p', share=1)\n"
    )
    read = program(tmp_path, text)
    assert [path.edges[-1].ogate for path in read.paths] == [0, 1, 2]


def test_the_final_wiring_counts(tmp_path: Path) -> None:
    text = (
        "alpine.add_policy('p', 'priority')\n"
        "alpine.add_tc('a', ['inc', 'wm', 'new'])\n"
        "alpine.attach_tc('a', 'p', priority=1)\n"
        f"{GRAPH}bess.disconnect_modules(wm, 0)\nwm -> new::Sink()\n"
    )
    assert program(tmp_path, text).paths[0].modules == ("inc", "wm", "new")


def test_several_inputs_and_merges(tmp_path: Path) -> None:
    text = (
        "p::MemoryPort(num_inc_q=2, num_out_q=2)\nlonely::NoOP()\n"
        "i::PortInc(port=p)\ns::Source()\nq::Queue()\nn::NAT(ext_addrs=[{'ext_addr': '1.2.3.4'}])\n"
        "i -> m::Merge()\ns -> 0:m\nm -> q -> n -> Sink()\n"
    )
    read = program(tmp_path, text)
    assert read.graph.inputs() == ["i", "s"]
    assert {name: m.tasks for name, m in read.graph.modules.items() if m.tasks} == {
        "i": 2,
        "s": 1,
        "q": 1,
    }
    assert [name for name, m in read.graph.modules.items() if m.one_worker] == ["n"]
    forest = build_forest(read.graph, read.paths)
    assert len(forest.roots) == 2 and len(forest.shared_edges()) == 3
    assert read.objective is None and all(path.implicit for path in read.paths)


def test_digest_is_of_the_pipeline(tmp_path: Path) -> None:
    plain = program(tmp_path, GRAPH).digest
    said = f"# A comment.\n{CLASSES}{W}{A}share=1)\nalpine.attach_tc('b', 'p', share=2)\n"
    assert program(tmp_path, said).digest == plain
    assert program(tmp_path, GRAPH.replace("gates=[0, 1, 2]", "gates=[0, 1]")).digest != plain
    assert program(tmp_path, GRAPH.replace("wm:1", "wm:2")).digest != plain


def test_variables(tmp_path: Path) -> None:
    text = "s::Source()\nfor i in range(int($N!1)):\n    Source() -> Sink()\n"
    assert len(program(tmp_path, text, N="3").paths) == 4


def test_the_example() -> None:
    read = load(EXAMPLES / "alpine" / "firewall.alpine")
    assert [path.name for path in read.paths] == ["web", "names", "denied"]
    assert read.objective is not None
    assert [member.value for member in read.objective.members] == [3, 2, 1]


P = "alpine.add_policy('p', 'priority')\n"
W = "alpine.add_policy('p', 'weighted_fair')\n"
A = "alpine.attach_tc('a', 'p', "


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        (GRAPH + "alpine.add_tc('a', [inc, out])", "6:1", 
         "inc -> out, is no connection: inc leads to wm (gate 0)"),
        (GRAPH + "alpine.add_tc('a', [inc, wm * 1, out])", "6:1", "step 2, wm:1 -> out"),
        (GRAPH + "alpine.add_tc('a', [wm, out])", "6:1", "starts at wm, which inc leads to"),
        (GRAPH + "alpine.add_tc('a', [inc, wm])", "6:1", "ends at wm, which leads to out (gate 0)"),
        (GRAPH + "alpine.add_tc('a', [])", "6:1", "it has no modules"),
        (GRAPH + "alpine.add_tc('a', ['x'])", "6:1", "no module 'x'"),
        (GRAPH + "alpine.add_tc('a', [3])", "6:1", "which is no module"),
        (GRAPH + "alpine.add_tc('a', inc)", "6:1", "give a list of modules"),
        (GRAPH + "wm:2 -> out\nalpine.add_tc('a', [inc, wm, out])", "7:1", "wm * 0"),
        (GRAPH + "alpine.add_tc('a', [inc, wm, out * 1])", "6:1", "no connection at that gate"),
        (CLASSES + "alpine.add_tc('c', [inc, wm, out])", "8:1", "same path as 'a'"),
        (CLASSES + "alpine.add_tc('a', [inc, wm, out])", "8:1", "taken by the class of line 6"),
        (CLASSES + P + "alpine.add_policy('p', 'priority')", "9:1",
         "taken by the policy of line 8"),
        (CLASSES + "alpine.add_tc('', [inc])", "8:1", "must be a string"),
        (CLASSES + W + A + "share=1)", "7:1", "class 'b' is attached to no policy"),
        (CLASSES + W + A + "share=1)\n" + A + "share=2)", "10:1",
         "attached to 'p' already (line 9)"),
        (CLASSES + W + A + "share=0)", "9:1", "share of 'a' is 0; must be a positive number"),
        (CLASSES + W + A + "share=-2)", "9:1", "must be a positive number"),
        (CLASSES + W + A + "share=float('nan'))", "9:1", "must be a positive number"),
        (CLASSES + W + A + "share='2')", "9:1", "must be a number, not '2'"),
        (CLASSES + W + A + "priority=1)", "9:1", "needs share=, not priority="),
        (CLASSES + P + A + "share=1)", "9:1", "needs priority=, not share="),
        (CLASSES + P + A[:-2] + ")", "9:1", "needs priority= under"),
        (CLASSES + P + A + "share=1, priority=1)", "9:1", "both priority= and share="),
        (CLASSES + P + A + "priority=1)\nalpine.attach_tc('b', 'p', priority=1)", "10:1",
         "both have priority 1; put them under a weighted_fair policy"),
        (CLASSES + "alpine.attach_tc('a', 'q', share=1)", "8:1", "parent 'q' of 'a' is not there"),
        (CLASSES + "alpine.attach_tc('a', 'b', share=1)", "8:1", "is a class, not a policy"),
        (CLASSES + P + "alpine.attach_tc('c', 'p', priority=1)", "9:1",
         "no class 'c' (there are: a, b)"),
        (CLASSES + P + "alpine.attach_tc('p', 'p', priority=1)", "9:1", "'p' is a policy"),
        (GRAPH + P, "6:1", "policy 'p' has no members"),
        (GRAPH + "alpine.add_policy('p', 'fair')", "6:1", "no policy 'fair'; there are: priority"),
        (GRAPH + "alpine.add_policy('p', 'priority', parent='p', priority=1)", "6:1",
         "below itself"),
        (GRAPH + "alpine.add_policy('p', 'priority', priority=1)", "6:1", "no parent="),
        (GRAPH + "alpine.add_policy('p', 'priority', useful=True)", "6:1", "only weighted_fair"),
        (GRAPH + "alpine.add_policy('p', 'priority', parent='q', priority=1)\n"
         "alpine.add_policy('q', 'priority', parent='p', priority=1)", "6:1", "p below q below p"),
        (CLASSES + P + A + "priority=1)\nalpine.add_policy('q', 'priority')\n"
         "alpine.attach_tc('b', 'q', priority=1)", "10:1", "only one can be the root"),
        (GRAPH + "alpine.workers(0)", "6:1", "must be 1 to 64"),
        (GRAPH + "alpine.workers(1.5)", "6:1", "must be an integer"),
        (GRAPH + "alpine.workers(1)\nalpine.workers(1)", "7:1", "say it once"),
        (GRAPH + "bess.add_worker(0, 0)\nalpine.workers(2)", "6:1", "remove one of the two"),
        (GRAPH + "bess.add_tc('x', 'priority')\n" + P, "6:1", "remove this or the objectives"),
        (GRAPH + "inc.attach_task(wid=0)\n" + P, "6:1", "remove this or the objectives"),
        ("a::Bypass()\nb::Sink()\na -> b\n" + P, "1:1", "no input leads to a"),
        ("s::Source()\na::Merge()\nb::Bypass()\ns -> a -> b\nb -> 0:a", "4:8",
         "a -> b -> a form a cycle"),
        ("s::Source()\na::Merge()\ns -> a -> a\nalpine.all_paths()", "4:1", "a -> a form a cycle"),
        ("a ->", "1:3", "expected a module after '->'"),
        ("alpine.add_class('x')", "1:1", "no attribute 'add_class'"),
    ],
)  # fmt: skip
def test_refused(text: str, place: str, part: str, tmp_path: Path) -> None:
    message = failure(tmp_path, text)
    assert message.startswith(f"{place}: "), message
    assert part in message


def test_too_many_paths(tmp_path: Path) -> None:
    text = (
        "last = Source()\nfor i in range(15):\n"
        "    split, merge = RoundRobin(gates=[0, 1]), Merge()\n"
        "    last -> split\n    split:0 -> merge\n    split:1 -> merge\n    last = merge\n"
        "last -> Sink()\n"
    )
    assert "32,768 paths lead from the inputs to the exits" in failure(tmp_path, text)
