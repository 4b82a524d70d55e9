# SPDX-License-Identifier: BSD-3-Clause
"""Weights of the tasks of one level, once it is known where the cuts are: a small linear program.

Let A be how many times its offered packets a task could handle in the time that its weight gives
it, were it always fed ("runs"), and D how many times it does ("passes"). A class's CPU time is
linear in the A of the tasks on its way, for a task that polls an empty queue does so on behalf of
the classes behind it, in the proportion in which it works for them. Its throughput is its rate
times the D of its last task, and D = min(A, D of the task before).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from alpine.levels import Level
from alpine.linear import Model, solve_model
from alpine.promises import add_promises, must_stay_fed

__all__ = ["FLOOR", "Shape", "Weights", "find_weights", "least_passes", "most_time", "shapes"]

FLOOR = 0.25  # see least_passes
_TOLERANCE = 1e-7  # of solvers


@dataclass(frozen=True)
class Shape:
    """Nodes of a task. It has several heads where one queue stands on an edge below a merge."""

    heads: tuple[int, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """For each shape A and D and its worker's part that it uses, for each path its time and rate.

    Times are parts of the time of all workers' tasks of the level. Rates, A and D are in units of
    what one worker could do of the level without any queues inside.
    """

    shapes: tuple[Shape, ...]
    runs: tuple[float, ...]
    passes: tuple[float, ...]
    used: tuple[float, ...]
    time: Mapping[int, float]
    rate: Mapping[int, float]
    missed: float  # by ratios that were allowed to miss

    @property
    def throughput(self) -> float:
        """Of all classes together."""
        return sum(self.rate.values())


def shapes(level: Level, cuts: Collection[int]) -> tuple[Shape, ...]:
    """The tasks that cuts before these nodes make, in the order of their first head."""
    nodes = level.problem.forest.nodes
    starts = set(cuts) | set(level.heads) | level.forced
    task_of: dict[int, int] = {}
    by_edge: dict[tuple[str, int], int] = {}
    heads: list[list[int]] = []
    members: list[list[int]] = []
    for n in level.nodes:
        node = nodes[n]
        if n not in starts:
            task = task_of[node.parent]
        elif node.edge is not None and node.edge.key in by_edge:
            task = by_edge[node.edge.key]
            heads[task].append(n)
        else:
            task = len(heads)
            heads.append([n])
            members.append([])
            if node.edge is not None:
                by_edge[node.edge.key] = task
        task_of[n] = task
        members[task].append(n)
    return tuple(Shape(tuple(h), tuple(m)) for h, m in zip(heads, members, strict=True))


def _costs(
    level: Level, tasks: Sequence[Shape], workers: Sequence[int]
) -> tuple[list[dict[int, float]], list[list[int]]]:
    """What each class costs in each task, in units of the level; and the tasks before each."""
    problem = level.problem
    nodes, queue = problem.forest.nodes, problem.costs
    task_of = {n: number for number, task in enumerate(tasks) for n in task.nodes}
    costs: list[dict[int, float]] = [{} for _ in tasks]
    before: list[list[int]] = [[] for _ in tasks]

    def spend(task: int, path: int, amount: float) -> None:
        costs[task][path] = costs[task].get(path, 0.0) + amount

    for number, task in enumerate(tasks):
        for n in task.nodes:
            node = nodes[n]
            inner_head = n in task.heads and node.parent in level.members
            previous = task_of[node.parent] if inner_head else -1
            if inner_head and previous not in before[number]:
                before[number].append(previous)
            for path in node.classes:
                spend(number, path, level.part(path, n))
                if inner_head:
                    rate = level.rates[path] / level.total_cycles
                    crossing = queue.crossing if workers[previous] != workers[number] else 0.0
                    spend(number, path, rate * (queue.dequeue + crossing))
                    spend(previous, path, rate * level.enqueue(n))
    return costs, before


def least_passes(level: Level, floor: float) -> float:
    """What part of its packets no class may get less of, in units of the level.

    It is ``floor`` times what could be delivered to all of them alike if queues were free. Without
    it, a class may get all its time in modules that it shares, and no packet through.
    """
    if floor <= 0 or level.policy is None:
        return 0.0
    costs = replace(level.problem.costs, enqueue=0.0, dequeue=0.0, crossing=0.0)
    free = replace(level, problem=replace(level.problem, costs=costs))
    tasks = shapes(free, frozenset(free.nodes) - frozenset(free.heads))
    placed = [0] * len(tasks)
    alike = _solve(free, tasks, placed, *_costs(free, tasks, placed), least=None, elastic=False)
    if alike is None:
        return 0.0
    # Both sides in cycles: the units differ by what the level's own queues cost.
    scale = level.total_cycles / free.total_cycles * level.problem.workers
    return floor * scale * min((alike.rate[c] / level.rates[c] for c in alike.rate), default=0.0)


def most_time(level: Level, cuts: Collection[int], path: int) -> Mapping[int, float] | None:
    """The classes' times where this one, which the policy says nothing about, has the most that it
    can use for packets. None where the policy can't be met whatever that is."""
    tasks = shapes(level, cuts)
    placed = [0] * len(tasks)
    costs, before = _costs(level, tasks, placed)
    found = _solve(level, tasks, placed, costs, before, least=0.0, elastic=False, favour=path)
    return None if found is None else found.time


def find_weights(
    level: Level,
    cuts: Collection[int],
    *,
    workers: Mapping[int, int] | None = None,
    least: float = 0.0,
    elastic: bool = False,
) -> Weights | None:
    """The weights with the highest throughput that keep the level's promises, or None.

    ``workers`` gives the worker of each task by its first head; all are on worker 0 otherwise.
    Where these cuts don't allow for ``least``, it is what they allow for.
    """
    tasks = shapes(level, cuts)
    placed = [(workers or {}).get(task.heads[0], 0) for task in tasks]
    costs, before = _costs(level, tasks, placed)
    found = _solve(level, tasks, placed, costs, before, least=least, elastic=elastic)
    if found is not None or least == 0:
        return found
    alike = _solve(level, tasks, placed, costs, before, least=None, elastic=elastic)
    if alike is None:
        return None
    least = min(alike.rate[c] / level.rates[c] for c in alike.rate) * (1 - _TOLERANCE)
    return _solve(level, tasks, placed, costs, before, least=least, elastic=elastic)


def _delivered(runs: Sequence[float], before: Sequence[Sequence[int]]) -> list[float]:
    """D of each task: exact, also where the objective did not care."""
    found: dict[int, float] = {}

    def passes(task: int) -> float:
        if task not in found:
            found[task] = min([runs[task], *(passes(previous) for previous in before[task])])
        return found[task]

    return [passes(task) for task in range(len(runs))]


def _served(level: Level) -> list[int]:
    return [c for c in level.classes if level.problem.forest.leaf(c) in level.members]


def _solve(
    level: Level,
    tasks: Sequence[Shape],
    placed: Sequence[int],
    costs: Sequence[Mapping[int, float]],
    before: Sequence[Sequence[int]],
    *,
    least: float | None,
    elastic: bool,
    favour: int | None = None,
) -> Weights | None:
    """Maximise throughput with that floor, or without one what all classes get alike.

    ``favour`` is a class whose time is maximised instead, with polls of nobody.
    """
    model = Model()
    fed = must_stay_fed(level.policy) if favour is None else frozenset(level.passing)
    runs = [model.variable() for _ in tasks]
    passes = []
    for number, _ in enumerate(tasks):
        tied = not before[number] or any(c in fed for c in costs[number])
        passes.append(runs[number] if tied else model.variable())
        if not tied:
            model.row({passes[-1]: 1.0, runs[number]: -1.0}, high=0.0)
    for number, _ in enumerate(tasks):  # at a merge, one of those before can come later
        for previous in before[number]:
            model.row({passes[number]: 1.0, passes[previous]: -1.0}, high=0.0)
        for previous in before[number][1:]:
            # Packets mix in one queue: they stay in proportion only if they came in it.
            model.row({passes[previous]: 1.0, passes[before[number][0]]: -1.0}, 0.0, 0.0)
    task_of = {n: number for number, task in enumerate(tasks) for n in task.nodes}
    times: dict[int, dict[int, float]] = {c: {} for c in level.passing}
    for number, cost in enumerate(costs):
        for path, amount in cost.items():
            times[path][runs[number]] = amount

    def time_of(path: int) -> dict[int, float]:
        return times[path]

    def rate_of(path: int) -> dict[int, float]:
        way = level.way(path)
        return {passes[task_of[way[-1]]]: level.rates[path]} if way else {}

    for worker in sorted(set(placed)):
        model.row(
            {runs[i]: sum(costs[i].values()) for i, w in enumerate(placed) if w == worker}, 1.0, 1.0
        )
    add_promises(model, level.policy, time_of, rate_of, elastic=elastic)
    served = _served(level)
    alike = model.variable(cost=1.0) if least is None else -1
    for path in served:
        (passed,) = rate_of(path)
        if least is None:
            model.row({passed: 1.0, alike: -1.0}, low=0.0)
        else:
            model.row({passed: 1.0}, low=least)
            model.cost[passed] += level.rates[path] if favour is None else 0.0
    if favour is not None:
        for variable, factor in time_of(favour).items():
            model.cost[variable] += factor
    answer = solve_model(model)
    if answer is None:
        return None
    x = [max(0.0, float(value)) for value in answer.values]
    whole = len(set(placed))
    a = [x[v] for v in runs]
    d = _delivered(a, before)
    rate = {c: level.rates[c] * d[task_of[level.way(c)[-1]]] for c in served}
    spent = sum(value * cost for value, cost in zip(x, model.cost, strict=True) if cost < -1.0)
    return Weights(
        tuple(tasks),
        tuple(a),
        tuple(d),
        tuple(a[i] * sum(cost.values()) for i, cost in enumerate(costs)),
        {c: sum(x[v] * f for v, f in time_of(c).items()) / whole for c in level.passing},
        rate,
        -spent,
    )
