# SPDX-License-Identifier: BSD-3-Clause
"""A schedule in words and tables: what each task covers, what each class gets, and why so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alpine.errors import InfeasibleError, SolverError
from alpine.levels import split_levels
from alpine.plan import QUEUE_PACKETS
from alpine.planning import task_modules
from alpine.schedule import Schedule
from alpine.solve import solve
from alpine.verify import Verdict

__all__ = ["alternatives", "explain_dict", "explain_table"]

_MOST_ROWS = 40

Key = tuple[str, int]


def _latency_s(schedule: Schedule, path: int) -> float:
    """The time to empty every new queue on a class's way, were all of them full."""
    forest = schedule.problem.forest
    total = 0.0
    for task in schedule.tasks:
        if task.head not in forest.ways[path] or forest.nodes[task.head].parent < 0:
            continue
        rate = sum(schedule.problem.rates[c] for c in forest.nodes[task.head].classes) * task.runs
        total += QUEUE_PACKETS / rate if rate > 0 else float("inf")
    return total


def _polled(schedule: Schedule) -> list[float]:
    """Each task's part of polls of its queue while that is empty."""
    return [1 - t.passes / t.runs if t.runs > 0 else 0.0 for t in schedule.tasks]


def explain_table(
    schedule: Schedule, verdict: Verdict, others: list[tuple[str, str]]
) -> RenderableType:
    """Tables of tasks, of classes, and of what else was possible."""
    forest = schedule.problem.forest
    modules = task_modules(schedule)
    tasks = Table("task", "worker", "level", "modules", title="Tasks", title_justify="left")
    for title in ("part of time", "polls", "Mpps"):
        tasks.add_column(title, justify="right")
    for task, polls in list(zip(schedule.tasks, _polled(schedule), strict=True))[:_MOST_ROWS]:
        rate = sum(schedule.problem.rates[c] for c in forest.nodes[task.head].classes)
        names = dict.fromkeys(forest.nodes[n].module for n in task.nodes)
        tasks.add_row(
            modules[task.head],
            str(task.worker),
            str(task.level),
            " ".join(names),
            f"{task.weight:.1%}",
            f"{polls:.0%}" if forest.nodes[task.head].parent >= 0 and task.passes else "",
            f"{rate * task.passes / 1e6:.3f}",
        )
    classes = Table("class", title="Classes", title_justify="left")
    for title in ("part of time", "Mpps", "at most in queues"):
        classes.add_column(title, justify="right")
    for number, path in list(enumerate(forest.paths))[:_MOST_ROWS]:
        latency = _latency_s(schedule, number)
        classes.add_row(
            path.name + (" (no objective)" if path.implicit else ""),
            f"{schedule.time[number]:.1%}",
            f"{schedule.throughput_pps[number] / 1e6:.3f}",
            f"{latency * 1e6:,.0f} us" if latency < float("inf") else "no bound",
        )
    lines = [f"policy {name}: off by {error:.3%}" for name, error in verdict.errors.items()]
    gap = f", within {schedule.gap:.1%} of the best" if schedule.gap > 1e-6 else ""
    lines.append(
        f"{len(schedule.tasks)} tasks, {sum(schedule.throughput_pps) / 1e6:.3f} Mpps predicted"
        f"{gap}; solved by {schedule.solver} in {schedule.solve_s * 1e3:.0f} ms"
    )
    more = max(len(schedule.tasks), len(forest.paths)) - _MOST_ROWS
    if more > 0:
        lines.append(f"{more} more rows are in --json")
    why = Table("instead", "what it would do", title="Why not another cut", title_justify="left")
    for name, text in others:
        why.add_row(name, text)
    parts: list[RenderableType] = [tasks, classes, Text("\n".join(lines))]
    return Group(*parts, why) if others else Group(*parts)


def alternatives(schedule: Schedule, *, time_limit_s: float = 60.0) -> list[tuple[str, str]]:
    """Schedules with one queue less or none, one at every branch, and what they would come to.

    Queues that priorities need stand in all of them.
    """
    nodes = schedule.problem.forest.nodes
    heads = (head for level in split_levels(schedule.problem) for head in level.heads)
    kept = {edge.key for head in heads if (edge := nodes[head].edge) is not None}

    def behind(keys: Iterable[Key]) -> frozenset[int]:
        wanted = set(keys) - kept
        return frozenset(n.index for n in nodes if n.edge is not None and n.edge.key in wanted)

    queued = {edge.key: edge for c in schedule.cuts if (edge := nodes[c].edge) is not None}
    cuts = behind(queued)
    only = "no queue but those that priorities need" if kept & set(queued) else "no queue"
    tried: list[tuple[str, frozenset[int]]] = [(only, frozenset())]
    if len(cuts) <= _MOST_ROWS // 2:
        tried += [
            (f"without the queue on {edge}", behind(set(queued) - {key}))
            for key, edge in queued.items()
        ]
    branches = {
        edge.key for n in schedule.problem.forest.branches if (edge := nodes[n].edge) is not None
    }
    tried.append(("a queue at each branch", behind(branches)))
    best = sum(schedule.throughput_pps)
    found: list[tuple[str, str]] = []
    seen = {cuts}
    for name, other in tried:
        if other in seen:
            continue
        seen.add(other)
        try:
            instead = solve(schedule.problem, fixed_cuts=other, time_limit_s=time_limit_s)
        except InfeasibleError:
            found.append((name, "does not meet the objectives"))
            continue
        except SolverError as error:
            found.append((name, f"unknown: {error}"))
            continue
        rate = sum(instead.throughput_pps)
        change = rate / best - 1 if best else 0.0
        found.append((name, f"meets them with {rate / 1e6:.3f} Mpps ({change:+.1%})"))
    return found


def explain_dict(
    schedule: Schedule, verdict: Verdict, others: list[tuple[str, str]]
) -> dict[str, Any]:
    """Plain values for JSON."""
    forest = schedule.problem.forest
    modules = task_modules(schedule)
    return {
        "tasks": [
            {
                "task": modules[task.head],
                "worker": task.worker,
                "level": task.level,
                "modules": [forest.nodes[n].module for n in task.nodes],
                "weight": task.weight,
                "polls": polls,
                "passes_per_s": task.passes,
            }
            for task, polls in zip(schedule.tasks, _polled(schedule), strict=True)
        ],
        "classes": [
            {
                "class": path.name,
                "objective": not path.implicit,
                "time": schedule.time[number],
                "throughput_pps": schedule.throughput_pps[number],
                "latency_bound_s": bound if (bound := _latency_s(schedule, number)) < 1e9 else None,
            }
            for number, path in enumerate(forest.paths)
        ],
        "errors": dict(verdict.errors),
        "solver": schedule.solver,
        "solve_s": schedule.solve_s,
        "gap": schedule.gap,
        "alternatives": dict(others),
    }
