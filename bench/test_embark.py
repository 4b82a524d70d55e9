# SPDX-License-Identifier: BSD-3-Clause
"""What Embark's modules cost: headers encrypted and decrypted, payloads sealed, per packet.

Packets come from Source, Rewrite, RandomUpdate and, for IPv4, IPChecksum: each of another flow,
with addresses from all over the interval maps, which is the worst order for caches. What these cost
alone is measured in turn with the whole and taken off. A level runs in a process of its own, in
which this file measures.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from test_crypto import ipv4_prefixes, ipv6_prefixes

from anchors import GATEWAY_MPPS
from bess_plugins._crypto import PrefixMap, write_prefix_maps
from bess_plugins._engine import Engine
from bess_plugins.private_files import create_private
from measuring import LEVELS, Figures, measured_at

Report = Callable[..., None]
Step = tuple[str, dict[str, Any]]

SECONDS = float(os.environ.get("E2_BENCH_SECONDS", "0.2"))
ROUNDS = 5
SIZE = 60  # without the checksum of the frame
LONG = 1514
MAC = "02:00:00:00:00:0"
MACS = {"src_mac": MAC + "1", "dst_mac": MAC + "2"}
PORT_RULES = 1_000
FORWARD_GATE = {"NAT": 1, "L4LB": 1}  # of what has two sides


def packet(ipv6: bool, size: int) -> bytes:
    """UDP whose addresses and ports are filled in later."""
    ether = bytes.fromhex("020000000002020000000001") + (b"\x86\xdd" if ipv6 else b"\x08\x00")
    rest = size - len(ether) - (40 if ipv6 else 20)
    if ipv6:
        network = struct.pack("!IHBB", 6 << 28, rest, 17, 64) + bytes(32)
    else:
        network = struct.pack("!BBHHHBBH", 0x45, 0, size - len(ether), 0, 0, 64, 17, 0) + bytes(8)
    return (ether + network + struct.pack("!HHHH", 0, 0, rest, 0)).ljust(size, b"\0")


def source(ipv6: bool, size: int) -> list[Step]:
    """Addresses of 2000::/3, whose lower halves stay zero, or all of IPv4."""
    some = {"min": 0, "max": (1 << 32) - 1}
    global_unicast = {"min": 0x20000000, "max": 0x3FFFFFFF}
    if ipv6:
        wheres: list[tuple[int, dict[str, int]]] = [
            (22, global_unicast),
            (26, some),
            (38, global_unicast),
            (42, some),
            (54, some),
        ]
    else:
        wheres = [(26, some), (30, some), (34, some)]
    fields = [{"offset": offset, "size": 4, **values} for offset, values in wheres]
    steps: list[Step] = [
        ("Source", {"pkt_size": size}),
        ("Rewrite", {"templates": [packet(ipv6, size)]}),
        ("RandomUpdate", {"fields": fields}),
    ]
    return steps if ipv6 else [*steps, ("IPChecksum", {})]


def ns_per_packet(steps: list[Step]) -> float:
    engine = Engine()
    engine.add_worker(0, max(os.sched_getaffinity(0)))
    chain = [*steps, ("Sink", {})]
    for number, (mclass, args) in enumerate(chain):
        engine.create_module(f"m{number}", mclass, args)
        if number > 0:
            gate = FORWARD_GATE.get(chain[number - 1][0], 0)
            engine.connect(f"m{number - 1}", gate, f"m{number}", 0)
    engine.resume_all()
    time.sleep(SECONDS / 4)
    before = engine.tc_stats("!leaf_m0:0")
    time.sleep(SECONDS)
    after = engine.tc_stats("!leaf_m0:0")
    engine.pause_all()
    drops = {
        k: v for n in range(len(chain)) for k, v in engine.module_info(f"m{n}")["drops"].items()
    }
    lost = {reason: count for reason, count in drops.items() if count}
    if lost:
        raise RuntimeError(f"packets were dropped: {lost}")
    engine.reset_modules()
    packets = int(after["packets"] - before["packets"])
    return float(after["timestamp"] - before["timestamp"]) * 1e9 / packets


class Gateway:
    """Key, maps and the steps that need them."""

    def __init__(self, folder: Path, ipv6: bool, rules: int) -> None:
        key = folder / "site.key"
        if not key.exists():
            create_private(key, secrets.token_hex(32) + "\n")
        made = ipv6_prefixes if ipv6 else ipv4_prefixes
        src, dst = (PrefixMap(made(random.Random(n), rules), 128, bytes(16)) for n in (1, 2))
        draw = random.Random(3)
        first = [draw.randrange(1 << 16) for _ in range(PORT_RULES if rules else 0)]
        ranges = {(at, min(at + draw.randrange(1000), 0xFFFF)) for at in first}
        port = PrefixMap(ranges, 16, bytes(16))
        maps = folder / f"maps{int(ipv6)}_{rules}"
        write_prefix_maps(maps, src, dst, port, port)
        site = {"file": str(key)}
        self.seal: Step = ("PayloadSeal", {"key": site})
        encrypt = {"key": site, "maps_file": str(maps), **MACS}
        self.encrypt: Step = ("PrefixMatchEncrypt", encrypt)
        sealed = {"sealed_payload": True}
        self.encrypt_sealed: Step = ("PrefixMatchEncrypt", {**encrypt, **sealed})
        decrypt = {"keys": [site], **MACS}
        self.decrypt: Step = ("PrefixMatchDecrypt", decrypt)
        self.decrypt_sealed: Step = ("PrefixMatchDecrypt", {**decrypt, **sealed})
        self.open: Step = ("PayloadOpen", {"keys": [site]})


def difference(before: list[Step], after: list[Step]) -> float:
    """What the steps of `after` that `before` hasn't got cost, ns per packet."""
    found = []
    for _ in range(ROUNDS):
        alone = ns_per_packet(before)
        found.append(ns_per_packet(after) - alone)
    return median(found)


def figures_of(ns: float, size: int) -> dict[str, float]:
    return {"ns": ns, "mpps": 1e3 / ns, "gbps": size * 8 / ns}


def measure_headers() -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        for ipv6 in (False, True):
            family = "IPv6" if ipv6 else "IPv4"
            size = SIZE + 2 if ipv6 else SIZE
            start = source(ipv6, size)
            for rules in (0, 10_000, 100_000):
                gateway = Gateway(Path(name), ipv6, rules)
                ns = difference(start, [*start, gateway.encrypt])
                figures[f"encrypt, {family}, {rules} rules"] = figures_of(ns, size)
                if rules == 10_000:
                    encrypted = [*start, gateway.encrypt]
                    ns = difference(encrypted, [*encrypted, gateway.decrypt])
                    figures[f"decrypt, {family}"] = figures_of(ns, size)
    return figures


def measure_payloads() -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        gateway = Gateway(Path(name), False, 10_000)
        for size in (SIZE, LONG):
            start = source(False, size)
            sealed = [*start, gateway.seal, gateway.encrypt_sealed]
            figures[f"seal and encrypt, {size} bytes"] = figures_of(difference(start, sealed), size)
            opened = [*sealed, gateway.decrypt_sealed, gateway.open]
            figures[f"decrypt and open, {size} bytes"] = figures_of(
                difference(sealed, opened), size
            )
    return figures


MEASURED = {"headers": measure_headers, "payloads": measure_payloads}


@pytest.mark.parametrize("what", MEASURED)
@pytest.mark.parametrize("level", LEVELS)
def test_embark(level: str, what: str, benchmark: BenchmarkFixture, report: Report) -> None:
    for line, figures in measured_at(level, Path(__file__), what, benchmark).items():
        if line in GATEWAY_MPPS:
            figures["dissertation_mpps"] = GATEWAY_MPPS[line]
        report(line, figures, f"Embark, {level}: one worker, packets of random flows")


if __name__ == "__main__":
    print(json.dumps(MEASURED[sys.argv[1]]()))
