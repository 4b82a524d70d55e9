# SPDX-License-Identifier: BSD-3-Clause
"""Where to cut a forest without merges, for one worker, exactly and fast.

Three facts (docs/alpine.md has the proofs):

* CPU time, ``cut_for_fewest``: M classes with ratios in general position need M tasks, and M always
  do. A task runs from its head down to the leaf whose class has the smallest rest of its promise
  for its rate: then no other class below the head gets more than it is promised.
* CPU time, ``cut_by_lp``: were queues free, the schedule with the highest throughput would be the
  solution of a linear program whose vertices have M tasks, the fewest, unless a class is held at
  its floor. The cuts of that vertex, with queues paid for, are within ``gap`` of the best.
* Throughput, ``cut_for_throughput``: what passes a queue is at best one of the promised rates, so a
  dynamic program over nodes and rates finds the best cuts, queues included.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alpine.levels import Level
from alpine.linear import Model, solve_model
from alpine.objectives import Kind
from alpine.promises import parts
from alpine.weights import Weights, find_weights

__all__ = ["applies", "cut_by_lp", "cut_for_fewest", "cut_for_throughput"]

_SAME = 1e-7
_REFINED = 150  # nodes up to which cuts are tried one by one


def applies(level: Level) -> bool:
    """Whether the algorithms here do."""
    forest = level.problem.forest
    merged = any(n in level.members for group in forest.shared_edges() for n in group)
    return level.problem.workers == 1 and not merged


def cut_for_fewest(level: Level) -> frozenset[int]:
    """Cuts that meet ratios of CPU time with one task for each class; every class has a ratio."""
    forest = level.problem.forest
    rest = parts(level.policy, Kind.CPU_TIME)
    cuts: set[int] = set()
    heads = list(level.heads)
    while heads:
        head = heads.pop()
        classes = forest.nodes[head].classes
        last = min(classes, key=lambda c: rest[c] / level.rates[c])
        way = level.way(last)
        way = way[way.index(head) :]
        spent = sum(level.part(last, n) for n in way)
        runs = rest[last] / spent if spent else 0.0  # what costs nothing gets no time
        on_way = frozenset(way)
        for path in classes:
            shared = [n for n in level.way(path) if n in on_way]
            rest[path] -= runs * sum(level.part(path, n) for n in shared)
        for n in way:
            away = [c for c in forest.nodes[n].children if c in level.members and c not in on_way]
            cuts.update(away)
            heads += away
    return frozenset(cuts) - level.forced


def cut_by_lp(level: Level, least: float) -> tuple[frozenset[int], Weights, float] | None:
    """Cuts for ratios of CPU time, their weights, and how far from the best these may be.

    ``least`` is what part of its packets each class must get (``least_passes``).
    """
    bound = 0.0
    best: tuple[frozenset[int], Weights] | None = None

    def consider(cuts: frozenset[int]) -> None:
        nonlocal best
        found = find_weights(level, cuts, least=least)
        if found is None:
            return
        if best is None or _worth(level, found, least) > _worth(level, best[1], least):
            best = (cuts, found)

    free = _pack(level, frozenset(), least)
    if free is not None:  # no queue is paid for: nothing can be better
        leaf = level.problem.forest.leaf
        bound = sum(level.rates[c] * free[0][leaf(c)] for c in level.classes)
        cuts = _cuts_of(level, *free)
        consider(cuts)
        paid = _pack(level, cuts, least)
        if paid is not None and (again := _cuts_of(level, *paid)) != cuts:
            consider(again)
    if set(level.passing) == set(parts(level.policy, Kind.CPU_TIME)):
        consider(cut_for_fewest(level))
    if best is None:
        return None
    if len(level.nodes) <= _REFINED:
        best = _without_some(level, least, *best)
    return (*best, max(0.0, 1 - best[1].throughput / bound) if bound > 0 else 0.0)


def _worth(level: Level, weights: Weights, least: float) -> tuple[bool, float]:
    """For comparison: whether no class gets less than it must, and the throughput."""
    worst = min(weights.rate[c] / level.rates[c] for c in weights.rate)
    return worst >= least * (1 - 10 * _SAME), weights.throughput


def _without_some(
    level: Level, least: float, cuts: frozenset[int], weights: Weights
) -> tuple[frozenset[int], Weights]:
    """Leave out, or move up by one module, each cut without which the throughput is higher."""
    nodes = level.problem.forest.nodes
    for cut in sorted(cuts):
        if cut not in cuts:
            continue
        parent = nodes[cut].parent
        tried = [cuts - {cut}]
        if parent not in level.heads and parent not in cuts | level.forced:
            tried.append(cuts - {cut} | {parent})
        for other in tried:
            found = find_weights(level, other, least=least)
            if found is None:
                continue
            gained = found.throughput > weights.throughput * (1 + _SAME)
            if gained and _worth(level, found, least) > _worth(level, weights, least):
                cuts, weights = other, found
    return cuts, weights


def _pack(
    level: Level, paid: frozenset[int], least: float
) -> tuple[dict[int, float], float] | None:
    """What passes each node, where only some queues cost anything; and the time of those promised.

    Time that a class can't use is spent by its last task, so that promises are upper bounds here.
    """
    forest, costs = level.problem.forest, level.problem.costs
    promised = parts(level.policy, Kind.CPU_TIME)
    model = Model()
    passes = {n: model.variable() for n in level.nodes}
    queued = paid | level.forced
    whole = model.variable(0.0, 1.0)  # all promised time
    total = {whole: 1.0}
    for n in level.nodes:
        parent = forest.nodes[n].parent
        if parent in level.members:
            model.row({passes[n]: 1.0, passes[parent]: -1.0}, high=0.0)
    for path in level.passing:
        used: dict[int, float] = {}
        for n in level.way(path):
            used[passes[n]] = used.get(passes[n], 0.0) + level.part(path, n)
            if n in queued and n not in level.heads:
                rate = level.rates[path] / level.total_cycles
                parent = forest.nodes[n].parent
                used[passes[n]] += rate * costs.dequeue
                used[passes[parent]] += rate * level.enqueue(n)
        if path in promised:
            model.row({**used, whole: -promised[path]}, high=0.0)
        else:
            for variable, factor in used.items():
                total[variable] = total.get(variable, 0.0) + factor
    model.row(total, 1.0, 1.0)
    for path in level.classes:
        leaf = passes[forest.leaf(path)]
        model.row({leaf: 1.0}, low=least * (1 - _SAME))
        model.cost[leaf] += level.rates[path]
    answer = solve_model(model)
    if answer is None:
        return None
    return {n: float(answer.values[v]) for n, v in passes.items()}, float(answer.values[whole])


def _cuts_of(level: Level, passes: Mapping[int, float], whole: float) -> frozenset[int]:
    """Edges where packets are lost, and one before a part of each class that has time to spare."""
    nodes = level.problem.forest.nodes
    cuts = set()
    for n in level.nodes:
        parent = nodes[n].parent
        if parent in level.members and passes[n] < passes[parent] * (1 - _SAME):
            cuts.add(n)
    for path, part in parts(level.policy, Kind.CPU_TIME).items():
        used = sum(level.part(path, n) * passes[n] for n in level.way(path))
        if used >= part * whole * (1 - _SAME):
            continue
        own = [n for n in level.way(path) if nodes[n].classes == (path,)]
        if own and not any(n in cuts or n in level.forced or n in level.heads for n in own):
            cuts.add(own[0])
    return frozenset(cuts) - level.forced


def cut_for_throughput(level: Level) -> frozenset[int]:
    """The best cuts for ratios of throughput; every class has a ratio."""
    forest, costs = level.problem.forest, level.problem.costs
    nodes = forest.nodes
    promised = parts(level.policy, Kind.THROUGHPUT)
    wanted = {c: promised[c] / level.rates[c] for c in level.classes}
    values = np.unique(np.array(list(wanted.values())))
    spent: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    kept: dict[int, np.ndarray[tuple[int], np.dtype[np.bool_]]] = {}
    chosen: dict[int, np.ndarray[tuple[int], np.dtype[np.intp]]] = {}
    for n in reversed(level.nodes):
        rate = level.rate_through[n]
        leaving = sum(level.rates[c] * level.leaving(n, c) for c in nodes[n].classes)
        cost = (rate * level.cycles[n] + leaving) * values
        children = [child for child in nodes[n].children if child in level.members]
        ends = [c for c in nodes[n].classes if forest.leaf(c) == n and c in wanted]
        for path in ends:
            cost = np.where(values == wanted[path], cost, np.inf)
        for child in children:
            behind = spent[child] + level.rate_through[child] * costs.dequeue * values
            # The cheapest rate behind a queue, no higher than before it.
            lowest = np.minimum.accumulate(behind)
            at = np.maximum.accumulate(np.where(behind == lowest, np.arange(len(values)), 0))
            queue = level.rate_through[child] * level.enqueue(child) * values + lowest
            keep = (spent[child] <= queue) & (child not in level.forced)
            kept[child], chosen[child] = keep, at
            cost = cost + np.where(keep, spent[child], queue)
        spent[n] = cost
    cuts = set()
    stack = [(head, int(np.argmin(spent[head]))) for head in level.heads]
    while stack:
        n, value = stack.pop()
        for child in nodes[n].children:
            if child not in level.members:
                continue
            if kept[child][value]:
                stack.append((child, value))
            else:
                cuts.add(child)
                stack.append((child, int(chosen[child][value])))
    return frozenset(cuts) - level.forced
