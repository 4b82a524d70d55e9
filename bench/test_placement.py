# SPDX-License-Identifier: BSD-3-Clause
"""Placement: how long it takes, and how much traffic it leaves between servers.

`to_packing` and the like are that traffic as a part of what the other strategy leaves, and `ms` and
`us` medians with all that Python does. `dissertation_ms` is what the authors' controller took for
100 nodes. `to_swaps` is beside the dissertation's search (section 3.4.1) from the same beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from e2ctl.placement import Problem, Room, place, place_one
from igraphs import chains, tangle
from measuring import run_rounds
from twins.placement_twin import greedy_swaps

pytest.importorskip("pymetis")
Report = Callable[..., None]
TABLE = "placement: 12 cores a server, of which ten are taken"
QUALITY = "placement: traffic between servers, mean of graphs"
GRAPHS = 60
WIDE = Room(4, 1e12)


def crossing(problem: Problem, strategy: str) -> float:
    return place(problem, strategy=strategy).cross_bps


@pytest.mark.parametrize("units", [100, 1_000, 10_000])
def test_place(units: int, benchmark: BenchmarkFixture, report: Report) -> None:
    problem = chains(units, 1)
    times: list[float] = []

    def measured() -> None:
        started = time.perf_counter()
        place(replace(problem))  # which takes nothing over from the round before
        times.append(time.perf_counter() - started)

    run_rounds(benchmark, measured)
    figures = {"ms": median(times) * 1e3}
    if units == 100:
        figures["dissertation_ms"] = 14.6
    ours = crossing(problem, "e2")
    for strategy in ("packing", "metis", "random"):
        figures[f"to_{strategy}"] = ours / crossing(problem, strategy)
    report(f"{units:,} units", figures, TABLE)


@pytest.mark.parametrize("known", [True, False], ids=["problem known", "problem new"])
def test_place_one(known: bool, benchmark: BenchmarkFixture, report: Report) -> None:
    """`known`: arrays were made of the problem before."""
    problem = chains(100, 1)
    placed = list(place(problem).servers)
    times: list[float] = []

    def measured() -> None:
        for unit in range(len(placed)):
            others = [*placed[:unit], -1, *placed[unit + 1 :]]
            graph = problem if known else replace(problem)
            started = time.perf_counter()
            place_one(graph, unit, others)
            times.append(time.perf_counter() - started)

    run_rounds(benchmark, measured)
    name = f"one more of 100, problem {'known' if known else 'new'}"
    report(name, {"us": median(times) * 1e6}, TABLE)


def chain_graph(seed: int) -> Problem:
    return chains(100, seed)


def tangled_graph(seed: int) -> Problem:
    return tangle(100, seed, 15, Room(12, 1e12))


@pytest.mark.parametrize(
    ("name", "make"),
    [("chains", chain_graph), ("tangles", tangled_graph)],
    ids=["chains", "tangles"],
)
def test_quality(
    name: str, make: Callable[[int], Problem], benchmark: BenchmarkFixture, report: Report
) -> None:
    ratios: dict[str, list[float]] = {}

    def measured() -> None:
        for seed in range(GRAPHS):
            problem = make(seed)
            ours = crossing(problem, "e2")
            packing = place(problem, strategy="packing")
            swapped = greedy_swaps(problem, packing.servers)
            others = {
                "to_packing": packing.cross_bps,
                "to_metis": crossing(problem, "metis"),
                "to_random": crossing(problem, "random"),
                "to_swaps": sum(r for a, b, r in problem.edges if swapped[a] != swapped[b]),
            }
            for column, other in others.items():
                ratios.setdefault(column, []).append(ours / other)

    benchmark.pedantic(measured, rounds=1)
    figures = {column: fmean(values) for column, values in ratios.items()}
    figures["metis_better"] = sum(ratio > 1 + 1e-9 for ratio in ratios["to_metis"])
    report(f"{name} of 100 units, {GRAPHS} graphs", figures, QUALITY)


def test_gap_to_the_optimum(benchmark: BenchmarkFixture, report: Report) -> None:
    """Graphs of 10 to 12 units, on servers of four cores."""
    gaps: dict[str, list[float]] = {"e2": [], "metis": [], "packing": []}

    def measured() -> None:
        for seed in range(GRAPHS):
            units = 10 + seed % 3
            problem = tangle(units, seed, units // 2, WIDE)
            best = crossing(problem, "exact")
            for strategy, values in gaps.items():
                values.append(crossing(problem, strategy) / best - 1)

    benchmark.pedantic(measured, rounds=1)
    figures = {f"{strategy}_gap_percent": 100 * fmean(gap) for strategy, gap in gaps.items()}
    figures["not_optimal"] = sum(gap > 1e-9 for gap in gaps["e2"])
    report(f"10 to 12 units, {GRAPHS} graphs", figures, "placement: above the optimum")
