# SPDX-License-Identifier: BSD-3-Clause
"""Priorities: which tasks go first, and where they have to end.

Algorithm 1 of the dissertation, restated over what tasks cover. A module belongs to the highest
level of the classes that need it, and a task to one level: where the level falls from a module to
the next, a queue is needed, and nowhere else for the sake of priorities. So a class never waits for
work that only classes below it need, and the number of queues is the least that achieves it. Each
level is then divided among its own classes, as if there were no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from alpine.errors import AlpineError
from alpine.objectives import Kind, Policy
from alpine.schedule import Problem

__all__ = ["Level", "split_levels"]


@dataclass(frozen=True)
class Level:
    """Nodes that run at one priority, parents first, and what divides their time.

    ``heads`` are the nodes whose task starts in any case: inputs, and those whose parent belongs to
    a higher level. ``classes`` are those that end here or have their last exclusive part here.
    """

    problem: Problem
    number: int
    nodes: tuple[int, ...]
    classes: tuple[int, ...]
    policy: Policy | None

    @cached_property
    def members(self) -> frozenset[int]:
        """The nodes, for lookups."""
        return frozenset(self.nodes)

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """Nodes whose parent is not of this level."""
        nodes = self.problem.forest.nodes
        return tuple(n for n in self.nodes if nodes[n].parent not in self.members)

    @cached_property
    def forced(self) -> frozenset[int]:
        """Nodes inside that the script itself puts a queue at."""
        nodes = self.problem.forest.nodes
        return frozenset(n for n in self.nodes if nodes[n].own_task) - frozenset(self.heads)

    @cached_property
    def passing(self) -> tuple[int, ...]:
        """Every class with a node here, those of lower levels as well, in order."""
        nodes = self.problem.forest.nodes
        return tuple(sorted({c for head in self.heads for c in nodes[head].classes}))

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """Rates of all paths as parts of the whole."""
        total = sum(self.problem.rates)
        return tuple(rate / total for rate in self.problem.rates)

    @cached_property
    def rate_through(self) -> dict[int, float]:
        """Rate of all packets that reach a node."""
        nodes = self.problem.forest.nodes
        return {n: sum(self.rates[c] for c in nodes[n].classes) for n in self.nodes}

    @cached_property
    def cycles(self) -> dict[int, float]:
        """Cycles per packet of a node, without those of queues that a solver may add."""
        forest, costs = self.problem.forest, self.problem.costs
        found = {}
        for n in self.nodes:
            node = forest.nodes[n]
            own = 0.0 if node.own_task else costs.module[node.module]
            found[n] = own + (costs.dequeue if n in self.heads and node.parent >= 0 else 0.0)
        return found

    def enqueue(self, node: int) -> float:
        """Cycles per packet that it takes the task before a node to put packets into its queue."""
        entry, costs = self.problem.forest.nodes[node], self.problem.costs
        return costs.module[entry.module] if entry.own_task else costs.enqueue

    def leaving(self, node: int, path: int) -> float:
        """Cycles per packet of a class for a queue behind a node that leads to a lower level."""
        nodes = self.problem.forest.nodes
        return sum(
            self.enqueue(child)
            for child in nodes[node].children
            if child not in self.members and path in nodes[child].classes
        )

    def way(self, path: int) -> list[int]:
        """Nodes of a class at this level, in order."""
        return [n for n in self.problem.forest.ways[path] if n in self.members]

    @cached_property
    def total_cycles(self) -> float:
        """Cycles per offered packet, were there no queues inside: the unit of the models."""
        spent = sum(self.rate_through[n] * self.cycles[n] for n in self.nodes)
        spent += sum(self.rates[c] * self.leaving(n, c) for c in self.passing for n in self.way(c))
        return spent or 1.0

    def part(self, path: int, node: int) -> float:
        """What a class's packets cost at a node, in units of ``total_cycles``."""
        return self.rates[path] * (self.cycles[node] + self.leaving(node, path)) / self.total_cycles


def _flatten(policy: Policy) -> Iterator[tuple[tuple[int, ...], Policy | None]]:
    """Groups of equal importance, the most important first."""
    if policy.kind is not Kind.PRIORITY:
        _check_shares(policy)
        yield tuple(policy.classes()), policy
        return
    for member in sorted(policy.members, key=lambda m: -m.value):
        if isinstance(member.child, Policy):
            yield from _flatten(member.child)
        else:
            yield (member.child,), None


def _check_shares(policy: Policy) -> None:
    for member in policy.members:
        if not isinstance(member.child, Policy):
            continue
        if member.child.kind is Kind.PRIORITY:
            raise AlpineError(
                f"{member.child.subject} gives priorities below '{policy.name}', which "
                "divides by shares; put the priorities on top, with shares inside of each level"
            )
        _check_shares(member.child)


def split_levels(problem: Problem) -> list[Level]:
    """Levels of a problem, the one to serve first in front. Every node is in one of them."""
    groups = list(_flatten(problem.objective))
    named = {path for classes, _ in groups for path in classes}
    others = tuple(p for p in range(len(problem.forest.paths)) if p not in named)
    if others and problem.objective.kind is Kind.PRIORITY:
        groups.append((others, None))
    elif others:
        classes, policy = groups[0]
        groups[0] = ((*classes, *others), policy)
    top = len(groups) - 1
    number_of = {path: top - i for i, (classes, _) in enumerate(groups) for path in classes}
    level_of = [max(number_of[c] for c in node.classes) for node in problem.forest.nodes]
    return [
        Level(
            problem,
            top - index,
            tuple(n for n, level in enumerate(level_of) if level == top - index),
            classes,
            policy,
        )
        for index, (classes, policy) in enumerate(groups)
    ]
