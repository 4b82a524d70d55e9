# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch against a plain twin that reads fields out of scapy packets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from harness import EngineError, new_engine, run
from match_support import DROP, GATES, RAW, Rule, bits_of, device, frames, raises
from twins.metadata_match_twin import BITS, best_gate, seen

RANGED = ["l4.sport", "l4.dport", "tcp.dport", "udp.sport", "packet.len"]


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
