# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of layered graphs: boxes in columns, arrows from left to right.

Columns are longest paths from the left. An arrow over several columns gets a bend in each, which
takes part in the ordering, so that arrows go round boxes. Within a column the order is by the mean
place of the neighbours, swept to and fro a few times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

__all__ = ["Arrow", "Box", "draw"]

_CHAR = 6.4
_BOX_HEIGHT = 44.0
_ROW = 84.0
_MARGIN = 20.0
_MIN_GAP = 70.0
_MAX_LABEL = 44
_SWEEPS = 8

_STYLE = (
    "text{font:12px Helvetica,Arial,sans-serif;fill:#1b1f24;text-anchor:middle}"
    ".kind{font-size:10px;fill:#57606a}.label{font-size:10.5px}"
    ".nf{fill:#eaf2fb;stroke:#2f6fab}.port{fill:#f3f1e8;stroke:#7a6f45}"
    ".arrow{fill:none;stroke:#57606a;stroke-width:1.4}"
    ".halo{stroke:#fff;stroke-width:4;stroke-linejoin:round}"
)


@dataclass(frozen=True)
class Box:
    """A node: its name and, smaller, what it is."""

    title: str
    kind: str
    rounded: bool = False

    @property
    def width(self) -> float:
        """Width that its text needs."""
        return max(72.0, 24 + _CHAR * 1.1 * max(len(self.title), len(self.kind)))


@dataclass(frozen=True)
class Arrow:
    """An edge with up to two lines of text."""

    source: str
    target: str
    label: str = ""
    note: str = ""


def _layers(boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> dict[str, int]:
    layer = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for arrow in arrows:
            layer[arrow.target] = max(layer[arrow.target], layer[arrow.source] + 1)
    return layer


def _sort(columns: list[list[str]], links: Sequence[tuple[str, str]]) -> None:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target in links:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        near = before if forward else after
        for column in columns if forward else reversed(columns):
            place = {
                name: (i + 0.5) / len(other) for other in columns for i, name in enumerate(other)
            }
            mean = {
                name: sum(place[n] for n in near[name]) / len(near[name])
                if near.get(name)
                else place[name]
                for name in column
            }
            column.sort(key=lambda name: mean[name])


def _short(label: str) -> str:
    return label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1].rstrip() + "…"


def draw(boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> str:
    """Return an SVG document. The graph must have no cycle."""
    layer = _layers(boxes, arrows)
    columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for name in boxes:
        columns[layer[name]].append(name)
    chains: list[list[str]] = []
    for number, arrow in enumerate(arrows):
        bends = []
        for between in range(layer[arrow.source] + 1, layer[arrow.target]):
            bend = f"{number}|{between}"
            columns[between].append(bend)
            bends.append(bend)
        chains.append([arrow.source, *bends, arrow.target])
    _sort(columns, [link for chain in chains for link in pairwise(chain)])

    gaps = [_MIN_GAP] * len(columns)
    for arrow, chain in zip(arrows, chains, strict=True):
        size = _CHAR * max(len(_short(arrow.label)), len(arrow.note))
        first = layer[chain[0]]
        gaps[first] = max(gaps[first], size + 44)
    widths = [max((boxes[n].width for n in c if n in boxes), default=40.0) for c in columns]
    rows = max(len(column) for column in columns)
    height = rows * _ROW + 2 * _MARGIN
    centre: dict[str, tuple[float, float]] = {}
    x = _MARGIN
    for index, column in enumerate(columns):
        top = (height - len(column) * _ROW) / 2
        for row, name in enumerate(column):
            centre[name] = (x + widths[index] / 2, top + (row + 0.5) * _ROW)
        x += widths[index] + gaps[index]
    width = x - gaps[-1] + _MARGIN

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" '
        'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
    ]
    labels = []
    for arrow, chain in zip(arrows, chains, strict=True):
        path, place = _route(chain, boxes, centre)
        parts.append(f'<path class="arrow" marker-end="url(#tip)" d="{path}"/>')
        labels += _labels(arrow, place)
    for name, box in boxes.items():
        x, y = centre[name]
        left, top, radius = x - box.width / 2, y - _BOX_HEIGHT / 2, 22 if box.rounded else 4
        parts.append(
            f'<rect class="{"port" if box.rounded else "nf"}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{box.width:.1f}" height="{_BOX_HEIGHT:.0f}" rx="{radius}"/>'
            f'<text x="{x:.1f}" y="{y - 2:.1f}">{escape(box.title)}</text>'
            f'<text class="kind" x="{x:.1f}" y="{y + 13:.1f}">{escape(box.kind)}</text>'
        )
    return "\n".join([*parts, *labels, "</svg>", ""])


def _route(
    chain: Sequence[str], boxes: Mapping[str, Box], centre: Mapping[str, tuple[float, float]]
) -> tuple[str, tuple[float, float]]:
    """Path through a chain's places, and the middle of its first part."""
    x, y = centre[chain[0]]
    x += boxes[chain[0]].width / 2
    path = f"M{x:.1f} {y:.1f}"
    place = (x, y)
    for step, name in enumerate(chain[1:]):
        to_x, to_y = centre[name]
        if name in boxes:
            to_x -= boxes[name].width / 2
        middle = (x + to_x) / 2
        path += f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        if step == 0:
            place = (middle, (y + to_y) / 2)
        x, y = to_x, to_y
    return path, place


def _labels(arrow: Arrow, place: tuple[float, float]) -> list[str]:
    x, y = place
    lines = [text for text in (_short(arrow.label), arrow.note) if text]
    title = f"<title>{escape(arrow.label)}</title>" if arrow.label else ""
    parts = []
    for row, line in enumerate(lines):
        at = f'x="{x:.1f}" y="{y - 5 + 14 * row:.1f}"'
        # Not every viewer knows paint-order, so the halo is a text of its own.
        parts.append(f'<text class="label halo" aria-hidden="true" {at}>{escape(line)}</text>')
        parts.append(f'<text class="label" {at}>{title}{escape(line)}</text>')
    return parts
