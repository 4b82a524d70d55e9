# SPDX-License-Identifier: BSD-3-Clause
"""Keeps a running schedule right: when costs or rates drift, its shares follow.

Queues stay where they are, so that no packet is lost or reordered and traffic never stops. Each
interval the pipeline is measured, costs and rates are estimated anew, and the weights for the same
cuts are solved for. Shares change on the daemon when one is off by more than a threshold.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event

from alpine.emit import names_in_use
from alpine.errors import InfeasibleError
from alpine.flows import delivered_costs, node_flows
from alpine.live import Observe, Running
from alpine.measure import Reading, Wiring
from alpine.planning import plan
from alpine.sample import Growth, accounting, between, daemon_errors, knows_cycles
from alpine.schedule import Problem
from alpine.shares import Move, apply_moves, moves, with_shares
from alpine.solve import solve

__all__ = ["Swap", "estimate", "watch"]

_ENOUGH = 1000  # packets that tell a cost or a proportion
_LEAST = 1e-4  # of its input's packets: taken of a class of which none was seen
_PROBE = 0.1  # of an interval, at the least, that cycles are accounted to modules
_PROBE_S = 0.1


@dataclass(frozen=True)
class Swap:
    """A change of shares: what had drifted, and the parts of time before and after by task."""

    why: str
    moves: tuple[Move, ...]

    def __str__(self) -> str:
        parts = ", ".join(f"{m.name} {m.part_before:.1%} -> {m.part:.1%}" for m in self.moves)
        return f"{self.why}: {parts}"


def estimate(problem: Problem, wiring: Wiring, grown: Growth, reading: Reading) -> Problem:
    """The problem with the costs and rates that were measured, where enough packets came to tell.

    Costs are those of modules where the daemon accounts for them. Otherwise those of a task's
    modules are scaled by what the task needs of late, unless it polls in vain.
    """
    forest = problem.forest
    arrived = wiring.arrived(grown.edges)
    offered = node_flows(forest, grown.edges, arrived, lossless=True)
    rates = list(problem.rates)
    measured = offered.rates(forest)
    for root in forest.roots:
        node = forest.nodes[root]
        whole = sum(measured[path] for path in node.classes)
        seen = sum(n for (module, _), n in grown.packets.items() if module == node.module)
        if seen < _ENOUGH or not whole:
            continue
        total = sum(problem.rates[path] for path in node.classes)
        for path in node.classes:
            rates[path] = total * max(measured[path] / whole, _LEAST)
    costs = dict(problem.costs.module)
    if grown.modules:
        known = {
            name: use.cost
            for name, use in grown.modules.items()
            if name in costs and use.cost and max(use.packets, use.task_packets) >= _ENOUGH
        }
        costs.update(delivered_costs(forest, known, offered))
    else:
        costs.update(_scaled(problem, wiring, grown, reading))
    return replace(problem, rates=tuple(rates), costs=replace(problem.costs, module=costs))


def _scaled(problem: Problem, wiring: Wiring, grown: Growth, reading: Reading) -> dict[str, float]:
    factors: dict[str, list[float]] = {}
    of_task = {task.module: task for task in reading.tasks}
    heads = {head: of_task[module] for head, module in wiring.modules.items()}
    task_of: dict[int, int] = {}
    for node in problem.forest.nodes:
        queued = node.edge is not None and node.edge.key in wiring.queues
        task_of[node.index] = (
            node.index if node.index in heads else -1 if queued else task_of[node.parent]
        )
        task = heads.get(task_of[node.index])
        if task is None or task.cost is None or not task.predicted_cost:
            continue
        if task.pps * reading.seconds >= _ENOUGH:
            factors.setdefault(node.module, []).append(task.cost / task.predicted_cost)
    return {
        name: problem.costs.module[name] * sum(found) / len(found)
        for name, found in factors.items()
    }


def _smoothed(before: Problem, now: Problem) -> Problem:
    """Costs half way from what they were taken for, as others on a core disturb a measurement."""
    known = before.costs.module
    costs = {name: (cost + known[name]) / 2 for name, cost in now.costs.module.items()}
    return replace(now, costs=replace(now.costs, module=costs))


def _drift(before: Problem, after: Problem) -> str:
    """What changed the most, in a few words."""
    found: list[tuple[float, str]] = []
    for name, cost in after.costs.module.items():
        was = before.costs.module[name]
        found.append((abs(cost - was), f"{name} {was:.0f} -> {cost:.0f} cycles"))
    found = sorted(found, reverse=True)[:2]
    paths = after.forest.paths
    wholes = (sum(before.rates), sum(after.rates))
    rates = [
        (abs(a / wholes[1] - b / wholes[0]), f"{p.name} {b / wholes[0]:.1%} -> {a / wholes[1]:.1%}")
        for p, b, a in zip(paths, before.rates, after.rates, strict=True)
    ]
    amount, text = max(rates)
    return "; ".join(
        [*(t for _, t in found), *([f"{text} of the packets"] if amount > 0.005 else [])]
    )


def watch(
    running: Running,
    *,
    seconds: float | None = None,
    interval: float = 2.0,
    threshold: float = 0.05,
    observe: Observe | None = None,
    log: Callable[[str], None] | None = None,
    stop: Event | None = None,
) -> list[Swap]:
    """Measure, re-solve and change shares until the time is over or ``stop`` is set.

    ``threshold`` is the change of a share, relative to what it was, that is worth a swap.
    """
    say, stop = log or (lambda _line: None), stop or Event()
    meter, made = running.meter, running.plan
    client, schedule = meter.client, running.schedule
    problem = schedule.problem
    queued = meter.wiring.queues
    forest = problem.forest
    cuts = frozenset(
        node.index for node in forest.nodes if node.edge is not None and node.edge.key in queued
    )
    module = next(iter(running.program.graph.modules))
    with daemon_errors(client):
        cycles = knows_cycles(client, module)
    swaps: list[Swap] = []
    complaint = ""
    end = None if seconds is None else time.monotonic() + seconds
    while not stop.is_set() and (end is None or time.monotonic() < end):
        grown, reading = _look(running, module, interval, cycles=cycles, stop=stop)
        if observe is not None:
            observe(reading)
        if stop.is_set():
            break
        measured = estimate(schedule.problem, meter.wiring, grown, reading)
        problem = _smoothed(problem, measured)
        try:
            found = solve(problem, fixed_cuts=cuts)
        except InfeasibleError as error:
            changes, reason = None, str(error)
        else:
            then = plan(found, target=running.target, names=names_in_use(running.program))
            changes = moves(made, then)
            reason = "tasks would have to move between workers or priorities"
            if then.polling and not made.polling:
                changes, reason = None, "a task would have to poll a queue that is empty at times"
        if changes is None:
            if complaint != reason:
                say(
                    "the queues that there are can't meet the objectives any more "
                    f"({_drift(schedule.problem, problem)}): {reason}; profile and compile anew "
                    "with `alpine run`"
                )
            complaint = reason
            continue
        complaint = ""
        if all(move.drift <= threshold for move in changes):
            continue
        with daemon_errors(client):
            apply_moves(client, changes)
        swap = Swap(_drift(schedule.problem, problem), tuple(changes))
        swaps.append(swap)
        say(str(swap))
        made, schedule = with_shares(made, changes), found
        meter.schedule = found
    return swaps


def _look(
    running: Running, module: str, interval: float, *, cycles: bool, stop: Event
) -> tuple[Growth, Reading]:
    """What an interval brought; the last part of it with cycles accounted to modules."""
    meter = running.meter
    probe = max(_PROBE_S, _PROBE * interval) if cycles else 0.0
    before = meter.sample()
    stop.wait(max(_PROBE_S, interval - probe))
    after = meter.sample()
    grown, reading = between(before, after), meter.reading(before, after)
    if not cycles or stop.is_set():
        return grown, reading
    with daemon_errors(meter.client), accounting(meter.client, module):
        first = meter.sample(cycles=True)
        stop.wait(probe)
        modules = between(first, meter.sample(cycles=True)).modules
    return replace(grown, modules=modules), reading
