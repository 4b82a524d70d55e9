# SPDX-License-Identifier: BSD-3-Clause
"""What it costs to add rules to a classifier, one by one or all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from graphs import EngineGraph
from lines import RULES
from measuring import run_rounds
from packets import DST_IP, flows

Report = Callable[..., None]


@pytest.fixture
def graph() -> Iterator[EngineGraph]:
    graph = EngineGraph()
    yield graph
    graph.close()


def exact_rule(number: int) -> dict[str, Any]:
    return {"gate": number % 4, "fields": [{"value_bin": number.to_bytes(4, "big")}]}


def wildcard_rule(number: int) -> dict[str, Any]:
    """Prefixes of eight lengths."""
    mask = 0xFFFFFFFF << number % 8 & 0xFFFFFFFF
    value = number << 8 & mask
    return {
        "gate": number % 4,
        "priority": number,
        "values": [{"value_bin": value.to_bytes(4, "big")}],
        "masks": [{"value_bin": mask.to_bytes(4, "big")}],
    }


@pytest.mark.parametrize("running", [False, True], ids=["idle", "worker running"])
@pytest.mark.parametrize("how", ["add", "set_runtime_config"])
@pytest.mark.parametrize(
    ("mclass", "rule"),
    [("ExactMatch", exact_rule), ("WildcardMatch", wildcard_rule)],
    ids=["ExactMatch", "WildcardMatch"],
)
def test_adding_rules(
    mclass: str,
    rule: Callable[[int], dict[str, Any]],
    how: str,
    running: bool,
    graph: EngineGraph,
    benchmark: BenchmarkFixture,
    report: Report,
) -> None:
    """1,000 rules one after another with add, or all of them in one set_runtime_config."""
    head = graph.source(flows(1))
    match = graph.add(mclass, fields=[DST_IP])
    graph.join(head, match)
    graph.sinks(match, range(4))
    rules = [rule(number) for number in range(RULES)]
    times: list[float] = []

    def add_all() -> None:
        started = time.perf_counter()
        if how == "add":
            for args in rules:
                graph.command(match, "add", **args)
        else:
            graph.command(match, "set_runtime_config", default_gate=0, rules=rules)
        times.append(time.perf_counter() - started)

    def clear() -> None:
        graph.command(match, "clear")

    if running:
        graph.resume()
    run_rounds(benchmark, add_all, setup=clear)
    stored = graph.command(match, "get_runtime_config")["rules"]
    assert len(stored) == RULES
    figures = {"us_per_rule": median(times) * 1e6 / RULES}
    state = "running" if running else "idle"
    report(f"{mclass}: {RULES:,} rules, {how}, {state}", figures, "rules: cost of adding them")
