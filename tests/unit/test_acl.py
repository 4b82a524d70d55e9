# SPDX-License-Identifier: BSD-3-Clause
"""ACL against a twin in plain Python over scapy's packets, on every instruction set."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from harness import EngineError, new_engine, run

Rule = dict[str, Any]
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
V4 = [f"10.{a}.{b}.1" for a in range(3) for b in range(3)]
V6 = [f"2001:db8:{a}:{b}::1" for a in range(3) for b in range(3)]
PORTS = [0, 53, 80, 443]
ISAS = ["portable", "avx2", "avx512"]


def random_packet(rng: random.Random) -> Packet:
    layer: Packet = Ether(**MACS)
    for _ in range(rng.choice([0, 0, 1, 2])):
        layer /= Dot1Q(vlan=rng.randrange(4096))
    if rng.random() < 0.1:
        return layer / ARP()
    if rng.random() < 0.5:
        layer /= IP(
            src=rng.choice(V4),
            dst=rng.choice(V4),
            flags=rng.choice([0, "MF"]),
            frag=rng.choice([0, 0, 0, 5]),
        )
    else:
        layer /= IPv6(src=rng.choice(V6), dst=rng.choice(V6))
        if rng.random() < 0.3:
            layer /= IPv6ExtHdrDestOpt()
    sport, dport = rng.choice(PORTS), rng.choice(PORTS)
    l4 = rng.choice([TCP, UDP, SCTP, ICMP])
    if l4 is ICMP:
        return layer / ICMP() / Raw(bytes(20))
    if l4 is TCP:
        return layer / TCP(sport=sport, dport=dport, flags=rng.choice(["S", "SA", "R", "A", "F"]))
    return layer / l4(sport=sport, dport=dport) / Raw(bytes(8))


def random_rule(rng: random.Random) -> Rule:
    addresses, lengths = (V4, (0, 8, 16, 24, 32)) if rng.random() < 0.5 else (V6, (0, 32, 48, 64))
    rule: Rule = {"drop": rng.random() < 0.5}
    for name in ("src_ip", "dst_ip"):
        if rng.random() < 0.5:
            rule[name] = f"{rng.choice(addresses)}/{rng.choice(lengths)}"
    for name in ("src_port", "dst_port"):
        if rng.random() < 0.3:
            rule[name] = rng.choice(PORTS)
    if rng.random() < 0.2:
        rule["established"] = True
    return rule


def in_prefix(address: str | None, prefix: str) -> bool:
    if not prefix:
        return True
    if address is None:
        return False
    network = ipaddress.ip_network(prefix, strict=False)
    parsed = ipaddress.ip_address(address)
    return parsed.version == network.version and parsed in network


def holds(rule: Rule, packet: Packet) -> bool:
    layer = packet.getlayer(IP) or packet.getlayer(IPv6)
    fragment = IP in packet and packet[IP].frag != 0
    l4 = None if fragment else next((packet[k] for k in (TCP, UDP, SCTP) if k in packet), None)
    flags = int(packet[TCP].flags) if not fragment and TCP in packet else 0
    return (
        in_prefix(layer.src if layer else None, rule.get("src_ip", ""))
        and in_prefix(layer.dst if layer else None, rule.get("dst_ip", ""))
        and rule.get("src_port", 0) in (0, l4.sport if l4 else 0)
        and rule.get("dst_port", 0) in (0, l4.dport if l4 else 0)
        and (not rule.get("established") or flags & 0x14 != 0)
    )


def twin(rules: list[Rule], packets: list[Packet]) -> tuple[list[bytes], dict[str, int]]:
    passed, drops = [], {"rule": 0, "no rule": 0}
    for packet in packets:
        rule = next((rule for rule in rules if holds(rule, packet)), None)
        if rule is None:
            drops["no rule"] += 1
        elif rule["drop"]:
            drops["rule"] += 1
        else:
            passed.append(bytes(packet))
    return passed, {reason: count for reason, count in drops.items() if count}


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("seed", range(8))
def test_twin(seed: int, count: int) -> None:
    rng = random.Random(seed * 100 + count)
    rules = [random_rule(rng) for _ in range(count)]
    packets = [random_packet(rng) for _ in range(150)]
    result = run("ACL", {"rules": rules}, [bytes(packet) for packet in packets])
    assert (result.out.get(0, []), result.drops) == twin(rules, packets)


SCRIPT = """
import json, sys
from bess_plugins._engine import Engine
engine = Engine(pool_packets=1024, buffer_bytes=2048)
for case in json.load(sys.stdin):
    engine.create_module("m", "ACL", {"rules": case["rules"]})
    out = engine.run_packets("m", [bytes.fromhex(p) for p in case["packets"]])
    print(json.dumps([p.hex() for p in out.get(0, [])]))
    engine.reset_modules()
"""


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa: str) -> None:
    rng = random.Random(7)
    cases = []
    expected = []
    for columns in range(40):
        rules = [random_rule(rng) for _ in range(rng.randrange(1, 20))]
        if columns % 2:  # few columns
            rules = [{"src_ip": r.get("src_ip", ""), "drop": r["drop"]} for r in rules]
        packets = [random_packet(rng) for _ in range(rng.randrange(1, 70))]
        cases.append({"rules": rules, "packets": [bytes(packet).hex() for packet in packets]})
        expected.append([packet.hex() for packet in twin(rules, packets)[0]])
    process = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT],
        input=json.dumps(cases),
        env={**os.environ, "E2_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "does not have" in process.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert process.returncode == 0, process.stderr
    assert [json.loads(line) for line in process.stdout.splitlines()] == expected


def test_add_appends_and_clear_drops_all() -> None:
    packet = bytes(Ether(**MACS) / IP(src="10.0.0.1") / UDP())
    engine = new_engine()
    engine.create_module("m", "ACL", {})
    assert engine.run_packets("m", [packet]) == {}
    engine.module_command("m", "add", {"rules": [{"src_ip": "10.0.0.0/8", "drop": True}]})
    engine.module_command("m", "add", {"rules": [{"drop": False}]})
    assert engine.run_packets("m", [packet]) == {}
    assert engine.module_info("m")["desc"] == "2 rules"
    engine.module_command("m", "clear", {})
    engine.module_command("m", "add", {"rules": [{}]})
    assert engine.run_packets("m", [packet, b"\0" * 3]) == {0: [packet, b"\0" * 3]}
    assert engine.module_info("m")["drops"] == {"no gate": 0, "loop": 0, "rule": 1, "no rule": 1}


def test_cut_packets() -> None:
    packet = bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=80))
    cuts = [packet[:n] for n in range(1, len(packet) + 1)]
    rules = [{"dst_port": 80}, {"src_ip": "10.0.0.0/8", "drop": True}]
    result = run("ACL", {"rules": rules}, cuts)
    assert result.out == {0: [packet]}
    assert result.drops == {"no rule": 33, "rule": len(cuts) - 34}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"src_ip": "10.0.0.1"}, "rules[1].src_ip"),
        ({"src_ip": "10.0.0.1/33"}, "rules[1].src_ip"),
        ({"dst_ip": "2001:db8::/129"}, "rules[1].dst_ip"),
        ({"dst_ip": "banana/8"}, "rules[1].dst_ip"),
        ({"dst_ip": "10.0.0.0/"}, "rules[1].dst_ip"),
        ({"src_ip": "10.0.0.0/8", "dst_ip": "::/0"}, "other IP version"),
        ({"src_port": 65536}, "rules[1].src_port"),
        ({"dst_port": 70000}, "rules[1].dst_port"),
    ],
)
def test_bad_rules_change_nothing(rule: Rule, message: str) -> None:
    rules = [{"src_ip": "0.0.0.0/0"}, rule]
    with pytest.raises(EngineError) as error:
        run("ACL", {"rules": rules}, [])
    assert message in str(error.value)
    engine = new_engine()
    engine.create_module("m", "ACL", {})
    with pytest.raises(EngineError, match="add: "):
        engine.module_command("m", "add", {"rules": rules})
    assert engine.module_info("m")["desc"] == "0 rules"
