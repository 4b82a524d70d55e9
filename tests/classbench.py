# SPDX-License-Identifier: BSD-3-Clause
"""Rules and headers of ClassBench's kind: its files where there are any, and sets made like them.

A rule is source and destination prefixes, ranges of ports, protocol and TCP flags or ICMP type.
Sets made here have what makes such sets hard: a few networks that many rules share, nested
prefixes, one side left open, ports that are exact, open or ranges, and rules that overlap so that
priorities decide. The first rule of a set has the highest one.
"""

from __future__ import annotations

import os
import random
import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[2] / "shared" / "data"))
TCP, UDP, ICMP = 6, 17, 1
ALL_PORTS = (0, 0xFFFF)
_LINE = re.compile(
    r"@([\d.]+)/(\d+)\s+([\d.]+)/(\d+)\s+(\d+) : (\d+)\s+(\d+) : (\d+)\s+"
    r"0x(\w+)/0x(\w+)\s+0x(\w+)/0x(\w+)"
)


class FiveRule(NamedTuple):
    """Addresses and their masks as numbers, ports with both ends, and the byte beyond them."""

    src: tuple[int, int]
    dst: tuple[int, int]
    sport: tuple[int, int]
    dport: tuple[int, int]
    proto: int | None
    flags: tuple[int, int]  # of TCP, or the type of ICMP; with a mask

    def holds(self, header: Header) -> bool:
        src, dst, sport, dport, proto, flags = header
        return (
            src & self.src[1] == self.src[0]
            and dst & self.dst[1] == self.dst[0]
            and self.sport[0] <= sport <= self.sport[1]
            and self.dport[0] <= dport <= self.dport[1]
            and self.proto in (None, proto)
            and flags & self.flags[1] == self.flags[0]
        )

    def terms(self) -> list[dict[str, Any]]:
        """What MetadataMatch calls it. Ports that are open need not be there."""
        terms: list[dict[str, Any]] = [{"field": "ip.version", "value": 4}]
        for name, (value, mask) in (("ip.src", self.src), ("ip.dst", self.dst)):
            if mask:
                terms.append({"field": name, "value": value, "mask": mask})
        for name, (low, high) in (("l4.sport", self.sport), ("l4.dport", self.dport)):
            if low == high:
                terms.append({"field": name, "value": low})
            elif (low, high) != ALL_PORTS:
                terms.append({"field": name, "range": {"min": low, "max": high}})
        if self.proto is not None:
            terms.append({"field": "ip.proto", "value": self.proto})
        if self.flags[1]:
            name = "tcp.flags" if self.proto == TCP else "icmp.type"
            terms.append({"field": name, "value": self.flags[0], "mask": self.flags[1]})
        return terms


class Header(NamedTuple):
    src: int
    dst: int
    sport: int
    dport: int
    proto: int
    flags: int

    def frame(self) -> bytes:
        """Without checksums. Only TCP and UDP have ports; flags are the type of an ICMP message."""
        ports = struct.pack(">HH", self.sport, self.dport)
        if self.proto == TCP:
            payload = ports + bytes(8) + bytes([0x50, self.flags]) + bytes(6)
        elif self.proto == ICMP:
            payload = bytes([self.flags]) + bytes(7)
        else:
            payload = ports + struct.pack(">HH", 26, 0) + bytes(18)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, self.proto, 0)
        addresses = struct.pack(">II", self.src, self.dst)
        return bytes.fromhex("0200000000020200000000010800") + ip + addresses + payload


def mask_of(length: int) -> int:
    return 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF


def _prefix(address: int, length: int) -> tuple[int, int]:
    return address & mask_of(length), mask_of(length)


def rules_file(name: str) -> Path:
    return DATA / "rules" / f"classbench_{name}"


def load(path: Path) -> list[FiveRule]:
    """Of rules that differ in flags only where there are none, the first."""
    rules = []
    for line in path.read_text().splitlines():
        found = _LINE.match(line)
        assert found, f"{path}: {line!r}"
        src, src_len, dst, dst_len, *ports = found.groups()[:8]
        proto, proto_mask, flags, flags_mask = (int(text, 16) for text in found.groups()[8:])
        sides = [
            _prefix(int.from_bytes(socket.inet_aton(text), "big"), int(length))
            for text, length in ((src, src_len), (dst, dst_len))
        ]
        low, high = map(int, ports[:2]), map(int, ports[2:])
        known = proto if proto_mask else None
        extra = (flags >> 8, flags_mask >> 8) if known in (TCP, ICMP) else (0, 0)
        if known == ICMP and extra[1] != 0xFF:
            extra = (0, 0)
        sport, dport = tuple(low), tuple(high)
        rules.append(FiveRule(sides[0], sides[1], sport, dport, known, extra))
    return list(dict.fromkeys(rules))


def make(count: int, seed: int) -> list[FiveRule]:
    """The narrower rules first, as in the files."""
    rng = random.Random(seed)
    nets = [rng.getrandbits(32) & mask_of(rng.choice([8, 16, 20])) for _ in range(12)]
    services = [20, 21, 22, 25, 53, 80, 123, 443, 1521, 5555, 6000, 31000]
    ranges = [(1024, 65535), (1300, 1349), (2200, 2210), (33434, 33600), (5001, 65535)]

    def side(open_share: float) -> tuple[int, int]:
        if rng.random() < open_share:
            return _prefix(rng.choice(nets), rng.choice([0, 0, 1, 8]))
        spread = rng.choice([12, 24])
        host = rng.choice(nets) | rng.getrandbits(spread)
        return _prefix(host, rng.choice([32, 32, 32, 31, 30, 28, 24, 23, 22, 16]))

    def ports() -> tuple[int, int]:
        kind = rng.random()
        if kind < 0.5:
            return ALL_PORTS
        if kind < 0.85:
            return (rng.choice(services),) * 2
        return rng.choice(ranges)

    rules: dict[FiveRule, None] = {}
    while len(rules) < count:
        proto = rng.choice([TCP, TCP, TCP, UDP, ICMP, None])
        open_ports = proto == ICMP
        flags = (0, 0)
        if proto == TCP and rng.random() < 0.2:
            flags = rng.choice([(0x10, 0x10), (0, 0x02)])
        elif proto == ICMP:
            flags = (rng.choice([0, 8, 11]), 0xFF)
        sport = ALL_PORTS if open_ports or rng.random() < 0.8 else ports()
        dport = ALL_PORTS if open_ports else ports()
        share = rng.choice([0.05, 0.05, 0.5])
        rules[FiveRule(side(share), side(share), sport, dport, proto, flags)] = None
    width = lambda rule: bin(rule.src[1]).count("1") + bin(rule.dst[1]).count("1")  # noqa: E731
    return sorted(rules, key=lambda rule: -width(rule))


def hitting(rules: Sequence[FiveRule], count: int, seed: int) -> list[Header]:
    """Headers, each of which one rule was picked for, though an earlier one may hold as well."""
    rng = random.Random(seed)
    headers = []
    for rule in rng.choices(rules, k=count):
        src, dst = (
            value | rng.getrandbits(32) & ~mask & 0xFFFFFFFF for value, mask in (rule.src, rule.dst)
        )
        sport, dport = rng.randint(*rule.sport), rng.randint(*rule.dport)
        proto = rng.choice([TCP, UDP]) if rule.proto is None else rule.proto
        flags = rule.flags[0] | rng.getrandbits(8) & ~rule.flags[1] & 0xFF
        has_ports = proto in (TCP, UDP)
        header = Header(
            src,
            dst,
            sport if has_ports else 0,
            dport if has_ports else 0,
            proto,
            flags if proto in (TCP, ICMP) else 0,
        )
        headers.append(header)
    return headers


def best(rules: Sequence[FiveRule], header: Header) -> int | None:
    """The first rule that holds."""
    has_ports = header.proto in (TCP, UDP)
    for number, rule in enumerate(rules):
        open_ports = rule.sport == rule.dport == ALL_PORTS
        if rule.holds(header) and (has_ports or open_ports):
            return number
    return None
