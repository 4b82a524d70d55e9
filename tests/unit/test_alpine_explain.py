# SPDX-License-Identifier: BSD-3-Clause
"""What is said of a schedule: numbers that add up, and what else was possible."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from alpine.errors import InfeasibleError, SolverError
from alpine.explain import alternatives, explain_dict, explain_table
from alpine.graph import Edge, ModuleGraph, ModuleNode, Path, build_forest
from alpine.objectives import Kind, Member, Policy
from alpine.schedule import Costs, Problem, Schedule
from alpine.solve import solve
from alpine.verify import Verdict

Tree = Mapping[str, str]  # each module's upstream
FORK: Tree = {"s": "in", "a": "s", "b": "s"}
DEEP: Tree = {"s": "in", "a": "s", "t": "s", "b": "t", "c": "t"}
NOTHING = Verdict({})


def problem(
    tree: Tree, objective: Policy, cycles: Mapping[str, float], *, workers: int = 1
) -> Problem:
    """A class for each leaf, in the order of their names; queues cost 10 cycles on either end."""
    gates: dict[str, int] = {}
    into: dict[str, Edge] = {}
    for name, above in tree.items():
        gates[above] = gates.get(above, -1) + 1
        into[name] = Edge(above, gates[above], name, 0)
    paths = []
    for leaf in sorted(set(tree) - set(tree.values())):
        edges: list[Edge] = []
        at = leaf
        while at in into:
            edges.insert(0, into[at])
            at = into[at].source
        paths.append(Path(leaf, "in", tuple(edges)))
    names = ["in", *tree]
    graph = ModuleGraph(
        {name: ModuleNode(name, "Bypass", int(name == "in")) for name in names},
        tuple(into.values()),
    )
    costs = Costs(dict.fromkeys(names, 100.0) | dict(cycles), 10.0, 10.0, 10.0)
    return Problem(build_forest(graph, paths), (1.0,) * len(paths), costs, objective, workers)


def shares(kind: Kind, *values: float) -> Policy:
    return Policy("p", kind, tuple(Member(value, path) for path, value in enumerate(values)))


def priorities(*values: float) -> Policy:
    return shares(Kind.PRIORITY, *values)


def rate(text: str) -> float:
    """Predicted packets per second of an alternative, in millions."""
    assert text.startswith("meets them with "), text
    return float(text.split()[3])


def table(schedule: Schedule, others: list[tuple[str, str]]) -> str:
    out = StringIO()
    Console(file=out, width=120).print(explain_table(schedule, NOTHING, others))
    return out.getvalue()


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "time": lambda: problem(FORK, shares(Kind.CPU_TIME, 3, 1), {}),
    "time of three": lambda: problem(DEEP, shares(Kind.CPU_TIME, 3, 1, 2), {"b": 300}),
    "packets": lambda: problem(DEEP, shares(Kind.THROUGHPUT, 3, 1, 2), {"b": 300}),
    "priorities": lambda: problem(DEEP, priorities(2, 1, 0), {}),
    "not all are promised": lambda: problem(DEEP, shares(Kind.CPU_TIME, 3, 1), {}),
    "two workers": lambda: problem(DEEP, shares(Kind.THROUGHPUT, 1, 1, 1), {}, workers=2),
    "mixed": lambda: problem(
        DEEP,
        Policy(
            "top",
            Kind.PRIORITY,
            (Member(1, 0), Member(0, Policy("p", Kind.CPU_TIME, (Member(1, 1), Member(2, 2))))),
        ),
        {},
    ),
}


def refuse(value: str) -> Any:
    raise AssertionError(f"{value} is no JSON")


@pytest.mark.parametrize("name", PROBLEMS)
def test_numbers_add_up(name: str) -> None:
    schedule = solve(PROBLEMS[name]())
    others = alternatives(schedule)
    text = json.dumps(explain_dict(schedule, NOTHING, others), allow_nan=False)
    made = json.loads(text, parse_constant=refuse)
    forest = schedule.problem.forest
    assert sorted(module for task in made["tasks"] for module in task["modules"]) == sorted(
        node.module for node in forest.nodes
    )
    groups: dict[tuple[int, int], float] = {}
    for task in made["tasks"]:
        key = (task["worker"], task["level"])
        groups[key] = groups.get(key, 0.0) + task["weight"]
        assert 0 <= task["polls"] <= 1
    assert list(groups.values()) == pytest.approx([1.0] * len(groups))
    assert {found["class"] for found in made["classes"]} == {path.name for path in forest.paths}
    if len({level for _, level in groups}) == 1:
        assert sum(found["time"] for found in made["classes"]) == pytest.approx(1.0)
    for found in made["classes"]:
        assert found["throughput_pps"] >= 0
        assert found["latency_bound_s"] is None or found["latency_bound_s"] >= 0
    # What leaves is what the last task on the way lets through.
    last = {path: task for task in schedule.tasks for path, way in enumerate(forest.ways)
            if way[-1] in task.nodes}  # fmt: skip
    for path, found in enumerate(made["classes"]):
        expected = schedule.problem.rates[path] * last[path].passes
        assert found["throughput_pps"] == pytest.approx(expected, abs=1e-3)
    shown = table(schedule, others)
    assert all(f" {task['task']} " in shown for task in made["tasks"])
    assert all(name in shown and text in shown for name, text in others)


def test_a_queue_without_packets_has_no_bound() -> None:
    schedule = solve(PROBLEMS["time"]())
    (queue,) = schedule.cuts
    starved = tuple(
        replace(task, runs=0.0, passes=0.0) if task.head == queue else task
        for task in schedule.tasks
    )
    schedule = replace(schedule, tasks=starved)
    made = explain_dict(schedule, NOTHING, [])
    bounds = [found["latency_bound_s"] for found in made["classes"]]
    assert bounds.count(None) == 1
    assert json.dumps(made, allow_nan=False)
    assert "no bound" in table(schedule, [])


def test_the_latency_bound_is_the_time_to_empty_full_queues() -> None:
    schedule = solve(PROBLEMS["packets"]())
    made = explain_dict(schedule, NOTHING, [])
    forest = schedule.problem.forest
    for path, found in enumerate(made["classes"]):
        expected = 0.0
        for task in schedule.tasks:
            if task.head in schedule.cuts and task.head in forest.ways[path]:
                expected += 1024 / (task.runs * len(forest.nodes[task.head].classes))
        assert found["latency_bound_s"] == pytest.approx(expected)
    assert any(found["latency_bound_s"] for found in made["classes"])


def test_alternatives_of_a_fork() -> None:
    schedule = solve(PROBLEMS["time"]())
    others = dict(alternatives(schedule))
    assert [schedule.problem.forest.nodes[c].module for c in schedule.cuts] == ["a"]
    assert list(others) == ["no queue", "a queue at each branch"]
    # Without a queue both classes get as much, and 3 to 1 was promised.
    assert others["no queue"] == "does not meet the objectives"
    best = sum(schedule.throughput_pps) / 1e6
    assert rate(others["a queue at each branch"]) < best
    assert "(-" in others["a queue at each branch"]


def test_alternatives_are_what_the_solver_says() -> None:
    schedule = solve(PROBLEMS["packets"]())
    nodes = schedule.problem.forest.nodes
    others = dict(alternatives(schedule))
    assert len(schedule.cuts) == 2
    for cut in schedule.cuts:
        fewer = frozenset(schedule.cuts) - {cut}
        text = others[f"without the queue on {nodes[cut].edge}"]
        with pytest.raises(InfeasibleError):
            solve(schedule.problem, fixed_cuts=fewer)
        assert text == "does not meet the objectives"
    branches = frozenset(n.index for n in nodes if n.module in ("a", "t", "b", "c"))
    instead = solve(schedule.problem, fixed_cuts=branches)
    expected = sum(instead.throughput_pps) / 1e6
    assert rate(others["a queue at each branch"]) == pytest.approx(expected, abs=1e-3)


def test_one_queue_less_can_do_as_well_or_worse() -> None:
    """A schedule with a queue that it doesn't need: the alternative without it is better."""
    schedule = solve(problem(FORK, shares(Kind.CPU_TIME, 1, 1), {}), fixed_cuts=frozenset({2}))
    assert schedule.cuts == (2,)
    others = dict(alternatives(schedule))
    assert list(others) == ["no queue", "a queue at each branch"]
    assert rate(others["no queue"]) > sum(schedule.throughput_pps) / 1e6
    assert "(+" in others["no queue"]


def test_queues_of_priorities_are_in_every_alternative() -> None:
    schedule = solve(PROBLEMS["priorities"]())
    nodes = schedule.problem.forest.nodes
    assert [nodes[c].module for c in schedule.cuts] == ["t", "c"]
    # Without those there is none, and neither is "the same again" an alternative.
    others = dict(alternatives(schedule))
    assert list(others) == ["a queue at each branch"]
    assert rate(others["a queue at each branch"]) <= sum(schedule.throughput_pps) / 1e6
    mixed = solve(PROBLEMS["mixed"]())
    assert [nodes[c].module for c in mixed.cuts] == ["t", "c"]
    others = dict(alternatives(mixed))
    assert others["no queue but those that priorities need"] == "does not meet the objectives"
    assert "no queue" not in others and "without the queue on s:1 -> t" not in others


def test_alternatives_starve_nobody_either() -> None:
    """With a queue at each branch, two workers could pass more of a and nothing of b."""
    schedule = solve(problem(FORK, shares(Kind.CPU_TIME, 3, 1), {"in": 100, "s": 100}, workers=2))
    assert min(schedule.throughput_pps) > 0
    others = dict(alternatives(schedule))
    assert rate(others["a queue at each branch"]) <= sum(schedule.throughput_pps) / 1e6


def test_a_merge_has_one_queue_for_both_ways() -> None:
    edges = [("in", 0, "s"), ("s", 0, "x"), ("s", 1, "y"), ("x", 0, "m"), ("y", 0, "m"),
             ("m", 0, "k"), ("m", 1, "l")]  # fmt: skip
    links = {(a, gate, b): Edge(a, gate, b, 0) for a, gate, b in edges}
    names = ["in", "s", "x", "y", "m", "k", "l"]
    graph = ModuleGraph(
        {name: ModuleNode(name, "Bypass", int(name == "in")) for name in names},
        tuple(links.values()),
    )
    paths = [
        Path(
            f"{first}{last}",
            "in",
            tuple(links[step] for step in (
                ("in", 0, "s"), ("s", int(first == "y"), first), (first, 0, "m"),
                ("m", int(last == "l"), last),
            )),
        )
        for first in "xy"
        for last in "kl"
    ]  # fmt: skip
    policy = Policy(
        "p",
        Kind.THROUGHPUT,
        tuple(
            Member(value, Policy(name, Kind.THROUGHPUT, tuple(Member(1, path) for path in pair)))
            for value, name, pair in ((2, "k", (0, 2)), (1, "l", (1, 3)))
        ),
    )
    costs = Costs(dict.fromkeys(names, 100.0), 10.0, 10.0)
    schedule = solve(Problem(build_forest(graph, paths), (1.0,) * 4, costs, policy))
    nodes = schedule.problem.forest.nodes
    assert {str(nodes[c].edge) for c in schedule.cuts} == {"m:1 -> l"}
    others = dict(alternatives(schedule))
    # The one queue stands before two nodes: without it there is none.
    assert list(others) == ["no queue", "a queue at each branch"]
    assert others["no queue"] == "does not meet the objectives"


def test_an_alternative_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = solve(PROBLEMS["time"]())
    limits: list[float] = []

    def late(*_: object, time_limit_s: float, **__: object) -> Schedule:
        limits.append(time_limit_s)
        raise SolverError("too late")

    monkeypatch.setattr("alpine.explain.solve", late)
    assert {text for _, text in alternatives(schedule, time_limit_s=3)} == {"unknown: too late"}
    assert set(limits) == {3}
