# SPDX-License-Identifier: BSD-3-Clause
"""What is read off two samples of a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from alpine.errors import AlpineError
from alpine.graph import build_forest
from alpine.measure import Reading, Wiring, read_off, slo_error
from alpine.objectives import Kind, Member, Policy
from alpine.planning import plan
from alpine.program import Program
from alpine.sample import ModuleUse, Sample, TaskUse, between
from alpine.schedule import Costs, Problem, Schedule
from alpine.solve import solve
from live_support import fork, sample_of

COSTS = Costs(
    {"in": 10.0, "split": 10.0, "a": 50.0, "b": 50.0, "a_out": 5.0, "b_out": 5.0},
    enqueue=5.0,
    dequeue=15.0,
    hz=1000.0,
)
TARGETS = {("in", 0): "split", ("split", 0): "a", ("split", 1): "q0", ("q0", 0): "b"}
TARGETS |= {("a", 0): "a_out", ("b", 0): "b_out"}


def scheduled(program: Program) -> Schedule:
    """With a queue before b, whose task is to poll half of its time."""
    assert program.objective is not None
    forest = build_forest(program.graph, program.paths)
    before_b = next(node.index for node in forest.nodes if node.module == "b")
    problem = Problem(forest, (1.0, 1.0), COSTS, program.objective)
    found = solve(problem, fixed_cuts=frozenset({before_b}), floor=0.0)
    into, queue = found.tasks
    return replace(found, tasks=(into, replace(queue, runs=1.0, passes=0.5)))


def sampled(
    seconds: float, edges: Mapping[tuple[str, int], int], tasks: Mapping[str, TaskUse]
) -> Sample:
    return sample_of(seconds, edges, tasks, TARGETS)


def read(kind: Kind = Kind.CPU_TIME, *, useful: bool = False, grown: int = 100) -> Reading:
    """Two seconds, in which half of b's packets were lost and its task polled half of its time."""
    program = fork(kind)
    assert program.objective is not None
    objective = replace(program.objective, useful=useful)
    schedule = scheduled(program)
    schedule = replace(schedule, problem=replace(schedule.problem, objective=objective))
    at = {key: 1000 for key in TARGETS}
    later = {("in", 0): 2 * grown, ("split", 0): grown, ("split", 1): grown, ("a", 0): grown}
    later |= {("q0", 0): grown // 2, ("b", 0): grown // 2}
    first = sampled(10.0, at, {"in": TaskUse(10.0), "q0": TaskUse(10.0)})
    second = sampled(
        12.0,
        {key: 1000 + later[key] for key in at},
        {
            "in": TaskUse(12.0, 7, 200.0 * grown, 2 * grown),
            "q0": TaskUse(12.0, 9, 70.0 * grown, grown // 2),
        },
    )
    wiring = Wiring.of(schedule, plan(schedule))
    return read_off(schedule, wiring, between(first, second), {"q0": 512})


def test_a_branch_that_costs_nothing_gets_the_time_of_its_queue() -> None:
    program = fork()
    assert program.objective is not None
    costs = replace(COSTS, module={**COSTS.module, "a": 0.0, "a_out": 0.0})
    forest = build_forest(program.graph, program.paths)
    found = solve(Problem(forest, (1.0, 1.0), costs, program.objective), solver="tree")
    assert found.time[0] / sum(found.time) == pytest.approx(0.75)


def test_error_as_in_the_dissertation() -> None:
    assert slo_error([0.7, 0.3], [0.5, 0.5]) == pytest.approx(0.4)
    assert slo_error([3, 1], [30, 10]) == 0
    assert slo_error([3, 1], [0, 0]) == 1


def test_time_is_divided_by_what_packets_cost() -> None:
    reading = read()
    # in, split, a and a_out take 150 of the input's cycles for a pair of packets, of which a has 75
    # and b, with its enqueueing, 25: three quarters. q0's time is all b's.
    a, b = reading.classes
    assert a.cores == pytest.approx(10_000 * 0.75 / 1000)
    assert b.cores == pytest.approx((10_000 * 0.25 + 3500) / 1000)
    assert reading.seconds == 2.0
    (policy,) = reading.policies
    assert [member.name for member in policy.members] == ["c0", "c1"]
    assert policy.members[0].wanted == 0.75
    assert policy.members[0].measured == pytest.approx(7500 / 13_500)
    assert policy.error == pytest.approx(2 * (0.75 - 7500 / 13_500))
    assert reading.worst_error == policy.error


def test_throughput_is_what_passed_the_queue() -> None:
    reading = read(Kind.THROUGHPUT)
    assert [c.pps for c in reading.classes] == [50.0, 25.0]
    (policy,) = reading.policies
    assert policy.members[0].measured == pytest.approx(2 / 3)


def test_useful_time_has_no_polls_in_it() -> None:
    reading = read(useful=True)
    (policy,) = reading.policies
    spent = [50 * 75.0, 50 * 25.0 + 25 * 70.0]
    assert policy.members[0].measured == pytest.approx(spent[0] / sum(spent))


def test_latency_is_bounded_by_the_queue() -> None:
    a, b = read().classes
    assert a.latency_bound_s == 0
    assert b.latency_bound_s == pytest.approx(512 / 25)


def test_tasks() -> None:
    into, queue = read().tasks
    assert (into.module, queue.module) == ("in", "q0")
    assert into.part == pytest.approx(10_000 / 13_500)
    assert into.predicted_cost == pytest.approx((75 + 25) / 2)
    assert into.cost == pytest.approx(100.0)
    assert queue.predicted_cost == pytest.approx(70.0)
    assert queue.idle == pytest.approx(0.5)
    assert queue.cost is None  # nobody accounted for its polls


def test_accounted_polls() -> None:
    program = fork()
    schedule = scheduled(program)
    tasks = {"in": TaskUse(2.0, 7, 20_000, 200), "q0": TaskUse(2.0, 9, 7000, 50)}
    before = sampled(0.0, dict.fromkeys(TARGETS, 0), dict.fromkeys(tasks, TaskUse()))
    after = sampled(2.0, dict.fromkeys(TARGETS, 100), tasks)
    modules = {"q0": ModuleUse(task_packets=50, task_cycles=3000, idle_cycles=1400)}
    before = Sample(before.edges, TARGETS, before.tasks, {"q0": ModuleUse()})
    after = Sample(after.edges, TARGETS, after.tasks, modules)
    reading = read_off(schedule, Wiring.of(schedule, plan(schedule)), between(before, after))
    assert reading.tasks[1].idle == pytest.approx(0.2)
    assert reading.tasks[1].cost == pytest.approx(5600 / 50)


def test_nothing_moved() -> None:
    reading = read(grown=0)
    assert [c.pps for c in reading.classes] == [0.0, 0.0]
    assert reading.classes[1].latency_bound_s == float("inf")
    assert all(task.cost is None for task in reading.tasks)


def test_nested_policies_are_each_normalised() -> None:
    program = fork()
    inner = Policy("inner", Kind.THROUGHPUT, (Member(1, 0), Member(1, 1)))
    schedule = scheduled(program)
    outer = Policy("outer", Kind.PRIORITY, (Member(1, inner),))
    schedule = replace(schedule, problem=replace(schedule.problem, objective=outer))
    zero = sampled(0.0, dict.fromkeys(TARGETS, 0), {})
    one = sampled(1.0, {**dict.fromkeys(TARGETS, 100), ("in", 0): 200}, {})
    reading = read_off(schedule, Wiring({}, {0: "in", 4: "q0", 3: "q0"}), between(zero, one))
    (policy,) = reading.policies
    assert policy.name == "inner"
    assert [m.measured for m in policy.members] == [0.5, 0.5]
    assert policy.error == 0


def test_another_pipeline_is_noticed() -> None:
    one = sampled(0.0, dict.fromkeys(TARGETS, 5), {"in": TaskUse(0.0, 5)})
    back = sampled(1.0, dict.fromkeys(TARGETS, 4), {"in": TaskUse(1.0, 9)})
    with pytest.raises(AlpineError, match=r"the counter of in:0 went back; run again"):
        between(one, back)
    other = Sample(one.edges, {**TARGETS, ("in", 0): "x"}, one.tasks)
    with pytest.raises(AlpineError, match="connected differently"):
        between(one, other)
    restarted = sampled(1.0, dict.fromkeys(TARGETS, 5), {"in": TaskUse(1.0, 4)})
    with pytest.raises(AlpineError, match="task of in went back"):
        between(one, restarted)
