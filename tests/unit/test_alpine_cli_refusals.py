# SPDX-License-Identifier: BSD-3-Clause
"""Scripts that the ``alpine`` command refuses, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpine_support import A3, CLASSES, GOOD, GRAPH, PRIORITY, TIME, refusal, script

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
