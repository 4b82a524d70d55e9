# SPDX-License-Identifier: BSD-3-Clause
"""What Embark's evaluation sends: packets of captures, and random ones of a size."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from bess_plugins._engine import Engine
from bess_plugins.captures import read_packets
from embark_memory import LONGEST_FRAME, MOST_FRAMES, Traffic
from packets import checksum

__all__ = ["SIZES", "TRACES", "encryptable", "of_size", "to_one_server", "trace", "translatable"]

# The dissertation's m57 is here in two pieces of some hundred packets.
TRACES: dict[str, Sequence[str]] = {
    "m57": ("m57-long-49583-80.pcap", "m57-long-49600-80.pcap"),
    "transit, IPv4 and IPv6": ("sanitized4k.pcap",),
    "HTTP": ("bro.org.pcap", "pipelined-requests.pcap"),
    "HTTP over IPv6": ("1000-requests-one-dropped-response.pcap.gz",),
    "echo, small packets": ("echo-connections.pcap.gz",),
}
SIZES = (60, 124, 252, 508, 1020, 1514)  # of frames without their checksum
TCP, UDP = 6, 17


def trace(name: str, data: Path) -> Traffic:
    """The first packets of a trace; `CaptureError` where it isn't there."""
    frames: list[bytes] = []
    for file in TRACES[name]:
        for frame in read_packets(data / "traces" / file):
            if len(frames) == MOST_FRAMES:
                break
            if len(frame) <= LONGEST_FRAME:
                frames.append(frame)
    return Traffic(name, frames)


def encryptable(traffic: Traffic, encrypt: dict[str, object]) -> Traffic:
    """Without what a gateway doesn't send to the provider, such as ARP."""
    engine = Engine(pool_packets=1024)
    engine.create_module("encrypt", "PrefixMatchEncrypt", encrypt)
    taken = [
        frame for frame in traffic.frames if engine.run_packets("encrypt", [frame]).get(0) or []
    ]
    if not taken:
        raise RuntimeError(f"{traffic.name}: nothing that a gateway would encrypt")
    return Traffic(traffic.name, taken)


def of_size(size: int, count: int = MOST_FRAMES) -> Traffic:
    """UDP over IPv4, each packet of another flow, with addresses from everywhere."""
    draws = random.Random(size)
    frames = []
    for _ in range(count):
        src, dst = (bytes([draws.randint(1, 126), *draws.randbytes(3)]) for _ in range(2))
        rest = size - 14 - 20
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, UDP, 0, src, dst)
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        ports = draws.randrange(1, 1 << 16), draws.randrange(1, 1 << 16)
        udp = struct.pack(">HHHH", *ports, rest, 0)
        frames.append(b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip + udp + draws.randbytes(rest - 8))
    return Traffic(f"{size} bytes", frames)


def translatable(traffic: Traffic) -> Traffic:
    """Untagged whole IPv4 packets of TCP and UDP, which every middlebox of table 4.3 handles."""
    return Traffic(traffic.name, [*_ipv4(traffic.frames)])


def _ipv4(frames: Sequence[bytes]) -> Iterator[bytes]:
    for frame in frames:
        while frame[12:14] in (b"\x81\x00", b"\x88\xa8"):
            frame = frame[:12] + frame[16:]
        if frame[12:15] != b"\x08\x00\x45" or frame[23] not in (TCP, UDP) or len(frame) < 60:
            continue
        length, fragment = struct.unpack(">H2xH", frame[16:22])
        ports = struct.unpack(">HH", frame[34:38])
        if not fragment & 0x3FFF and len(frame) >= length + 14 and all(ports):
            yield frame[: length + 14]


def to_one_server(traffic: Traffic, address: bytes) -> Traffic:
    """The same from all sources to one IPv4 address, as a load balancer gets it."""
    frames = []
    for frame in traffic.frames:
        old, new = frame[30:34], address
        at = 50 if frame[23] == TCP else 40
        changed = bytearray(frame)
        changed[30:34] = new
        for place in (24, at):
            (before,) = struct.unpack_from(">H", changed, place)
            if before or place == 24:
                struct.pack_into(">H", changed, place, _changed(before, old, new))
        frames.append(bytes(changed))
    return Traffic(f"{traffic.name}, to one server", frames)


def _changed(before: int, old: bytes, new: bytes) -> int:
    """A checksum after a change (RFC 1624)."""
    total = ~before & 0xFFFF
    for part in struct.unpack(">2H", old):
        total += ~part & 0xFFFF
    total += sum(struct.unpack(">2H", new))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
