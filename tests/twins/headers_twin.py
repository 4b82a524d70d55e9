# SPDX-License-Identifier: BSD-3-Clause
"""Header parsing and the flow hash of ext/host/headers.h once more, in plain Python."""

from __future__ import annotations

from dataclasses import dataclass

VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})
EXTENSIONS = frozenset({0, 43, 44, 51, 60, 135, 139, 140})
MAX_VLAN_TAGS = 8
MAX_EXTENSIONS = 8
MAX_FRAME = 0xFFFF
FRAGMENT, AUTHENTICATION, NO_NEXT = 44, 51, 59
TCP, UDP, SCTP = 6, 17, 132
MIN_L4 = {TCP: 20, UDP: 8, SCTP: 12, 1: 8, 58: 8}
MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
PATH_FACTORS = (
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
    0x8EBC6AF09C88C6E3,
    0x589965CC75374CC3,
)


@dataclass
class Row:
    """One packet's row of bess_plugins._arrays.parse."""

    ether_type: int = 0
    vlan_tci: int = 0
    ip_version: int = 0
    ip_proto: int = 0
    src: bytes = bytes(16)
    dst: bytes = bytes(16)
    sport: int = 0
    dport: int = 0
    l4_off: int = 0
    payload_off: int = 0
    payload_len: int = 0


def u16(data: bytes, off: int) -> int:
    return int.from_bytes(data[off : off + 2], "big")


def parse(frame: bytes) -> Row:
    frame = frame[:MAX_FRAME]
    row = Row()
    if len(frame) < 14:
        return row
    off, kind = 14, u16(frame, 12)
    tags: list[int] = []
    while kind in VLAN_TYPES and len(tags) < MAX_VLAN_TAGS:
        if len(frame) < off + 4:
            row.vlan_tci = tags[0] if tags else 0
            return row
        tags.append(u16(frame, off))
        kind = u16(frame, off + 2)
        off += 4
    row.ether_type = kind
    row.vlan_tci = tags[0] if tags else 0
    if kind == 0x0800:
        _ipv4(frame, off, row)
    elif kind == 0x86DD:
        _ipv6(frame, off, row)
    return row


def _ipv4(frame: bytes, start: int, row: Row) -> None:
    ip = frame[start:]
    if len(ip) < 20 or ip[0] >> 4 != 4:
        return
    header = (ip[0] & 15) * 4
    if not 20 <= header <= len(ip):
        return
    row.ip_version, row.ip_proto = 4, ip[9]
    row.src, row.dst = ip[12:16] + bytes(12), ip[16:20] + bytes(12)
    total = u16(ip, 2)
    if total < header:
        return
    _rest(frame, start + header, min(start + total, len(frame)), u16(ip, 6) & 0x1FFF != 0, row)


def _ipv6(frame: bytes, start: int, row: Row) -> None:
    ip = frame[start:]
    if len(ip) < 40 or ip[0] >> 4 != 6:
        return
    row.ip_version = 6
    row.src, row.dst = ip[8:24], ip[24:40]
    end = min(start + 40 + u16(ip, 4), len(frame))
    off, proto, fragment = start + 40, ip[6], False
    count = 0
    while proto in EXTENSIONS and not fragment:
        if count == MAX_EXTENSIONS or end - off < 8:
            return
        count += 1
        if proto == FRAGMENT:
            size = 8
        elif proto == AUTHENTICATION:
            size = (frame[off + 1] + 2) * 4
        else:
            size = (frame[off + 1] + 1) * 8
        if size > end - off:
            return
        fragment = proto == FRAGMENT and u16(frame, off + 2) & 0xFFF8 != 0
        proto = frame[off]
        off += size
    row.ip_proto = proto
    _rest(frame, off, end, fragment, row)


def _rest(frame: bytes, off: int, end: int, fragment: bool, row: Row) -> None:
    """What follows the IP header: the payload of a later fragment, or an L4 header."""
    if fragment:
        row.payload_off, row.payload_len = off, end - off
        return
    proto, room = row.ip_proto, end - off
    if proto == NO_NEXT or room < MIN_L4.get(proto, 0):
        return
    header = MIN_L4.get(proto, 0)
    row.l4_off = off
    if proto in (TCP, UDP, SCTP):
        row.sport, row.dport = u16(frame, off), u16(frame, off + 2)
    if proto == TCP:
        header = (frame[off + 12] >> 4) * 4
        if not 20 <= header <= room:
            return
    if proto == UDP:
        end = min(end, off + max(8, u16(frame, off + 4)))
    row.payload_off, row.payload_len = off + header, end - off - header


def mix(value: int) -> int:
    for _ in range(2):
        value ^= value >> 32
        value = value * 0xD6E8FEB86659FD93 & MASK64
    return value ^ value >> 32


def flow_hash(row: Row) -> int:
    """The hash of the row's flow on a little-endian machine; 0 where it is not IP."""
    if row.ip_version == 0:
        return 0
    ports = row.sport.to_bytes(2, "little") + row.dport.to_bytes(2, "little")
    tail = int.from_bytes(ports + bytes([row.ip_proto, row.ip_version]), "little")
    if row.ip_version == 4:
        return mix(mix(GOLDEN ^ int.from_bytes(row.src[:4] + row.dst[:4], "little")) ^ tail)
    return _hash_words(row.src + row.dst, tail)


def fold_multiply(left: int, right: int) -> int:
    """Both halves of a product of two 64-bit words, added without carries."""
    product = left * right
    return product & MASK64 ^ product >> 64


def path_hash(row: Row) -> int:
    """The hash of the path of an IP packet in a tunnel: over IPv4 that of its flow."""
    if row.ip_version != 6:
        return flow_hash(row)
    key = row.src + row.dst
    words = [int.from_bytes(key[i : i + 8], "little") for i in range(0, 32, 8)]
    a, b, c, d = (word ^ factor for word, factor in zip(words, PATH_FACTORS, strict=True))
    ends = fold_multiply(a, b) ^ fold_multiply(c, d) ^ GOLDEN
    ports = row.sport.to_bytes(2, "little") + row.dport.to_bytes(2, "little")
    tail = int.from_bytes(ports + bytes([row.ip_proto, row.ip_version]), "little")
    return fold_multiply(ends, tail ^ PATH_FACTORS[0])


def mac_hash(frame: bytes) -> int:
    """The hash of the flow of a frame that is not IP: its MAC addresses."""
    return _hash_words(frame[:12].ljust(32, b"\0"), 0)


def _hash_words(key: bytes, tail: int) -> int:
    value = GOLDEN
    for word in [*(int.from_bytes(key[i : i + 8], "little") for i in range(0, 32, 8)), tail]:
        value = (mix(value ^ word) + GOLDEN) & MASK64
    return value
