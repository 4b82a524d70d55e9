# SPDX-License-Identifier: BSD-3-Clause
"""The module graph of a daemon, its rates, and a drawing of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bess_plugins.client import Client

__all__ = ["Edge", "Graph", "layers", "read_graph", "to_svg"]

_FILL = "#eef3fb"
_BOX_HEIGHT, _ROW, _GAP, _MARGIN, _CHAR = 44, 96, 28, 24, 8


@dataclass(frozen=True)
class Edge:
    """A connection, with the packets and bytes that passed so far."""

    source: str
    ogate: int
    target: str
    igate: int
    packets: int
    bytes: int
    timestamp: float

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from others."""
        return (self.source, self.ogate)

    def rates(self, before: Edge | None) -> tuple[float, float]:
        """Packets and bits per second since an earlier sample."""
        if before is None or self.timestamp <= before.timestamp:
            return (0.0, 0.0)
        seconds = self.timestamp - before.timestamp
        packets = max(self.packets - before.packets, 0)
        return (packets / seconds, max(self.bytes - before.bytes, 0) * 8 / seconds)


@dataclass(frozen=True)
class Graph:
    """Classes and descriptions of modules by name, and their connections."""

    modules: dict[str, tuple[str, str]]
    edges: list[Edge]


def read_graph(client: Client) -> Graph:
    """Ask a daemon for its graph."""
    modules, edges = {}, []
    for module in client.list_modules():
        name = module["name"]
        info = client.module_info(name)
        modules[name] = (str(info["mclass"]), str(info.get("desc", "")))
        for gate in info["ogates"]:
            edges.append(
                Edge(
                    name,
                    gate["ogate"],
                    gate["name"],
                    gate["igate"],
                    gate["pkts"],
                    gate["bytes"],
                    gate["timestamp"],
                )
            )
    return Graph(modules, edges)


def layers(graph: Graph) -> list[list[str]]:
    """Modules by their distance from the sources; edges that close a cycle do not count."""
    following: dict[str, list[str]] = {name: [] for name in graph.modules}
    for edge in graph.edges:
        if edge.target in following and edge.target not in following[edge.source]:
            following[edge.source].append(edge.target)
    targets = {edge.target for edge in graph.edges if edge.target != edge.source}
    roots = [name for name in following if name not in targets]
    order, forward = _postorder([*roots, *following], following)
    rank = dict.fromkeys(following, 0)
    for name in reversed(order):
        for target in forward[name]:
            rank[target] = max(rank[target], rank[name] + 1)
    result: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for name in reversed(order):
        result[rank[name]].append(name)
    return _untangle(result, graph)


def _postorder(
    starts: list[str], following: dict[str, list[str]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Depth-first order, and the edges that do not lead back."""
    order: list[str] = []
    forward: dict[str, list[str]] = {name: [] for name in following}
    state: dict[str, int] = {}
    for start in starts:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(following[start]))]
        while stack:
            name, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                stack.pop()
                state[name] = 2
                order.append(name)
            elif state.get(target) != 1:
                forward[name].append(target)
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(following[target])))
    return order, forward


def _untangle(rows: list[list[str]], graph: Graph) -> list[list[str]]:
    """Put each module near the mean position of those that lead to it."""
    position: dict[str, float] = {}
    for row in rows:
        weight: dict[str, float] = {}
        for index, name in enumerate(row):
            above = [
                position[edge.source] + edge.ogate * 1e-6
                for edge in graph.edges
                if edge.target == name and edge.source in position
            ]
            weight[name] = sum(above) / len(above) if above else float(index)
        row.sort(key=lambda name: weight[name])
        position.update((name, index - (len(row) - 1) / 2) for index, name in enumerate(row))
    return rows


def to_svg(graph: Graph, fills: Mapping[str, str] | None = None) -> str:
    """Draw a graph from top to bottom; ``fills`` are colours of modules by name."""
    fills = fills or {}
    rows = layers(graph)
    widths = {
        name: _CHAR * max(len(name), len(f"{mclass} {desc}".strip())) + 24
        for name, (mclass, desc) in graph.modules.items()
    }
    spans = [sum(widths[name] + _GAP for name in row) - _GAP for row in rows]
    width = max(spans, default=0) + 2 * _MARGIN
    height = len(rows) * _ROW - (_ROW - _BOX_HEIGHT if rows else 0) + 2 * _MARGIN
    centers: dict[str, tuple[float, float]] = {}
    for level, (row, span) in enumerate(zip(rows, spans, strict=True)):
        x = (width - span) / 2
        for name in row:
            centers[name] = (x + widths[name] / 2, _MARGIN + level * _ROW)
            x += widths[name] + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    parts += [_arrow(edge, graph, centers, widths) for edge in graph.edges]
    for name, (mclass, desc) in graph.modules.items():
        x, y = centers[name]
        label = escape(f"{mclass} {desc}".strip())
        parts.append(
            f'<g text-anchor="middle"><rect x="{x - widths[name] / 2:g}" y="{y:g}" '
            f'width="{widths[name]}" height="{_BOX_HEIGHT}" rx="6" fill="{fills.get(name, _FILL)}" '
            f'stroke="#3b5b92"/><text x="{x:g}" y="{y + 18:g}" font-weight="bold">'
            f'{escape(name)}</text><text x="{x:g}" y="{y + 35:g}" fill="#555">{label}</text></g>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _arrow(
    edge: Edge, graph: Graph, centers: dict[str, tuple[float, float]], widths: dict[str, int]
) -> str:
    gates = sorted(other.ogate for other in graph.edges if other.source == edge.source)
    share = (gates.index(edge.ogate) + 1) / (len(gates) + 1) - 0.5
    x1, y1 = centers[edge.source]
    x2, y2 = centers[edge.target]
    x1 += share * widths[edge.source]
    y1 += _BOX_HEIGHT
    bend = _ROW / 2 if y2 <= y1 else (y2 - y1) / 2
    label = f"{edge.ogate}:{edge.igate}" if edge.ogate or edge.igate else ""
    return (
        f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" '
        f'fill="none" stroke="#555" marker-end="url(#tip)"/>'
        f'<text x="{x1 + 4:g}" y="{y1 + 14:g}" font-size="11" fill="#a33">{label}</text>'
    )
