# SPDX-License-Identifier: BSD-3-Clause
"""Solvers against each other, and each answer against the objectives, on random trees."""

from __future__ import annotations

import importlib.util
from itertools import combinations, pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpine.errors import InfeasibleError
from alpine.graph import Edge, ModuleGraph, ModuleNode, Path, build_forest
from alpine.levels import split_levels
from alpine.milp import cut_by_milp
from alpine.objectives import Kind, Member, Policy
from alpine.planning import plan, quantise
from alpine.schedule import Costs, Problem, Schedule
from alpine.solve import solve
from alpine.trees import cut_by_lp, cut_for_fewest, cut_for_throughput
from alpine.weights import find_weights, least_passes

SOLVERS = ["highs", *(["gurobi"] if importlib.util.find_spec("gurobipy") else [])]


@st.composite
def problems(draw: st.DrawFn, kind: Kind, most: int = 9) -> Problem:
    """A random tree with a class for each leaf; ratios and rates in general position."""
    count = draw(st.integers(2, most))
    parents = [draw(st.integers(max(0, n - 4), n - 1)) for n in range(1, count)]
    names = [f"m{n}" for n in range(count)]
    gates = [0] * count
    into: dict[str, Edge] = {}
    for n, parent in enumerate(parents, 1):
        into[names[n]] = Edge(names[parent], gates[parent], names[n], 0)
        gates[parent] += 1
    paths = []
    for n in (n for n in range(count) if n not in parents):
        edges: list[Edge] = []
        at = names[n]
        while at in into:
            edges.insert(0, into[at])
            at = into[at].source
        paths.append(Path(names[n], names[0], tuple(edges)))
    graph = ModuleGraph(
        {name: ModuleNode(name, "Bypass", int(name == "m0")) for name in names},
        tuple(into.values()),
    )
    number = st.floats(0.3, 1.0)
    cycles = {name: draw(st.floats(40.0, 200.0)) for name in names}
    # A digit of its own for each class: no two ratios happen to agree.
    shares = [draw(number) + 0.0137 * (i + 1) ** 0.5 for i, _ in enumerate(paths)]
    rates = tuple(draw(number) for _ in paths)
    policy = Policy("p", kind, tuple(Member(share, i) for i, share in enumerate(shares)))
    queue = draw(st.floats(0.0, 30.0))
    return Problem(build_forest(graph, paths), rates, Costs(cycles, queue, queue, 0, 1e9), policy)


def parts_of(schedule: Schedule) -> list[float]:
    """What the classes got of what their policy divides."""
    timed = schedule.problem.objective.kind is Kind.CPU_TIME
    got = schedule.time if timed else schedule.throughput_pps
    return [amount / sum(got) for amount in got]


def wanted_of(problem: Problem) -> list[float]:
    values = [member.value for member in problem.objective.members]
    return [value / sum(values) for value in values]


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.CPU_TIME))
def test_all_solvers_agree_on_cpu_time(problem: Problem) -> None:
    answers = [solve(problem, solver=solver) for solver in ("auto", *SOLVERS)]
    for answer in answers:
        assert parts_of(answer) == pytest.approx(wanted_of(problem), abs=1e-5)
    best = [sum(answer.throughput_pps) for answer in answers]
    assert best == pytest.approx([best[0]] * len(best), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.THROUGHPUT))
def test_all_solvers_agree_on_throughput(problem: Problem) -> None:
    answers = [solve(problem, solver=solver) for solver in ("tree", *SOLVERS)]
    for answer in answers:
        assert parts_of(answer) == pytest.approx(wanted_of(problem), abs=1e-5)
        assert all(task.passes == pytest.approx(task.runs, rel=1e-5) for task in answer.tasks)
    best = [sum(answer.throughput_pps) for answer in answers]
    assert best == pytest.approx([best[0]] * len(best), rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(problem=problems(Kind.CPU_TIME, most=7))
def test_no_set_of_cuts_is_better(problem: Problem) -> None:
    (level,) = split_levels(problem)
    inner = [n for n in level.nodes if n not in level.heads]
    tried = [
        found.throughput
        for size in range(len(inner) + 1)
        for cuts in combinations(inner, size)
        if (found := find_weights(level, cuts)) is not None
    ]
    best = solve(problem, floor=0.0)
    scale = problem.costs.hz / level.total_cycles
    assert sum(best.throughput_pps) == pytest.approx(max(tried) * scale, rel=2e-4)


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.CPU_TIME))
def test_the_tree_algorithm_needs_as_few_tasks_as_the_program(problem: Problem) -> None:
    costs = Costs(problem.costs.module, 0.0, 0.0)
    (level,) = split_levels(Problem(problem.forest, problem.rates, costs, problem.objective))
    cuts = cut_for_fewest(level)
    assert len(cuts) + 1 == len(problem.forest.paths)
    weights = find_weights(level, cuts)
    assert weights is not None and min(weights.used) >= -1e-9
    structure = cut_by_milp(level, fewest=True)
    assert structure is not None and len(structure.cuts) == len(cuts)


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.CPU_TIME))
def test_free_queues_need_no_more_tasks_than_classes_for_the_best(problem: Problem) -> None:
    costs = Costs(problem.costs.module, 0.0, 0.0)
    (level,) = split_levels(Problem(problem.forest, problem.rates, costs, problem.objective))
    found = cut_by_lp(level, 0.0)
    structure = cut_by_milp(level)
    assert found is not None and structure is not None
    reference = find_weights(level, structure.cuts)
    assert reference is not None
    assert found[1].throughput == pytest.approx(reference.throughput, rel=1e-5)
    # A class that gets nothing, so that others get more, may take a queue of its own for that.
    starved = sum(rate < 1e-9 for rate in found[1].rate.values())
    assert len(found[0]) < len(problem.forest.paths) + starved


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.CPU_TIME))
def test_the_fast_way_is_within_its_gap(problem: Problem) -> None:
    (level,) = split_levels(problem)
    least = least_passes(level, 0.5)
    found = cut_by_lp(level, least)
    assert found is not None
    best = solve(problem, solver="highs", floor=0.0)
    scale = problem.costs.hz / level.total_cycles
    mine = found[1].throughput * scale
    assert mine <= sum(best.throughput_pps) * (1 + 1e-6)
    assert 0 <= found[2] < 1


@settings(max_examples=40, deadline=None)
@given(problem=problems(Kind.CPU_TIME, most=7))
def test_two_workers(problem: Problem) -> None:
    two = Problem(problem.forest, problem.rates, problem.costs, problem.objective, 2)
    message = ""
    try:
        answer = solve(two)
    except InfeasibleError as error:
        message, answer = str(error), error.closest
    if message:
        assert "2 workers" in message
    else:
        assert parts_of(answer) == pytest.approx(wanted_of(problem), abs=1e-4)
    for worker in {task.worker for task in answer.tasks}:
        used = sum(task.weight for task in answer.tasks if task.worker == worker)
        assert used == pytest.approx(1, abs=1e-5)
    nodes = problem.forest.nodes
    runner = {n: task.worker for task in answer.tasks for n in task.nodes}
    heads = {task.head for task in answer.tasks}
    for node in nodes:
        if node.parent >= 0 and node.index not in heads:
            assert runner[node.index] == runner[node.parent]


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.CPU_TIME, most=12), data=st.data())
def test_priorities_cut_where_importance_falls(problem: Problem, data: st.DataObject) -> None:
    count = len(problem.forest.paths)
    order = data.draw(st.permutations(range(count)))
    policy = Policy("p", Kind.PRIORITY, tuple(Member(v, c) for c, v in enumerate(order)))
    answer = solve(Problem(problem.forest, problem.rates, problem.costs, policy))
    nodes = problem.forest.nodes
    importance = [max(order[c] for c in node.classes) for node in nodes]
    expected = {
        node.index
        for node in nodes
        if node.parent >= 0 and importance[node.index] < importance[node.parent]
    }
    assert set(answer.cuts) == expected
    for task in answer.tasks:
        assert {importance[n] for n in task.nodes} == {importance[task.head]}
    by_level = sorted(answer.tasks, key=lambda task: task.level)
    for low, high in pairwise(by_level):
        if low.level < high.level:
            assert importance[low.head] < importance[high.head]


@settings(max_examples=60, deadline=None)
@given(problem=problems(Kind.CPU_TIME, most=12))
def test_every_node_is_in_one_task_and_tasks_are_connected(problem: Problem) -> None:
    answer = solve(problem)
    nodes = problem.forest.nodes
    assert sorted(n for task in answer.tasks for n in task.nodes) == list(range(len(nodes)))
    for task in answer.tasks:
        inside = set(task.nodes)
        assert all(n == task.head or nodes[n].parent in inside for n in task.nodes)
    assert sum(task.weight for task in answer.tasks) == pytest.approx(1, abs=1e-6)
    made = plan(answer)
    assert len(made.queues) == len(answer.cuts)


@given(weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=12))
def test_shares_are_close_and_whole(weights: list[float]) -> None:
    shares = quantise(weights)
    assert all(1 <= share <= 1024 for share in shares)
    total = sum(weights)
    parts = [share / sum(shares) for share in shares]
    errors = [abs(p - w / total) / (w / total) for p, w in zip(parts, weights, strict=True)]
    # The smallest weight may be a hundredth of the largest: half of a tenth of its share.
    assert max(errors) <= 0.06 and fmean(errors) <= 0.06


@settings(max_examples=30, deadline=None)
@given(problem=problems(Kind.THROUGHPUT))
def test_no_other_single_cut_set_is_better_for_throughput(problem: Problem) -> None:
    (level,) = split_levels(problem)
    cuts = cut_for_throughput(level)
    best = find_weights(level, cuts)
    assert best is not None
    for n in range(1, len(problem.forest.nodes)):
        other = find_weights(level, cuts ^ {n})
        assert other is None or other.throughput <= best.throughput * (1 + 1e-6)
