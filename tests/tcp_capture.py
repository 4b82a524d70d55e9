# SPDX-License-Identifier: BSD-3-Clause
"""Captures of many TCP connections that overlap, each whole from SYN to FIN."""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Iterator
from pathlib import Path

_ETHERNET = bytes.fromhex("02000000aa0202000000aa010800")
_SYN, _ACK, _FIN = 0x02, 0x10, 0x01


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(ends: bytes, ports: tuple[int, int], flags: int, number: int) -> bytes:
    """A frame with a TCP segment without payload."""
    tcp = struct.pack("!HHIIBBHHH", *ports, number, 1, 5 << 4, flags, 8192, 0, 0)
    value = checksum(ends + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", value) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, number & 0xFFFF, 0x4000, 64, 6, 0) + ends
    return _ETHERNET + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def connections(
    count: int, per_second: float, life_s: float, gap_s: float, seed: int = 1
) -> Iterator[tuple[float, bytes]]:
    """Frames of both directions with their times, in order of time."""
    rng = random.Random(seed)

    def one(number: int) -> Iterator[tuple[float, int, bytes]]:
        client = struct.pack("!I", 0x0A000000 + rng.randrange(1 << 16))
        server = struct.pack("!I", 0xC6336400 + rng.randrange(1, 255))
        ports = (1024 + number % 60000, 80)
        time = number / per_second
        end = time + life_s * rng.uniform(0.8, 1.2)
        there = (client + server, ports)
        back = (server + client, ports[::-1])
        yield time, number, segment(*there, _SYN, 0)
        yield time + 0.005, number, segment(*back, _SYN | _ACK, 0)
        yield time + 0.010, number, segment(*there, _ACK, 1)
        time += 0.015
        turn = 0
        while time < end:
            turn += 1
            yield time, number, segment(*(there if turn % 2 else back), _ACK, turn)
            time += gap_s
        yield end, number, segment(*there, _FIN | _ACK, turn + 1)
        yield end + 0.005, number, segment(*back, _FIN | _ACK, turn + 1)
        yield end + 0.010, number, segment(*there, _ACK, turn + 2)

    for time, _, frame in heapq.merge(*(one(number) for number in range(count))):
        yield time, frame


def write(path: Path, frames: Iterator[tuple[float, bytes]]) -> int:
    """Write a pcap file; returns how many frames there are."""
    count = 0
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for time, frame in frames:
            micros = round((1000 + time) * 1e6)
            out.write(struct.pack("<IIII", *divmod(micros, 1_000_000), len(frame), len(frame)))
            out.write(frame)
            count += 1
    return count
