# SPDX-License-Identifier: BSD-3-Clause
"""Packets counted at edges, as packets at the nodes of the forest.

Counters know edges and not paths. Where the graph is a tree that is the same. Behind a merge,
packets are taken to part ways alike whichever way they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alpine.graph import Forest

__all__ = ["Flow", "delivered_costs", "node_flows"]

Key = tuple[str, int]


@dataclass(frozen=True)
class Flow:
    """By node: packets sent to it, and those that arrived past the queue that may stand before it.

    At an input both are what its gates sent.
    """

    sent: tuple[float, ...]
    arrived: tuple[float, ...]

    def rates(self, forest: Forest) -> tuple[float, ...]:
        """What reaches the exit of each path."""
        return tuple(self.arrived[forest.leaf(path)] for path in range(len(forest.paths)))


def node_flows(
    forest: Forest,
    sent: Mapping[Key, float],
    arrived: Mapping[Key, float] | None = None,
    *,
    lossless: bool = False,
) -> Flow:
    """Flows from what each output gate sent, and from what came out at the far end of its edge.

    ``arrived`` is left out where no queue stands on an edge. ``lossless``: what would flow if
    packets parted ways as they did, but no queue lost any: the rates that are offered.
    """
    came = sent if arrived is None else arrived
    into: dict[str, float] = {}
    out: dict[str, float] = {}
    edges = {node.edge.key: node.edge for node in forest.nodes if node.edge is not None}
    for key, edge in edges.items():
        into[edge.target] = into.get(edge.target, 0.0) + came.get(key, 0.0)
        out[edge.source] = out.get(edge.source, 0.0) + sent.get(key, 0.0)
    sends: list[float] = []
    arrives: list[float] = []
    for node in forest.nodes:
        if node.edge is None:
            sends.append(out.get(node.module, 0.0))
            arrives.append(sends[-1])
            continue
        parent, key = forest.nodes[node.parent], node.edge.key
        # An input handles what it sends, and so does a queue of the script that loses nothing.
        whole = out if parent.edge is None or (lossless and parent.own_task) else into
        base, passed = whole.get(parent.module, 0.0), sent.get(key, 0.0)
        sends.append(arrives[node.parent] * passed / base if base else 0.0)
        kept = 1.0 if lossless or not passed else came.get(key, 0.0) / passed
        arrives.append(sends[-1] * kept)
    return Flow(tuple(sends), tuple(arrives))


def delivered_costs(forest: Forest, costs: Mapping[str, float], flow: Flow) -> dict[str, float]:
    """Cycles per packet that a module handled, as cycles per packet that its paths deliver.

    So packets that a module drops are paid for by those that it lets pass, and the time that all
    paths are predicted to take is what was measured.
    """
    rates = flow.rates(forest)
    handled: dict[str, float] = {}
    delivered: dict[str, float] = {}
    for node in forest.nodes:
        handled[node.module] = handled.get(node.module, 0.0) + flow.arrived[node.index]
        passing = sum(rates[path] for path in node.classes)
        delivered[node.module] = delivered.get(node.module, 0.0) + passing
    return {
        module: cost * handled[module] / delivered[module] if delivered.get(module) else cost
        for module, cost in costs.items()
    }
