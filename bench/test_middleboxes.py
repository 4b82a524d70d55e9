# SPDX-License-Identifier: BSD-3-Clause
"""What middleboxes cost per packet, in clear and between gateways (Table 4.3), and what the gateway
pays for remembering whose an inbound packet is.

Packets are of 4,096 UDP flows from one network to one server, which is the load balancer's virtual
address. A middlebox's cost is that of the line with it, less that of the line without it, measured
in turn: a ratio of such costs leaves out what else a server does for each packet, which the
dissertation's throughput has in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from test_embark import ROUNDS, Gateway, Report, Step, ns_per_packet, packet

from anchors import TABLE_43_RATIO
from bess_plugins._engine import Engine
from measuring import Figures, best_level, measured_at

SIZE = 60
FLOWS = 4096
SERVER = {4: "192.0.2.80", 6: "2001:db8:80::1"}
NAT = {4: "203.0.113.9", 6: "2001:db8:5::9"}
BACKENDS = {4: "192.0.2.{}", 6: "2001:db8:80::1:{:x}"}
RULES = 1000


def flows(version: int) -> list[Step]:
    """Frames to the server, from as many ports as there are flows."""
    ipv6 = version == 6
    frame = bytearray(packet(ipv6, SIZE + 2 if ipv6 else SIZE))
    client, server = ("2001:db8:1::1", SERVER[6]) if ipv6 else ("10.0.0.1", SERVER[4])
    at, size, port = (22, 16, 54) if ipv6 else (26, 4, 34)
    frame[at : at + size] = ip_address(client).packed
    frame[at + size : at + 2 * size] = ip_address(server).packed
    frame[port + 2 : port + 4] = (80).to_bytes(2, "big")
    field = {"offset": port, "size": 2, "min": 2048, "max": 2048 + FLOWS - 1}
    steps: list[Step] = [
        ("Source", {"pkt_size": len(frame)}),
        ("Rewrite", {"templates": [bytes(frame)]}),
        ("RandomUpdate", {"fields": [field]}),
    ]
    return steps if ipv6 else [*steps, ("IPChecksum", {})]


def pool_of(encrypt: Step) -> dict[str, str]:
    engine = Engine(pool_packets=1024)
    engine.create_module("encrypt", *encrypt)
    answer = engine.module_command("encrypt", "get_pool", {})
    return {one["address"]: one["encrypted"] for one in answer["addresses"]}


def firewall(version: int, encrypted: bool) -> Step:
    """Rules of sources that no packet has."""
    size = 4 if version == 4 and not encrypted else 16
    field = "ip.src" if size == 4 else "ip6.src"
    mask = b"\xff" * (size - 1) + bytes(1)
    rules = [
        {"gate": 1, "priority": n + 1, "terms": [{
            "field": field, "value_bin": (0x7F << 8 * size - 8 | n << 8).to_bytes(size, "big"),
            "mask_bin": mask}]}
        for n in range(RULES)
    ]  # fmt: skip
    return ("MetadataMatch", {"rules": rules, "default_gate": 0})


def middleboxes(version: int, name_of: dict[str, str] | None) -> dict[str, Step]:
    """In clear, or with the encryptions of addresses."""
    names = name_of or {}
    server, nat = SERVER[version], NAT[version]
    backends = [BACKENDS[version].format(n) for n in range(1, 17)]
    listed = [{"address": names.get(one, one), "port": 8080} for one in backends]
    service = {"address": names.get(server, server), "port": 80, "protocol": 17}
    return {
        "IP firewall": firewall(version, name_of is not None),
        "L3 load balancer": ("HashLB", {"gates": [0], "mode": "l4"}),
        "L4 load balancer": ("L4LB", {"services": [service | {"backends": listed}]}),
        "NAT": ("NAT", {
            "ext_addrs": [{"ext_addr": names.get(nat, nat)}],
            "encrypted_ports": name_of is not None,
        }),
    }  # fmt: skip


def costs(lines: dict[str, tuple[list[Step], list[Step]]]) -> dict[str, float]:
    """What the second of two lines costs more, ns per packet, by turns."""
    found: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(ROUNDS):
        for name, (without, within) in lines.items():
            alone = ns_per_packet(without)
            found[name].append(ns_per_packet(within) - alone)
    return {name: median(values) for name, values in found.items()}


def gateway_of(folder: Path, version: int) -> Gateway:
    gateway = Gateway(folder, version == 6, 1000)
    backends = [BACKENDS[version].format(n) for n in range(1, 17)]
    pool = [{"prefix": one, "nat": True} for one in (NAT[version], SERVER[version], *backends)]
    mclass, args = gateway.encrypt
    gateway.encrypt = (mclass, args | {"pool": pool})
    return gateway


def measure_middleboxes() -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for version in (4, 6):
            encrypt = gateway_of(Path(folder), version).encrypt
            start = flows(version)
            clear = middleboxes(version, None)
            encrypted = middleboxes(version, pool_of(encrypt))
            for name in clear:
                two = costs({
                    "clear": (start, [*start, clear[name]]),
                    "encrypted": ([*start, encrypt], [*start, encrypt, encrypted[name]]),
                })  # fmt: skip
                figures[f"{name}, IPv{version}"] = {
                    "clear_ns": two["clear"],
                    "encrypted_ns": two["encrypted"],
                    "ratio": two["clear"] / two["encrypted"],
                }
    return figures


def measure_returns() -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for version in (4, 6):
            gateway = gateway_of(Path(folder), version)
            mclass, args = gateway.encrypt
            # To nobody of the pool, so that all are remembered.
            plain: Step = (mclass, args | {"pool": [{"prefix": NAT[version], "nat": True}]})
            with_table: Step = (mclass, plain[1] | {"returns": {"name": "bench"}})
            start = flows(version)
            two = costs({
                "without": (start, [*start, plain]),
                "with": (start, [*start, with_table]),
            })  # fmt: skip
            figures[f"encrypt with a table of returns, IPv{version}"] = {
                "without_ns": two["without"],
                "with_ns": two["with"],
            }
    return figures


MEASURED = {"middleboxes": measure_middleboxes, "returns": measure_returns}


@pytest.mark.parametrize("what", MEASURED)
def test_middleboxes(what: str, benchmark: BenchmarkFixture, report: Report) -> None:
    for line, figures in measured_at(best_level(), Path(__file__), what, benchmark).items():
        name = line.split(",")[0]
        if name in TABLE_43_RATIO:
            figures["dissertation_ratio"] = TABLE_43_RATIO[name]
        report(line, figures, "Middleboxes: one worker, in clear against encrypted (Table 4.3)")


if __name__ == "__main__":
    print(json.dumps(MEASURED[sys.argv[1]]()))
