# SPDX-License-Identifier: BSD-3-Clause
"""Module graphs, classes of traffic as paths through them, and the forest that the paths form.

A class is a path from an input to an exit (section 5.2.1). Packets of two classes meet in a module,
but what a queue does to them depends on the way by which they came, so the models work on the trie
of all paths: a module with several upstreams has a node for each way to it. Where the graph is a
tree, nodes and modules are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Edge", "Forest", "ModuleGraph", "ModuleNode", "Node", "Path", "Place", "build_forest"]

# Classes that keep packets until a task of their own sends them on: a cut that the script brings.
QUEUEING_CLASSES = frozenset({"DRR", "Delay", "Queue"})


@dataclass(frozen=True)
class Place:
    """Where in a script; line and column count from 1, 0 is unknown."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return self.path + "".join(f":{number}" for number in (self.line, self.column) if number)


@dataclass(frozen=True)
class ModuleNode:
    """A module. ``tasks`` counts its own; ``one_worker`` says that no two workers may run it."""

    name: str
    mclass: str
    tasks: int = 0
    one_worker: bool = False
    place: Place | None = None


@dataclass(frozen=True)
class Edge:
    """A connection of two modules, by name; ``place`` is that of its arrow."""

    source: str
    ogate: int
    target: str
    igate: int
    place: Place | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from others: an output gate leads to one place."""
        return (self.source, self.ogate)

    def __str__(self) -> str:
        gate = f":{self.ogate}" if self.ogate else ""
        return f"{self.source}{gate} -> {f'{self.igate}:' if self.igate else ''}{self.target}"


@dataclass(frozen=True)
class ModuleGraph:
    """Modules by name, and their connections."""

    modules: dict[str, ModuleNode]
    edges: tuple[Edge, ...]

    def out_edges(self, module: str) -> list[Edge]:
        """Connections of a module's output gates, by gate."""
        return sorted((e for e in self.edges if e.source == module), key=lambda e: e.ogate)

    def inputs(self) -> list[str]:
        """Modules that no other leads to and that have a task."""
        fed = {edge.target for edge in self.edges}
        return [name for name, module in self.modules.items() if name not in fed and module.tasks]


@dataclass(frozen=True)
class Path:
    """A class of traffic: its input, and the edges from there to its exit.

    ``implicit`` marks a path that the script does not name: its packets have no objective. Else
    ``place`` is that of the statement that names it.
    """

    name: str
    input: str
    edges: tuple[Edge, ...]
    implicit: bool = False
    place: Place | None = field(default=None, compare=False)

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules on the path, in order."""
        return (self.input, *(edge.target for edge in self.edges))

    def __str__(self) -> str:
        return " -> ".join(self.modules)


@dataclass(frozen=True)
class Node:
    """A module as packets reach it by one way.

    ``classes`` are indices of the paths through it. Nodes with the same ``edge`` share the decision
    whether a queue stands on it. ``own_task`` marks a queue of the script: a cut in any case.
    """

    index: int
    module: str
    edge: Edge | None  # none for an input
    parent: int  # -1 for an input
    children: tuple[int, ...]
    classes: tuple[int, ...]
    own_task: bool
    one_worker: bool


@dataclass(frozen=True)
class Forest:
    """A tree for each input; parents come before their children, roots have parent -1."""

    nodes: tuple[Node, ...]
    paths: tuple[Path, ...]
    ways: tuple[tuple[int, ...], ...]  # for each path, its nodes in order

    @property
    def roots(self) -> tuple[int, ...]:
        """The inputs' nodes."""
        return tuple(node.index for node in self.nodes if node.parent < 0)

    @property
    def branches(self) -> frozenset[int]:
        """Nodes whose parent leads to others as well."""
        split = (node.children for node in self.nodes if len(node.children) > 1)
        return frozenset(child for children in split for child in children)

    def leaf(self, path: int) -> int:
        """Where a path ends."""
        return self.ways[path][-1]

    def shared_edges(self) -> list[list[int]]:
        """Groups of nodes that share one cut decision, where there is more than one node."""
        groups: dict[tuple[str, int], list[int]] = {}
        for node in self.nodes:
            if node.edge is not None:
                groups.setdefault(node.edge.key, []).append(node.index)
        return [group for group in groups.values() if len(group) > 1]


def build_forest(graph: ModuleGraph, paths: Sequence[Path]) -> Forest:
    """The trie of the paths. A path may not end inside of another."""
    numbers: dict[tuple[int, str, tuple[str, int] | None], int] = {}
    entries: list[tuple[str, Edge | None, int]] = []
    children: list[list[int]] = []
    classes: list[list[int]] = []
    ways: list[tuple[int, ...]] = []
    for number, path in enumerate(paths):
        way: list[int] = []
        steps: Iterable[tuple[str, Edge | None]] = [
            (path.input, None),
            *((edge.target, edge) for edge in path.edges),
        ]
        for module, edge in steps:
            parent = way[-1] if way else -1
            key = (parent, module, edge.key if edge else None)
            if key not in numbers:
                numbers[key] = len(entries)
                entries.append((module, edge, parent))
                children.append([])
                classes.append([])
                if parent >= 0:
                    children[parent].append(numbers[key])
            way.append(numbers[key])
            classes[way[-1]].append(number)
        ways.append(tuple(way))
    nodes = tuple(
        Node(
            index,
            module,
            edge,
            parent,
            tuple(children[index]),
            tuple(classes[index]),
            own_task=edge is not None and graph.modules[module].mclass in QUEUEING_CLASSES,
            one_worker=graph.modules[module].one_worker,
        )
        for index, (module, edge, parent) in enumerate(entries)
    )
    return Forest(nodes, tuple(paths), tuple(ways))
