# SPDX-License-Identifier: BSD-3-Clause
"""Write a small capture for the demo: web, DNS and attack traffic, some of it broken.

The same packets every time. Usage: python examples/make_capture.py OUT.pcap [PACKETS]
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

ATTACK = (
    b"GET /index.php?id=1' UNION SELECT password FROM users-- HTTP/1.1\r\n"
    b"Host: shop.example\r\n\r\n"
)
PAGES = ("/", "/news", "/about", "/img/logo.png")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport(pseudo: bytes, proto: int, sport: int, dport: int, payload: bytes) -> bytes:
    """A TCP or UDP segment with a valid checksum."""
    if proto == socket.IPPROTO_TCP:
        header = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 5 << 4, 0x18, 8192, 0, 0)
        at = 16
    else:
        header = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
        at = 6
    segment = header + payload
    value = checksum(pseudo + struct.pack("!IHBB", len(segment), 0, 0, proto) + segment) or 0xFFFF
    return segment[:at] + struct.pack("!H", value) + segment[at + 2 :]


def frame(
    src: str, dst: str, proto: int, sport: int, dport: int, payload: bytes, *, corrupt: bool = False
) -> bytes:
    """An Ethernet frame; `corrupt` spoils one byte of the IPv4 header checksum."""
    ethernet = bytes.fromhex("020000000002020000000001")
    if ":" in src:
        ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
        segment = transport(ends, proto, sport, dport, payload)
        return (
            ethernet
            + b"\x86\xdd"
            + struct.pack("!IHBB", 6 << 28, len(segment), proto, 64)
            + (ends + segment)
        )
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    segment = transport(ends, proto, sport, dport, payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, proto, 0) + ends
    value = checksum(header) ^ (0x5A if corrupt else 0)
    return ethernet + b"\x08\x00" + header[:10] + struct.pack("!H", value) + header[12:] + segment


def packets(count: int) -> Iterator[bytes]:
    """The demo's traffic mix: 60 % web, 25 % DNS, 10 % attacks, 5 % attacks with a bad checksum."""
    rng = random.Random(31)
    for _ in range(count):
        client = f"10.0.{rng.randrange(4)}.{rng.randrange(1, 250)}"
        server = f"192.0.2.{rng.randrange(1, 10)}"
        if rng.random() < 0.2:
            client, server = f"2001:db8::{rng.randrange(1, 250):x}", "2001:db8:1::80"
        sport = rng.randrange(1024, 65536)
        kind = rng.random()
        if kind < 0.60:
            request = f"GET {rng.choice(PAGES)} HTTP/1.1\r\nHost: www.example\r\n\r\n".encode()
            yield frame(client, server, socket.IPPROTO_TCP, sport, 80, request)
        elif kind < 0.85:
            yield frame(client, server, socket.IPPROTO_UDP, sport, 53, rng.randbytes(28))
        else:
            corrupt = kind >= 0.95
            yield frame(client, server, socket.IPPROTO_TCP, sport, 80, ATTACK, corrupt=corrupt)


def main() -> None:
    out = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, packet in enumerate(packets(count)):
            file.write(struct.pack("<IIII", 1_700_000_000, number, len(packet), len(packet)))
            file.write(packet)


if __name__ == "__main__":
    main()
