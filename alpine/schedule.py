# SPDX-License-Identifier: BSD-3-Clause
"""What a solver answers: where to cut, who runs what, and with which weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alpine.graph import Forest
from alpine.objectives import Policy

__all__ = ["Costs", "Problem", "Schedule", "Task"]


_POLLS = 1e-3  # relative surplus of time from which a task is to poll


@dataclass(frozen=True)
class Costs:
    """Cycles per packet, of the time stamp counter that runs at ``hz``.

    ``enqueue`` and ``dequeue`` are what a queue costs the task before and the one behind it,
    ``crossing`` what a dequeue costs more where the two run on different workers.
    """

    module: Mapping[str, float]
    enqueue: float
    dequeue: float
    crossing: float = 0.0
    hz: float = 1e9


@dataclass(frozen=True)
class Problem:
    """Everything that a schedule depends on. ``rates`` are those of the paths, relative."""

    forest: Forest
    rates: tuple[float, ...]
    costs: Costs
    objective: Policy
    workers: int = 1


@dataclass(frozen=True)
class Task:
    """Modules that run to completion together, from the queue or input before ``head`` on.

    ``weight`` is its part of its worker's time among the tasks of its ``level``; levels with a
    higher number go first. ``runs`` is at how many times the offered rate the task could work on
    its packets, ``passes`` at how many times it does: less where it is not fed as much.
    Both are scaled to rates in packets per second.
    """

    head: int
    nodes: tuple[int, ...]
    worker: int
    level: int
    weight: float
    runs: float
    passes: float

    @property
    def polls(self) -> bool:
        """Whether it has more time than packets, and is to spend that on an empty queue."""
        return self.passes < self.runs * (1 - _POLLS)


@dataclass(frozen=True)
class Schedule:
    """Tasks, in the order of their heads, and what they are predicted to achieve.

    ``time`` is each path's part of the time of its level's tasks, ``throughput_pps`` what leaves at
    its exit. ``gap`` is the solver's: 0 where the throughput is proven to be the best.
    """

    problem: Problem
    tasks: tuple[Task, ...]
    time: tuple[float, ...]
    throughput_pps: tuple[float, ...]
    solver: str
    solve_s: float
    gap: float = 0.0

    @property
    def cuts(self) -> tuple[int, ...]:
        """Nodes that a queue is put before."""
        nodes = self.problem.forest.nodes
        return tuple(
            task.head
            for task in self.tasks
            if nodes[task.head].parent >= 0 and not nodes[task.head].own_task
        )
