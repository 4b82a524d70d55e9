# SPDX-License-Identifier: BSD-3-Clause
"""Sets of values, which rules of MetadataMatch name as a whole, against its plain twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from embark_gw.rules.ranges import join
from match_support import GATES, RAW, Rule, bits_of, device, frames, raises
from twins.metadata_match_twin import BITS, best_gate, seen


def set_of(name: str, field: str, *pairs: tuple[int, int]) -> dict[str, Any]:
    bits = bits_of(field)
    if bits <= 64:
        ranges: list[dict[str, Any]] = [{"min": low, "max": high} for low, high in pairs]
    else:
        ends = [[end.to_bytes(bits // 8, "big") for end in pair] for pair in pairs]
        ranges = [{"min_bin": low, "max_bin": high} for low, high in ends]
    return {"name": name, "field": field, "ranges": ranges}


def in_set(gate: int, priority: int, *named: tuple[str, str]) -> Rule:
    terms = [{"field": field, "set": name} for name, field in named]
    return {"gate": gate, "priority": priority, "terms": terms}


def check_sets(rules: Sequence[Rule], sets: Sequence[dict[str, Any]]) -> None:
    packets = frames()
    expected: dict[int, list[bytes]] = {}
    for packet in packets:
        gate = best_gate(rules, GATES, seen(packet), sets)
        expected.setdefault(gate, []).append(bytes(packet))
    engine = device(rules=list(rules), default_gate=GATES, sets=list(sets))
    found = engine.run_packets("m", [bytes(p) for p in packets])
    assert {gate: out for gate, out in found.items() if out} == expected


@pytest.mark.parametrize("name", [*BITS, *RAW])
def test_sets_of_every_field(name: str) -> None:
    """Values of packets and all others; a field that isn't there is in no set."""
    found = sorted({got[0] for p in frames() if (got := seen(p).get(name)) is not None})
    full = (1 << bits_of(name)) - 1
    low, high = found[0], found[-1]
    ranges = {
        "some": [(value, value) for value in found[::2]],
        "all": [(0, full)],
        "low": [(0, low), (min(low + 1, full), min(low + 2, full))],
        "high": [(high, full), (low, low)],
    }
    different = {join(pairs): set_of(one, name, *pairs) for one, pairs in ranges.items()}
    sets = list(different.values())
    for number, one in enumerate(sets):
        check_sets([in_set(number, 0, (one["name"], name))], sets)
    check_sets([in_set(n, -n, (one["name"], name)) for n, one in enumerate(sets)], sets)


@pytest.mark.parametrize("count", [1, 60, 400])
def test_sets_that_cross(count: int) -> None:
    """Of which any two have something together; and rules that name two of one field."""
    sets = [set_of(f"d{n}", "l4.dport", (n, n), (80, 80 + n % 4)) for n in range(count)]
    sets += [set_of("s", "l4.sport", (1000, 1000), (2000, 3000))]
    named = [(f"d{n}", "l4.dport") for n in range(count)]
    check_sets([in_set(n % GATES, -n, one, ("s", "l4.sport")) for n, one in enumerate(named)], sets)
    both = ((f"d{count // 2}", "l4.dport"), (f"d{count - 1}", "l4.dport"))
    check_sets([in_set(1, 0, *both), in_set(2, -1, ("s", "l4.sport"))], sets)


def test_sets_in_the_config() -> None:
    sets = [
        set_of("web", "tcp.dport", (80, 80), (443, 443)),
        set_of("high", "udp.dport", (1024, 65535)),
    ]
    rules = [in_set(1, 0, ("web", "tcp.dport"))]
    engine = device(rules=rules, sets=sets)
    assert engine.module_command("m", "get_runtime_config", {})["sets"] == sets
    engine.module_command("m", "add", {"rules": [in_set(2, 0, ("high", "udp.dport"))]})
    with raises("duplicate", 17):
        engine.module_command("m", "add", {"rules": [in_set(3, 5, ("web", "tcp.dport"))]})
    with raises("there is no set 'mail'"):
        engine.module_command("m", "add", {"rules": [in_set(3, 5, ("mail", "tcp.dport"))]})
    engine.module_command("m", "delete", {"rules": rules})
    engine.module_command("m", "clear", {})
    engine.module_command("m", "add", {"rules": rules})  # sets stay
    assert len(engine.module_command("m", "get_runtime_config", {})["rules"]) == 1
    engine.module_command("m", "set_runtime_config", {"rules": [{"gate": 1}]})
    assert "sets" not in engine.module_command("m", "get_runtime_config", {})
    with raises("there is no set 'web'"):
        engine.module_command("m", "add", {"rules": rules})


def test_equal_sets_are_one() -> None:
    sets = [set_of(name, "l4.dport", (80, 90)) for name in ("one", "other")]
    rules = [in_set(1, n, (name, "l4.dport")) for n, name in enumerate(("one", "other"))]
    with raises("duplicate", 17):
        device(rules=rules, sets=sets)
    apart = [set_of("a", "l4.dport", (1, 2)), set_of("b", "l4.dport", (3, 4))]
    with raises("contradicts"):
        device(rules=[in_set(1, 0, ("a", "l4.dport"), ("b", "l4.dport"))], sets=apart)


@pytest.mark.parametrize(
    ("made", "part"),
    [
        ({"field": "l4.dport", "ranges": [{"max": 1}]}, "has no name"),
        ({"name": "a", "field": "l4.dport"}, "has no ranges"),
        ({"name": "a", "field": "tcp.window", "ranges": [{"max": 1}]}, "known are"),
        (
            {"name": "a", "field": "l4.dport", "ranges": [{"min": 2, "max": 1}]},
            "min must not be above max",
        ),
        ({"name": "a", "field": "l4.dport", "ranges": [{"max": 65536}]}, "max must fit 16 bits"),
        ({"name": "a", "field": "vlan.id", "ranges": [{"max": 4096}]}, "max must fit 12 bits"),
        ({"name": "a", "field": "l4.dport", "ranges": [{"max": "x"}]}, "numbers"),
        ({"name": "a", "field": "ip6.src", "ranges": [{"max": 1}]}, "16 bytes"),
        ({"name": "a", "field": "ip.src", "ranges": [{"min_bin": b"1234"}]}, "4 bytes"),
        ({"name": "a", "field": "meta.x", "ranges": [{"max": 1}]}, "list it in `meta`"),
    ],
)
def test_bad_sets(made: dict[str, Any], part: str) -> None:
    with raises(part):
        device(sets=[made])


def test_sets_of_one_name() -> None:
    with raises("sets[1]: there is a set 'a' already", 17):
        device(sets=[set_of("a", field, (1, 1)) for field in ("l4.sport", "l4.dport")])


def test_too_many_crossing_sets() -> None:
    sets = [set_of(f"d{n}", "l4.dport", (n, n), (60000, 60000)) for n in range(600)]
    with raises("too many cross each other", 28):
        device(sets=sets)
    fields = ("l4.sport", "l4.dport", "ip.ttl")
    sets = [
        set_of(f"{field}{n}", field, (n % 200, n % 200), (201 + n // 200, 220))
        for field in fields
        for n in range(400)
    ]
    with raises("words of 8 bytes", 28):
        device(sets=sets)


@pytest.mark.parametrize(
    ("term", "part"),
    [
        ({"field": "l4.sport", "set": "web"}, "set 'web' is of l4.dport"),
        ({"field": "l4.dport", "set": "web", "value": 80}, "a set and a value"),
        ({"field": "l4.dport", "set": "web", "range": {"max": 80}}, "a set and a value"),
        ({"field": "l4.dport", "range": {"min_bin": b"ab", "max_bin": b"cd"}}, "are for sets"),
    ],
)
def test_bad_terms_with_sets(term: dict[str, Any], part: str) -> None:
    with raises(part):
        device(rules=[{"terms": [term]}], sets=[set_of("web", "l4.dport", (80, 80))])
