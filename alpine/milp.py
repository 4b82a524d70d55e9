# SPDX-License-Identifier: BSD-3-Clause
"""Where to cut, as a mixed-integer program: the general case, and the reference for all others.

The dissertation's model (section 5.3.2) multiplies weights by ratios of sums of binaries. Over A,
how often a node could run (``alpine.weights``), it is linear: A is the same on both ends of an edge
unless there is a queue on it, a class's time is the sum of its costs times A along its way, and
what a queue costs is the product of a binary and A, which four inequalities state exactly. With
several workers, each node's time belongs to one of them, and an edge between two has a queue.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from alpine.levels import Level
from alpine.linear import Answer, Model, solve_model
from alpine.objectives import Kind
from alpine.promises import add_promises, must_stay_fed, parts

__all__ = ["Structure", "cut_by_milp"]

_TASK = 1e-6  # what a task costs, where throughput is the aim: fewer are better, all else alike
_LEAST_PART = 1e-6


@dataclass(frozen=True)
class Structure:
    """Nodes to cut before, and the worker of each node that a task starts at."""

    cuts: frozenset[int]
    workers: Mapping[int, int]
    gap: float


def cut_by_milp(
    level: Level,
    *,
    solver: str = "highs",
    time_limit_s: float = 60.0,
    least: float = 0.0,
    fewest: bool = False,
    elastic: bool = False,
    fixed: Collection[int] | None = None,
    placed: Mapping[str, int] | None = None,
) -> Structure | None:
    """The structure with the highest throughput, or with the fewest tasks; None if there is none.

    ``least`` is how many times its offered packets each class is to be delivered; ``placed`` are
    workers that modules have already, where only one may run them. ``fixed`` gives the cuts, so
    that only workers are left to choose, and ``elastic`` lets ratios be missed where they must.
    """
    build = _Build(level, fewest)
    build.nodes(fixed)
    build.times(placed or {})
    build.promises(least, elastic)
    answer = solve_model(build.model, solver, time_limit_s)
    return None if answer is None else build.structure(answer)


@dataclass
class _Build:
    level: Level
    fewest: bool
    model: Model = field(default_factory=Model)
    runs: dict[int, int] = field(default_factory=dict)
    passes: dict[int, int] = field(default_factory=dict)
    cut: dict[int, int] = field(default_factory=dict)  # of each node with a parent in the level
    cut_of_edge: dict[tuple[str, int], int] = field(default_factory=dict)
    # Times, in terms of variables: of a node by path.
    time: dict[int, dict[int, dict[int, float]]] = field(default_factory=dict)
    on: dict[tuple[int, int], int] = field(default_factory=dict)  # node, worker
    most: dict[int, float] = field(default_factory=dict)

    def _bounds(self) -> None:
        """The most that A can be: no class may spend more than it is promised, nor all there is."""
        level = self.level
        workers = level.problem.workers
        promised = parts(level.policy, Kind.CPU_TIME)
        nodes = level.problem.forest.nodes
        for n in level.nodes:
            needs = {c: max(level.part(c, n), _LEAST_PART) for c in nodes[n].classes}
            self.most[n] = min(
                [workers / sum(needs.values())]
                + [promised[c] * workers / need for c, need in needs.items() if c in promised]
            )

    def nodes(self, fixed: Collection[int] | None) -> None:
        """How often each node runs, and which edges have queues."""
        self._bounds()
        level, model = self.level, self.model
        nodes = level.problem.forest.nodes
        fed = must_stay_fed(level.policy)
        groups: dict[tuple[str, int], list[int]] = {}
        for n in level.nodes:
            node = nodes[n]
            self.runs[n] = model.variable(0.0, self.most[n])
            inner = node.parent in level.members
            tied = not inner or any(c in fed for c in node.classes)
            self.passes[n] = self.runs[n] if tied else model.variable(0.0, self.most[n])
            if not tied:
                model.row({self.passes[n]: 1.0, self.runs[n]: -1.0}, high=0.0)
            if not inner:
                continue
            model.row({self.passes[n]: 1.0, self.passes[node.parent]: -1.0}, high=0.0)
            assert node.edge is not None
            groups.setdefault(node.edge.key, []).append(n)
            if node.edge.key not in self.cut_of_edge:
                cost = -1.0 if self.fewest else -_TASK
                self.cut_of_edge[node.edge.key] = model.binary(cost=cost)
                if node.own_task:
                    model.fix(self.cut_of_edge[node.edge.key], 1.0)
                elif fixed is not None:
                    model.fix(self.cut_of_edge[node.edge.key], 1.0 if n in fixed else 0.0)
                elif self._is_late(n):
                    model.fix(self.cut_of_edge[node.edge.key], 0.0)
            self.cut[n] = self.cut_of_edge[node.edge.key]
            a, above = self.runs[n], self.runs[node.parent]
            model.row({a: 1.0, above: -1.0, self.cut[n]: -self.most[n]}, high=0.0)
            model.row({above: 1.0, a: -1.0, self.cut[n]: -self.most[node.parent]}, high=0.0)
        for group in groups.values():
            for other in group[1:]:
                self._join(group[0], other)

    def _is_late(self, n: int) -> bool:
        """Whether a queue could stand further up and serve as well: its class is alone there too.

        Packets that are lost then cost less, and polls count for that class at any place. Two
        workers, however, may divide a way anywhere.
        """
        nodes = self.level.problem.forest.nodes
        node, parent = nodes[n], nodes[nodes[n].parent]
        alone = len(node.classes) == 1 and node.classes == parent.classes
        return alone and parent.index not in self.level.heads and self.level.problem.workers == 1

    def _join(self, first: int, other: int) -> None:
        """One queue for two ways: one task behind it, and packets in proportion before it."""
        nodes = self.level.problem.forest.nodes
        cut = self.cut[first]
        above = (nodes[first].parent, nodes[other].parent)
        for which, pair in (
            (self.runs, (first, other)),
            (self.passes, (first, other)),
            (self.passes, above),
        ):
            most = max(self.most[n] for n in pair)
            if which[pair[0]] == which[pair[1]]:
                continue
            row = {which[pair[0]]: 1.0, which[pair[1]]: -1.0}
            self.model.row({**row, cut: most}, high=most)
            self.model.row({**row, cut: -most}, low=-most)

    def _product(self, binary: int, amount: int, most: float) -> int:
        """A variable that is ``amount`` where the binary is 1, and else 0."""
        model = self.model
        product = model.variable(0.0, most)
        model.row({product: 1.0, binary: -most}, high=0.0)
        model.row({product: 1.0, amount: -1.0}, high=0.0)
        model.row({product: 1.0, amount: -1.0, binary: -most}, low=-most)
        return product

    def times(self, placed: Mapping[str, int]) -> None:
        """What each node takes of each class's time, queues included, and on which worker."""
        level = self.level
        forest, costs = level.problem.forest, level.problem.costs
        workers = level.problem.workers
        for n in level.nodes:
            self.time[n] = {c: {self.runs[n]: level.part(c, n)} for c in forest.nodes[n].classes}
        crossings: dict[int, int] = {}
        if workers > 1:
            crossings = self._workers(placed)
        for n in self.cut:
            parent = forest.nodes[n].parent
            before = self._product(self.cut[n], self.runs[parent], self.most[parent])
            behind = self._product(self.cut[n], self.runs[n], self.most[n])
            for c in forest.nodes[n].classes:
                rate = level.rates[c] / level.total_cycles
                self.time[parent][c][before] = rate * level.enqueue(n)
                self.time[n][c][behind] = rate * costs.dequeue
                if n in crossings and costs.crossing > 0:
                    self.time[n][c][crossings[n]] = rate * costs.crossing
        if workers > 1:
            self._fill_workers()
        else:
            whole: dict[int, float] = {}
            for n in level.nodes:
                _add(whole, self.time[n])
            self.model.row(whole, 1.0, 1.0)

    def _workers(self, placed: Mapping[str, int]) -> dict[int, int]:
        """Binaries for who runs a node; answers A where an edge leads to another worker, else 0."""
        level, model = self.level, self.model
        nodes, workers = level.problem.forest.nodes, range(level.problem.workers)
        crossings: dict[int, int] = {}
        first_of: dict[str, int] = {}
        for n in level.nodes:
            for w in workers:
                self.on[n, w] = model.binary()
            model.row({self.on[n, w]: 1.0 for w in workers}, 1.0, 1.0)
            node = nodes[n]
            if node.one_worker and node.module in placed:
                model.fix(self.on[n, placed[node.module]], 1.0)
            elif node.one_worker and node.module in first_of:
                for w in workers:
                    model.row({self.on[n, w]: 1.0, self.on[first_of[node.module], w]: -1.0}, 0, 0)
            first_of.setdefault(node.module, n)
            if n not in self.cut:
                continue
            other = model.binary()
            for w in workers:
                step = {self.on[n, w]: 1.0, self.on[node.parent, w]: -1.0}
                model.row({**step, other: -1.0}, high=0.0)
                both = {self.on[n, w]: 1.0, self.on[node.parent, w]: 1.0}
                model.row({**both, other: 1.0}, high=2.0)
            model.row({other: 1.0, self.cut[n]: -1.0}, high=0.0)
            crossings[n] = self._product(other, self.runs[n], self.most[n])
        same_queue: dict[int, int] = {}
        for n, cut in self.cut.items():
            head = same_queue.setdefault(cut, n)
            for w in workers:
                if head != n:  # one queue, so one task
                    row = {self.on[n, w]: 1.0, self.on[head, w]: -1.0, cut: 1.0}
                    model.row(row, high=1.0)
        if not placed:
            model.fix(self.on[level.heads[0], 0], 1.0)  # workers are alike
        return crossings

    def _fill_workers(self) -> None:
        """A worker that has tasks spends its whole time on them."""
        level, model = self.level, self.model
        workers = range(level.problem.workers)
        totals: list[dict[int, float]] = [{} for _ in workers]
        for n in level.nodes:
            spent: dict[int, float] = {}
            _add(spent, self.time[n])
            for w in workers:
                part = model.variable(0.0, 1.0)
                totals[w][part] = 1.0
                model.row({part: 1.0, self.on[n, w]: -1.0}, high=0.0)
                spent[part] = -1.0
            model.row(spent, 0.0, 0.0)
        for w in workers:
            used = model.binary()
            for n in level.nodes:
                model.row({self.on[n, w]: 1.0, used: -1.0}, high=0.0)
            model.row({**totals[w], used: -1.0}, 0.0, 0.0)

    def promises(self, least: float, elastic: bool) -> None:
        """Ratios, the floor, and the aim."""
        level, model = self.level, self.model
        forest = level.problem.forest

        def time_of(path: int) -> dict[int, float]:
            total: dict[int, float] = {}
            for n in level.way(path):
                _add(total, {path: self.time[n][path]})
            return total

        def rate_of(path: int) -> dict[int, float]:
            way = level.way(path)
            return {self.passes[way[-1]]: level.rates[path]} if way else {}

        add_promises(model, level.policy, time_of, rate_of, elastic=elastic)
        for path in level.classes:
            leaf = forest.leaf(path)
            if leaf not in level.members:
                continue
            if not self.fewest:
                model.cost[self.passes[leaf]] += level.rates[path]
                model.row({self.passes[leaf]: 1.0}, low=least)

    def structure(self, answer: Answer) -> Structure:
        """Read an answer."""
        cuts = frozenset(
            n
            for n, cut in self.cut.items()
            if answer.values[cut] > 0.5 and n not in self.level.forced
        )
        workers = {n: w for (n, w), on in self.on.items() if answer.values[on] > 0.5}
        return Structure(cuts, workers, answer.gap)


def _add(total: dict[int, float], terms: Mapping[int, Mapping[int, float]]) -> None:
    for factors in terms.values():
        for variable, factor in factors.items():
            total[variable] = total.get(variable, 0.0) + factor
