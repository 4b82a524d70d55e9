# SPDX-License-Identifier: BSD-3-Clause
"""The figures of section 5.5 from what was measured, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alpine_strategies import STRATEGIES

__all__ = ["draw"]

RTC, MANUAL, SEMI, ALPINE = STRATEGIES
COLOURS = {RTC: "#9aa0a6", MANUAL: "#d98c3f", SEMI: "#5b8db8", ALPINE: "#2e7d5b"}
INCHES = 3.2


def draw(result: dict[str, Any], folder: Path) -> None:
    """One file for each figure that there is something for."""
    with mpl.rc_context({"svg.hashsalt": "alpine", "font.size": 8}):
        if pipelines := result.get("pipelines"):
            for workers in ("1", "2"):
                if all(workers in entry for entry in pipelines.values()):
                    _bars(pipelines, workers, folder / f"alpine-{workers}-workers.svg")
        if costs := result.get("costs"):
            x = [entry["pipeline_cycles"] for entry in costs.values()]
            _lines(list(costs.values()), x, "cycles per packet", folder / "alpine-costs.svg")
        if trees := result.get("trees"):
            x = [float(depth) for depth in trees]
            _lines(list(trees.values()), x, "depth", folder / "alpine-trees.svg")
        if solving := result.get("solving"):
            _times(solving["trees"], folder / "alpine-solving.svg")


def _bars(pipelines: dict[str, Any], workers: str, path: Path) -> None:
    figure = Figure(figsize=(3 * INCHES, INCHES), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, 3))
    measures = (
        ("mpps", 1.0, "Mpps"),
        ("latency_s", 1e6, "latency, us"),
        ("error", 100, "error, %"),
    )
    for axis, (key, scale, label) in zip(axes, measures, strict=True):
        for number, strategy in enumerate(STRATEGIES):
            values = [scale * (e[workers][strategy][key] or 0.0) for e in pipelines.values()]
            places = [index + 0.2 * (number - 1.5) for index in range(len(values))]
            axis.bar(places, values, 0.18, color=COLOURS[strategy], label=strategy)
        axis.set_xticks(range(len(pipelines)), list(pipelines))
        axis.set_ylabel(label)
    axes[1].set_yscale("log")
    axes[2].set_yscale("log")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _lines(entries: list[dict[str, Any]], x: list[float], label: str, path: Path) -> None:
    figure = Figure(figsize=(2 * INCHES, INCHES), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, 2))
    for strategy in (MANUAL, SEMI, ALPINE):
        y = [entry[strategy]["mpps"] for entry in entries]
        axes[0].plot(x, y, "o-", ms=3, color=COLOURS[strategy], label=strategy)
    for strategy in (MANUAL, SEMI):
        y = [entry[ALPINE]["mpps"] / entry[strategy]["mpps"] for entry in entries]
        axes[1].plot(x, y, "o-", ms=3, color=COLOURS[strategy], label=f"alpine / {strategy}")
    axes[0].set_ylabel("Mpps")
    axes[1].set_ylabel("speedup")
    for axis in axes:
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _times(trees: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(INCHES, INCHES), layout="constrained")
    axis: Axes = figure.subplots()
    x = [int(depth) for depth in trees]
    for kind in next(iter(trees.values())):
        y = [trees[depth][kind]["seconds"] for depth in trees]
        axis.plot(x, y, "o-", ms=3, label=kind)
    axis.set_yscale("log")
    axis.set_xlabel("depth")
    axis.set_ylabel("seconds")
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
