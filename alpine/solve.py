# SPDX-License-Identifier: BSD-3-Clause
"""From a problem to a schedule: the fitting algorithm for each level of priority.

| solver | what it does |
|---|---|
| auto | the exact algorithms of ``alpine.trees`` where they apply, else HiGHS |
| tree | those only; CPU time with the fewest tasks |
| highs, gurobi | the mixed-integer program of ``alpine.milp``, whatever the level looks like |
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alpine.errors import AlpineError, InfeasibleError, SolverError
from alpine.levels import Level, split_levels
from alpine.milp import cut_by_milp
from alpine.objectives import Kind
from alpine.promises import is_uniform, must_stay_fed
from alpine.schedule import Problem, Schedule, Task
from alpine.trees import applies, cut_by_lp, cut_for_fewest, cut_for_throughput
from alpine.weights import FLOOR, Weights, find_weights, least_passes
from alpine.why import closest, explain_infeasible

__all__ = ["SOLVERS", "solve"]

SOLVERS = ("auto", "tree", "highs", "gurobi")
_SMALL = 40  # nodes up to which the mixed-integer program is quick
_AUTO_LIMIT_S = 5.0  # for it, where there is another way


@dataclass(frozen=True)
class _Solved:
    level: Level
    weights: Weights
    workers: Mapping[int, int]
    solver: str
    gap: float


@dataclass(frozen=True)
class _Options:
    solver: str
    time_limit_s: float
    floor: float
    fixed_cuts: frozenset[int] | None


def solve(
    problem: Problem,
    *,
    solver: str = "auto",
    time_limit_s: float = 60.0,
    floor: float = FLOOR,
    fixed_cuts: frozenset[int] | None = None,
) -> Schedule:
    """The schedule with the highest predicted throughput among those that meet the objectives.

    ``floor``: no class gets less than this part of what could be delivered to all alike, so that no
    class is starved of packets though it has its time; 0 allows even that. ``fixed_cuts`` are nodes
    to put queues before, those and no others beside what priorities need.
    Raises ``InfeasibleError``, which holds the closest schedule, or ``SolverError``.
    """
    if solver not in SOLVERS:
        raise SolverError(f"no solver named '{solver}'; there are: {', '.join(SOLVERS)}")
    _check(problem)
    start = time.perf_counter()
    options = _Options(solver, time_limit_s, floor, fixed_cuts)
    placed: dict[str, int] = {}
    solved: list[_Solved] = []
    missed: list[Level] = []
    for level in split_levels(problem):
        if not level.nodes:
            continue
        found = _solve_level(level, options, placed)
        if found is None:
            missed.append(level)
            found = _closest(level, options, placed)
        for node, worker in found.workers.items():
            placed.setdefault(problem.forest.nodes[node].module, worker)
        solved.append(found)
    schedule = _schedule(problem, solved, time.perf_counter() - start)
    if missed:
        raise InfeasibleError(explain_infeasible(missed[0]), schedule)
    return schedule


def _check(problem: Problem) -> None:
    forest = problem.forest
    for path, rate in zip(forest.paths, problem.rates, strict=True):
        if not rate > 0:
            raise AlpineError(
                f"{f'{path.place}: ' if path.place else ''}class '{path.name}' has no packets, so "
                "nothing can be given to it; profile with traffic that reaches it"
            )
    missing = {node.module for node in forest.nodes} - set(problem.costs.module)
    if missing:
        raise AlpineError(f"there is no cost for: {', '.join(sorted(missing))}; profile again")
    if problem.workers < 1:
        raise AlpineError(f"{problem.workers} workers can't run anything; give 1 or more")


def _solve_level(level: Level, options: _Options, placed: Mapping[str, int]) -> _Solved | None:
    if options.fixed_cuts is not None:
        return _with_cuts(level, options, placed)
    if level.policy is None and level.problem.workers == 1:
        return _solved(level, frozenset(), options, "tree")
    if options.solver == "tree" or (options.solver == "auto" and applies(level)):
        found = _by_tree(level, options)
        if found is not None or options.solver == "tree":
            return found
    return _by_milp(level, options, placed, options.solver, options.time_limit_s)


def _with_cuts(level: Level, options: _Options, placed: Mapping[str, int]) -> _Solved | None:
    assert options.fixed_cuts is not None
    inside = level.members - frozenset(level.heads)
    cuts = options.fixed_cuts & inside
    if level.problem.workers == 1:
        return _solved(level, cuts, options, "tree")
    return _by_milp(level, options, placed, options.solver, options.time_limit_s, cuts)


def _solved(
    level: Level,
    cuts: frozenset[int],
    options: _Options,
    solver: str,
    *,
    workers: Mapping[int, int] | None = None,
    gap: float = 0.0,
) -> _Solved | None:
    least = least_passes(level, options.floor)
    weights = find_weights(level, cuts, workers=workers, least=least)
    if weights is None:
        return None
    return _Solved(level, weights, workers or {}, solver, gap)


def _by_tree(level: Level, options: _Options) -> _Solved | None:
    if not applies(level):
        raise SolverError(
            "the tree algorithm is for one worker and modules with one upstream each; "
            "use --solver auto"
        )
    if level.policy is None:
        return _solved(level, frozenset(), options, "tree")
    if is_uniform(level.policy, Kind.THROUGHPUT) and _all_promised(level):
        return _solved(level, cut_for_throughput(level), options, "tree")
    if not is_uniform(level.policy, Kind.CPU_TIME) or must_stay_fed(level.policy):
        if options.solver == "tree":
            raise SolverError(
                "the tree algorithm takes ratios of CPU time or of throughput, not both, and no "
                "useful time; use --solver auto"
            )
        return None
    if options.solver == "tree":
        if not _all_promised(level):
            raise SolverError("the tree algorithm needs a share for every class; use --solver auto")
        return _solved(level, cut_for_fewest(level), options, "tree")
    if len(level.nodes) <= _SMALL:
        try:
            return _by_milp(level, options, {}, "highs", min(_AUTO_LIMIT_S, options.time_limit_s))
        except SolverError:
            pass
    found = cut_by_lp(level, least_passes(level, options.floor))
    return None if found is None else _Solved(level, found[1], {}, "tree", found[2])


def _all_promised(level: Level) -> bool:
    assert level.policy is not None
    return set(level.policy.classes()) == set(level.passing)


def _by_milp(
    level: Level,
    options: _Options,
    placed: Mapping[str, int],
    solver: str,
    time_limit_s: float,
    fixed: frozenset[int] | None = None,
) -> _Solved | None:
    name = "highs" if solver in ("auto", "tree") else solver
    wanted = least_passes(level, options.floor)
    for least in _floors(wanted, level.problem.workers):
        structure = cut_by_milp(
            level, solver=name, time_limit_s=time_limit_s, least=least, fixed=fixed, placed=placed
        )
        if structure is not None:
            return _solved(
                level,
                structure.cuts,
                options,
                name,
                workers=structure.workers,
                gap=structure.gap,
            )
    return None


def _floors(wanted: float, workers: int) -> Iterator[float]:
    """What to try for a floor. It was meant for all workers busy, and tasks may not fill them: go
    down to half of what one worker could do before a class may be starved."""
    least = wanted
    while least > 0 and least * workers * 2.01 > wanted:
        yield least
        least /= 2
    yield 0.0


def _closest(level: Level, options: _Options, placed: Mapping[str, int]) -> _Solved:
    cuts, workers = closest(level, options.fixed_cuts, options.time_limit_s, placed)
    weights = find_weights(level, cuts, workers=workers, elastic=True)
    if weights is None:
        raise SolverError("no schedule uses the workers fully; give fewer workers")
    return _Solved(level, weights, workers, "highs", 0.0)


def _schedule(problem: Problem, solved: list[_Solved], solve_s: float) -> Schedule:
    tasks: list[Task] = []
    paths = range(len(problem.forest.paths))
    rates, spent = [0.0] * len(paths), [0.0] * len(paths)
    total_rate = sum(problem.rates)
    for number, found in enumerate(solved):
        level, weights = found.level, found.weights
        # From units of the level to packets per offered packet and second.
        scale = problem.costs.hz / level.total_cycles / total_rate
        first = number == 0  # what the others get is what this one leaves: nothing, if it is fed
        for shape, runs, passes, used in zip(
            weights.shapes, weights.runs, weights.passes, weights.used, strict=True
        ):
            worker = found.workers.get(shape.heads[0], 0)
            tasks.append(
                Task(
                    shape.heads[0],
                    shape.nodes,
                    worker,
                    level.number,
                    used,
                    runs * scale,
                    passes * scale if first else 0.0,
                )
            )
        for path in level.classes:
            spent[path] = weights.time.get(path, 0.0)
            if first and path in weights.rate:
                rates[path] = weights.rate[path] * problem.costs.hz / level.total_cycles
    tasks.sort(key=lambda task: task.head)
    names = sorted({found.solver for found in solved})
    return Schedule(
        problem,
        tuple(tasks),
        tuple(spent),
        tuple(rates),
        "+".join(names),
        solve_s,
        max(found.gap for found in solved),
    )
