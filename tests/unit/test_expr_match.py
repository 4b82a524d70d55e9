# SPDX-License-Identifier: BSD-3-Clause
"""ExprMatch against a plain twin that reads fields out of scapy packets."""

from __future__ import annotations

import random
from functools import cache
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import EngineError, run

GATES = 40  # of those that the harness collects

WIDTHS = {
    "eth.type": 16,
    "vlan.id": 12,
    "ip.proto": 8,
    "ip.version": 4,
    "ip.src": 32,
    "ip.dst": 32,
    "l4.sport": 16,
    "l4.dport": 16,
}


def fields(packet: Packet) -> dict[str, int]:
    """The fields that a packet has, by name."""
    found = {}
    last = packet
    while isinstance(last.payload, Dot1Q):  # Dot1AD is one as well
        last = last.payload
        found.setdefault("vlan.id", last.vlan)
    found["eth.type"] = last.type
    if IP in packet:
        ip = packet[IP]
        found |= {"ip.version": 4, "ip.proto": ip.proto}
        found |= {"ip.src": int(ip_address(ip.src)), "ip.dst": int(ip_address(ip.dst))}
    if IPv6 in packet:
        ip = packet[IPv6]
        proto = ip.payload.nh if IPv6ExtHdrDestOpt in packet else ip.nh
        found |= {"ip.version": 6, "ip.proto": proto}
        found |= {"ip6.src": int(ip_address(ip.src)), "ip6.dst": int(ip_address(ip.dst))}
    for layer in (TCP, UDP):
        if layer in packet:
            found |= {"l4.sport": packet[layer].sport, "l4.dport": packet[layer].dport}
    return found


def term_holds(term: dict[str, Any], found: dict[str, int]) -> bool:
    if term["field"] not in found:
        return False
    if "value_bin" in term:
        value = int.from_bytes(term["value_bin"], "big")
        mask = int.from_bytes(term.get("mask_bin", b""), "big") or (1 << 128) - 1
    else:
        value = term.get("value", 0)
        mask = term.get("mask", 0) or (1 << WIDTHS[term["field"]]) - 1
    return found[term["field"]] & mask == value


def expected_gate(rules: list[dict[str, Any]], default: int, packet: Packet) -> int:
    found = fields(packet)
    for rule in sorted(rules, key=lambda r: -r.get("priority", 0)):
        if all(term_holds(term, found) for term in rule.get("terms", [])):
            return int(rule.get("gate", 0))
    return default


@cache
def frames() -> list[Packet]:
    """A small world in which most rules match something."""
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    built = [
        ether / ARP(),
        ether / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
        ether / Dot1Q(vlan=5) / ARP(),
    ]
    for number in range(4):
        ports = {"sport": 1000 + number % 2, "dport": 80 + number}
        ip = IP(src=f"10.0.{number}.1", dst=f"192.168.0.{number}")
        ip6 = IPv6(src=f"2001:db8::{number}", dst=f"fe80::{number}")
        built += [
            ether / ip / TCP(**ports) / Raw(b"x"),
            ether / Dot1Q(vlan=number) / ip / UDP(**ports),
            ether / Dot1AD(vlan=5) / Dot1Q(vlan=number) / ip / TCP(**ports),
            ether / ip6 / UDP(**ports),
            ether / ip6 / IPv6ExtHdrDestOpt() / TCP(**ports),
        ]
    return [Ether(bytes(packet)) for packet in built]


def check(rules: list[dict[str, Any]], default: int = 0, split: int | None = None) -> None:
    """Compare with the twin; with `split`, the rules from there on come by command."""
    packets = frames()
    expected: dict[int, list[bytes]] = {}
    for packet in packets:
        expected.setdefault(expected_gate(rules, default, packet), []).append(bytes(packet))
    first = rules if split is None else rules[:split]
    commands = [] if split is None else [("add", {"rules": rules[split:]})]
    args = {"rules": first, "default_gate": default}
    result = run("ExprMatch", args, [bytes(p) for p in packets], commands=commands)
    assert {gate: out for gate, out in result.out.items() if out} == expected


def random_term(rng: random.Random) -> dict[str, Any]:
    sample = fields(rng.choice(frames()))
    name = rng.choice(sorted(sample))
    if name.startswith("ip6."):
        mask = ((1 << 128) - 1) ^ ((1 << rng.choice([0, 1, 64])) - 1)
        value = sample[name] & mask
        return {
            "field": name,
            "value_bin": value.to_bytes(16, "big"),
            "mask_bin": mask.to_bytes(16, "big"),
        }
    full = (1 << WIDTHS[name]) - 1
    mask = rng.choice([0, full, full ^ 1, full ^ 3])
    return {"field": name, "value": sample[name] & (mask or full), "mask": mask}


@pytest.mark.parametrize("name", [*sorted(WIDTHS), "ip6.src", "ip6.dst"])
def test_every_field_alone(name: str) -> None:
    for value in sorted({fields(p)[name] for p in frames() if name in fields(p)}):
        if name.startswith("ip6."):
            check([{"gate": 3, "terms": [{"field": name, "value_bin": value.to_bytes(16, "big")}]}])
        else:
            check([{"gate": 3, "terms": [{"field": name, "value": value}]}])


@pytest.mark.parametrize("count", [1, 2, 16, 17, 60, 300])
def test_random_rules(count: int) -> None:
    rng = random.Random(count)
    for _ in range(5):
        rules: list[dict[str, Any]] = []
        while len(rules) < count:
            terms = [random_term(rng) for _ in range(rng.randrange(1, 3))]
            if len(terms) == 2 and {t["field"][:4] for t in terms} & {"ip6.", "ip.s", "ip.d"}:
                terms.pop()
            if len({t["field"] for t in terms}) == len(terms):
                gate = len(rules) % GATES
                rules.append({"gate": gate, "priority": rng.randrange(3), "terms": terms})
        check(rules, default=GATES, split=rng.choice([None, count // 2 if count > 1 else None]))


def test_ties_go_to_the_earlier_rule() -> None:
    check([{"gate": 1}, {"gate": 2}])
    check([{"gate": 1, "priority": -1}, {"gate": 2}, {"gate": 3}])
    check([{"gate": gate} for gate in range(1, 30)])


def test_a_field_of_zero_is_not_a_missing_field() -> None:
    check([{"gate": 2, "terms": [{"field": "vlan.id", "value": 0}]}], default=1)


def test_unset_scalars_may_be_present() -> None:
    term = {"field": "l4.dport", "value": 80, "mask": 0, "value_bin": b"", "mask_bin": b""}
    packets = [bytes(p) for p in frames()]
    rules = [{"gate": 1, "priority": 0, "terms": [term]}]
    result = run("ExprMatch", {"rules": rules, "default_gate": 0}, packets)
    assert len(result.out[1]) == sum(fields(p).get("l4.dport") == 80 for p in frames())


def test_truncated_packets_lack_the_fields() -> None:
    frame = bytes(Ether() / IP(src="10.0.0.1") / TCP(dport=80))
    rule = {"gate": 1, "terms": [{"field": "l4.dport", "value": 80}]}
    cuts = [frame[:size] for size in range(1, len(frame) + 1)]
    result = run("ExprMatch", {"rules": [rule]}, cuts)
    assert result.out[1] == [frame]
    assert result.forwarded == len(cuts)


def test_commands() -> None:
    packets = [bytes(p) for p in frames()]
    rule = {"gate": 1}
    result = run("ExprMatch", {"rules": [rule]}, packets, commands=[("clear", {})])
    assert result.out == {0: packets}
    commands = [("clear", {}), ("set_default_gate", {"gate": 9})]
    result = run("ExprMatch", {"rules": [rule]}, packets, commands=commands)
    assert result.out == {9: packets}


def test_gate_8192_drops() -> None:
    rule = {"gate": 8192, "terms": [{"field": "ip.version", "value": 6}]}
    result = run("ExprMatch", {"rules": [rule], "default_gate": 8192}, [bytes(p) for p in frames()])
    assert result.drops == {"rule": 8, "no match": len(frames()) - 8}


def test_metadata_nobody_writes_is_zero() -> None:
    rules = [
        {"gate": 1, "terms": [{"field": "meta.safe", "value": 1}]},
        {"gate": 2, "terms": [{"field": "meta.tag", "value": 0xFFFF, "mask": 0xFFFF}]},
        {"gate": 3, "terms": [{"field": "meta.tag", "value": 0}]},
    ]
    frame = bytes(Ether())
    result = run("ExprMatch", {"rules": rules, "meta": {"tag": {"size": 2}}}, [frame])
    assert result.out == {3: [frame]}


def test_a_bad_add_changes_nothing() -> None:
    packets = [bytes(p) for p in frames()]
    result = run("ExprMatch", {"rules": [{"gate": 1}]}, packets)
    assert result.out == {1: packets}
    bad = {"rules": [{"gate": 2, "priority": 9}, {"terms": [{"field": "nope"}]}]}
    with pytest.raises(EngineError) as error:
        run("ExprMatch", {"rules": [{"gate": 1}]}, packets, commands=[("add", bad)])
    assert "rules[1].terms[0]" in error.value.message


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ({"rules": [{"terms": [{"field": "tcp.flags"}]}]}, "known are"),
        ({"rules": [{"terms": [{"field": "vlan.id", "value": 4096}]}]}, "4095"),
        ({"rules": [{"terms": [{"field": "ip.proto", "value": 3, "mask": 1}]}]}, "outside mask"),
        ({"rules": [{"terms": [{"field": "ip.src", "value": "10.0.0.1"}]}]}, "numbers"),
        ({"rules": [{"terms": [{"field": "ip6.src", "value_bin": b"1234"}]}]}, "16 bytes"),
        ({"rules": [{"terms": [{"field": "ip6.src", "value": 1}]}]}, "16 bytes"),
        ({"rules": [{"gate": 8193}]}, "gate"),
        ({"default_gate": 8193}, "default_gate"),
        ({"meta": {"x": 3}}, "1, 2, 4 or 8"),
        ({"meta": {"x": 8, "y": 8, "z": 1}}, "no room"),
        (
            {"rules": [{"terms": [{"field": "ip.proto", "value": v} for v in (6, 17)]}]},
            "contradicts",
        ),
    ],
)
def test_bad_arguments(args: dict[str, Any], part: str) -> None:
    with pytest.raises(EngineError) as error:
        run("ExprMatch", args, [])
    assert error.value.code == 22
    assert part in error.value.message
