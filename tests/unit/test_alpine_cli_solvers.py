# SPDX-License-Identifier: BSD-3-Clause
"""Which solver the ``alpine`` command takes, and what it says where none finds a schedule."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from alpine import linear
from alpine_support import GOOD, USEFUL, call, refusal, script, written
from bess_plugins.script.recording import record_script


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
