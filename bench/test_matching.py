# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch: four rules on a field or on an attribute, a thousand, and ClassBench's sets.

`source_mpps` is what the modules before it do alone, `match_cycles` the difference that it makes.
The figures to beat are 5 Mpps for 10,000 rules of ClassBench, and a cost of 3 % for a rule on an
attribute over the same one on a field; SetMetadata, which is on both sides, has a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import classbench
from graphs import Graph
from lines import FOUR, MANY, NET, Build, eight_masks, matched, ours, sender
from measuring import measure_in_turn
from packets import DPORT

Report = Callable[..., None]
TABLE = "MetadataMatch: 4,096 flows"
GOAL_MPPS = 5.0


def four_rules(graph: Graph, head: str, field: str) -> None:
    meta = {"meta": {"port": 2}} if field == "meta.port" else {}
    rules = [{"gate": n, "terms": [{"field": field, "value": n, "mask": 3}]} for n in FOUR]
    match = graph.add("MetadataMatch", rules=rules, **meta)
    graph.join(head, match)
    graph.sinks(match, FOUR)


def on_field(graph: Graph) -> None:
    four_rules(graph, sender(graph, MANY, DPORT), "l4.dport")


def on_copy(graph: Graph, field: str) -> None:
    """The port is in an attribute, too."""
    four_rules(graph, matched(graph, MANY, "copy")[0], field)


def no_rules(graph: Graph, copied: bool) -> None:
    graph.sinks(matched(graph, MANY, "copy" if copied else "packet")[0])


def thousand_rules(graph: Graph) -> None:
    head = sender(graph, MANY, NET)
    rules = [
        {
            "gate": number % 4,
            "priority": number,
            "terms": [
                {"field": "ip.src", "value": src, "mask": src_mask},
                {"field": "ip.dst", "value": dst, "mask": dst_mask},
            ],
        }
        for number, (src, src_mask, dst, dst_mask) in enumerate(eight_masks())
    ]
    match = graph.add("MetadataMatch", rules=rules)
    graph.join(head, match)
    graph.sinks(match, FOUR)


def distinct(graph: Graph, frames: list[bytes]) -> str:
    """A module that sends all the packets, one batch of 32 after another."""
    parts = [frames[at : at + 32] for at in range(0, len(frames), 32)]
    spread = graph.add("RoundRobin", gates=list(range(len(parts))), mode="batch")
    graph.join(graph.source(), spread)
    merge = graph.add("Merge")
    for gate, part in enumerate(parts):
        rewrite = graph.add("Rewrite", templates=part)
        graph.connect(spread, rewrite, ogate=gate)
        graph.connect(rewrite, merge, igate=gate)
    return merge


def sent_to(graph: Graph, frames: list[bytes], rules: list[classbench.FiveRule]) -> None:
    """To MetadataMatch, or to a sink where there are no rules."""
    head = distinct(graph, frames)
    if not rules:
        graph.sinks(head)
        return
    args = [
        {"gate": number % 4, "priority": -number, "terms": rule.terms()}
        for number, rule in enumerate(rules)
    ]
    match = graph.add("MetadataMatch", rules=args)
    graph.join(head, match)
    graph.sinks(match, FOUR)


def compare(
    name: str,
    builds: dict[str, Build],
    stack: ExitStack,
    benchmark: BenchmarkFixture,
    report: Report,
    goal: float | None = None,
) -> None:
    """The graph `match`, and what it is more than the graph `source`."""
    graphs = {what: ours(build, stack) for what, build in builds.items()}
    measured, steal = measure_in_turn(benchmark, graphs)
    assert [graph.lost() for graph in graphs.values()] == [{}] * len(graphs)
    source, match = measured["source"], measured["match"]
    figures = {
        "mpps": match["mpps"],
        "cycles_per_packet": match["cycles_per_packet"],
        "source_mpps": source["mpps"],
        "match_cycles": match["cycles_per_packet"] - source["cycles_per_packet"],
        "worker_percent": min(figures["worker_percent"] for figures in measured.values()),
        "steal_percent": steal,
    }
    if goal is not None:
        figures["goal_mpps"] = goal
    report(name, figures, TABLE)


CASES: dict[str, dict[str, Build]] = {
    "SetMetadata": {
        "source": partial(no_rules, copied=False),
        "match": partial(no_rules, copied=True),
    },
    "4 rules, field": {"source": partial(no_rules, copied=False), "match": on_field},
    "4 rules, field, behind SetMetadata": {
        "source": partial(no_rules, copied=True),
        "match": partial(on_copy, field="l4.dport"),
    },
    "4 rules, attribute, behind SetMetadata": {
        "source": partial(no_rules, copied=True),
        "match": partial(on_copy, field="meta.port"),
    },
    "1,000 rules, 8 masks": {
        "source": lambda graph: graph.sinks(sender(graph, MANY, NET)),
        "match": thousand_rules,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str, stack: ExitStack, benchmark: BenchmarkFixture, report: Report) -> None:
    compare(name, CASES[name], stack, benchmark, report)


def test_match_on_attribute(stack: ExitStack, benchmark: BenchmarkFixture, report: Report) -> None:
    """Rules on an attribute rather than on a field, behind SetMetadata either way."""
    fields = {"header": "l4.dport", "attribute": "meta.port"}
    graphs = {what: ours(partial(on_copy, field=f), stack) for what, f in fields.items()}
    measured, steal = measure_in_turn(benchmark, graphs)
    assert [graph.lost() for graph in graphs.values()] == [{}, {}]
    header, attribute = measured["header"]["mpps"], measured["attribute"]["mpps"]
    figures = {
        "header_mpps": header,
        "attribute_mpps": attribute,
        "cost_percent": 100 * (1 - attribute / header),
        "worker_percent": min(figures["worker_percent"] for figures in measured.values()),
        "steal_percent": steal,
    }
    name = "4096 flows->SetMetadata->MetadataMatch(4 rules)"
    report(name, figures, "metadata: a match on a header or on a copy")


@pytest.mark.parametrize("name", ["made", "acl1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"])
def test_classbench(
    name: str, stack: ExitStack, benchmark: BenchmarkFixture, report: Report
) -> None:
    path = classbench.rules_file(name)
    if name != "made" and not path.exists():
        pytest.skip(f"no rules at {path}; E2_DATA says where the data is")
    rules = classbench.make(10_000, seed=1) if name == "made" else classbench.load(path)
    frames = [header.frame() for header in classbench.hitting(rules, MANY, seed=7)]
    builds: dict[str, Build] = {
        "source": lambda graph: sent_to(graph, frames, []),
        "match": lambda graph: sent_to(graph, frames, rules),
    }
    compare(f"ClassBench {name}", builds, stack, benchmark, report, GOAL_MPPS)
