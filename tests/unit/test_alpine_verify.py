# SPDX-License-Identifier: BSD-3-Clause
"""The verifier takes what Alpine writes, and refuses the same script after a change by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from alpine.compiler import make_problem
from alpine.emit import emit, names_in_use
from alpine.errors import AlpineError
from alpine.frontend import load
from alpine.planning import Target, plan
from alpine.profile import even_profile
from alpine.program import Program
from alpine.schedule import Problem
from alpine.solve import solve
from alpine.verify import Verdict, verify
from bess_plugins.script import ScriptError

GRAPH = """\
inc::Source()
wm::RandomSplit(gates=[0, 1, 2])
inc -> wm
wm:0 -> out::Sink()
wm:1 -> log::Sink()
wm:2 -> odd::Bypass() -> late::Sink()
alpine.add_tc('a', [inc, wm, out])
alpine.add_tc('b', [inc, wm, log])
alpine.add_tc('c', [inc, wm, odd, late])
"""
SHARES = GRAPH + """\
alpine.add_policy('p', 'KIND')
for name, share in (('a', 5), ('b', 3), ('c', 2)):
    alpine.attach_tc(name, 'p', share=share)
"""  # fmt: skip
TIME = SHARES.replace("KIND", "weighted_fair")
PACKETS = SHARES.replace("KIND", "throughput")
PRIORITIES = GRAPH + """\
alpine.add_policy('p', 'priority')
for name, priority in (('a', 2), ('b', 1), ('c', 0)):
    alpine.attach_tc(name, 'p', priority=priority)
"""  # fmt: skip
MIXED = GRAPH + """\
alpine.add_policy('p', 'priority')
alpine.attach_tc('a', 'p', priority=1)
alpine.add_policy('rest', 'weighted_fair', parent='p', priority=0)
alpine.attach_tc('b', 'rest', share=1)
alpine.attach_tc('c', 'rest', share=1)
"""  # fmt: skip
MERGED = """\
inc::Source()
wm::RandomSplit(gates=[0, 1])
inc -> wm
wm:0 -> x::Bypass() -> 0:m::Merge()
wm:1 -> y::Bypass() -> 1:m
m -> out::Sink()
alpine.add_tc('a', [inc, wm, x, m, out])
alpine.add_tc('b', [inc, wm, y, m, out])
alpine.add_policy('p', 'weighted_fair')
alpine.attach_tc('a', 'p', share=1)
alpine.attach_tc('b', 'p', share=1)
"""
CASES = {
    "time": TIME,
    "packets": PACKETS,
    "priorities": PRIORITIES,
    "mixed": MIXED,
    "merged": MERGED,
    "not all are promised": TIME.replace(", ('c', 2)", "").replace(
        "alpine.add_tc('c', [inc, wm, odd, late])\n", ""
    ),
}


@dataclass(frozen=True)
class Made:
    program: Program
    problem: Problem
    text: str

    def check(self, text: str, tolerance: float = 0.01) -> Verdict:
        costs, rates = self.problem.costs, self.problem.rates
        return verify(self.program, text, costs, rates, tolerance=tolerance)

    def changed(self, *changes: tuple[str, str]) -> str:
        text = self.text
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} in\n{text}"
            text = text.replace(old, new)
        return text

    def refusal(self, *changes: tuple[str, str]) -> str:
        with pytest.raises(AlpineError) as caught:
            self.check(self.changed(*changes))
        return str(caught.value).removeprefix(self.program.path)


def make(folder: Path, source: str, target: Target = "any") -> Made:
    path = folder / "test.alpine"
    path.write_text(source, encoding="utf-8")
    program = load(path)
    problem = make_problem(program, even_profile(program))
    made = plan(solve(problem), target=target, names=names_in_use(program))
    return Made(program, problem, emit(program, made))


@pytest.mark.parametrize("target", ["any", "e2d"])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_what_is_emitted_passes(name: str, workers: int, target: Target, tmp_path: Path) -> None:
    made = make(tmp_path, f"{CASES[name]}alpine.workers({workers})\n", target)
    verdict = made.check(made.text)
    assert made.program.objective is not None
    assert set(verdict.errors) == {
        policy.name for policy in made.program.objective.policies() if policy.kind != "priority"
    }
    assert 0 <= verdict.worst < 0.01


def test_useful_time_passes(tmp_path: Path) -> None:
    source = TIME.replace("fair'", "fair', useful=True").replace("3", "5").replace("2)):", "6)):")
    made = make(tmp_path, source)
    assert made.check(made.text).worst < 0.01
    # What a task has above its packets goes into polls, which are not useful.
    line = next(line for line in made.text.split("\n") if line.startswith("q0.attach_task"))
    assert "would miss policy 'p'" in made.refusal((line, line.replace("share=", "share=9*")))


def test_nobody_handles_more_than_comes(tmp_path: Path) -> None:
    made = make(tmp_path, PACKETS)
    assert "wm:1 -> q0 -> log" in made.text
    line = next(line for line in made.text.split("\n") if line.startswith("q0.attach_task"))
    text = made.changed((line, line.replace("share=", "share=9*")))
    # With time for 27, b still gets no more packets than a: 5, 5 and 2 instead of 5, 3 and 2.
    wanted, got = (5 / 10, 3 / 10, 2 / 10), (5 / 12, 5 / 12, 2 / 12)
    error = sum(abs(w - g) for w, g in zip(wanted, got, strict=True))
    assert made.check(text, tolerance=2.0).worst == pytest.approx(error, abs=0.005)


def test_the_tolerance_is_that_of_the_worst_policy(tmp_path: Path) -> None:
    made = make(tmp_path, TIME)
    text = made.changed(("q0.attach_task(parent='alpine', share=", "q0.attach_task(share=9+"))
    text = text.replace("q0.attach_task(", "q0.attach_task(parent='alpine', ")
    worst = made.check(text, tolerance=2.0).worst
    assert worst > 0.01
    made.check(text, tolerance=worst * 1.001)
    with pytest.raises(AlpineError, match="would miss policy 'p'"):
        made.check(text, tolerance=worst * 0.999)


def test_a_share_changed(tmp_path: Path) -> None:
    made = make(tmp_path, TIME)
    message = made.refusal(("q0.attach_task(parent='alpine', share=", "q0.attach_task(parent='a"
                            "lpine', share=3*"))  # fmt: skip
    assert message.startswith(":10:1: the schedule would miss policy 'p' by ")
    assert "more than --tolerance 1.00%" in message


@pytest.mark.parametrize("source", [TIME, PACKETS, MIXED], ids=["time", "packets", "mixed"])
def test_shares_swapped(source: str, tmp_path: Path) -> None:
    source = source.replace("attach_tc('c', 'rest', share=1", "attach_tc('c', 'rest', share=9")
    made = make(tmp_path, source)
    lines = {line.split(".")[0]: line for line in made.text.split("\n") if "share=" in line}
    first, second = lines["q0"].split("share=")[1], lines["q1"].split("share=")[1]
    shares = [part.split(")")[0] for part in (first, second)]
    assert shares[0] != shares[1]
    message = made.refusal(
        (lines["q0"], lines["q0"].replace(f"share={shares[0]}", f"share={shares[1]}")),
        (lines["q1"], lines["q1"].replace(f"share={shares[1]}", f"share={shares[0]}")),
    )
    assert "the schedule would miss policy" in message


def test_a_queue_removed(tmp_path: Path) -> None:
    made = make(tmp_path, PRIORITIES)
    task = next(line for line in made.text.split("\n") if line.startswith("q0.attach_task"))
    message = made.refusal(("wm:1 -> q0 -> log", "wm:1 -> log"), ("q0::Queue()\n", ""), (task, ""))
    assert message == ": the task of 'inc' mixes modules of different importance"
    with pytest.raises(ScriptError, match="q0"):  # its task is still there
        made.check(made.changed(("wm:1 -> q0 -> log", "wm:1 -> log"), ("q0::Queue()\n", "")))
    made = make(tmp_path, PACKETS)
    task = next(line for line in made.text.split("\n") if line.startswith("q0.attach_task"))
    arrow = next(line for line in made.text.split("\n") if " -> q0 -> " in line)
    message = made.refusal((arrow, arrow.replace(" -> q0", "")), ("q0::Queue()\n", ""), (task, ""))
    assert "the schedule would miss policy 'p' by" in message


def test_a_task_under_the_wrong_class(tmp_path: Path) -> None:
    made = make(tmp_path, MIXED)
    line = next(line for line in made.text.split("\n") if line.startswith("q0.attach_task"))
    message = made.refusal((line, "q0.attach_task(parent='alpine', priority=7)"))
    assert message == ": the tasks of worker 0 don't share its time in one ratio"
    message = made.refusal((line, "q0.attach_task(wid=0)"))
    assert message == ": the task of 'q0' would not wait for that of 'inc', which is more important"
    message = made.refusal((line, ""))
    assert message == ": the task of 'q0' has no place in the schedule"


def test_the_input_below_others(tmp_path: Path) -> None:
    made = make(tmp_path, MIXED)
    line = next(line for line in made.text.split("\n") if line.startswith("inc.attach_task"))
    message = made.refusal((line, "inc.attach_task(parent='alpine', priority=9)"))
    assert message == ": the task of 'q0' would not wait for that of 'inc', which is more important"


def test_a_task_beside_the_tree(tmp_path: Path) -> None:
    """Equal shares would pass as equal times, were it not for the place of the tasks."""
    made = make(tmp_path, TIME)
    line = next(line for line in made.text.split("\n") if line.startswith("q0.attach_task"))
    message = made.refusal((line, "q0.attach_task(wid=0)"))
    assert message == ": the tasks of worker 0 don't share its time in one ratio"


def test_turns_are_no_ratio(tmp_path: Path) -> None:
    made = make(tmp_path, TIME)
    text = made.text.replace("'weighted_fair'", "'round_robin'").replace(", resource='cycle'", "")
    lines = [line.split(", share=")[0] + ")" if "share=" in line else line
             for line in text.split("\n")]  # fmt: skip
    assert sum("attach_task(parent" in line for line in lines) > 1
    with pytest.raises(AlpineError, match="don't share its time in one ratio"):
        made.check("\n".join(lines))


def test_priorities_swapped(tmp_path: Path) -> None:
    made = make(tmp_path, PRIORITIES)
    message = made.refusal(
        ("q0.attach_task(parent='alpine', priority=1)",
         "q0.attach_task(parent='alpine', priority=2)"),
        ("q1.attach_task(parent='alpine', priority=2)",
         "q1.attach_task(parent='alpine', priority=1)"),
    )  # fmt: skip
    assert message == ": the task of 'q1' would not wait for that of 'q0', which is more important"


def test_equal_priorities(tmp_path: Path) -> None:
    made = make(tmp_path, PRIORITIES)
    text = made.changed(("bess.add_tc('alpine', 'priority'", "bess.add_tc('alpine', 'round_robin'"))
    lines = [line.split(", priority=")[0] + ")" if ", priority=" in line else line
             for line in text.split("\n")]  # fmt: skip
    with pytest.raises(AlpineError, match="would not wait"):
        made.check("\n".join(lines))


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("wm:1 -> q0 -> log::Sink()", "log::Sink()\nwm:1 -> q0 -> other::Sink()", "b"),
        ("wm:1 -> q0 -> log", "wm:1 -> q0 -> Bypass() -> log", "b"),
        ("wm:0 -> out", "wm:0 -> Bypass() -> out", "a"),
        ("wm:0 -> out", "wm:3 -> out", "a"),
        ("wm:1 -> q0 -> log::Sink()", "q0 -> log::Sink()", "b"),
    ],
)
def test_a_way_that_leads_elsewhere(old: str, new: str, lost: str, tmp_path: Path) -> None:
    made = make(tmp_path, PRIORITIES)
    message = made.refusal((old, new))
    assert message == f": the new script lost the way of '{lost}'"


def test_another_input_gate(tmp_path: Path) -> None:
    made = make(tmp_path, MERGED)
    line = next(line for line in made.text.split("\n") if "1:m" in line)
    assert made.refusal((line, line.replace("1:m", "2:m"))) == (
        ": the new script lost the way of 'b'"
    )


def test_nothing_is_promised(tmp_path: Path) -> None:
    path = tmp_path / "test.alpine"
    path.write_text("s::Source() -> Sink()\n", encoding="utf-8")
    program = load(path)
    assert verify(program, program.source, even_profile(program).costs(), (1.0,)).errors == {}
