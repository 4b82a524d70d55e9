# SPDX-License-Identifier: BSD-3-Clause
"""Rule lists and the evaluator agree with each other and with the meaning of the words."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from hypothesis import assume, given
from hypothesis import strategies as st

from e2ctl.filters import (
    Attr,
    Const,
    FilterError,
    Match,
    Term,
    bind,
    evaluate,
    first_match,
    prefixes,
    rule_list,
)
from e2ctl.policy import parse_filter

Packet = Mapping[str, int]
Meaning = tuple[str, Callable[[Packet], bool]]

PORTS = st.sampled_from([0, 1, 79, 80, 81, 443, 1023, 1024, 32768, 65535])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.255.0.1", "192.168.1.1", "0.0.0.0"])
LENGTHS = st.sampled_from([0, 8, 16, 31, 32])


@st.composite
def packets(draw: st.DrawFn) -> dict[str, int]:
    packet = {"eth.type": draw(st.sampled_from([0x0800, 0x86DD, 0x0806]))}
    if draw(st.booleans()):
        packet["vlan.id"] = draw(st.sampled_from([0, 7, 2048, 4095]))
    version = {0x0800: 4, 0x86DD: 6}.get(packet["eth.type"])
    if version is None:
        return packet
    packet["ip.version"] = version
    packet["ip.proto"] = draw(st.sampled_from([1, 6, 17, 47, 58]))
    name = "ip" if version == 4 else "ip6"
    for side in ("src", "dst"):
        packet[f"{name}.{side}"] = int(ipaddress.ip_address(draw(ADDRESSES)))
    if packet["ip.proto"] in (6, 17):
        packet["l4.sport"], packet["l4.dport"] = draw(PORTS), draw(PORTS)
    packet["meta.tag"] = draw(st.integers(0, 2))
    return packet


@st.composite
def ports(draw: st.DrawFn) -> Meaning:
    side = draw(st.sampled_from(["src", "dst", ""]))
    low, high = sorted([draw(PORTS), draw(PORTS)])
    names = [f"l4.{s[0]}port" for s in ([side] if side else ["src", "dst"])]
    return (
        f"{side} portrange {low}-{high}",
        lambda p: any(n in p and low <= p[n] <= high for n in names),
    )


@st.composite
def nets(draw: st.DrawFn) -> Meaning:
    side = draw(st.sampled_from(["src", "dst", ""]))
    net = ipaddress.ip_network(f"{draw(ADDRESSES)}/{draw(LENGTHS)}", strict=False)
    names = [f"ip.{s}" for s in ([side] if side else ["src", "dst"])]
    return (
        f"{side} net {net}",
        lambda p: any(n in p and ipaddress.ip_address(p[n]) in net for n in names),
    )


def words() -> st.SearchStrategy[Meaning]:
    fixed: list[Meaning] = [
        ("any", lambda p: True),
        ("tcp", lambda p: p.get("ip.proto") == 6),
        ("icmp", lambda p: p.get("ip.proto") == 1 and p.get("ip.version") == 4),
        ("ip6", lambda p: p.get("ip.version") == 6),
        ("arp", lambda p: p["eth.type"] == 0x0806),
        ("vlan", lambda p: "vlan.id" in p),
        ("vlan 7", lambda p: p.get("vlan.id") == 7),
        ("x.tag == 2", lambda p: p.get("meta.tag", 0) == 2),
    ]
    return st.one_of(st.sampled_from(fixed), ports(), nets())


def both(pair: tuple[Meaning, Meaning]) -> Meaning:
    (left, f), (right, g) = pair
    return f"({left}) and ({right})", lambda p: f(p) and g(p)


def either(pair: tuple[Meaning, Meaning]) -> Meaning:
    (left, f), (right, g) = pair
    return f"({left}) or ({right})", lambda p: f(p) or g(p)


def negated(operand: Meaning) -> Meaning:
    text, f = operand
    return f"not ({text})", lambda p: not f(p)


MEANINGS = st.recursive(
    words(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(both),
        st.tuples(inner, inner).map(either),
        inner.map(negated),
    ),
    max_leaves=5,
)


def resolve(attr: Attr) -> Match:
    return Match(str(attr), ((Term(f"meta.{attr.name}", int(attr.value), 0xFF),),))


@given(st.lists(MEANINGS, min_size=1, max_size=3), st.lists(packets(), min_size=1, max_size=8))
def test_rules_agree_with_meaning(edges: list[Meaning], traffic: list[dict[str, int]]) -> None:
    filters = [bind(parse_filter(text), resolve) for text, _ in edges]
    try:
        rules = rule_list(filters)
    except FilterError:
        assume(False)
        return
    priorities = [rule.priority for rule in rules]
    assert priorities == sorted(set(priorities), reverse=True)
    assert rules[-1].terms == ()
    for packet in traffic:
        wanted = frozenset(i for i, (_, meaning) in enumerate(edges) if meaning(packet))
        assert frozenset(i for i, f in enumerate(filters) if evaluate(f, packet)) == wanted
        assert first_match(rules, packet) == wanted


@given(st.lists(MEANINGS, min_size=1, max_size=2))
def test_terms_fit_the_dataplane(edges: list[Meaning]) -> None:
    try:
        rules = rule_list([bind(parse_filter(t), lambda a: Const(True)) for t, _ in edges])
    except FilterError:
        assume(False)
        return
    for rule in rules:
        assert len({term.field for term in rule.terms}) == len(rule.terms)
        for term in rule.terms:
            assert term.mask and not term.value & ~term.mask


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_prefixes_cover_exactly_the_range(low: int, high: int, probe: int) -> None:
    pairs = prefixes(low, high, 8)
    hits = sum(probe & mask == value for value, mask in pairs)
    assert hits == (low <= probe <= high)
    assert all(mask for _, mask in pairs)
