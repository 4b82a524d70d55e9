# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch against a plain twin that reads fields out of scapy packets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

import classbench
from embark_gw.rules.ranges import join
from harness import Engine, EngineError, new_engine, run
from match_support import DROP, raises
from twins.metadata_match_twin import BITS, best_gate, seen

GATES = 40  # of those that the harness collects
RANGED = ["l4.sport", "l4.dport", "tcp.dport", "udp.sport", "packet.len"]
RAW = ["raw.0.1", "raw.14.4", "raw.26.8", "raw.23.16", "raw.46.3", "raw.60.2"]

Rule = dict[str, Any]


@cache
def frames() -> list[Packet]:
    """A small world in which most rules match something."""
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    built = [
        ether / ARP(),
        ether / IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / ICMP(type=3, code=2),
        ether / IPv6(src="2001:db8::5", dst="fe80::1", hlim=7) / ICMPv6EchoRequest(),
        ether / Dot1Q(vlan=5, prio=3) / ARP(),
        ether / MPLS(label=77, cos=5, s=1, ttl=3) / IP(src="10.0.0.1"),
        ether / IP(src="10.0.0.1", flags="MF", tos=0xB9) / UDP(sport=1000, dport=80) / Raw(b"x"),
        ether / IP(src="10.0.0.1", frag=4, proto=17) / Raw(b"fragment"),
        ether / IP(dst="10.0.0.2") / SCTP(sport=1000, dport=81),
    ]
    for number in range(4):
        ports = {"sport": 1000 + number % 2, "dport": 80 + number}
        ip = IP(src=f"10.0.{number}.1", dst=f"192.168.0.{number}", tos=4 * number, ttl=64)
        ip6 = IPv6(src=f"2001:db8::{number}", dst=f"fe80::{number}", tc=8 + number)
        built += [
            ether / ip / TCP(**ports, flags="SA") / Raw(b"x"),
            ether / Dot1Q(vlan=number, prio=number) / ip / UDP(**ports),
            ether / Dot1AD(vlan=5) / Dot1Q(vlan=number) / ip / TCP(**ports),
            ether / ip6 / UDP(**ports),
            ether / ip6 / IPv6ExtHdrDestOpt() / TCP(**ports, flags=number),
        ]
    return [Ether(bytes(packet)) for packet in built]


def bits_of(name: str) -> int:
    return 8 * int(name.split(".")[2]) if name.startswith("raw.") else BITS[name]


def term(name: str, value: int, mask: int | None = None) -> dict[str, Any]:
    """As a number where that is possible."""
    bits = bits_of(name)
    if bits <= 64:
        return {"field": name, "value": value, "mask": mask or 0}
    binary = {"field": name, "value_bin": value.to_bytes(bits // 8, "big")}
    return binary if mask is None else {**binary, "mask_bin": mask.to_bytes(bits // 8, "big")}


def check(rules: Sequence[Rule], default: int = 0, split: int | None = None) -> None:
    """Compare with the twin; with `split`, the rules from there on come by command."""
    packets = frames()
    expected: dict[int, list[bytes]] = {}
    for packet in packets:
        expected.setdefault(best_gate(rules, default, seen(packet)), []).append(bytes(packet))
    first = rules if split is None else rules[:split]
    commands = [] if split is None else [("add", {"rules": list(rules[split:])})]
    args = {"rules": list(first), "default_gate": default}
    result = run("MetadataMatch", args, [bytes(p) for p in packets], commands=commands)
    assert {gate: out for gate, out in result.out.items() if out} == expected


def random_term(rng: random.Random) -> dict[str, Any]:
    sample = seen(rng.choice(frames()))
    name = rng.choice([*sorted(sample.fields), *RAW])
    got = sample.get(name)
    value, bits = (1, bits_of(name)) if got is None else got
    if name in RANGED and rng.random() < 0.5:
        width = rng.choice([0, 1, 2, 50])
        low = max(0, value - rng.randint(0, width))
        return {"field": name, "range": {"min": low, "max": low + width}}
    full = (1 << bits) - 1
    mask = rng.choice([full, full, full & ~1 or 1, full & ~3 or 1, full & ~(full >> 2)])
    return term(name, value & mask, None if mask == full else mask)


def random_rules(rng: random.Random, count: int) -> list[Rule]:
    """As many as the module takes, which tells those that it must not."""
    engine = new_engine()
    engine.create_module("m", "MetadataMatch", {})
    rules: list[Rule] = []
    while len(rules) < count:
        terms = [random_term(rng) for _ in range(rng.randrange(1, 4))]
        rule = {"gate": len(rules) % GATES, "priority": rng.randrange(3), "terms": terms}
        try:
            engine.module_command("m", "add", {"rules": [rule]})
        except EngineError:
            continue
        rules.append(rule)
    return rules


@pytest.mark.parametrize("name", sorted(BITS))
def test_every_field_alone(name: str) -> None:
    values = {seen(p).fields[name] for p in frames() if name in seen(p).fields}
    assert values
    for value in sorted(values):
        check([{"gate": 3, "terms": [term(name, value)]}])


@pytest.mark.parametrize("name", RAW)
def test_bytes_by_offset(name: str) -> None:
    values = {got[0] for p in frames() if (got := seen(p).get(name)) is not None}
    for value in sorted(values):
        check([{"gate": 3, "terms": [term(name, value)]}])
    check([{"gate": 3, "terms": [term(name, 0)]}])


@pytest.mark.parametrize("name", RANGED)
def test_ranges(name: str) -> None:
    values = sorted({seen(p).fields[name] for p in frames() if name in seen(p).fields})
    low, high = values[0], values[-1]
    ends = [(low, high), (low, low), (low + 1, high), (0, low), (high, 0xFFFF), (0, 0), (0, 0xFFFF)]
    for least, most in ends:
        check([{"gate": 3, "terms": [{"field": name, "range": {"min": least, "max": most}}]}])


@pytest.mark.parametrize("count", [1, 2, 16, 17, 60, 300])
def test_random_rules(count: int) -> None:
    rng = random.Random(count)
    for _ in range(4):
        rules = random_rules(rng, count)
        check(rules, GATES, rng.choice([None, count // 2 if count > 1 else None]))


def test_ties_go_to_the_older_rule() -> None:
    def port(gate: int, priority: int, mask: int) -> Rule:
        terms = [{"field": "l4.dport", "value": 80 & mask, "mask": mask}]
        return {"gate": gate, "priority": priority, "terms": terms}

    masks = [0xFFFF, 0xFFF0, 0xFF00, 0x00F0]
    check([port(gate, 0, mask) for gate, mask in enumerate(masks)])
    check([port(gate, 0, mask) for gate, mask in enumerate(masks[::-1])])
    check([port(gate, gate % 2, mask) for gate, mask in enumerate(masks)])
    everything = [{"gate": 1, "priority": -1}]
    disjoint = [gate for gate in range(30) if gate & 80 == 0]
    check([*everything, *(port(2 + gate, 0, 0xFFFF - gate) for gate in disjoint)])


def test_a_field_of_zero_is_not_a_missing_field() -> None:
    check([{"gate": 2, "terms": [{"field": "vlan.id", "value": 0}]}], default=1)
    check([{"gate": 2, "terms": [{"field": "icmp.code", "value": 0}]}], default=1)


def test_unset_scalars_may_be_present() -> None:
    one = {"field": "l4.dport", "value": 80, "mask": 0, "value_bin": b"", "mask_bin": b""}
    check([{"gate": 1, "priority": 0, "terms": [one]}])


def test_truncated_packets_lack_the_fields() -> None:
    frame = bytes(Ether() / IP(src="10.0.0.1") / TCP(dport=80))
    rules = [
        {"gate": 1, "terms": [{"field": "l4.dport", "value": 80}]},
        {"gate": 2, "terms": [{"field": "raw.20.5", "value": 0, "mask": 1 << 39}]},
    ]
    cuts = [frame[:size] for size in range(1, len(frame) + 1)]
    result = run("MetadataMatch", {"rules": rules}, cuts)
    assert result.out[1] == [frame]
    assert result.out[2] == cuts[24:-1]
    assert result.forwarded == len(cuts)


def device(**args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", "MetadataMatch", args)
    return engine


def port_rule(gate: int, port: int, priority: int = 0) -> Rule:
    terms = [{"field": "udp.dport", "value": port}]
    return {"gate": gate, "priority": priority, "terms": terms}


def test_commands() -> None:
    packets = [bytes(p) for p in frames()]
    result = run("MetadataMatch", {"rules": [{"gate": 1}]}, packets, commands=[("clear", {})])
    assert result.out == {0: packets}
    commands = [("clear", {}), ("set_default_gate", {"gate": 9})]
    result = run("MetadataMatch", {"rules": [{"gate": 1}]}, packets, commands=commands)
    assert result.out == {9: packets}
    commands = [("delete", {"rules": [{"gate": 5, "priority": 7}]})]  # only the terms count
    result = run("MetadataMatch", {"rules": [{"gate": 1}]}, packets, commands=commands)
    assert result.out == {0: packets}


def test_runtime_config() -> None:
    rules = [port_rule(1, 80), port_rule(2, 81, priority=-5), {"gate": 3, "priority": -9}]
    engine = device(rules=rules, default_gate=4, meta={"tag": 3, "safe": 1})
    config = engine.module_command("m", "get_runtime_config", {})
    assert config == {"default_gate": 4, "rules": rules}
    initial = engine.module_command("m", "get_initial_arg", {})
    assert initial == {"default_gate": 4, "meta": {"tag": 3, "safe": 1}}
    twin = device(**initial)
    twin.module_command("m", "set_runtime_config", config)
    packets = [bytes(p) for p in frames()]
    assert twin.run_packets("m", packets) == engine.run_packets("m", packets)
    new = {"default_gate": DROP, "rules": [port_rule(5, 82)]}
    engine.module_command("m", "set_runtime_config", new)
    assert engine.module_command("m", "get_runtime_config", {}) == new
    engine.module_command("m", "add", {"rules": [rules[0]]})
    config = engine.module_command("m", "get_runtime_config", {})
    assert config["rules"] == [port_rule(5, 82), rules[0]]


def test_gate_8192_drops() -> None:
    rule = {"gate": DROP, "terms": [{"field": "ip.version", "value": 6}]}
    args = {"rules": [rule], "default_gate": DROP}
    result = run("MetadataMatch", args, [bytes(p) for p in frames()])
    six = sum(IPv6 in p for p in frames())
    assert result.drops == {"rule": six, "no match": len(frames()) - six}


def test_metadata_nobody_writes_is_zero() -> None:
    rules = [
        {"gate": 1, "terms": [{"field": "meta.safe", "value": 1}]},
        {"gate": 2, "terms": [{"field": "meta.tag", "value": 0xFFFF, "mask": 0xFFFF}]},
        {"gate": 3, "terms": [{"field": "meta.tag", "value": 0}]},
    ]
    frame = bytes(Ether())
    result = run("MetadataMatch", {"rules": rules, "meta": {"tag": 2}}, [frame])
    assert result.out == {3: [frame]}


@pytest.mark.parametrize("size", range(1, 17))
def test_attributes_of_every_size(size: int) -> None:
    """Three attributes that share words or don't, each tested as a whole and all together."""
    names = ["first", "second", "third"]
    values = {name: bytes((7 * n + i) % 256 for i in range(size)) for n, name in enumerate(names)}
    engine = new_engine()
    attrs = [{"name": n, "size": size, "value_bin": v} for n, v in values.items()]
    engine.create_module("set", "SetMetadata", {"attrs": attrs})
    engine.create_module("m", "MetadataMatch", {"meta": dict.fromkeys(names, size)})
    engine.connect("set", 0, "m", 0)
    for gate in (0, 1):
        engine.create_module(f"sink{gate}", "Sink", {})
        engine.connect("m", gate, f"sink{gate}", 0)

    def hits(terms: list[dict[str, Any]]) -> int:
        """How many of one packet the terms hold for."""
        config = {"rules": [{"gate": 1, "terms": terms}]}
        engine.module_command("m", "set_runtime_config", config)
        before = engine.module_info("m")["ogates"]
        engine.run_packets("set", [bytes(Ether())])
        after = engine.module_info("m")["ogates"]
        counts = [b["pkts"] - a["pkts"] for a, b in zip(before, after, strict=True)]
        assert sum(counts) == 1
        return int(counts[1])

    for name, value in values.items():
        assert hits([{"field": f"meta.{name}", "value_bin": value}]) == 1
        for at in {0, size - 1}:
            other = value[:at] + b"\xfe" + value[at + 1 :]
            assert hits([{"field": f"meta.{name}", "value_bin": other}]) == 0
    assert hits([{"field": f"meta.{n}", "value_bin": v} for n, v in values.items()]) == 1


def test_a_bad_add_changes_nothing() -> None:
    engine = device(rules=[{"gate": 1}])
    packets = [bytes(p) for p in frames()]
    for command in ("add", "set_runtime_config"):
        bad = {"rules": [port_rule(2, 80, priority=9), {"terms": [{"field": "nope"}]}]}
        with raises("rules[1].terms[0]"):
            engine.module_command("m", command, bad)
        twice = {"rules": [port_rule(2, 80, 9), port_rule(3, 80, 8)]}
        with raises("rules[1]: duplicate", 17):
            engine.module_command("m", command, twice)
        assert engine.run_packets("m", packets) == {1: packets}
    missing = {"rules": [{}, port_rule(1, 80)]}
    with raises("rules[1]: there is no such rule", 2):
        engine.module_command("m", "delete", missing)
    assert engine.run_packets("m", packets) == {1: packets}


def ranged(low: int, high: int, priority: int = 0) -> Rule:
    terms = [{"field": "l4.dport", "range": {"min": low, "max": high}}]
    return {"gate": 1, "priority": priority, "terms": terms}


def test_ranges_that_overlap_need_priorities() -> None:
    engine = device(rules=[ranged(80, 90)])
    for above, (low, high) in enumerate([(90, 99), (0, 80), (85, 86), (0, 0xFFFE)]):
        with raises("different priorities"):
            engine.module_command("m", "add", {"rules": [ranged(low, high)]})
        engine.module_command("m", "add", {"rules": [ranged(low, high, 1 + above)]})
    with raises("duplicate", 17):
        engine.module_command("m", "add", {"rules": [ranged(80, 90, 9)]})
    engine.module_command("m", "add", {"rules": [ranged(91, 98)]})


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


def test_many_fields_are_too_many() -> None:
    rules = [
        {"terms": [{"field": f"raw.{8 * n}.8", "value": n}], "priority": n} for n in range(16)
    ]  # and a word for the length
    engine = device(rules=rules[:15])
    with raises("17 words of 8 bytes"):
        engine.module_command("m", "add", {"rules": rules[15:]})
    engine.module_command("m", "delete", {"rules": rules[:1]})
    engine.module_command("m", "add", {"rules": rules[15:]})


@pytest.mark.parametrize(
    ("terms", "part"),
    [
        ([{"field": "tcp.window"}], "known are"),
        ([{"field": "vlan.id", "value": 4096}], "4095"),
        ([{"field": "vlan.id", "value_bin": b"\xff\xff"}], "12 bits"),
        ([{"field": "ip.proto", "value": 3, "mask": 1}], "outside mask"),
        ([{"field": "ip.src", "value": "10.0.0.1"}], "numbers"),
        ([{"field": "ip6.src", "value_bin": b"1234"}], "16 bytes"),
        ([{"field": "ip6.src", "value": 1}], "16 bytes"),
        ([{"field": "raw.1025.4"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.10.17"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.10"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.1.2.3"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.10.2", "value": 65536}], "65535"),
        ([{"field": "ip.ttl", "range": {"min": 1, "max": 2}}], "can't have a range"),
        ([{"field": "l4.dport", "range": {"min": 2, "max": 1}}], "min must not be above max"),
        ([{"field": "l4.dport", "range": {"min": 2}}], "min must not be above max"),
        ([{"field": "l4.dport", "range": {"max": 65536}}], "65535"),
        ([{"field": "l4.dport", "value": 1, "range": {"max": 2}}], "a range and a value"),
        ([{"field": "l4.dport", "range": {"max": n}} for n in (2, 3)], "overlaps"),
        (
            [{"field": "l4.dport", "value": 1}, {"field": "udp.dport", "range": {"max": 2}}],
            "overlaps",
        ),
        ([{"field": "ip.proto", "value": v} for v in (6, 17)], "contradicts"),
        ([{"field": "tcp.dport", "value": 1}, {"field": "udp.sport", "value": 1}], "contradicts"),
        ([{"field": "ip.src", "value": 1}, {"field": "ip6.tclass", "value": 1}], "contradicts"),
        (
            [{"field": "packet.len", "range": {"max": 9}}, {"field": "raw.8.4", "value": 1}],
            "contradicts",
        ),
    ],
)
def test_bad_terms(terms: list[dict[str, Any]], part: str) -> None:
    with raises(part):
        run("MetadataMatch", {"rules": [{"terms": terms}]}, [])


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ({"rules": [{"gate": 8193}]}, "gate"),
        ({"default_gate": 8193}, "default_gate"),
        ({"meta": {"x": 17}}, "1 to 16"),
        ({"meta": {"x": 0}}, "1 to 16"),
        ({"meta": {f"x{n}": 16 for n in range(7)}}, "no room"),
    ],
)
def test_bad_arguments(args: dict[str, Any], part: str) -> None:
    with raises(part):
        run("MetadataMatch", args, [])


def test_an_attribute_must_be_declared() -> None:
    engine = device(meta={"tag": 2})
    with raises("list it in `meta`"):
        engine.module_command("m", "add", {"rules": [{"terms": [{"field": "meta.other"}]}]})
    with raises("65535"):
        engine.module_command(
            "m", "add", {"rules": [{"terms": [{"field": "meta.tag", "value": 65536}]}]}
        )
    with raises("2 bytes"):
        engine.module_command(
            "m", "add", {"rules": [{"terms": [{"field": "meta.tag", "value_bin": b"123"}]}]}
        )


def classbench_set(name: str) -> list[classbench.FiveRule]:
    if name.startswith("made"):
        return classbench.make(10_000, seed=int(name.split()[1]))
    path = classbench.rules_file(name)
    if not path.exists():
        pytest.skip(f"no {path}; set E2_DATA to the folder with rules")
    return classbench.load(path)


@pytest.mark.parametrize("name", ["made 1", "made 2", "acl1_10k", "fw1_10k", "ipc1_10k"])
def test_classbench(name: str) -> None:
    """Ten thousand rules; headers that hit them, some of which an earlier rule takes."""
    rules = classbench_set(name)
    headers = classbench.hitting(rules, 700, seed=10)
    args = [
        {"gate": number % GATES, "priority": -number, "terms": rule.terms()}
        for number, rule in enumerate(rules)
    ]
    engine = device(rules=args, default_gate=GATES)
    found = [classbench.best(rules, header) for header in headers]
    hits = [number for number in found if number is not None]
    assert len(hits) > 650
    assert len(set(hits)) > 300
    expected: dict[int, list[bytes]] = {}
    for number, header in zip(found, headers, strict=True):
        gate = GATES if number is None else number % GATES
        expected.setdefault(gate, []).append(header.frame())
    packets = [header.frame() for header in headers]
    assert engine.run_packets("m", packets) == expected
    # The same one by one, and without those that were hit.
    gone = sorted(set(hits))
    engine.module_command("m", "delete", {"rules": [args[number] for number in gone[::2]]})
    for number in gone[1::2]:
        engine.module_command("m", "delete", {"rules": [args[number]]})
    left = [rule for number, rule in enumerate(rules) if number not in set(gone)]
    origin = [number for number in range(len(rules)) if number not in set(gone)]
    counts: dict[int, int] = {}
    for header in headers[:150]:
        number = classbench.best(left, header)
        gate = GATES if number is None else origin[number] % GATES
        counts[gate] = counts.get(gate, 0) + 1
    out = engine.run_packets("m", packets[:150])
    assert {gate: len(some) for gate, some in out.items() if some} == counts


def test_rules_added_one_by_one() -> None:
    rules = classbench.make(600, seed=3)
    headers = classbench.hitting(rules, 300, seed=4)
    engine = device(default_gate=GATES)
    order = random.Random(5).sample(range(len(rules)), len(rules))
    for number in order:
        rule = {"gate": number % GATES, "priority": -number, "terms": rules[number].terms()}
        engine.module_command("m", "add", {"rules": [rule]})
    expected: dict[int, int] = {}
    for header in headers:
        number = classbench.best(rules, header)
        gate = GATES if number is None else number % GATES
        expected[gate] = expected.get(gate, 0) + 1
    out = engine.run_packets("m", [header.frame() for header in headers])
    assert {gate: len(some) for gate, some in out.items() if some} == expected
    assert "in " in engine.module_info("m")["desc"]
