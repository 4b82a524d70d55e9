# SPDX-License-Identifier: BSD-3-Clause
"""What watch concludes from what it measured, and how readings look."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from alpine.graph import build_forest
from alpine.measure import Wiring, read_off
from alpine.objectives import Kind
from alpine.plan import Plan, TcNode, TcTask
from alpine.planning import plan
from alpine.sample import Growth, ModuleUse, TaskUse
from alpine.schedule import Costs, Problem, Schedule
from alpine.shares import Move, moves, with_shares
from alpine.solve import solve
from alpine.tables import reading_dict, reading_table
from alpine.watch import Swap, estimate
from live_support import fork

COSTS = Costs(
    {"in": 10.0, "split": 10.0, "a": 50.0, "b": 50.0, "a_out": 5.0, "b_out": 5.0}, 5.0, 15.0
)


def scheduled() -> Schedule:
    """With a queue before b."""
    program = fork(Kind.THROUGHPUT)
    assert program.objective is not None
    forest = build_forest(program.graph, program.paths)
    cut = next(node.index for node in forest.nodes if node.module == "b")
    problem = Problem(forest, (100.0, 100.0), COSTS, program.objective)
    return solve(problem, fixed_cuts=frozenset({cut}))


def grown(a: int, b: int, *, cycles: float, modules: dict[str, ModuleUse]) -> Growth:
    """In a second: ``a`` packets to a, ``b`` to b, half of which its queue lost."""
    edges = {("in", 0): a + b, ("split", 0): a, ("split", 1): b, ("a", 0): a}
    edges |= {("q0", 0): b // 2, ("b", 0): b // 2}
    tasks = {"in": TaskUse(1.0, 1, cycles, a + b), "q0": TaskUse(1.0, 1, 70.0 * (b // 2), b // 2)}
    return Growth({key: float(n) for key, n in edges.items()}, edges, tasks, modules)


def estimated(found: Growth) -> Problem:
    schedule = scheduled()
    wiring = Wiring.of(schedule, plan(schedule))
    return estimate(schedule.problem, wiring, found, read_off(schedule, wiring, found))


def test_rates_are_those_offered_to_full_queues() -> None:
    problem = estimated(grown(30_000, 90_000, cycles=6e6, modules={}))
    assert problem.rates == pytest.approx((50.0, 150.0))


def test_few_packets_tell_nothing() -> None:
    problem = estimated(grown(3, 9, cycles=6e6, modules={}))
    assert problem == scheduled().problem


def test_a_class_that_is_silent_keeps_a_trace() -> None:
    problem = estimated(grown(30_000, 0, cycles=2e6, modules={}))
    assert problem.rates == pytest.approx((200.0, 0.02))


def test_costs_of_modules_where_they_are_known() -> None:
    modules = {
        "in": ModuleUse(task_packets=5000, task_cycles=60_000),
        "a": ModuleUse(packets=5000, cycles=400_000),
        "b": ModuleUse(packets=3, cycles=400_000),  # too few
        "q0": ModuleUse(packets=5000, cycles=5000, task_packets=5000, task_cycles=5000),
    }
    problem = estimated(grown(50_000, 50_000, cycles=1e9, modules=modules))
    assert problem.costs.module == {**COSTS.module, "in": 12.0, "a": 80.0}


def test_costs_are_scaled_where_only_tasks_are_known() -> None:
    # A packet is predicted to cost the input's task 50; it took 60.
    problem = estimated(grown(50_000, 50_000, cycles=6e6, modules={}))
    expected = {"in": 12.0, "split": 12.0, "a": 60.0, "a_out": 6.0, "b": 50.0, "b_out": 5.0}
    assert problem.costs.module == pytest.approx(expected)


def leaf(name: str) -> TcTask:
    return TcTask(name, "")


def a_plan(*shares: int, names: str = "xyz", inner: int = 1, polling: bool = False) -> Plan:
    x, y, z = (leaf(name) for name in names)
    group = TcNode("group", "weighted_fair", "cycle", ((shares[1], y), (shares[2], z)))
    root = TcNode("root", "weighted_fair", "cycle", ((shares[0], x), (inner, group)))
    return Plan((), (root,), polling)


def test_moves_and_what_comes_of_them() -> None:
    now, then = a_plan(1, 1, 3), a_plan(1, 1, 1)
    found = moves(now, then)
    assert found == [
        Move("group", leaf("y"), 1, 0.25, 0.5),
        Move("group", leaf("z"), 1, 0.75, 0.5),
    ]
    assert [move.drift for move in found] == pytest.approx([1.0, 1 / 3])
    assert with_shares(now, found) == then
    assert str(Swap("y got dearer", tuple(found))) == (
        "y got dearer: y 25.0% -> 50.0%, z 75.0% -> 50.0%"
    )


def test_moves_of_inner_classes_keep_their_names() -> None:
    now, then = a_plan(1, 1, 1), a_plan(1, 1, 1, inner=4)
    root = then.roots[0]
    assert isinstance(root, TcNode)
    renamed = replace(then, roots=(replace(root, name="other"),))
    found = moves(now, renamed)
    assert found is not None
    assert [(move.parent, move.name, move.share) for move in found] == [
        ("root", "x", 1),
        ("root", "group", 4),
    ]


def test_the_same_shares_are_no_move() -> None:
    assert moves(a_plan(1, 2, 3), a_plan(1, 2, 3)) == []


def test_more_than_shares() -> None:
    assert moves(a_plan(1, 2, 3), a_plan(1, 2, 3, names="xyw")) is None
    assert moves(a_plan(1, 2, 3), Plan((), (leaf("x"),), polling=False)) is None


def test_readings_for_people_and_programs() -> None:
    schedule = scheduled()
    wiring = Wiring.of(schedule, plan(schedule))
    reading = read_off(schedule, wiring, grown(30_000, 0, cycles=6e6, modules={}))
    table = reading_table(reading)
    assert [column.header for column in table.columns][2:5] == ["wanted", "measured", "error"]
    assert list(table.columns[2].cells) == ["75.0%", "25.0%"]
    assert list(table.columns[3].cells) == ["100.0%", "0.0%"]
    assert list(table.columns[4].cells) == ["25.00%", "25.00%"]
    assert table.caption == "p: error 50.00%, measured over 1.0 s"
    values = json.loads(json.dumps(reading_dict(reading), allow_nan=False))
    assert values["worst_error"] == 0.5
    assert values["classes"][1]["latency_bound_s"] is None
    assert values["policies"][0]["kind"] == "throughput"


def test_classes_without_shares_are_shown_too() -> None:
    schedule = scheduled()
    objective = replace(schedule.problem.objective, kind=Kind.PRIORITY)
    schedule = replace(schedule, problem=replace(schedule.problem, objective=objective))
    wiring = Wiring.of(schedule, plan(scheduled()))
    reading = read_off(schedule, wiring, grown(30_000, 60_000, cycles=6e6, modules={}))
    assert reading.policies == () and reading.worst_error == 0
    table = reading_table(reading)
    assert list(table.columns[1].cells) == ["c0", "c1"]
    assert list(table.columns[2].cells) == ["-", "-"]
    assert list(table.columns[5].cells) == ["0.030", "0.030"]
