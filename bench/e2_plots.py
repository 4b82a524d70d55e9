# SPDX-License-Identifier: BSD-3-Clause
"""The figures of section 3.6 from what was found, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["draw"]

COLOURS = {"random": "#9aa0a6", "packing": "#d98c3f", "metis": "#5b8db8", "e2": "#2e7d5b"}
INCHES = 3.2


def draw(result: dict[str, Any], folder: Path) -> None:
    """One file for each figure that there is something for."""
    with mpl.rc_context({"svg.hashsalt": "e2", "font.size": 8}):
        if throughput := result.get("throughput"):
            _bars(throughput, folder / "e2-throughput.svg")
        if split := result.get("split"):
            _split(split, folder / "e2-split.svg")
        if dynamic := result.get("dynamic"):
            _dynamic(dynamic, folder / "e2-dynamic.svg")
        if racks := result.get("racks"):
            _racks(racks, folder / "e2-racks.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def _bars(found: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(2.5 * INCHES, INCHES), layout="constrained")
    axis: Axes = figure.subplots()
    for number, strategy in enumerate(COLOURS):
        places = [index + 0.2 * (number - 1.5) for index in range(len(found))]
        values = [one[strategy] / 1e9 for one in found.values()]
        axis.bar(places, values, 0.18, color=COLOURS[strategy], label=strategy)
    axis.set_xticks(range(len(found)), [name.replace(", ", "\n") for name in found])
    axis.set_ylabel("Gbps")
    axis.legend(frameon=False)
    _save(figure, path)


def _split(found: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(3 * INCHES, len(found) * 0.6 * INCHES), layout="constrained")
    rows = figure.subplots(len(found), 3, squeeze=False)
    for (name, one), axes in zip(found.items(), rows, strict=True):
        old, new = zip(*one["loads_bps"], strict=True)
        axes[0].plot(one["t"], [bps / 1e9 for bps in old], label="original")
        axes[0].plot(one["t"], [bps / 1e9 for bps in new], label="new")
        axes[0].set_title(f"{name} (simulated)", loc="left")
        axes[0].set_ylabel("Gbps")
        axes[0].legend(frameon=False)
        axes[1].plot(one["t"], [bps / 1e9 for bps in one["detour_bps"]])
        axes[1].set_ylabel("detour, Gbps")
        axes[2].plot(one["t"], one["entries"])
        axes[2].set_ylabel("switch entries")
        for axis in axes:
            axis.set_ylim(bottom=0)
    for axis in rows[-1]:
        axis.set_xlabel("s")
    _save(figure, path)


def _dynamic(one: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(2 * INCHES, INCHES), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(one["t"], one["cores"], label="in use")
    left.plot(one["t"], one["optimal_cores"], label="optimal")
    left.set_ylabel("cores")
    right.plot(one["t"], [bps / 1e9 for bps in one["switch_bps"]], label="switch")
    right.plot(one["t"], [bps / 1e9 for bps in one["load_bps"]], label="load")
    right.set_ylabel("Gbps")
    for axis in (left, right):
        axis.set_xlabel("s (simulated)")
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
    _save(figure, path)


def _racks(one: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(2 * INCHES, INCHES), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(one["t"], one["instances"], label="in use")
    left.plot(one["t"], one["optimal"], label="optimal")
    left.set_ylabel("instances")
    left.legend(frameon=False)
    right.plot(one["t"], [bps / 1e9 for bps in one["dropped_bps"]])
    right.set_ylabel("dropped, Gbps")
    for axis in (left, right):
        axis.set_xlabel("s (simulated)")
        axis.set_ylim(bottom=0)
    _save(figure, path)
