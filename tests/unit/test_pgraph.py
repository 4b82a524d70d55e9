# SPDX-License-Identifier: BSD-3-Clause
"""The policy graph and its wiring."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest

from e2ctl import nfs
from e2ctl.pgraph import PGraph, build, diff
from e2ctl.policy import PolicyError, load, parse_policy
from e2ctl.wiring import LocalPlan, wire

EXAMPLES = Path(__file__).parents[2] / "examples"
HEAD = "nf ids : IDS\nnf nat : NAT\nnf mon : NetworkMonitor\nport in0, out0, out1\n"
CATALOG = nfs.load(EXAMPLES / "nfs.yaml")


def graph_of(body: str) -> PGraph:
    return build(parse_policy(HEAD + body), CATALOG)


def plan_of(body: str) -> LocalPlan:
    return wire(graph_of(body), CATALOG)


def args_of(plan: LocalPlan, name: str) -> dict[str, object]:
    return dict(next(module.args for module in plan.modules if module.name == name))


def links_of(plan: LocalPlan) -> set[str]:
    return {str(link) for link in plan.links}


def test_text_and_freeze() -> None:
    graph = build(load(EXAMPLES / "figure-3.1.e2"), CATALOG)
    assert "ids [not ids.safe] -> normalizer" in str(graph)
    assert "in0 -> ids @ 2Gbps" in str(graph)
    assert graph.node("cache").type == "WebCache"
    with pytest.raises(nx.NetworkXError):
        graph.digraph.add_edge("a", "b")


def test_diff() -> None:
    old = graph_of("pipeline p { in0 -> mon -> out0; }")
    new = graph_of("pipeline p { in0 [tcp] -> mon -> out0; }")
    assert diff(old, new) == ("- in0 -> mon", "+ in0 [tcp] -> mon")
    assert diff(old, old) == ()


def test_pipelines_are_united() -> None:
    graph = graph_of(
        "pipeline a { class: tcp; in0 -> mon @ 1Gbps; mon -> out0; }\n"
        "pipeline b { class: udp; in0 -> mon @ 2Gbps; mon -> out0; }"
    )
    entry, leave = graph.edges
    assert (entry.label, entry.rate) == ("tcp or udp", 3e9)
    assert leave.label == ""


def test_shared_nf_decides_by_class() -> None:
    graph = graph_of(
        "pipeline a { class: tcp; in0 -> mon -> out0; }\n"
        "pipeline b { class: udp; in0 -> mon -> out1; }"
    )
    assert [edge.label for edge in graph.edges_from("mon")] == ["tcp", "udp"]


def test_class_on_rewritten_field_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"ip\.src, which nat rewrites"):
        graph_of(
            "pipeline a { class: src net 10.0.0.0/8; in0 -> nat -> out0; }\n"
            "pipeline b { class: udp; in0 -> nat -> out1; }"
        )


def test_port_both_ways_is_no_cycle() -> None:
    plan = plan_of("pipeline p { in0 -> mon -> in0; }")
    assert plan.ports[0].incoming and plan.ports[0].outgoing
    assert links_of(plan) == {"in_in0:0 -> 0:mon", "mon:0 -> 0:out_in0"}


def test_svg_is_well_formed() -> None:
    for name in ("figure-3.1.e2", "nat-two-pipelines.e2"):
        picture = build(load(EXAMPLES / name), CATALOG).to_svg()
        root = ElementTree.fromstring(picture)
        texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {"cache", "monitor"} <= texts


def test_figure_3_1_wiring() -> None:
    plan = wire(build(load(EXAMPLES / "figure-3.1.e2"), CATALOG), CATALOG)
    assert {"ids:0 -> 0:match_ids_0", "ids:1 -> 0:normalizer", "match_ids_0:0 -> 0:cache"} <= (
        links_of(plan)
    )
    assert args_of(plan, "match_ids_0") == {
        "rules": [
            {
                "gate": 0,
                "priority": 2,
                "terms": [
                    {"field": "ip.proto", "value": 6, "mask": 0xFF},
                    {"field": "l4.dport", "value": 80, "mask": 0xFFFF},
                ],
            }
        ],
        "default_gate": 1,
    }
    assert sum(link.target == "merge_monitor" for link in plan.links) == 3


def test_unmatched_packets_are_counted() -> None:
    plan = plan_of("pipeline p { in0 [tcp] -> mon -> out0; }")
    assert {"match_in0:0 -> 0:mon", "match_in0:1 -> 0:drop_in0"} <= links_of(plan)
    assert args_of(plan, "match_in0")["default_gate"] == 1


def test_several_edges_replicate() -> None:
    plan = plan_of("pipeline p { in0 -> mon; in0 [udp] -> out1; mon -> out0; }")
    copies = [module for module in plan.modules if module.mclass == "Replicate"]
    assert [copy.args["gates"] for copy in copies] == [[0, 1]]
    taps = {(edge.source, edge.target): edge.taps for edge in plan.edges}
    assert len(taps["in0", "mon"]) == 2
    assert len(taps["in0", "out1"]) == 1


def test_metadata_attribute_is_matched() -> None:
    text = (
        "nf tag : TaggingIDS pipeline p { in0 -> tag [tag.safe] -> out0; tag [otherwise] -> out1; }"
    )
    args = args_of(plan_of(text), "match_tag_0")
    assert args["rules"] == [
        {"gate": 0, "priority": 2, "terms": [{"field": "meta.safe", "value": 1, "mask": 0xFF}]}
    ]


def test_name_clash_is_an_error() -> None:
    with pytest.raises(PolicyError, match="rename that NF"):
        plan_of("nf in_in0 : IDS pipeline p { in0 -> in_in0 -> out0; }")
