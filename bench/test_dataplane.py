# SPDX-License-Identifier: BSD-3-Clause
"""How fast the engine is: one worker on one core, in memory, 60-byte packets.

A line is a graph that runs for a while; its figure is the packets per second that reach the sinks.
Nothing here fails because it is slow: it fails where a graph loses packets, which it then need not
carry any further. Where BESSD_ADDRESS names a daemon, that runs the same graphs in turn with ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anchors import BESSD_MPPS, BESSD_NS
from bess_plugins.client import Client
from graphs import DaemonGraph, Graph, MissingClassError
from lines import LINES, Build, Line, ours, timed
from measuring import SECONDS, WARMUP, measure_in_turn, run_rounds
from standard_lines import STANDARD_LINES
from tunnel_lines import TUNNEL_LINES

Report = Callable[..., None]
LATENCIES = {
    "": [],
    "Bypass->": ["Bypass"],
    "Bypass x8->": ["Bypass"] * 8,
    "Queue->": ["Queue"],
}

ALL_LINES = [*LINES, *STANDARD_LINES, *TUNNEL_LINES]


def theirs(build: Build, peer: Client | None, stack: ExitStack) -> DaemonGraph | None:
    """The graph on the peer, if there is one and it has all of the classes."""
    if peer is None:
        return None
    graph = DaemonGraph(peer)
    stack.callback(graph.close)
    try:
        build(graph)
    except MissingClassError:
        return None
    return graph


@pytest.mark.parametrize(
    "line", [*LINES, *STANDARD_LINES, *TUNNEL_LINES], ids=lambda line: line.name
)
def test_line(
    line: Line,
    peer: Client | None,
    stack: ExitStack,
    benchmark: BenchmarkFixture,
    report: Report,
) -> None:
    graph = ours(line.build, stack)
    graphs: dict[str, Graph] = {"ours": graph}
    if other := theirs(line.build, None if line.ours_only else peer, stack):
        graphs["peer"] = other
    measured, steal = measure_in_turn(benchmark, graphs)
    assert graph.lost() == {}
    figures = {**measured["ours"], "steal_percent": steal}
    if "peer" in measured:
        figures["peer_mpps"] = measured["peer"]["mpps"]
        figures["ratio"] = figures["mpps"] / figures["peer_mpps"]
        if "worker_percent" in measured["peer"]:
            figures["peer_percent"] = measured["peer"]["worker_percent"]
    elif peer is None and line.name in BESSD_MPPS:
        figures["elsewhere_mpps"] = BESSD_MPPS[line.name]
        figures["elsewhere_ratio"] = figures["mpps"] / figures["elsewhere_mpps"]
    report(line.name, figures)


@pytest.mark.parametrize("between", LATENCIES)
def test_latency(
    between: str,
    peer: Client | None,
    stack: ExitStack,
    benchmark: BenchmarkFixture,
    report: Report,
) -> None:
    """From Timestamp to Measure."""
    build = timed(*LATENCIES[between])
    name = f"Timestamp->{between}Measure"
    graph = ours(build, stack)
    graphs: dict[str, Graph] = {"median_ns": graph}
    if other := theirs(build, peer, stack):
        graphs["peer_ns"] = other
    medians: dict[str, list[float]] = {column: [] for column in graphs}

    def measure() -> None:
        for column, graph in graphs.items():
            (module,) = (name for name, mclass in graph.modules.items() if mclass == "Measure")
            graph.resume()
            time.sleep(WARMUP * SECONDS)
            graph.command(module, "clear")
            time.sleep(SECONDS)
            summary = graph.command(module, "get_summary", latency_percentiles=[50.0])
            graph.pause()
            assert summary["latency"]["count"] > 0
            medians[column].append(summary["latency"]["percentile_values_ns"][0])

    run_rounds(benchmark, measure)
    assert graph.lost() == {}
    figures = {column: median(rounds) for column, rounds in medians.items()}
    if peer is None and name in BESSD_NS:
        figures["elsewhere_ns"] = BESSD_NS[name]
    report(name, figures, "latency: from Timestamp to Measure")
