# SPDX-License-Identifier: BSD-3-Clause
"""Packets and comparisons that the tests of classifiers share."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from harness import Engine, EngineError, Result, new_engine
from twins.metadata_match_twin import BITS

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
DROP = 8192
GATES = 40  # of those that the harness collects
RAW = ["raw.0.1", "raw.14.4", "raw.26.8", "raw.23.16", "raw.46.3", "raw.60.2"]

Rule = dict[str, Any]


def udp(src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 1, dport: int = 2) -> bytes:
    return bytes(Ether(**MACS) / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / b"data")


def tcp(src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 1, dport: int = 2) -> bytes:
    return bytes(Ether(**MACS) / IP(src=src, dst=dst) / TCP(sport=sport, dport=dport) / b"data")


def udp6(dst: str) -> bytes:
    return bytes(Ether(**MACS) / IPv6(src="2001:db8::1", dst=dst) / UDP(sport=1, dport=2))


def gates_of(result: Result) -> dict[int, int]:
    return {gate: len(packets) for gate, packets in result.out.items() if packets}


def as_bytes(value: Any) -> Any:
    """The same, with every value_bin as bytes: the engine gives text where it is text."""
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    if isinstance(value, dict):
        return {key: as_bytes(item) for key, item in value.items()}
    return value.encode() if isinstance(value, str) else value


@contextmanager
def raises(text: str, code: int = errno.EINVAL) -> Iterator[None]:
    """Expects an error with this code and with `text` in its message."""
    with pytest.raises(EngineError) as caught:
        yield
    assert caught.value.code == code
    assert text in caught.value.message


@cache
def frames() -> list[Packet]:
    """A small world in which most rules match something."""
    ether = Ether(**MACS)
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
    """Of a field of MetadataMatch."""
    return 8 * int(name.split(".")[2]) if name.startswith("raw.") else BITS[name]


def device(**args: Any) -> Engine:
    """A MetadataMatch, as module m."""
    engine = new_engine()
    engine.create_module("m", "MetadataMatch", args)
    return engine
