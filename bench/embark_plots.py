# SPDX-License-Identifier: BSD-3-Clause
"""The figures of section 4.5 from what was found, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embark_report import MODES, THEIR_RULES_MPPS, THEIR_TRACES_GBPS

__all__ = ["draw"]

COLOURS = dict(zip(MODES, ("#9aa0a6", "#5b8db8", "#2e7d5b", "#d98c3f"), strict=True))
INCHES = 3.2


def draw(result: dict[str, Any], folder: Path) -> None:
    """One file for each figure that there is something for."""
    with mpl.rc_context({"svg.hashsalt": "embark", "font.size": 8}):
        if gateway := result.get("gateway"):
            _gateway(gateway["lines"], folder / "embark-gateway.svg")
        if cores := result.get("cores"):
            _cores(cores["lines"], folder / "embark-cores.svg")
        if rules := result.get("rules"):
            _rules(rules, folder / "embark-rules.svg")
        if pages := result.get("pages"):
            _pages(pages["places"], folder / "embark-pages.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def _gateway(lines: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(3.5 * INCHES, INCHES), layout="constrained")
    axis: Axes = figure.subplots()
    for number, mode in enumerate(MODES):
        places = [index + 0.2 * (number - 1.5) for index in range(len(lines))]
        values = [one[mode]["gbps"] for one in lines.values()]
        axis.bar(places, values, 0.18, color=COLOURS[mode], label=mode)
    axis.axhline(THEIR_TRACES_GBPS, color="black", linewidth=0.6, linestyle=":")
    axis.annotate(f"dissertation, traces: {THEIR_TRACES_GBPS}", (0, THEIR_TRACES_GBPS), va="bottom")
    axis.set_xticks(range(len(lines)), [name.replace(", ", "\n") for name in lines])
    axis.set_ylabel("Gbps, one core")
    axis.legend(frameon=False)
    _save(figure, path)


def _cores(lines: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(1.5 * INCHES, INCHES), layout="constrained")
    axis: Axes = figure.subplots()
    for label, ported in (("each does all", False), ("one for ports", True)):
        points = [
            (int(name.split(",")[0]), line["gbps"])
            for name, line in lines.items()
            if ("," in name) == ported
        ]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", label=label)
    most = max(int(name.split(",")[0]) for name in lines)
    axis.plot([0, most], [0, most * lines["1"]["gbps"]], ":", color="black", label="linear")
    axis.set_xticks(range(most + 1))
    axis.set_xlabel("cores")
    axis.set_ylabel("Gbps")
    axis.legend(frameon=False)
    _save(figure, path)


def _rules(found: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(2 * INCHES, INCHES), layout="constrained")
    axis: Axes = figure.subplots()
    counts = [int(rules) for rules in found if rules != "source"]
    mpps = [found[str(count)]["mpps"] for count in counts]
    theirs = [(int(rules), rate) for rules, rate in THEIR_RULES_MPPS.items()]
    axis.plot(counts, mpps, marker="o", color="#2e7d5b", label="ours")
    axis.plot(*zip(*theirs, strict=True), marker="s", color="#9aa0a6", label="dissertation")
    other = axis.twinx()
    times = [1 / rate for rate in mpps]
    other.plot(counts, times, ":", color="#5b8db8", label="ours, time of a packet")
    axis.set_xscale("symlog", linthresh=100)
    axis.set_ylim(bottom=0)
    other.set_ylim(bottom=0)
    axis.set_xlabel("rules")
    axis.set_ylabel("Mpps, one core")
    other.set_ylabel("us per packet")
    axis.legend(frameon=False)
    other.legend(frameon=False, loc="lower left")
    _save(figure, path)


def _pages(places: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(3 * INCHES, INCHES), layout="constrained")
    axes = figure.subplots(1, len(places), squeeze=False)[0]
    for axis, (place, one) in zip(axes, places.items(), strict=True):
        for label, key in (("direct", "direct_s"), ("Embark", "embark_s")):
            times = sorted(one[key])
            shares = [(index + 1) / len(times) for index in range(len(times))]
            axis.step([s * 1e3 for s in times], shares, where="post", label=label)
        axis.set_title(f"{place}, {one['rtt_us'] / 1e3:g} ms away", loc="left")
        axis.set_xlabel("page load time, ms")
        axis.set_xlim(left=0)
        axis.legend(frameon=False)
    axes[0].set_ylabel("share of pages")
    _save(figure, path)
