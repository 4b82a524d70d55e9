# SPDX-License-Identifier: BSD-3-Clause
"""Why objectives can't be met, and what comes closest."""

from __future__ import annotations

from collections.abc import Mapping

from alpine.levels import Level
from alpine.milp import cut_by_milp
from alpine.objectives import Kind, Member, Policy
from alpine.promises import is_uniform, parts
from alpine.weights import most_time

__all__ = ["closest", "explain_infeasible"]


def closest(
    level: Level, fixed: frozenset[int] | None, time_limit_s: float, placed: Mapping[str, int]
) -> tuple[frozenset[int], Mapping[int, int]]:
    """Cuts and workers whose ratios miss by the least in sum."""
    inside = frozenset(level.nodes) - frozenset(level.heads)
    cuts = inside if fixed is None else fixed & inside
    if level.problem.workers == 1 and fixed is not None:
        return cuts, {}
    structure = cut_by_milp(
        level,
        elastic=True,
        fixed=None if fixed is None else cuts,
        time_limit_s=time_limit_s,
        placed=placed,
    )
    return (cuts, {}) if structure is None else (structure.cuts, structure.workers)


def explain_infeasible(level: Level) -> str:
    """Which class can't have its share, what it can have at most, and which module sets that."""
    policy = level.policy
    assert policy is not None  # a level without ratios can always be met
    promised = parts(policy, Kind.CPU_TIME) or parts(policy, Kind.THROUGHPUT)
    forest = level.problem.forest
    if level.problem.workers == 1 and is_uniform(policy, Kind.CPU_TIME):
        for path in sorted(promised, key=lambda c: -promised[c]):
            most = _most(level, path, promised)
            if most < promised[path] - 1e-6:
                return (
                    f"{policy.subject}: class '{forest.paths[path].name}' can't have "
                    f"{promised[path]:.1%} of the useful CPU time: {most:.1%} is all it can be "
                    f"given, for it gets no more packets than pass {_bottleneck(level, path)}; "
                    "lower its share, or count polls of empty queues as time (useful=False)"
                )
    if level.problem.workers > 1:
        return (
            f"{policy.subject}: no placement of its tasks on {level.problem.workers} workers "
            "meets the ratios, for a task can't have more than one worker's time; "
            "use fewer workers, or less uneven shares"
        )
    return (
        f"{policy.subject}: its ratios can't be met together: what the classes share costs "
        "more than the smallest share; raise that share"
    )


def _most(level: Level, path: int, promised: Mapping[int, float]) -> float:
    """The largest part of the time that a class can use, where all others keep their proportions.

    Tried with a queue at each branch and with one on every edge. 1 where the others can't keep
    them: then this class is not to blame.
    """
    assert level.policy is not None
    others = tuple(Member(part, c) for c, part in promised.items() if c != path)
    if not others:
        return 1.0
    tried = Policy(level.policy.name, Kind.CPU_TIME, others, useful=True)
    changed = Level(level.problem, level.number, level.nodes, level.classes, tried)
    inside = frozenset(level.nodes) - frozenset(level.heads)
    branches = inside & level.problem.forest.branches
    found = [times for cuts in (branches, inside) if (times := most_time(changed, cuts, path))]
    return max((times[path] / sum(times[c] for c in promised) for times in found), default=1.0)


def _bottleneck(level: Level, path: int) -> str:
    """The module on a class's way whose work for others is the largest."""
    forest = level.problem.forest
    others = {
        n: sum(level.part(c, n) for c in forest.nodes[n].classes if c != path)
        for n in level.way(path)
    }
    node = max(others, key=lambda n: others[n])
    names = [forest.paths[c].name for c in forest.nodes[node].classes if c != path]
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"module '{forest.nodes[node].module}', which it shares with {shown}"
