# SPDX-License-Identifier: BSD-3-Clause
"""The graph that a script has built, and the paths through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alpine.errors import AlpineError
from alpine.graph import Edge, ModuleGraph, ModuleNode, Place
from bess_plugins.script.records import EdgeRecord, ModuleRecord

__all__ = ["MAX_PATHS", "Hop", "Wiring"]

MAX_PATHS = 20_000


@dataclass(frozen=True)
class Hop:
    """A module as part of a path, with its output gate where that is said."""

    module: str
    ogate: int | None = None

    def __str__(self) -> str:
        return self.module if self.ogate is None else f"{self.module}:{self.ogate}"


class Wiring:
    """A module graph with what is needed to follow it; raises ``AlpineError`` on cycles."""

    def __init__(
        self, modules: Sequence[ModuleRecord], edges: Sequence[EdgeRecord], path: str
    ) -> None:
        self.graph = ModuleGraph(
            {
                m.name: ModuleNode(
                    m.name, m.mclass, m.tasks, m.one_worker, Place(path, m.line, m.column)
                )
                for m in modules
            },
            tuple(
                Edge(e.source, e.ogate, e.target, e.igate, Place(path, e.line, e.column))
                for e in edges
            ),
        )
        self.out: dict[str, list[Edge]] = {name: [] for name in self.graph.modules}
        for edge in sorted(self.graph.edges, key=lambda edge: edge.ogate):
            self.out[edge.source].append(edge)
        self.inputs = self.graph.inputs()
        self._order = self._sorted()

    def _sorted(self) -> list[str]:
        """Modules, each before those that it leads to."""
        waiting = Counter(edge.target for edge in self.graph.edges)
        ready = [name for name in self.graph.modules if not waiting[name]]
        order: list[str] = []
        while ready:
            name = ready.pop()
            order.append(name)
            for edge in self.out[name]:
                waiting[edge.target] -= 1
                if not waiting[edge.target]:
                    ready.append(edge.target)
        if len(order) < len(self.graph.modules):
            self._refuse_cycle({name for name, count in waiting.items() if count > 0})
        return order

    def _refuse_cycle(self, left: set[str]) -> None:
        """Of the modules left, each has another one of them before it: go back until one recurs."""
        before = {e.target: e for e in self.graph.edges if e.source in left and e.target in left}
        way = [next(name for name in self.graph.modules if name in left)]
        while way[-1] not in way[:-1]:
            way.append(before[way[-1]].source)
        cycle = way[way.index(way[-1]) :][::-1]
        place = before[cycle[1]].place
        raise AlpineError(
            f"{place}: the modules {' -> '.join(cycle)} form a cycle, and a class of traffic is a "
            "path from an input to an exit; take this connection out, or schedule by hand"
        )

    def reachable(self) -> set[str]:
        """Modules that packets of some input reach."""
        found = set(self.inputs)
        for name in self._order:
            if name in found:
                found |= {edge.target for edge in self.out[name]}
        return found

    def all_paths(self) -> list[tuple[str, tuple[Edge, ...]]]:
        """Every way from an input to an exit: where it starts, and its connections."""
        ways: dict[str, int] = {}
        for name in reversed(self._order):
            ways[name] = sum(ways[edge.target] for edge in self.out[name]) or 1
        total = sum(ways[name] for name in self.inputs)
        if total > MAX_PATHS:
            most = max(self._order, key=lambda name: len(self.out[name]))
            raise AlpineError(
                f"{self.graph.modules[self.inputs[0]].place}: {total:,} paths lead from the inputs "
                f"to the exits, and {MAX_PATHS:,} can be told apart; {most} alone leads to "
                f"{len(self.out[most])} modules: merge some of them"
            )
        found: list[tuple[str, tuple[Edge, ...]]] = []
        for start in self.inputs:
            stack: list[tuple[str, tuple[Edge, ...]]] = [(start, ())]
            while stack:
                module, edges = stack.pop()
                if not self.out[module]:
                    found.append((start, edges))
                stack += [(edge.target, (*edges, edge)) for edge in reversed(self.out[module])]
        return found

    def hops(self, start: str, edges: Sequence[Edge]) -> list[Hop]:
        """A path as a script would give it, with gates where modules alone don't tell."""
        hops: list[Hop] = []
        for edge in edges:
            parallel = sum(other.target == edge.target for other in self.out[edge.source]) > 1
            hops.append(Hop(edge.source, edge.ogate if parallel else None))
        return [*hops, Hop(edges[-1].target if edges else start)]

    def follow(self, path: Sequence[Hop]) -> tuple[Edge, ...]:
        """The connections of a path from an input to an exit. Raises ``AlpineError`` without a
        place, for it is the caller that knows where the path was given."""
        if not path:
            raise AlpineError("it has no modules; give them from an input to an exit")
        for hop in path:
            if hop.module not in self.out:
                raise AlpineError(f"there is no module {hop.module!r}")
        self._check_input(path[0].module)
        edges = tuple(self._step(path, number) for number in range(len(path) - 1))
        last = path[-1]
        if self.out[last.module]:
            onward = self._leads_to(last.module)
            raise AlpineError(f"it ends at {last.module}, which {onward}; give it up to an exit")
        if last.ogate is not None:
            raise AlpineError(f"its last module {last} has no connection at that gate")
        return edges

    def _check_input(self, name: str) -> None:
        if name in self.inputs:
            return
        before = [edge.source for edge in self.graph.edges if edge.target == name]
        why = f"{', '.join(sorted(set(before)))} leads to" if before else "has no task of its own"
        known = ", ".join(self.inputs) or "none"
        raise AlpineError(
            f"it starts at {name}, which {why}; a path starts at an input (there are: {known})"
        )

    def _step(self, path: Sequence[Hop], number: int) -> Edge:
        here, following = path[number], path[number + 1]
        found = [
            edge
            for edge in self.out[here.module]
            if edge.target == following.module and here.ogate in (None, edge.ogate)
        ]
        if not found:
            raise AlpineError(
                f"step {number + 1}, {here} -> {following.module}, is no connection: "
                f"{here.module} {self._leads_to(here.module)}"
            )
        if len(found) > 1:
            gates = ", ".join(str(edge.ogate) for edge in found)
            raise AlpineError(
                f"step {number + 1}, {here} -> {following.module}, can be each of the output gates "
                f"{gates}: say which, such as {here.module} * {found[0].ogate}"
            )
        return found[0]

    def _leads_to(self, name: str) -> str:
        targets = [f"{edge.target} (gate {edge.ogate})" for edge in self.out[name]]
        shown = ", ".join(targets[:8]) + (", ..." if len(targets) > 8 else "")
        return f"leads to {shown}" if targets else "leads nowhere"
