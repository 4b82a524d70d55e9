# SPDX-License-Identifier: BSD-3-Clause
"""From plans to scripts: the user's text with queues and a scheduler, and without Alpine."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from alpine.emit import emit
from alpine.errors import AlpineError
from alpine.frontend import load
from alpine.plan import NewQueue, Plan, TcNode, TcTask
from alpine.program import Program
from bess_plugins.script.recording import record_script

NOTHING = Plan((), (), polling=False)
TAIL = "\nalpine.workers(1)\n"


def program(folder: Path, text: str) -> Program:
    path = folder / "test.alpine"
    path.write_text(text, encoding="utf-8")
    return load(path)


def cuts(read: Program, *gates: tuple[str, int]) -> tuple[NewQueue, ...]:
    edges = {edge.key: edge for edge in read.graph.edges}
    return tuple(NewQueue(f"q{i}", edges[gate]) for i, gate in enumerate(gates))


def emitted(folder: Path, text: str, *gates: tuple[str, int]) -> str:
    read = program(folder, textwrap.dedent(text))
    return emit(read, Plan(cuts(read, *gates), (), polling=False))


LISTING_5_1 = """\
import struct

normal::PMDPort(0)
log::PMDPort(1)

wm::WildcardMatch(
    fields=[
        {'offset': 12, 'num_bytes': 2},
        {'offset': 14 + 9, 'num_bytes': 1}])
wm.add(
    values=[
        {'value_bin': struct.pack('!H', 0x0800)},
        {'value_bin': chr(17)}],
    masks=[
        {'value_int': 0xffff},
        {'value_bin': chr(255)}],
    priority=0,
    gate=1)

wm.set_default_gate(gate=0)

inc::PortInc(port=normal.name)
out::PortOut(port=normal.name)
sink::PortOut(port=log.name)

inc -> wm
wm:0 -> out
"""
LISTING_5_2 = """\
alpine.add_tc('tc1', [inc, wm, out])
alpine.add_tc('tc2', [inc, wm, sink])
alpine.add_policy('p0', 'priority')
alpine.attach_tc(
    'tc1', parent='p0', priority=1
)
alpine.attach_tc(
    'tc2', parent='p0', priority=0
)
"""


def test_listings_5_1_and_5_2_give_listing_5_3(tmp_path: Path) -> None:
    """But for sugar, which stays. BESS serves the lower priority first (facts of BESS)."""
    read = program(tmp_path, f"{LISTING_5_1}wm:1 -> sink\n\n{LISTING_5_2}")
    root = TcNode(
        "s0",
        "priority",
        "",
        ((0, TcTask("inc", "inc -> wm -> out")), (1, TcTask("q0", "sink"))),
    )
    result = emit(read, Plan(cuts(read, ("wm", 1)), (root,), polling=False))
    assert (
        result
        == f"""\
{LISTING_5_1}q0::Queue()
wm:1 -> q0 -> sink

# The schedule, by Alpine: the lower priority goes first.
bess.add_tc('s0', 'priority')
inc.attach_task(parent='s0', priority=0)  # inc -> wm -> out
q0.attach_task(parent='s0', priority=1)  # sink
"""
    )
    path = tmp_path / "test.bess"
    path.write_text(result, encoding="utf-8")
    assert emit(load(path), NOTHING) == result


@pytest.mark.parametrize(
    "text",
    ["", "x = 1", "\n\n# a\ns::Source()   # é\n\n\n\ns -> Sink() ;\n\n", "Source()->Sink()\n  \n"],
)
def test_a_script_without_alpine_stays_to_the_byte(text: str, tmp_path: Path) -> None:
    assert emit(program(tmp_path, text), NOTHING) == text


ARROWS = [
    ("a -> b", "q0::Queue()\na -> q0 -> b"),
    ("a->b", "q0::Queue()\na->q0->b"),
    ("a -> 2:b", "q0::Queue()\na -> q0 -> 2:b"),
    ("é = a -> b  # é", "q0::Queue()\né = a -> q0 -> b  # é"),
    ("é = 'é'; a -> b", "é = 'é'; a -> q0::Queue() -> b"),
    ("(a\n   -> b)", "q0::Queue()\n(a\n   -> q0 -> b)"),
    ("a -> \\\n    b", "q0::Queue()\na -> q0 -> \\\n    b"),
    ("if True:\n    a -> b", "if True:\n    q0::Queue()\n    a -> q0 -> b"),
    ("if True: a -> b", "if True: a -> q0::Queue() -> b"),
    ("if not a:\n    pass\nelif a -> b:\n    pass",
     "if not a:\n    pass\nelif a -> q0::Queue() -> b:\n    pass"),
    ("for x in [a -> b]:\n    pass", "q0::Queue()\nfor x in [a -> q0 -> b]:\n    pass"),
    ("def go():\n    '''Go.'''\n    return a -> b\ngo()",
     "def go():\n    '''Go.'''\n    q0::Queue()\n    return a -> q0 -> b\ngo()"),
    ("join = lambda: a -> b\njoin()", "q0::Queue()\njoin = lambda: a -> q0 -> b\njoin()"),
    ("with open(__file__):\n\ta -> b", "with open(__file__):\n\tq0::Queue()\n\ta -> q0 -> b"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), ARROWS)
def test_queues_on_arrows(text: str, wanted: str, tmp_path: Path) -> None:
    head = "a::Source()\nb::Merge()\n"
    read = program(tmp_path, f"{head}{text}\n{TAIL}".replace("2:b", "0:b"))
    result = emit(read, Plan(cuts(read, ("a", 0)), (), polling=False))
    assert result == f"{head}{wanted}\n".replace("2:b", "0:b")


def test_several_queues_in_one_statement(tmp_path: Path) -> None:
    text = "a::Source() -> b::RoundRobin(gates=[0]):0 -> 0:c::Bypass() -> Sink()\n"
    assert emitted(tmp_path, text, ("a", 0), ("c", 0), ("b", 0)) == (
        "q0, q1, q2::Queue()\na::Source() -> q0 -> b::RoundRobin(gates=[0]):0 -> q2 -> "
        "0:c::Bypass() -> q1 -> Sink()\n"
    )


def test_arrows_that_ran_more_than_once_and_calls(tmp_path: Path) -> None:
    text = """\
        a::RoundRobin(gates=[0, 1])
        s::Source()
        t = Sink(name='k')
        s + a
        for i in range(2):
            a:i -> Sink()
        bess.connect_modules('a', 'k', 2)
        x, y::Bypass()
        u, v::Source()
        for one, two in ((u, x), (v, y)):
            one -> two
        x -> 0:m::Merge()
        """
    result = emitted(tmp_path, text, ("a", 1), ("a", 2), ("v", 0), ("s", 0))
    assert result == textwrap.dedent(text) + (
        "\n# Queues on connections that no line of their own makes.\n"
        "q0, q1, q2, q3::Queue()\n"
        "bess.disconnect_modules('a', 1)\n"
        "bess.connect_modules('a', 'q0', 1, 0)\n"
        "bess.connect_modules('q0', 'sink1')\n"
        "bess.disconnect_modules('a', 2)\n"
        "bess.connect_modules('a', 'q1', 2, 0)\n"
        "bess.connect_modules('q1', 'k')\n"
        "bess.disconnect_modules('v', 0)\n"
        "v -> q2 -> y\n"
        "bess.disconnect_modules('s', 0)\n"
        "s -> q3 -> a\n"
    )


GRAPH = "s::Source()\nw::RoundRobin(gates=[0, 1])\ns -> w\nw:0 -> x::Sink()\nw:1 -> y::Sink()\n"
ATTACH = (
    "alpine.add_policy('p', 'weighted_fair')\nfor n in ('x', 'y'): "
    "alpine.attach_tc(n, 'p', share=1)\n"
)
ONE = ATTACH.replace(", 'y'", ",")

REMOVED = [
    ("alpine.add_tc('x', [s, w, x]); k = 1; alpine.add_tc('y', [s, w, y])", "k = 1"),
    ("k = 1; alpine.add_tc('x', [s, w, x]); alpine.add_tc('y', [s, w, y]); j = 2", "k = 1; j = 2"),
    ("""\
# Classes, one for each exit.
for path in alpine.all_paths():
    # named after it
    label = path[-1].name
    alpine.add_tc(label, path)
    # done""", ""),
    ("""\
k = 0

# Classes.
def tenant(name, exit):
    '''Add one.'''
    alpine.add_tc(name, [s, w, exit])


tenant('x', x)
tenant('y', y)
j = 0""", "k = 0\n\n\nj = 0"),
    ("""\
# How it goes on.
alpine.add_tc('x', [s, w, x])
k = 0
alpine.add_tc('y', [s, w, y])  # what is left""", "# How it goes on.\nk = 0"),
    ("""\
import random
import math
EXITS = {'x': x, 'y': y}
paths = []
for exit in EXITS.values():
    paths.append([s, w, exit])
add = alpine.add_tc
[add(name, path) for name, path in zip(EXITS, paths)]
random.seed(3)""", "import random\nimport math\nrandom.seed(3)"),
    ("""\
if 'x' == x.name:
    alpine.add_tc('x', [s, w, x])
else:
    k = 3
try:
    alpine.add_tc('y', [s, w, y])
except ValueError:
    k = 4""", """\
if 'x' == x.name:
    pass
else:
    k = 3
try:
    pass
except ValueError:
    k = 4"""),
    ("""\
for name, exit in (('x', x), ('y', y)):
    alpine.add_tc(name, [s, w, exit])
    print(name)
for name in ('k',):
    print(name)""", """\
for name, exit in (('x', x), ('y', y)):
    print(name)
for name in ('k',):
    print(name)"""),
    ("""\
for name in print('once') or ('x', 'y'):
    alpine.add_tc(name, [s, w, name])""", """\
for name in print('once') or ('x', 'y'):
    pass"""),
    ("""\
if True:

    alpine.add_tc('x', [s, w, x])

    k = 3
if True: alpine.add_tc('y', [s, w, y])""", """\
if True:
    k = 3"""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), REMOVED)
def test_statements_for_alpine_go(text: str, wanted: str, tmp_path: Path) -> None:
    result = emit(program(tmp_path, f"{GRAPH}\n{text}\n\n{ATTACH}"), NOTHING)
    assert result == (f"{GRAPH}\n{wanted}\n" if wanted else GRAPH)
    assert "alpine" not in result


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("alpine.add_tc('x', [z::Sink(), s, w, x][1:])\n" + ONE, "make it two statements"),
        ("for path in alpine.all_paths():\n    Source() -> Sink()", "depends on what alpine says"),
        ("n = len(alpine.all_paths())\nfor i in range(n):\n    Source() -> Sink()", "depends on"),
        ("Source() -> Sink(name=f'k{len(alpine.all_paths())}')", "make it two statements"),
        ("alpine.workers(1)\nraise SystemExit(0)", "let it run to its end"),
    ],
)
def test_what_serves_both_is_refused(text: str, part: str, tmp_path: Path) -> None:
    read = program(tmp_path, f"{GRAPH}{text}\n")
    with pytest.raises(AlpineError, match=part):
        emit(read, Plan(cuts(read, ("w", 0)), (TcTask("s", ""),), polling=False))


def scheduled(read: Program, *roots: TcNode | TcTask, polling: bool = False) -> list[str]:
    text = emit(read, Plan((), roots, polling))
    assert record_script(read.path, text).modules == read.recording.modules
    return text.removeprefix(read.source.partition("\nalpine")[0]).split("\n")


def test_tree_of_one_worker(tmp_path: Path) -> None:
    read = program(tmp_path, "s::Source()\nSource() -> Sink()\ns -> Sink()\n" + TAIL)
    shares = TcNode("w", "weighted_fair", "cycle", ((3, TcTask("s", "s")),))
    turns = TcNode("r", "round_robin", "", ((None, TcTask("source0", "")),))
    root = TcNode("top", "priority", "", ((0, shares), (5, turns)))
    assert scheduled(read, root, polling=True) == [
        "",
        "# The schedule, by Alpine: the lower priority goes first, shares are ratios.",
        "# The shares count empty polls too. Workers of e2d pass an idle task by unless told to "
        "poll;",
        "# those of bessd always poll.",
        "polling = 'polling' if 'e2d ' in str(bess.get_version()) else ''",
        "if polling:",
        "    bess.add_worker(0, 0, scheduler=polling)",
        "bess.add_tc('top', 'priority', wid=0)",
        "bess.add_tc('w', 'weighted_fair', parent='top', priority=0, resource='cycle')",
        "s.attach_task(parent='w', share=3)  # s",
        "bess.add_tc('r', 'round_robin', parent='top', priority=5)",
        "bess.attach_task('source0', parent='r')",
        "",
    ]


def test_two_workers_and_a_port_of_two_queues(tmp_path: Path) -> None:
    read = program(
        tmp_path,
        "p::MemoryPort(num_inc_q=2, num_out_q=2)\ni::PortInc(port=p)\ni -> Sink()\n"
        f"s::Source()\ns -> Sink()\n{TAIL.replace('1', '2')}",
    )
    root = TcNode("top", "weighted_fair", "cycle", ((3, TcTask("i", "all")),))
    assert scheduled(read, root, TcTask("s", ""))[1:] == [
        "# The schedule, by Alpine: shares are ratios.",
        "bess.add_tc('top', 'weighted_fair', wid=0, resource='cycle')",
        "bess.add_tc('i_tasks', 'round_robin', parent='top', share=3)  # all",
        "for task in range(2):",
        "    i.attach_task(parent='i_tasks', module_taskid=task)",
        "bess.add_worker(1, 1)",
        "s.attach_task(wid=1)",
        "",
    ]


def test_workers_of_the_script(tmp_path: Path) -> None:
    text = "bess.add_worker(1, 0{})\nbess.add_worker(2, 0{})\ns::Source()\ns -> Sink()\n"
    read = program(tmp_path, text.format("", ""))
    assert scheduled(read, TcTask("s", ""))[-2:] == ["s.attach_task(wid=1)", ""]
    with pytest.raises(AlpineError, match=r":1:1: this schedule needs workers that poll"):
        emit(read, Plan((), (TcTask("s", ""),), polling=True))
    with pytest.raises(AlpineError, match=r":2:1: the script adds 2 workers, and the schedule"):
        emit(read, Plan((), (TcTask("s", ""),) * 3, polling=False))
    polls = ", scheduler='polling'"
    read = program(tmp_path, text.format(polls, polls))
    assert scheduled(read, TcTask("s", ""), polling=True)[-2:] == ["s.attach_task(wid=1)", ""]


@pytest.mark.parametrize("name", ["s", "k", "a b"])
def test_names_of_queues(name: str, tmp_path: Path) -> None:
    read = program(tmp_path, "k = 3\ns::Source()\ns -> Sink()\n")
    queues: Sequence[NewQueue] = [NewQueue(name, read.graph.edges[0])]
    with pytest.raises(AlpineError, match="can't be called"):
        emit(read, Plan(tuple(queues), (), polling=False))


def test_one_queue_for_a_connection(tmp_path: Path) -> None:
    read = program(tmp_path, "s::Source()\ns -> Sink()\n")
    (edge,) = read.graph.edges
    with pytest.raises(AlpineError, match="s -> sink0 without a queue"):
        emit(read, Plan((NewQueue("a", edge), NewQueue("b", edge)), (), polling=False))
