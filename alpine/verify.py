# SPDX-License-Identifier: BSD-3-Clause
"""Recomputes every promise from the script that is about to be written.

Nothing of the solvers is used: the new script is run against a recorder, each class is followed
through the modules and queues that it builds, and shares are taken as they stand there, in whole
numbers. What the solvers, the plan or the text got wrong shows here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alpine.errors import AlpineError
from alpine.graph import QUEUEING_CLASSES
from alpine.measure import slo_error
from alpine.objectives import Kind, Policy
from alpine.program import Program
from alpine.schedule import Costs
from bess_plugins.script.recording import Recording, record_script
from bess_plugins.script.records import TaskRecord, TcRecord

__all__ = ["TOLERANCE", "Verdict", "verify"]

TOLERANCE = 0.01


@dataclass(frozen=True)
class Verdict:
    """The error of each policy with shares, by name: differences of parts, summed up."""

    errors: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(self.errors.values(), default=0.0)


@dataclass
class _Task:
    """A module with a task: what a second of it costs by path, and its place in the tree."""

    wid: int = 0
    rank: tuple[int, ...] = ()  # priorities above it, the most important first
    weight: float = 0.0  # of its worker's time among the tasks of its rank
    by_packets: bool = False
    cycles: dict[int, float] = field(default_factory=dict)
    packets: dict[int, float] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)
    modules: dict[str, set[int]] = field(default_factory=dict)


def verify(
    program: Program,
    text: str,
    costs: Costs,
    rates: tuple[float, ...],
    *,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Check a script against the objectives of the one that it was made from.

    Raises ``AlpineError`` where a policy is missed by more than ``tolerance`` or a priority is not
    kept.
    """
    objective = program.objective
    if objective is None:
        return Verdict({})
    recording = record_script(program.path, text, program.recording.variables)
    whole = sum(rates)
    shares = tuple(rate / whole for rate in rates)
    ways = _follow(program, recording)
    tasks = _place(program, recording, {task for way in ways for task, _ in way})
    _charge(ways, tasks, costs, shares)
    importance = _check_priorities(program, objective, ways, tasks)
    _check_ratios(program, objective, ways, tasks, importance)
    _weigh(tasks)
    last = {path: way[-1][0] for path, way in enumerate(ways)}
    runs = {name: _runs(task) for name, task in tasks.items()}
    passes = _passes(tasks, runs, importance)
    time: dict[Kind, dict[int, float]] = {Kind.CPU_TIME: {}, Kind.THROUGHPUT: {}}
    useful: dict[int, float] = {}
    for path, task in last.items():
        on_way = dict.fromkeys(name for name, _ in ways[path])
        own = {n: tasks[n] for n in on_way if importance[n] == importance[task]}
        time[Kind.CPU_TIME][path] = sum(t.cycles[path] * runs[n] for n, t in own.items())
        useful[path] = sum(t.cycles[path] * passes[n] for n, t in own.items())
        time[Kind.THROUGHPUT][path] = shares[path] * passes[task]
    errors: dict[str, float] = {}
    _measure(objective, time, useful, errors)
    for policy in objective.policies():
        error = errors.get(policy.name, 0.0)
        if error > tolerance:
            raise AlpineError(
                f"{policy.place or program.path}: the schedule would miss policy '{policy.name}' "
                f"by {error:.2%}, more than --tolerance {tolerance:.2%}; whole-numbered shares "
                "come no closer"
            )
    return Verdict(errors)


Way = list[tuple[str, str]]  # pairs of a task's module and a module that it runs
Importance = tuple[float, ...]  # priorities of the objectives, from the root on


def _follow(program: Program, recording: Recording) -> list[Way]:
    """For each path, the modules on its way in the new script and the tasks that run them."""
    kinds = {module.name: module.mclass for module in recording.modules}
    new = {name for name in kinds if name not in program.graph.modules}
    leads = {(edge.source, edge.ogate): (edge.target, edge.igate) for edge in recording.edges}
    ways = []
    for path in program.paths:
        way = [(path.input, path.input)]
        for edge in path.edges:
            step, gate = leads.get(edge.key, ("", 0))
            if step in new and kinds[step] == "Queue":
                way.append((step, step))
                step, gate = leads.get((step, 0), ("", 0))
            if (step, gate) != (edge.target, edge.igate):
                raise AlpineError(f"{program.path}: the new script lost the way of '{path.name}'")
            task = step if kinds[step] in QUEUEING_CLASSES else way[-1][0]
            way.append((task, step))
        ways.append(way)
    return ways


def _place(program: Program, recording: Recording, names: set[str]) -> dict[str, _Task]:
    """Where each task stands in the scheduler tree."""
    tcs = {tc.name: tc for tc in recording.tcs}
    below: dict[str, int] = {}
    children: tuple[TcRecord | TaskRecord, ...] = (*recording.tcs, *recording.tasks)
    for child in children:
        if child.parent and child.share:
            below[child.parent] = below.get(child.parent, 0) + child.share
    tasks: dict[str, _Task] = {}
    for record in recording.tasks:
        if record.module not in names:
            continue
        task = _Task(weight=1.0)
        rank: list[int] = []
        node: TcRecord | TaskRecord = record
        while node.parent:
            above = tcs[node.parent]
            if above.policy == "priority":
                rank.insert(0, node.priority or 0)
            elif above.policy == "weighted_fair":
                task.weight *= (node.share or 0) / below[node.parent]
                task.by_packets |= above.resource == "packet"
            node = above
        task.wid, task.rank = max(node.wid, 0), tuple(rank)
        tasks[record.module] = task
    for name in sorted(names - set(tasks)):
        raise AlpineError(f"{program.path}: the task of '{name}' has no place in the schedule")
    return tasks


def _charge(
    ways: list[Way],
    tasks: Mapping[str, _Task],
    costs: Costs,
    shares: tuple[float, ...],
) -> None:
    """What each class costs in each task, per packet offered."""
    for path, way in enumerate(ways):
        before = ""
        for name, module in way:
            task = tasks[name]
            task.modules.setdefault(module, set()).add(path)
            if name == module and before:
                entry = costs.module.get(module, costs.enqueue)
                above = tasks[before]
                above.cycles[path] = above.cycles.get(path, 0.0) + shares[path] * entry
                task.before.add(before)
                cost = costs.dequeue + (costs.crossing if above.wid != task.wid else 0.0)
            else:
                cost = costs.module[module]
            task.cycles[path] = task.cycles.get(path, 0.0) + shares[path] * cost
            task.packets[path] = shares[path]
            before = name


def _check_ratios(
    program: Program,
    objective: Policy,
    ways: list[Way],
    tasks: Mapping[str, _Task],
    importance: Mapping[str, Importance],
) -> None:
    """Tasks that are to share a worker's time have to stand under one class with shares."""
    timed = {
        importance[ways[path][-1][0]]
        for policy in objective.policies()
        if policy.kind is not Kind.PRIORITY
        for path in policy.classes()
    }
    sums: dict[tuple[int, Importance], float] = {}
    for name, task in tasks.items():
        if importance[name] in timed:
            key = (task.wid, importance[name])
            sums[key] = sums.get(key, 0.0) + task.weight
    for (wid, _), total in sums.items():
        if abs(total - 1) > 1e-6:
            raise AlpineError(
                f"{program.path}: the tasks of worker {wid} don't share its time in one ratio"
            )


def _weigh(tasks: Mapping[str, _Task]) -> None:
    """Turn shares of packets into parts of time."""
    spent: dict[tuple[int, tuple[int, ...]], float] = {}
    for task in tasks.values():
        if task.by_packets:
            task.weight *= sum(task.cycles.values()) / sum(task.packets.values())
            key = (task.wid, task.rank)
            spent[key] = spent.get(key, 0.0) + task.weight
    for task in tasks.values():
        if task.by_packets:
            task.weight /= spent[task.wid, task.rank]


def _runs(task: _Task) -> float:
    total = sum(task.cycles.values())
    return task.weight / total if total > 0 else 0.0


def _passes(
    tasks: Mapping[str, _Task], runs: Mapping[str, float], importance: Mapping[str, Importance]
) -> dict[str, float]:
    """What part of its packets each task handles, fed by those before it of its importance."""
    found: dict[str, float] = {}

    def passes(name: str) -> float:
        if name not in found:
            task = tasks[name]
            fed = [passes(b) for b in task.before if importance[b] == importance[name]]
            found[name] = min([runs[name], *fed])
        return found[name]

    for name in tasks:
        passes(name)
    return found


def _levels(policy: Policy, rank: Importance = ()) -> dict[int, Importance]:
    """How important each class is: greater tuples first."""
    if policy.kind is not Kind.PRIORITY:
        return {path: rank for path in policy.classes()}
    found: dict[int, Importance] = {}
    for member in policy.members:
        inner = (*rank, member.value)
        if isinstance(member.child, Policy):
            found.update(_levels(member.child, inner))
        else:
            found[member.child] = inner
    return found


def _check_priorities(
    program: Program, objective: Policy, ways: list[Way], tasks: Mapping[str, _Task]
) -> dict[str, Importance]:
    """A module runs as early as the most important class that needs it there, and no earlier.

    Returns how important each task is: whatever worker runs it, those alike share their time.
    """
    levels = _levels(objective)
    lowest = min(levels.values())
    known = [(levels.get(p, (lowest[0] - 1,) if lowest else ())) for p in range(len(ways))]
    importance: dict[str, Importance] = {}
    for name, task in tasks.items():
        needed = {max(known[p] for p in paths) for paths in task.modules.values()}
        if len(needed) > 1:
            raise AlpineError(
                f"{program.path}: the task of '{name}' mixes modules of different importance"
            )
        importance[name] = needed.pop()
    alike: dict[tuple[int, Importance, tuple[int, ...]], str] = {}
    for name, task in tasks.items():
        alike.setdefault((task.wid, importance[name], task.rank), name)
    for (wid, important, rank), name in alike.items():
        for (other_wid, less, other_rank), other in alike.items():
            if wid == other_wid and important > less and not rank < other_rank:
                raise AlpineError(
                    f"{program.path}: the task of '{other}' would not wait for that of '{name}', "
                    "which is more important"
                )
    return importance


def _measure(
    policy: Policy,
    amounts: Mapping[Kind, Mapping[int, float]],
    useful: Mapping[int, float],
    errors: dict[str, float],
) -> None:
    """Each policy's error."""
    if policy.kind is not Kind.PRIORITY:
        of = useful if policy.useful else amounts[policy.kind]
        got = [
            sum(of[p] for p in m.child.classes()) if isinstance(m.child, Policy) else of[m.child]
            for m in policy.members
        ]
        errors[policy.name] = slo_error([member.value for member in policy.members], got)
    for member in policy.members:
        if isinstance(member.child, Policy):
            _measure(member.child, amounts, useful, errors)
