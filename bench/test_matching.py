# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch: four rules on a field or on an attribute, a thousand, ClassBench's sets, and
firewalls of these in clear and encrypted.

`source_mpps` is what the modules before it do alone, `match_cycles` the difference that it makes,
`seconds` what it takes to load the rules.
The figures to beat are 5 Mpps for 10,000 rules of ClassBench, and a cost of 3 % for a rule on an
attribute over the same one on a field; SetMetadata, which is on both sides, has a line of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import classbench
from bess_plugins._crypto import SiteKeys, write_prefix_maps
from bess_plugins._engine import Engine
from clear_rules import clear_config
from embark_gateway import Site, steps_of
from embark_gw.pipelines import draw
from embark_gw.provider.metadata_match import config_of
from embark_gw.rules.document import FIELDS
from embark_gw.rules.encrypt import encrypt
from embark_gw.rules.model import RuleSet
from embark_memory import through
from graphs import Graph
from lines import FOUR, MANY, NET, Build, eight_masks, matched, ours, sender
from measuring import measure_in_turn
from packets import DPORT
from rules_support import rules_of_file

Report = Callable[..., None]
Config = dict[str, Any]
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


def sent_to(graph: Graph, frames: list[bytes], config: Config | None = None) -> None:
    """To MetadataMatch, or to a sink where it has no rules."""
    head = distinct(graph, frames)
    if config is None:
        graph.sinks(head)
        return
    match = graph.add("MetadataMatch", **config)
    graph.join(head, match)
    graph.sinks(match, FOUR)


def compare(
    name: str,
    builds: dict[str, Build],
    stack: ExitStack,
    benchmark: BenchmarkFixture,
    report: Report,
    more: Mapping[str, float] | None = None,
) -> None:
    """The graph `match`, and what it is more than the graph `source`; `more` is told besides."""
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
        **(more or {}),
    }
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
    made = [
        {"gate": number % 4, "priority": -number, "terms": rule.terms()}
        for number, rule in enumerate(rules)
    ]
    builds: dict[str, Build] = {
        "source": lambda graph: sent_to(graph, frames),
        "match": lambda graph: sent_to(graph, frames, {"rules": made}),
    }
    compare(f"ClassBench {name}", builds, stack, benchmark, report, {"goal_mpps": GOAL_MPPS})


def encrypted(folder: Path, rules: RuleSet, frames: list[bytes]) -> tuple[Config, list[bytes]]:
    """The provider's firewall, and what a gateway makes of frames."""
    site = Site(folder)
    made = encrypt(rules, SiteKeys(site.key))
    maps = folder / "firewall.maps"
    write_prefix_maps(maps, *(made.maps[name] for name in FIELDS))
    return config_of(made.document), through(frames, steps_of(draw(site.describe(maps)), "encrypt"))


def counted(config: Config) -> Config:
    """What is denied leaves by gate 1."""
    rules = [{**rule, "gate": min(1, rule["gate"])} for rule in config["rules"]]
    return {**config, "rules": rules, "default_gate": min(1, config["default_gate"])}


def load_seconds(config: Config) -> float:
    engine = Engine(pool_packets=1024)
    started = time.perf_counter()
    engine.create_module("match", "MetadataMatch", config)
    return time.perf_counter() - started


@pytest.mark.parametrize("side", ["clear", "encrypted"])
@pytest.mark.parametrize(
    "name", [f"{kind}_{size}" for kind in ("acl1", "fw1", "ipc1") for size in ("1k", "10k")]
)
def test_firewall(
    name: str,
    side: str,
    tmp_path: Path,
    stack: ExitStack,
    benchmark: BenchmarkFixture,
    report: Report,
) -> None:
    """The same module with the same rules over the same packets, in clear and encrypted."""
    rules = rules_of_file(f"classbench_{name}")
    headers = classbench.hitting(classbench.load(classbench.rules_file(name)), MANY, seed=7)
    frames = [header.frame() for header in headers]
    config = clear_config(rules)
    if side == "encrypted":
        config, frames = encrypted(tmp_path, rules, frames)
    builds: dict[str, Build] = {
        "source": partial(sent_to, frames=frames),
        "match": partial(sent_to, frames=frames, config=counted(config)),
    }
    more = {"rules": len(config["rules"]), "seconds": load_seconds(config)}
    compare(f"firewall {name}, {side}", builds, stack, benchmark, report, more)
