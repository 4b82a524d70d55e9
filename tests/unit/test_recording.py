# SPDX-License-Identifier: BSD-3-Clause
"""Scripts run against a recorder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bess_plugins.script import ScriptError
from bess_plugins.script.recording import Recorder, Recording, record_script
from harness import new_engine

EXAMPLES = Path(__file__).parents[2] / "examples"
PLACE = "test.bess"


def record(source: str, **variables: str) -> Recording:
    return record_script(PLACE, source, variables)


def failure(source: str) -> tuple[int, int, str]:
    with pytest.raises(ScriptError) as caught:
        record(source)
    return caught.value.line, caught.value.column, caught.value.message


@pytest.mark.parametrize("name", ["firewall", "firewall-scheduled", "listing-5.1", "listing-5.3"])
def test_examples(name: str) -> None:
    variables = dict.fromkeys(("IN", "OUT", "LOG"), "no-such-folder/x.pcap")
    recording = record_script(EXAMPLES / f"{name}.bess", variables=variables)
    assert "wm" in recording.bound
    assert {edge.source for edge in recording.edges} >= {"wm"}


def test_everything_that_a_script_makes() -> None:
    source = """\
cards = [PMDPort(0, num_inc_q=int($QUEUES!2)), VPort(name='v', ifname='x')]
inc::PortInc(port=cards[0].name)
assert cards[0].mac_addr.count(':') == 5
assert inc.get_initial_arg() == {} and bess.get_version()
src::Source(pkt_size=90)
a, b::Bypass()
for module in (inc, src):
    module -> (a if module is inc else b)
bess.connect_modules('a', Sink(), 0, 0)
b -> drop::Sink()
bess.disconnect_modules('b', 0)
bess.add_worker(3, 1)
bess.add_tc('s', 'priority', wid=3)
bess.add_tc('w', 'weighted_fair', parent='s', priority=4, resource='cycle')
src.attach_task('w', share=7)
inc.attach_task(parent='s', priority=1, module_taskid=2)
"""
    recording = record(source, QUEUES="3")
    ports = [(p.name, p.driver, p.num_inc_q, p.arg.get("positional")) for p in recording.ports]
    assert ports == [("pmd_port0", "PMDPort", 3, [0]), ("v", "VPort", 1, None)]
    modules = {m.name: (m.mclass, m.tasks, m.line, m.column) for m in recording.modules}
    assert modules == {
        "inc": ("PortInc", 3, 2, 1),
        "src": ("Source", 1, 5, 1),
        "a": ("Bypass", 0, 6, 1),
        "b": ("Bypass", 0, 6, 1),
        "sink0": ("Sink", 0, 9, 27),
        "drop": ("Sink", 0, 10, 6),
    }
    assert recording.modules[1].arg["pkt_size"] == 90
    edges = [(e.source, e.ogate, e.target, e.line, e.column, e.made) for e in recording.edges]
    assert edges == [
        ("inc", 0, "a", 8, 12, 2),
        ("src", 0, "b", 8, 12, 2),
        ("a", 0, "sink0", 9, 1, 1),
    ]
    assert recording.bound == {"inc", "src", "a", "b", "drop"}
    assert [(w.wid, w.core, w.scheduler) for w in recording.workers] == [(3, 1, "")]
    tcs = [(tc.name, tc.policy, tc.parent, tc.wid, tc.priority) for tc in recording.tcs]
    assert tcs == [("s", "priority", "", 3, None), ("w", "weighted_fair", "s", -1, 4)]
    tasks = [(t.module, t.task_id, t.parent, t.priority, t.share) for t in recording.tasks]
    assert tasks == [("src", 0, "w", None, 7), ("inc", 2, "s", 1, None)]


@pytest.mark.parametrize(
    ("source", "line", "column", "part"),
    [
        ("a::Source()\n\na -> b::Sink()\na -> b", 4, 3, "leads to 'b' already"),
        ("Sink(name='a')\nSink(name='a')", 2, 1, "already exists"),
        ("bess.connect_modules('x', 'y')", 1, 1, "No module 'x'"),
        ("a::Sink()\na -> Bypass()", 2, 3, "no gate 0"),
        ("a::Bypass()\nbess.disconnect_modules(a)", 2, 1, "leads nowhere"),
        ("a::NoSuch()", 1, 1, "no module class or port driver named NoSuch"),
        ("a::Source(nope=1)", 1, 1, "SourceArg.nope"),
        ("a::PortInc(port='x')", 1, 1, "Port 'x' not found"),
        ("bess.add_tc('a', 'fifo')", 1, 1, "No policy 'fifo'"),
        ("bess.add_tc('a', 'priority', parent='b', priority=1)", 1, 1, "Parent TC 'b' not found"),
        ("for i in (1, 1):\n  bess.add_tc('a', 'priority')", 2, 3, "already exists"),
        ("bess.add_tc('a', 'priority')\nSource().attach_task('a')", 2, 1, "needs a 'priority'"),
        (
            "bess.add_tc('a', 'priority')\nfor s in (Source(), Source()):"
            "\n  s.attach_task('a', priority=1)",
            3,
            3,
            "Priority 1 is taken",
        ),
        ("Sink(name='a').attach_task(wid=0)", 1, 1, "has no task 0"),
        ("s::Source()\nx = bess.get_module_info(s)", 2, 5, "asks a running daemon"),
        ("p::MemoryPort()\nx = p.get_port_stats()", 2, 5, "asks a running daemon"),
        ("bess.add_tc('a', 'priority')\nbess.get_tc_stats('a')", 2, 1, "asks a running daemon"),
        ("bess.add_worker(0, 0)\nbess.add_worker(0, 0)", 2, 1, "exists already"),
        ("bess.add_worker(0, -1)", 1, 1, "Invalid core -1"),
        ("bess.add_worker(64, 0)", 1, 1, "Invalid worker id 64"),
        ("bess.import_plugin('x.so')", 1, 1, "asks a running daemon"),
    ],
)
def test_what_a_daemon_would_refuse(source: str, line: int, column: int, part: str) -> None:
    at_line, at_column, message = failure(source)
    assert (at_line, at_column) == (line, column), message
    assert part in message


def test_places_are_the_scripts_own(tmp_path: Path) -> None:
    (tmp_path / "helping.py").write_text("def wire(a, b):\n    a + b\n")
    path = tmp_path / "test.bess"
    path.write_text("import helping\ns::Source()\nk::Sink()\nhelping.wire(s, k)\n")
    (edge,) = record_script(path).edges
    assert (edge.line, edge.column) == (4, 1)


def test_names_and_what_is_there_so_far() -> None:
    recorder = Recorder(PLACE, "s::Source()\nlook()\ns -> k::Sink()\nlook()")
    seen = []
    recorder.run({"look": lambda: seen.append((recorder.place(), len(recorder.edges())))})
    assert seen == [((2, 1), 0), ((4, 1), 1)]


@pytest.mark.parametrize("mclass", sorted(new_engine().module_classes()))
def test_tasks_are_those_that_the_engine_makes(mclass: str) -> None:
    """Modules that start without arguments; monitors have a task that sends nothing."""
    engine = new_engine()
    engine.add_worker(0, -1)
    engine.create_port("port", "MemoryPort", 3, 3, 0, 0, {})
    arg = {"port": "port"} if mclass.startswith(("Port", "Queue")) and mclass != "Queue" else {}
    try:
        engine.create_module("m", mclass, arg)
    except RuntimeError:
        pytest.skip("needs arguments of its own")
    found = 0
    while mclass not in ("LoadMonitor", "NoOP"):
        try:
            engine.update_tc_parent(
                {"leaf_module_name": "m", "leaf_module_taskid": found, "parent": "", "wid": 0}
            )
        except RuntimeError:
            break
        found += 1
    text = "".join(f", {key}={value!r}" for key, value in arg.items())
    recording = record(f"MemoryPort(name='port', num_inc_q=3)\n{mclass}(name='m'{text})")
    assert recording.modules[0].tasks == found
