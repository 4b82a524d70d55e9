# SPDX-License-Identifier: BSD-3-Clause
"""The ``alpine`` command where no daemon is needed: what it writes."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from alpine.compiler import compile_program
from alpine.frontend import load
from alpine.measure import Wiring
from alpine.profile import even_profile, profile_path, write_profile
from alpine_support import (
    A3,
    EXAMPLE,
    EXAMPLES,
    GOOD,
    GRAPH,
    PRIORITY,
    TIME,
    call,
    refusal,
    script,
    written,
)
from bess_plugins.script.recording import record_script

COMMANDS = ["profile", "compile", "explain", "graph", "run", "watch"]


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
