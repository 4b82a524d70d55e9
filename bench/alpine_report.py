# SPDX-License-Identifier: BSD-3-Clause
"""Tables of Alpine's evaluation, with the dissertation's figures beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean, median
from typing import Any

from rich.table import Table

from alpine.objectives import Kind
from alpine_strategies import STRATEGIES

__all__ = ["tables"]

RTC, MANUAL, SEMI, ALPINE = STRATEGIES
# Of the dissertation: table 5.3, the text around figures 5.6 and 5.7, and table 5.4.
THEIR_CYCLES = {"router": 171.02, "filter": 166.42, "proxy": 216.11}
THEIR_SPEEDUP = {"router": 1.91, "filter": 1.74, "proxy": 1.30}
THEIR_SOLVE_S = {"router": 43.41, "filter": 16.31, "proxy": 23.28}
THEIR_MEANS = {1: (1.649, 1.479), 2: (1.686, 1.373)}
THEIR_ERROR = {1: 0.01, 2: 0.04}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _pipeline_tables(found: dict[str, Any]) -> Iterator[Table]:
    for workers in ("1", "2"):
        if any(workers not in entry for entry in found.values()):
            continue
        table = _table(
            f"Figure 5.{5 + int(workers)}: five classes, {workers} worker{'s' * (workers > '1')}",
            *("pipeline", "strategy", "Mpps", "predicted", "measured/predicted", "without drift"),
            *("latency us", "error", "idle polls", "tasks"),
        )
        for name, entry in found.items():
            for strategy, one in entry[workers].items():
                latency = one["latency_s"]
                table.add_row(
                    name,
                    strategy,
                    f"{one['mpps']:.2f}",
                    f"{one['predicted_mpps']:.2f}" if strategy != RTC else "",
                    f"{one['mpps'] / one['predicted_mpps']:.2f}" if strategy != RTC else "",
                    f"{_kept(entry, workers, strategy):.2f}" if strategy != RTC else "",
                    "" if latency is None else f"{latency * 1e6:.1f}",
                    f"{one['error']:.3%}",
                    f"{one['idle']:.1%}",
                    f"{one['tasks']}",
                )
        yield table
        yield _speedups(found, workers)


def _speedups(found: dict[str, Any], workers: str) -> Table:
    table = _table(
        f"Table 5.3: Alpine's throughput over the others', {workers} worker{'s' * (workers > '1')}",
        *("pipeline", "over manual", "dissertation", "over semi-manual", "dissertation", "error"),
        "dissertation",
    )
    over: dict[str, list[float]] = {MANUAL: [], SEMI: []}
    for name, entry in found.items():
        one = entry[workers]
        for other, ratios in over.items():
            ratios.append(_over(one, ALPINE, other))
        table.add_row(
            name,
            f"{over[MANUAL][-1]:.2f}",
            f"{THEIR_SPEEDUP[name]:.2f}" if workers == "1" else "",
            f"{over[SEMI][-1]:.2f}",
            "",
            f"{one[ALPINE]['error']:.3%}",
            "",
        )
    theirs = THEIR_MEANS[int(workers)]
    table.add_row(
        *("mean", f"{fmean(over[MANUAL]):.2f}", f"{theirs[0]:.2f}"),
        *(f"{fmean(over[SEMI]):.2f}", f"{theirs[1]:.2f}", ""),
        f"< {THEIR_ERROR[int(workers)]:.0%}",
    )
    return table


def _costs_table(found: dict[str, Any]) -> Table:
    """Where cycles go, per packet that leaves."""
    table = _table(
        "Cycles per packet, one worker",
        *("pipeline", "dissertation", "ours", "input and modules", "classifier", "enqueue"),
        *("dequeue, scheduling", *STRATEGIES),
    )
    for name, entry in found.items():
        table.add_row(
            name,
            f"{THEIR_CYCLES[name]:.0f}",
            f"{entry['hz'] / entry['1'][RTC]['mpps'] / 1e6:.0f}",
            f"{entry['pipeline_cycles']:.1f}",
            f"{entry['classifier_cycles']:.1f}",
            f"{entry['enqueue_cycles']:.1f}",
            f"{entry['dequeue_cycles']:.1f}",
            *(f"{entry['hz'] / entry['1'][s]['mpps'] / 1e6:.0f}" for s in STRATEGIES),
        )
    return table


def tables(result: dict[str, Any], node_cycles: int) -> Iterator[Table]:
    if found := result.get("pipelines"):
        yield from _pipeline_tables(found)
        yield _costs_table(found)
        table = _table(
            "Ratios of throughput, one worker, Alpine",
            *("pipeline", "Mpps", "predicted", "error as delivered"),
        )
        for name, entry in found.items():
            one = entry["throughput"][ALPINE]
            table.add_row(
                name,
                f"{one['mpps']:.2f}",
                f"{one['predicted_mpps']:.2f}",
                f"{one['delivered_error']:.3%}",
            )
        yield table
    if found := result.get("costs"):
        table = _table(
            "Figure 5.8: modules that burn cycles (figure 5.3a), Mpps",
            *("cycles of a module", "of the pipeline", MANUAL, SEMI, ALPINE),
            *("over manual", "over semi-manual"),
        )
        for cycles, one in found.items():
            table.add_row(cycles, f"{one['pipeline_cycles']:.0f}", *_three(one))
        yield table
    if found := result.get("trees"):
        table = _table(
            f"Figure 5.9: binary trees of modules of {node_cycles} cycles, Mpps",
            *("depth", "classes", MANUAL, SEMI, ALPINE, "over manual", "over semi-manual"),
            *("error", "tasks"),
        )
        for depth, one in found.items():
            table.add_row(
                *(depth, str(2 ** (int(depth) - 1)), *_three(one)),
                *(f"{one[ALPINE]['error']:.2%}", f"{one[ALPINE]['tasks']:.0f}"),
            )
        yield table
    if found := result.get("solving"):
        yield from _solving_tables(found)


def _three(one: dict[str, Any]) -> list[str]:
    return [
        *(f"{one[s]['mpps']:.2f}" for s in (MANUAL, SEMI, ALPINE)),
        *(f"{_over(one, ALPINE, s):.2f}" for s in (MANUAL, SEMI)),
    ]


def _over(one: dict[str, Any], strategy: str, other: str) -> float:
    """How many times the other's throughput: the median over rounds, which drift has no part in."""
    pairs = zip(one[strategy]["rounds_mpps"], one[other]["rounds_mpps"], strict=True)
    return median(mine / theirs for mine, theirs in pairs)


def _kept(entry: dict[str, Any], workers: str, strategy: str) -> float:
    """Measured over predicted, both relative to run-to-completion: no change of clock moves it."""
    one = entry[workers]
    alone = entry["hz"] / entry["pipeline_cycles"] / 1e6 * int(workers)
    return _over(one, strategy, RTC) / (one[strategy]["predicted_mpps"] / alone)


def _solving_tables(found: dict[str, Any]) -> Iterator[Table]:
    table = _table(
        "Table 5.4: time to solve, ms",
        *("pipeline", "modules", "CPU time", "throughput", "dissertation"),
    )
    times = tuple(str(kind) for kind in (Kind.CPU_TIME, Kind.THROUGHPUT))
    for name, one in found["pipelines"].items():
        table.add_row(
            name,
            str(one[times[0]]["modules"]),
            *(f"{one[kind]['seconds'] * 1e3:.1f}" for kind in times),
            f"{THEIR_SOLVE_S[name] * 1e3:,.0f}",
        )
    yield table
    table = _table(
        "Figure 5.10: time to solve binary trees, ms (dissertation: over an hour at depth 9)",
        *("depth", "modules", "CPU time", "gap", "tasks", "throughput", "gap"),
    )
    for depth, one in found["trees"].items():
        timed, rate = (one[kind] for kind in times)
        table.add_row(
            *(depth, str(timed["modules"]), f"{timed['seconds'] * 1e3:.1f}"),
            *(f"{timed['gap']:.1%}", str(timed["tasks"])),
            *(f"{rate['seconds'] * 1e3:.1f}", f"{rate['gap']:.1%}"),
        )
    yield table
