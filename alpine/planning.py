# SPDX-License-Identifier: BSD-3-Clause
"""From a schedule to queues and traffic classes: names, whole-numbered shares, priorities.

Two things differ between the dissertation's text and BESS: there the lower priority is served
first, and a share is a whole number. So priorities are counted from the most important level down,
and shares are the smallest numbers whose ratios are close enough.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from alpine.levels import Level, split_levels
from alpine.objectives import Kind
from alpine.plan import NewQueue, Plan, TcNode, TcTask
from alpine.promises import is_uniform
from alpine.schedule import Schedule, Task

__all__ = ["Target", "plan", "quantise", "task_modules"]

# "any": every daemon of BESS's protocol; "e2d": ours, which can count packets of a queue that was
# empty for a while without starving the others.
Target = Literal["any", "e2d"]

MOST_SHARE = 1024  # what BESS recommends
_CLOSE = 5e-4  # of a task's weight, relatively


def quantise(weights: Sequence[float]) -> list[int]:
    """Shares from 1 to 1,024 in the ratio of the weights: the smallest that are close enough."""
    wanted = np.array(weights, dtype=np.float64)
    if wanted.size == 0:
        return []
    wanted = np.maximum(wanted / wanted.sum(), 1e-12)
    scales = np.arange(1, MOST_SHARE + 1)[:, None] / wanted.max()
    shares = np.maximum(1, np.rint(scales * wanted))
    errors = np.abs(shares / shares.sum(axis=1, keepdims=True) / wanted - 1).max(axis=1)
    close = np.flatnonzero(errors <= _CLOSE)
    best = int(close[0]) if close.size else int(np.argmin(errors))
    return [int(share) for share in shares[best]]


def task_modules(schedule: Schedule, names: Collection[str] = ()) -> dict[int, str]:
    """The module whose task runs each of the schedule's, by head: an input or a queue."""
    nodes = schedule.problem.forest.nodes
    taken = {node.module for node in nodes} | set(names)
    found: dict[int, str] = {}
    number = 0
    for task in schedule.tasks:
        node = nodes[task.head]
        if node.parent < 0 or node.own_task:
            found[task.head] = node.module
            continue
        while f"q{number}" in taken:
            number += 1
        found[task.head] = f"q{number}"
        number += 1
    return found


def plan(schedule: Schedule, *, target: Target = "any", names: Collection[str] = ()) -> Plan:
    """What the script needs for this schedule; ``names`` are taken already."""
    problem = schedule.problem
    nodes = problem.forest.nodes
    modules = task_modules(schedule, names)
    queues = []
    for task in schedule.tasks:
        edge = nodes[task.head].edge
        if edge is not None and not nodes[task.head].own_task:
            queues.append(NewQueue(modules[task.head], edge))
    levels = [level for level in split_levels(problem) if level.nodes]
    workers = sorted({task.worker for task in schedule.tasks})
    roots = []
    for number, worker in enumerate(workers):
        suffix = f"_{number}" if len(workers) > 1 else ""
        here = []
        for level in levels:
            tasks = [t for t in schedule.tasks if (t.worker, t.level) == (worker, level.number)]
            if tasks:
                many = f"{suffix}_{level.number}" if len(levels) > 1 else suffix
                here.append(_level(schedule, level, tasks, modules, f"alpine{many}", target))
        if len(here) == 1:
            roots.append(here[0])
        else:
            children = tuple(enumerate(here))
            roots.append(TcNode(f"alpine{suffix}", "priority", "", children))
    return Plan(tuple(queues), tuple(roots), _polls(schedule, levels))


def _polls(schedule: Schedule, levels: Sequence[Level]) -> bool:
    """Whether a task behind a queue has more time than packets."""
    nodes = schedule.problem.forest.nodes
    timed = {level.number for level in levels if level.policy is not None}
    return any(
        task.level in timed and nodes[task.head].parent >= 0 and task.polls
        for task in schedule.tasks
    )


def _level(
    schedule: Schedule,
    level: Level,
    tasks: Sequence[Task],
    modules: dict[int, str],
    name: str,
    target: Target,
) -> TcNode | TcTask:
    leaves = [TcTask(modules[task.head], _describe(schedule, task)) for task in tasks]
    if len(leaves) == 1:
        return leaves[0]
    if level.policy is None:
        return TcNode(name, "round_robin", "", tuple((None, leaf) for leaf in leaves))
    counts = [task.weight for task in tasks]
    resource = "cycle"
    if (
        target == "e2d"
        and schedule.problem.workers == 1
        and is_uniform(level.policy, Kind.THROUGHPUT)
    ):
        # Every queue has a backlog, so counting packets meets the ratio whatever they cost.
        resource = "packet"
        counts = [level.rate_through[task.head] * task.runs for task in tasks]
    shares = quantise(counts)
    return TcNode(name, "weighted_fair", resource, tuple(zip(shares, leaves, strict=True)))


def _describe(schedule: Schedule, task: Task) -> str:
    """The classes that it serves, and its modules."""
    forest = schedule.problem.forest
    names = [forest.paths[c].name for c in forest.nodes[task.head].classes]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    modules = list(dict.fromkeys(forest.nodes[n].module for n in task.nodes))
    listed = ", ".join(modules[:4]) + (", ..." if len(modules) > 4 else "")
    return f"{listed} for {shown}"
