# SPDX-License-Identifier: BSD-3-Clause
"""The ``alpine`` command where no daemon is needed: what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from alpine import linear
from alpine.cli import app
from alpine.compiler import compile_program
from alpine.errors import AlpineError
from alpine.frontend import load
from alpine.live import check_workers
from alpine.measure import Wiring
from alpine.profile import even_profile, profile_path, write_profile
from bess_plugins.client import Client
from bess_plugins.script.recording import record_script

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "alpine" / "firewall.alpine"
COMMANDS = ["profile", "compile", "explain", "graph", "run", "watch"]
GRAPH = """\
inc::Source()
wm::RandomSplit(gates=[0, 1, 2])
inc -> wm
wm:0 -> out::Sink()
wm:1 -> log::Sink()
"""
CLASSES = f"{GRAPH}alpine.add_tc('a', [inc, wm, out])\nalpine.add_tc('b', [inc, wm, log])\n"
TIME = f"{CLASSES}alpine.add_policy('p', 'weighted_fair')\n"
PRIORITY = f"{CLASSES}alpine.add_policy('p', 'priority')\n"
A3 = "alpine.attach_tc('a', 'p', share=3)\n"
B1 = "alpine.attach_tc('b', 'p', share=1)\n"
GOOD = TIME + A3 + B1
USEFUL = GOOD.replace("fair'", "fair', useful=True")


def script(folder: Path, text: str) -> Path:
    path = folder / "test.alpine"
    path.write_text(text, encoding="utf-8")
    return path


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="alpine")


def written(*words: str | Path) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def refusal(*words: str | Path) -> str:
    """One line on stderr, without the name of the command; nothing on stdout."""
    result = call(*words)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("alpine: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("alpine: ").rstrip("\n")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    text = " ".join(written(*command.split(), "--help").split())
    assert f"Usage: alpine {command}".rstrip() in text
    if command:
        assert f"alpine {command} examples/alpine/firewall.alpine" in text
    else:
        assert all(name in text for name in COMMANDS)


def test_examples_of_the_help_work(tmp_path: Path) -> None:
    """Those that need no daemon, in the folder of the sources."""
    for command in ("compile", "explain", "graph"):
        text = " ".join(written(command, "--help").replace("│", "").split())
        (words,) = re.findall(
            rf"alpine ({command} examples/\S+ --even(?: -o \S+?)?)(?:;| |$)", text
        )
        for word in set(words.split()):
            if word.endswith((".svg", ".bess")):
                words = words.replace(word, str(tmp_path / word))
        written(*words.replace("examples/alpine/firewall.alpine", str(EXAMPLE)).split())
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".bess", ".svg"]


def test_compile_to_stdout_and_to_a_file(tmp_path: Path) -> None:
    path, output = script(tmp_path, GOOD), tmp_path / "new.bess"
    text = written("compile", path, "--even")
    assert "alpine." not in text
    assert "q0.attach_task(parent='alpine', share=17)" in text
    assert written("compile", path, "--even", "-o", output) == ""
    assert output.read_text(encoding="utf-8") == text
    assert {task.module for task in record_script(output).tasks} == {"inc", "q0"}
    assert sorted(tmp_path.iterdir()) == [output, path]


def test_compile_twice_is_the_same(tmp_path: Path) -> None:
    output = tmp_path / "new.bess"
    written("compile", script(tmp_path, GOOD), "--even", "-o", output)
    assert written("compile", output) == output.read_text(encoding="utf-8")


def test_what_a_script_prints_is_not_part_of_the_new_one(tmp_path: Path) -> None:
    result = call("compile", script(tmp_path, f"print('hello')\n{GOOD}"), "--even")
    assert result.exit_code == 0
    assert result.stderr == "hello\n"  # once, though the script runs more often
    assert [line for line in result.stdout.split("\n") if "hello" in line] == ["print('hello')"]


def test_variables(tmp_path: Path) -> None:
    path = script(tmp_path, GOOD.replace("share=3", "share=float($A)"))
    assert "variable A is not set; give A=VALUE" in refusal("compile", path, "--even")
    assert written("compile", path, "A=3", "--even") != written("compile", path, "A=2", "--even")
    assert call("compile", path, "A", "--even").exit_code == 2


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("command", ["compile", "graph"])
def test_failure_leaves_the_file_alone(command: str, existing: bool, tmp_path: Path) -> None:
    path, output = script(tmp_path, TIME + A3), tmp_path / "new"
    if existing:
        output.write_text("old", encoding="utf-8")
    refusal(command, path, "--even", "-o", output)
    assert sorted(tmp_path.iterdir()) == ([output] if existing else []) + [path]
    assert not existing or output.read_text(encoding="utf-8") == "old"


def test_a_file_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, output = script(tmp_path, GOOD), tmp_path / "new.bess"
    lost = tmp_path / "no" / "new.bess"
    assert refusal("compile", path, "--even", "-o", lost) == f"{lost}: No such file or directory"
    assert refusal("compile", path, "--even", "-o", tmp_path) == f"{tmp_path}: Is a directory"
    output.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    message = refusal("compile", path, "--even", "-o", output)
    assert message == f"{output}: No space left on device"
    assert output.read_text(encoding="utf-8") == "old"
    assert sorted(tmp_path.iterdir()) == [output, path]


@pytest.mark.parametrize("solver", ["auto", "tree", "highs", "gurobi"])
@pytest.mark.parametrize("kind", ["weighted_fair", "throughput"])
def test_every_solver(solver: str, kind: str, tmp_path: Path) -> None:
    if solver not in ("auto", "tree", *linear.available_solvers()):
        pytest.skip(f"{solver} is not installed")
    path = script(tmp_path, GOOD.replace("weighted_fair", kind))
    made = json.loads(written("explain", path, "--even", "--json", "--solver", solver))
    names = ["highs", "tree"] if solver == "auto" else [solver]
    assert made["solver"] in names
    assert made["errors"]["p"] < 0.01


def test_an_unknown_solver(tmp_path: Path) -> None:
    message = refusal("compile", script(tmp_path, GOOD), "--even", "--solver", "cplex")
    assert message == "no solver named 'cplex'; there are: auto, tree, highs, gurobi"


def test_an_unknown_target(tmp_path: Path) -> None:
    message = refusal("compile", script(tmp_path, GOOD), "--even", "--target", "vpp")
    assert message == "no target 'vpp'; there are: any, e2d"


@pytest.mark.parametrize(
    ("solver", "module", "remedy"),
    [
        ("highs", "highspy", "pip install highspy"),
        ("auto", "highspy", "pip install highspy"),
        ("gurobi", "gurobipy", "use `--solver highs`"),
    ],
)
def test_a_solver_that_is_not_installed(
    solver: str, module: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    output = tmp_path / "new.bess"
    path = script(tmp_path, USEFUL.replace("share=3", "share=1.2"))
    message = refusal("compile", path, "--even", "-o", output, "--solver", solver)
    assert message.startswith(f"{module} is not installed; ") and remedy in message
    assert not output.exists()


def test_the_tree_solver_says_what_it_can_not_do(tmp_path: Path) -> None:
    for text in (USEFUL, f"{GOOD}alpine.workers(2)\n"):
        message = refusal("compile", script(tmp_path, text), "--even", "--solver", "tree")
        assert message.startswith("the tree algorithm ") and message.endswith("use --solver auto")


def large(branches: int) -> str:
    """Many classes with ratios in general position on three workers: nobody solves it at once."""
    return (
        f"inc::Source()\ns::RandomSplit(gates=list(range({branches})))\ninc -> s\n"
        "alpine.add_policy('p', 'weighted_fair')\nalpine.workers(3)\n"
        f"for i in range({branches}):\n"
        "    m, k = Bypass(), Sink()\n    s:i -> m -> k\n"
        "    alpine.add_tc(f'c{i}', [inc, s, m, k])\n"
        "    alpine.attach_tc(f'c{i}', 'p', share=1 + i * 0.37 % 1)\n"
    )


def test_out_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = script(tmp_path, large(30))
    message = refusal("compile", path, "--even", "--solver", "highs", "--time-limit", "0.01")
    assert message == (
        "HiGHS found no schedule within 0.01 s; allow more with --time-limit; for a tree on one "
        "worker --solver auto is quicker"
    )
    # A schedule that was found in time, but not proven to be the best, comes with its gap.
    answer = linear.solve_model

    def unproven(model: linear.Model, *args: object, **more: object) -> linear.Answer | None:
        found = answer(model)
        return None if found is None else linear.Answer(found.values, found.objective, 0.25)

    monkeypatch.setattr("alpine.milp.solve_model", unproven)
    path = script(tmp_path, GOOD)
    made = json.loads(written("explain", path, "--even", "--solver", "highs", "--json"))
    assert made["gap"] == 0.25
    assert "within 25.0% of the best" in written("explain", path, "--even", "--solver", "highs")


def test_infeasible_and_closest(tmp_path: Path) -> None:
    path, output = script(tmp_path, USEFUL), tmp_path / "new.bess"
    message = refusal("compile", path, "--even", "-o", output)
    assert message == (
        f"{path}:8:1: policy 'p': class 'a' can't have 75.0% of the useful CPU time: 60.7% is all "
        "it can be given, for it gets no more packets than pass module 'inc', which it shares with "
        "'b'; lower its share, or count polls of empty queues as time (useful=False); "
        "`alpine compile --closest` writes the schedule that misses by the least"
    )
    assert not output.exists()
    assert refusal("explain", path, "--even") == message
    written("compile", path, "--even", "--closest", "-o", output)
    assert len(record_script(output).tasks) > 1


@pytest.mark.parametrize(("share", "fits"), [(60.6, True), (60.8, False)])
def test_the_bound_is_what_can_be_reached(share: float, fits: bool, tmp_path: Path) -> None:
    text = USEFUL.replace("share=3", f"share={share}").replace("share=1", f"share={100 - share}")
    result = call("compile", script(tmp_path, text), "--even")
    assert (result.exit_code == 0) == fits
    assert ("60.7% is all it can be given" in result.stderr) != fits


def test_the_bound_where_several_classes_are_too_unlike(tmp_path: Path) -> None:
    """With less than it asks for, the class that has too much does not fit either."""
    text = f"{USEFUL}wm:2 -> odd::Bypass() -> late::Sink()\n".replace("share=3", "share=4")
    text = text.replace("share=1", "share=3") + (
        "alpine.add_tc('c', [inc, wm, odd, late])\nalpine.attach_tc('c', 'p', share=2)\n"
    )
    message = refusal("compile", script(tmp_path, text), "--even")
    assert re.search(r"class 'a' can't have 44\.4% .*: 38\.\d% is all it can be given", message)


def test_whole_numbered_shares_miss_by_something(tmp_path: Path) -> None:
    path = script(tmp_path, GOOD.replace("share=3", "share=3.14159"))
    message = refusal("compile", path, "--even", "--tolerance", "1e-9")
    assert re.fullmatch(
        rf"{path}:8:1: the schedule would miss policy 'p' by 0\.\d\d%, more than --tolerance "
        r"0\.00%; whole-numbered shares come no closer",
        message,
    )


def test_explain(tmp_path: Path) -> None:
    path = script(tmp_path, GOOD)
    text = written("explain", path, "--even")
    assert re.search(r"│ a +│ +75\.0%", text)
    assert re.search(r"│ b +│ +25\.0%", text)
    assert re.search(r"│ q0 +│ 0 +│ 0 +│ out ", text)
    assert "policy p: off by 0.000%" in text
    assert "no queue" in text
    made = json.loads(written("explain", path, "--even", "--json"))
    assert [task["task"] for task in made["tasks"]] == ["inc", "q0"]
    assert [found["class"] for found in made["classes"]] == ["a", "b"]


def test_modules_of_a_task_have_its_colour(tmp_path: Path) -> None:
    output = tmp_path / "new.svg"
    written("graph", EXAMPLE, "--even", "-o", output)
    space = "{http://www.w3.org/2000/svg}"
    colours = {}
    for box in ET.parse(output).iter(f"{space}g"):
        frame, name = box.find(f"{space}rect"), box.find(f"{space}text")
        if frame is not None and name is not None:
            colours[name.text] = frame.get("fill")
    program = load(EXAMPLE)
    made = compile_program(program, even_profile(program))
    wiring = Wiring.of(made.schedule, made.plan)
    nodes = made.schedule.problem.forest.nodes
    heads = {colours[wiring.modules[task.head]] for task in made.schedule.tasks}
    assert len(heads) == len(made.schedule.tasks) > 1
    for task in made.schedule.tasks:
        for node in task.nodes:
            assert colours[nodes[node].module] == colours[wiring.modules[task.head]]


def test_graph(tmp_path: Path) -> None:
    output = tmp_path / "new.svg"
    written("graph", EXAMPLE, "--even", "-o", output)
    root = ET.fromstring(output.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    labels = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    program = load(EXAMPLE)
    output = tmp_path / "new.bess"
    written("compile", EXAMPLE, "--even", "-o", output)
    modules = {module.name for module in record_script(output).modules}
    queues = modules - set(program.graph.modules)
    assert modules <= labels
    parts = [label for label in labels if label and re.fullmatch(r"Queue \d+\.\d%", label)]
    assert len(parts) == len(queues) > 0


def test_no_objective(tmp_path: Path) -> None:
    path = script(tmp_path, GRAPH)
    assert written("compile", path) == GRAPH
    for words in (["explain"], ["graph", "-o", str(tmp_path / "new.svg")]):
        assert refusal(*words, path, "--even") == (
            f"{path}: there is no objective; state one with alpine.add_policy and alpine.attach_tc"
        )


def test_profiles(tmp_path: Path) -> None:
    path, output = script(tmp_path, GOOD), tmp_path / "new.bess"
    found = profile_path(path)
    assert refusal("compile", path, "-o", output) == (
        f"{found}: No such file or directory; run `alpine profile`, or assume costs (--even)"
    )
    program = load(path)
    write_profile(found, even_profile(program), path)
    assert written("compile", path) == written("compile", path, "--even")
    script(tmp_path, f"{GOOD}wm:2 -> new::Sink()\n")
    message = refusal("compile", path, "-o", output)
    assert re.fullmatch(
        rf"{found}:\d+:1: this is the profile of another pipeline than {path} builds now; "
        "take it again with `alpine profile`",
        message,
    )
    assert not output.exists()
    script(tmp_path, GOOD)
    empty = even_profile(program).packets | {"wm": {0: 1000, 1: 0}}
    write_profile(found, even_profile(program).model_copy(update={"packets": empty}), path)
    message = refusal("compile", path)
    assert message.startswith(f"{path}:7:1: class 'b' (inc -> wm -> log) got no packets while")
    assert message.endswith("or assume that all classes are alike (--even)")


NOT_A_PATH = f"{GRAPH}alpine.add_policy('p', 'priority')\nalpine.add_tc('a', [%s])\n"


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("x = (1,\n", "1:5", "'(' was never closed"),
        (f"{GOOD}  x = 1\n", "11:2", "unexpected indent"),
        (f"{GOOD}x = = 1\n", "11:5", "invalid syntax"),
        (f"{GOOD}inc ->\n", "11:5", "expected a module after '->'"),
        (f"{GOOD}inc.nope()\n", "11:1", "nope"),
        (f"{GOOD}1 / 0\n", "11:1", "ZeroDivisionError: division by zero"),
        (f"{GOOD}raise SystemExit('no')\n", "11:1", "exit: no"),
        (f"{GOOD}bess.get_module_info('inc')\n", "11:1", "leave that call to another script"),
        (NOT_A_PATH % "inc, out", "7:1", "is no connection: inc leads to wm (gate 0)"),
        (NOT_A_PATH % "inc, 'mw', out", "7:1", "there is no module 'mw'"),
        (NOT_A_PATH % "inc, wm", "7:1", "ends at wm, which leads to out (gate 0), log (gate 1)"),
        (NOT_A_PATH % "wm, out", "7:1", "a path starts at an input (there are: inc)"),
        (f"{GRAPH}alpine.add_tc('a', None)\n", "6:1", "give a list of modules, such as"),
        (f"{GOOD}{A3}", "11:1", "attached to 'p' already (line 9); a class can have one place"),
        (f"{GOOD}alpine.add_policy('q', 'priority', 'p', share=1)\n"
         "alpine.attach_tc('a', 'q', priority=1)\n", "12:1", "attached to 'p' already (line 9)"),
        (TIME + A3, "7:1", "class 'b' is attached to no policy; say alpine.attach_tc('b', "),
        (f"{GOOD}alpine.attach_tc(['a'], 'p', share=1)\n", "11:1", "takes the name of a class"),
        (f"{TIME}{A3.replace('3', '0')}", "9:1", "is 0; must be a positive number"),
        (f"{TIME}{A3.replace('3', '-1')}", "9:1", "is -1; must be a positive number"),
        (TIME + A3.replace("3", "float('nan')"), "9:1", "is nan; must be a positive number"),
        (TIME + A3.replace("3", "10**400"), "9:1", "must be a positive number"),
        (PRIORITY + "".join(f"alpine.attach_tc('{c}', 'p', priority=1)\n" for c in "ab"),
         "10:1", "'a' and 'b' both have priority 1; put them under a weighted_fair policy"),
        (PRIORITY + "alpine.add_policy('q', 'priority', 'q', priority=1)\n", "9:1",
         "'q' can't be below itself"),
        (f"{GOOD}alpine.add_policy('x', 'priority', 'y', priority=1)\n"
         "alpine.add_policy('y', 'priority', 'x', priority=1)\n", "11:1",
         "the policy 'x' is below itself: x below y below x; one of them needs another parent"),
        (f"{CLASSES}alpine.add_policy('p', ['priority'])\n", "8:1", "there are: priority, weigh"),
        (f"{CLASSES}alpine.add_policy('top', 'weighted_fair')\n"
         "alpine.add_policy('p', 'priority', 'top', share=1)\n"
         "alpine.attach_tc('a', 'p', priority=1)\nalpine.attach_tc('b', 'top', share=1)\n", "9:1",
         "policy 'p' gives priorities below 'top', which divides by shares; put the priorities on"),
        (f"{GOOD}wm:2 -> x::Merge() -> y::Bypass() -> x\n", "11:20",
         "x -> y -> x form a cycle, and a class of traffic is a path from an input to an exit; "
         "take this connection out"),
        (f"{GOOD}alpine.workers(0)\n", "11:1", "must be 1 to 64"),
        (f"{GOOD}alpine.workers(-1)\n", "11:1", "must be 1 to 64"),
        (f"{GOOD}alpine.workers(65)\n", "11:1", "must be 1 to 64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["compile", "explain", "graph"])
def test_refused_with_its_place(
    command: str, text: str, place: str, part: str, tmp_path: Path
) -> None:
    path, output = script(tmp_path, text), tmp_path / "new"
    words = [] if command == "explain" else ["-o", output]
    message = refusal(command, path, "--even", *words)
    assert message.startswith(f"{path}:{place}: "), message
    assert part in message
    assert not output.exists()


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "test.alpine"
    assert refusal("compile", path, "--even") == f"{path}: No such file or directory"
    path.write_bytes(b"\xff")
    assert refusal("compile", path, "--even").startswith(f"{path}: not a script: ")


def test_a_path_that_no_class_is(tmp_path: Path) -> None:
    """Nobody is promised anything about its packets: they go last, behind a queue."""
    path = script(
        tmp_path,
        f"{PRIORITY}wm:2 -> odd::Sink()\nalpine.attach_tc('a', 'p', priority=2)\n"
        "alpine.attach_tc('b', 'p', priority=1)\n",
    )
    text = written("compile", path, "--even")
    tasks = {task.module: task.priority for task in record_script(path, text).tasks}
    assert "wm:2 -> q1 -> odd" in text
    assert tasks["inc"] == 0 and tasks["q0"] == 1 and tasks["q1"] == 2
    made = json.loads(written("explain", path, "--even", "--json"))
    assert [found["objective"] for found in made["classes"]] == [True, True, False]
    assert made["classes"][2]["class"] == "inc -> wm -> odd"
    assert "inc -> wm -> odd (no objective)" in written("explain", path, "--even")


def test_no_class_is_starved_by_more_workers_than_tasks(tmp_path: Path) -> None:
    for workers in (1, 8):
        path = script(tmp_path, f"{GOOD}alpine.workers({workers})\n")
        made = json.loads(written("explain", path, "--even", "--json"))
        assert all(found["throughput_pps"] > 1e5 for found in made["classes"])


class Far(Client):
    """Of a daemon that nobody talks to."""

    def __init__(self, address: str) -> None:
        self.address = address


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 6})


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:10514", True),
        ("localhost:10514", True),
        ("[::1]:10514", True),
        ("unix:/run/e2d", True),
        ("192.0.2.1:10514", False),
        ("[2001:db8::1]:10514", False),
        ("router:10514", False),
    ],
)
def test_more_workers_than_cores(address: str, here: bool, tmp_path: Path) -> None:
    path = script(tmp_path, f"{GOOD}alpine.workers(3)\n")
    written("compile", path, "--even")  # it may be for another machine
    program = load(path)
    if here:
        with pytest.raises(AlpineError) as caught:
            check_workers(program, Far(address))
        assert str(caught.value) == (
            f"{path}:11:1: 3 workers need as many cores, and this machine lets us use 2; "
            "say alpine.workers(2) to run it here"
        )
    else:
        check_workers(program, Far(address))
    check_workers(load(script(tmp_path, f"{GOOD}alpine.workers(2)\n")), Far(address))
    # Who adds workers says on which cores.
    own = "".join(f"bess.add_worker({wid}, 0)\n" for wid in range(3))
    check_workers(load(script(tmp_path, own + GOOD)), Far(address))


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("command", ["run", "watch", "profile"])
def test_more_workers_than_cores_by_command(command: str, tmp_path: Path) -> None:
    """Nothing answers at this address: what is said of workers comes before."""
    path = script(tmp_path, f"{GOOD}alpine.workers(3)\n")
    result = call(command, path, "--daemon", "127.0.0.1:1")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"alpine: {path}:11:1: 3 workers need as many cores")
    if command == "profile":  # costs are of use elsewhere, so it goes on, and finds no daemon
        assert lines[0].endswith("; profiling goes on")
        assert "no daemon at 127.0.0.1:1" in lines[1] or "went away" in lines[1]
    assert len(lines) == (2 if command == "profile" else 1)


LISTING_5_2 = """\
alpine.add_tc('tc1', [inc, wm, out])
alpine.add_tc('tc2', [inc, wm, sink])
alpine.add_policy('p0', 'priority')
alpine.attach_tc('tc1', parent='p0', priority=1)
alpine.attach_tc('tc2', parent='p0', priority=0)
"""


def built(path: Path, text: str | None = None) -> tuple[object, ...]:
    """What a script builds, without its formatting and the names of traffic classes."""
    found = record_script(path, text, {"IN": "in", "OUT": "out", "LOG": "log"})
    return (
        {module.name: (module.mclass, module.arg) for module in found.modules},
        {(edge.source, edge.ogate, edge.target, edge.igate) for edge in found.edges},
        [(tc.policy, tc.parent) for tc in found.tcs],
        {task.module: (task.priority, task.share) for task in found.tasks},
    )


def test_listings_5_1_and_5_2_compile_to_listing_5_3(tmp_path: Path) -> None:
    listing = (EXAMPLES / "listing-5.1.bess").read_text(encoding="utf-8")
    path = script(tmp_path, f"{listing}\n{LISTING_5_2}")
    variables = ("IN=in", "OUT=out", "LOG=log")
    text = written("compile", path, "--even", *variables)
    assert built(path, text) == built(EXAMPLES / "listing-5.3.bess")
    assert "wm:1 -> q0 -> sink" in text
    # Were the log the more important, its way would be the one without a queue.
    other = LISTING_5_2.replace("priority=1", "priority=-1")
    text = written("compile", script(tmp_path, f"{listing}\n{other}"), "--even", *variables)
    assert "wm:0 -> q0 -> out" in text and "wm:1 -> sink" in text
    assert built(path, text)[-1] == {"inc": (0, None), "q0": (1, None)}
