# SPDX-License-Identifier: BSD-3-Clause
"""The policy language and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2ctl import nfs
from e2ctl.filters import ANY, Attr, FilterError, Match, Not, Otherwise, Term, rule_list
from e2ctl.pgraph import build
from e2ctl.policy import PolicyError, load, parse_filter, parse_policy

EXAMPLES = Path(__file__).parents[2] / "examples"
HEAD = "nf ids : IDS\nnf mon : NetworkMonitor\nport in0, out0\n"


def compile_policy(body: str) -> None:
    build(parse_policy(HEAD + body, "p.e2"), nfs.load(EXAMPLES / "nfs.yaml"))


def test_figure_3_1_fits_a_dozen_lines() -> None:
    path = EXAMPLES / "figure-3.1.e2"
    policy = load(path)
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) <= 12
    assert policy.nfs["normalizer"] == "TrafficNormalizer"
    assert policy.ports == ("in0", "out0")
    assert len(policy.pipelines[0].edges) == 7
    assert policy.pipelines[0].edges[0].rate == 2e9


def test_chain_class_addresses_and_otherwise() -> None:
    text = (
        "address servers = 10.0.0.0/8, 2001:db8::/32 # two\n"
        "pipeline p { class: tcp and dst net servers; in0 -> ids [ids.safe] -> mon @ 1.5Mbps;\n"
        "ids [otherwise] -> out0; mon -> out0; }"
    )
    policy = parse_policy(HEAD + text)
    first, second, third, fourth = policy.pipelines[0].edges
    assert (first.source, first.target, first.filter) == ("in0", "ids", ANY)
    assert (second.source, second.target, second.rate) == ("ids", "mon", 1.5e6)
    assert isinstance(second.filter, Attr)
    assert third.filter == Otherwise()
    assert fourth.where.line == 6
    assert "dst net servers" in str(policy.pipelines[0].traffic)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("tcp", [(Term("ip.proto", 6, 0xFF),)]),
        ("dst port 80", [(Term("l4.dport", 80, 0xFFFF),)]),
        ("vlan 7", [(Term("vlan.id", 7, 0xFFF),)]),
        ("ether type 0x806", [(Term("eth.type", 0x806, 0xFFFF),)]),
        ("src net 10.0.0.0/8", [(Term("ip.src", 10 << 24, 0xFF << 24),)]),
        ("dst host ::1", [(Term("ip6.dst", 1, (1 << 128) - 1),)]),
        ("src net 0.0.0.0/0", [(Term("ip.version", 4, 0xF),)]),
        ("dst portrange 80-81", [(Term("l4.dport", 80, 0xFFFE),)]),
        ("ip proto 47", [(Term("ip.version", 4, 0xF), Term("ip.proto", 47, 0xFF))]),
    ],
)
def test_words(text: str, terms: list[tuple[Term, ...]]) -> None:
    found = parse_filter(text)
    assert isinstance(found, Match)
    assert list(found.alternatives) == terms


def test_full_port_range_has_no_empty_mask() -> None:
    found = parse_filter("dst portrange 0-65535")
    assert isinstance(found, Match)
    assert [terms[0].mask for terms in found.alternatives] == [0x8000, 0x8000]


def test_attribute_comparisons() -> None:
    assert parse_filter('http.host == "x"') == Attr("http", "host", "x", 1, 1)
    assert parse_filter("ids.safe != true") == Not(Attr("ids", "safe", True, 1, 1))
    assert parse_filter("dpi.app == 0x10") == Attr("dpi", "app", 16, 1, 1)


@pytest.mark.parametrize(
    ("body", "place", "text"),
    [
        ("pipeline p { in0 -> ; }", "4:21", "unexpected ';'; expected a name"),
        ("pipeline p { in0 -> x; }", "4:21", "'x' is not declared"),
        ("pipeline p { y -> mon; }", "4:14", "'y' is not declared"),
        ("pipeline p { in0 [tcp and] -> mon; }", "4:26", "unexpected ']'; expected a filter"),
        ("pipeline p { in0 [port 70000] -> mon; }", "4:24", "port 70000 is out of range"),
        ("pipeline p { in0 [net 10.0.0.1/8] -> mon; }", "4:23", "expected 10.0.0.0/8"),
        ("pipeline p { in0 [host 10.0.0.300] -> mon; }", "4:24", "10.0.0.300"),
        ("pipeline p { in0 [icmp port 5] -> mon; }", "4:19", "icmp has no ports"),
        ("pipeline p { in0 [net home] -> mon; }", "4:23", "address 'home' is not declared"),
        ("pipeline p { in0 -> mon", "4:24", "unexpected end of the text"),
        ("pipeline p { in0 -> mon @ fast; }", "4:27", "a rate such as 2Gbps"),
        ("nf mon : IDS", "4:4", "'mon' is declared twice, first at line 2"),
        ("pipeline p { }", "4:10", "has no edges"),
        ("", "1:1", "has no pipeline"),
        ("pipeline p { in0 -> mon; in0 -> mon; }", "4:26", "appears twice"),
        ("pipeline p { class: ids.safe; in0 -> ids; }", "4:21", "expected packet fields only"),
        ("nf a : Nope pipeline p { in0 -> a; }", "4:4", "unknown type 'Nope'; described are IDS"),
        ("pipeline p { in0 -> ids [ids.clean] -> mon; }", "4:26", "exports no 'clean'"),
        ('pipeline p { in0 -> ids [ids.safe == "no"] -> mon; }', "4:26", "expected true, false"),
        ("pipeline p { in0 [ids.safe] -> mon; }", "4:19", "on an edge that leaves in0"),
        ("pipeline p { in0 -> ids -> mon -> ids; }", "4:28", "cycle: ids -> mon -> ids"),
        ("pipeline p { in0 -> ids; mon -> out0; }", "4:26", "no traffic of pipeline 'p' reaches"),
        ("pipeline p { in0 $ mon; }", "4:18", "unexpected '$'"),
    ],
)
def test_errors_say_where_and_what(body: str, place: str, text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_policy(body)
    message = str(caught.value)
    assert message.startswith(f"p.e2:{place}: ")
    assert text in message
    assert "\n" not in message


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        load(tmp_path / "none.e2")


def test_too_many_rules_is_an_error() -> None:
    ranges = " and ".join(
        f"(src portrange {a}-{a + 21001} or dst portrange {a + 7}-{a + 31999})"
        for a in range(1, 20, 2)
    )
    filters = [parse_filter(f"not ({ranges}) and not portrange {k}-50001") for k in range(3, 33, 2)]
    with pytest.raises(FilterError, match="more than 4,096 rules"):
        rule_list(filters)
