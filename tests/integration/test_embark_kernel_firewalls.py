# SPDX-License-Identifier: BSD-3-Clause
"""What importers read decides as the kernel's firewall does whose rules they are."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

import pytest

from embark_gw.rules.iptables import read_iptables
from embark_gw.rules.model import Action, RuleSet, combine
from embark_gw.rules.nftables import read_nftables
from forwarding_support import HOST_MAC, ROUTER_MAC, Router, needs_router, router
from rules_support import frame_of, random_packet

PACKETS = 300
_SOURCES = ["10.0.0.0/8", "10.1.2.0/24", "10.1.2.1/32", "198.51.100.0/30", "203.0.113.2/31"]
_SOURCES_6 = ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:1:2::1/128", "2001:db8::2/127"]
_PORTS = ["53", "80", "79:81", "1024:65535", "0:1023", "443"]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Router]:
    with router("ru-imp") as made:
        yield made


def compare(kernel: Router, rules: RuleSet, draw: random.Random, version: int) -> None:
    packets = [random_packet(draw, version) for _ in range(PACKETS)]
    frames = [
        frame_of(packet, serial, HOST_MAC, ROUTER_MAC) for serial, packet in enumerate(packets)
    ]
    passed = kernel.passed(frames)
    for packet, one in zip(packets, passed, strict=True):
        assert rules.decide(packet) is (Action.ACCEPT if one else Action.DENY), packet


def _not(draw: random.Random) -> str:
    return "! " if draw.random() < 0.25 else ""


def _iptables_rule(draw: random.Random, chain: str, targets: list[str], version: int) -> str:
    words = [f"-A {chain}"]
    nets = _SOURCES if version == 4 else _SOURCES_6
    for option in ("-s", "-d"):
        if draw.random() < 0.4:
            words.append(f"{_not(draw)}{option} {draw.choice(nets)}")
    target = draw.choice(targets)
    if target != "RETURN" and draw.random() < 0.15 and version == 4:
        words.append(f"-m iprange {_not(draw)}--src-range 10.0.0.1-10.1.2.2")
    kind = draw.random()
    if kind < 0.3 or target == "RETURN":
        if draw.random() < 0.5:
            words.append(f"{_not(draw)}-p {draw.choice(['tcp', 'udp', '47'])}")
    elif kind < 0.7:
        name = draw.choice(["tcp", "udp"])
        words.append(f"-p {name} -m {name}")
        for option in ("--sport", "--dport"):
            if draw.random() < 0.5:
                words.append(f"{_not(draw)}{option} {draw.choice(_PORTS)}")
    else:
        option = draw.choice(["--sports", "--dports", "--ports"])
        ports = ",".join(draw.sample(_PORTS, 3))
        words.append(f"-p {draw.choice(['tcp', 'udp'])} -m multiport {_not(draw)}{option} {ports}")
    if draw.random() < 0.2:
        words.append('-m comment --comment "it says \\"nothing\\""')
    return " ".join([*words, f"-j {target}"])


def _iptables_rules(draw: random.Random, version: int) -> str:
    policy = draw.choice(["ACCEPT", "DROP"])
    lines = ["*filter", f":FORWARD {policy} [0:0]", ":inner - [0:0]", ":deep - [0:0]"]
    verdicts = ["ACCEPT", "DROP", "REJECT"]
    for _ in range(draw.randrange(2, 7)):
        lines.append(_iptables_rule(draw, "FORWARD", [*verdicts, "RETURN", "inner"], version))
    for _ in range(3):
        lines.append(_iptables_rule(draw, "inner", [*verdicts, "RETURN", "deep"], version))
        lines.append(_iptables_rule(draw, "deep", [*verdicts, "RETURN"], version))
    return "\n".join([*lines, "COMMIT", ""])


@needs_router
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("version", [4, 6])
@needs("iptables-restore")
def test_iptables(kernel: Router, seed: int, version: int) -> None:
    draw = random.Random(seed)
    program = "iptables" if version == 4 else "ip6tables"
    kernel.run("nft", "flush", "ruleset")
    kernel.run(f"{program}-restore", text=_iptables_rules(draw, version))
    try:
        read = read_iptables(kernel.run(f"{program}-save"), "saved", version=version)
        assert read.refused == ()
        assert len(read.rules) > 1
        compare(kernel, combine([read]), draw, version)
    finally:
        kernel.run("nft", "flush", "ruleset")


def _nft_rule(draw: random.Random, family: str, targets: list[str]) -> str:
    words = []
    version = {"ip": 4, "ip6": 6}.get(family) or draw.choice([4, 6])
    layer, nets = ("ip", _SOURCES) if version == 4 else ("ip6", _SOURCES_6)
    target = draw.choice(targets)
    for name in ("saddr", "daddr"):
        kind = draw.random()
        operator = draw.choice(["", "", "!= "])
        if kind < 0.25:
            words.append(f"{layer} {name} {operator}{draw.choice(nets)}")
        elif kind < 0.35:
            words.append(f"{layer} {name} {operator}{{ {', '.join(nets[1::2])} }}")
        elif kind < 0.45 and version == 4:
            words.append(f"{layer} {name} {operator}@bad")
    kind = draw.random()
    ports = [port.replace(":", "-") for port in _PORTS]
    operator = draw.choice(["", "", "!= "])
    if kind < 0.2:
        words.append(f"meta l4proto {operator}{draw.choice(['tcp', 'udp', '47', '{ 1, 6 }'])}")
    elif kind < 0.3 and family == "inet":
        words.append(f"meta nfproto {operator}{draw.choice(['ipv4', 'ipv6'])}")
    elif kind < 0.7 and target != "return":
        name = draw.choice(["sport", "dport"])
        some = draw.choice([draw.choice(ports), "{ 22, 79-81, 65535 }", "@ports"])
        words.append(f"{draw.choice(['tcp', 'udp'])} {name} {operator}{some}")
    elif kind < 0.8 and target != "return":
        compared = draw.choice(["<", "<=", ">", ">="])
        words.append(f"tcp dport {compared} {draw.choice([53, 80, 1024])}")
    elif kind < 0.9 and target != "return":
        words.append(f"meta l4proto {{ tcp, udp }} th dport {operator}{draw.choice(ports)}")
    counted = draw.choice(["", "counter"])
    return " ".join([*words, counted, target, draw.choice(["", 'comment "why"'])])


def _nft_rules(draw: random.Random, family: str) -> str:
    policy = draw.choice(["accept", "drop"])
    verdicts = ["accept", "drop", "reject"]
    inner = [_nft_rule(draw, family, [*verdicts, "return"]) for _ in range(4)]
    outer = [_nft_rule(draw, family, [*verdicts, "return", "jump inner"]) for _ in range(6)]
    sets = (
        ""
        if family == "ip6"
        else (
            "set bad { type ipv4_addr; flags interval; "
            "elements = { 10.1.2.0/31, 198.51.100.1-198.51.100.2, 203.0.113.3 } }\n"
        )
    )
    return (
        f"table {family} t {{\n{sets}"
        "set ports { type inet_service; flags interval; elements = { 53, 1000-2000 } }\n"
        "chain inner {\n" + "\n".join(inner) + "\n}\n"
        f"chain through {{ type filter hook forward priority 0; policy {policy};\n"
        + "\n".join(outer)
        + "\n}\n}\n"
    )


@needs_router
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
@needs("nft")
def test_nftables(kernel: Router, seed: int, family: str) -> None:
    draw = random.Random(seed)
    kernel.run("nft", "flush", "ruleset")
    kernel.run("nft", "-f", "-", text=_nft_rules(draw, family))
    try:
        read = read_nftables(kernel.run("nft", "-j", "list", "ruleset"), "listed")
        assert read.refused == ()
        rules = combine([read])
        for version in (4, 6) if family == "inet" else (4,) if family == "ip" else (6,):
            compare(kernel, rules, draw, version)
    finally:
        kernel.run("nft", "flush", "ruleset")


@needs_router
@needs("iptables-restore")
def test_two_saved_files_are_one_rule_set(kernel: Router) -> None:
    """Rules without addresses are about packets of their own version."""
    draw = random.Random(99)
    kernel.run("nft", "flush", "ruleset")
    kernel.run("iptables-restore", text=_TWO["v4"])
    kernel.run("ip6tables-restore", text=_TWO["v6"])
    try:
        saved = [
            read_iptables(kernel.run(f"{program}-save"), program, version=version)
            for program, version in (("iptables", 4), ("ip6tables", 6))
        ]
        for rules in (combine(saved), combine(saved[::-1])):
            for version in (4, 6):
                compare(kernel, rules, draw, version)
    finally:
        kernel.run("nft", "flush", "ruleset")


_TWO = {
    "v4": "*filter\n:FORWARD DROP\n-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n"
    "-A FORWARD ! -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n",
    "v6": "*filter\n:FORWARD ACCEPT\n-A FORWARD -p udp -j DROP\n"
    "-A FORWARD -p tcp -m tcp --dport 80 -j DROP\nCOMMIT\n",
}
