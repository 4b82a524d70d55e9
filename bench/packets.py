# SPDX-License-Identifier: BSD-3-Clause
"""The packets that the benchmarks send: 60 bytes of UDP over IPv4."""

from __future__ import annotations

import struct
from collections.abc import Sequence

PORTS = (1000, 1001, 1002, 1003)

# Where the fields are.
SRC_IP = {"offset": 26, "num_bytes": 4}
DST_IP = {"offset": 30, "num_bytes": 4}
PROTO = {"offset": 23, "num_bytes": 1}
SPORT = {"offset": 34, "num_bytes": 2}
DPORT = {"offset": 36, "num_bytes": 2}


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(dst: bytes, sport: int, dport: int) -> bytes:
    """From 10.0.0.1; the UDP checksum is left out."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, 17, 0, b"\x0a\0\0\1", dst)
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    ethernet = bytes.fromhex("0200000000020200000000010800")
    return ethernet + ip + struct.pack(">HHHH", sport, dport, 26, 0) + bytes(18)


def route_of(number: int) -> bytes:
    """The network 10.x.y.0/24 of a route."""
    return bytes([10, number >> 8, number & 255, 0])


def flows(count: int, ports: Sequence[int] = PORTS) -> list[bytes]:
    """Packets of different flows, over all `ports` and all parts of the route table."""
    return [
        udp_packet(route_of(i * 31)[:3] + b"\1", 5000 + i, ports[i % len(ports)])
        for i in range(count)
    ]
