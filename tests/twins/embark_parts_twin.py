# SPDX-License-Identifier: BSD-3-Clause
"""The parser of embark_twin.py: what part of a packet is what to the format."""

from __future__ import annotations

from dataclasses import dataclass

from twins.headers_twin import EXTENSIONS, MAX_EXTENSIONS, MAX_VLAN_TAGS, VLAN_TYPES

TCP, UDP, ICMP, ICMP6, FRAGMENT, DESTINATION_OPTIONS = 6, 17, 1, 58, 44, 60


class RefusedError(Exception):
    """A dropped packet."""


def u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def words(data: bytes) -> int:
    return sum(
        u16(data.ljust(len(data) + len(data) % 2, b"\0"), at) for at in range(0, len(data), 2)
    )


def checksum(total: int) -> int:
    """Of a sum of 16-bit words; only a sum of nothing but zeros has 0xffff."""
    return 0xFFFF - ((total - 1) % 0xFFFF + 1) if total else 0xFFFF


@dataclass
class Parts:
    """An IP packet, cut where the format cuts it."""

    tags: bytes
    ip: bytes  # the header without extension headers, IPv4 options included
    extensions: bytes
    protocol: int
    body: bytes
    trailer: int
    fragment: tuple[int, int] | None  # as in a Fragment header: offset and flag, identification
    kind: str = ""
    clear: int = 0

    @property
    def ipv6(self) -> bool:
        return self.ip[0] >> 4 == 6

    @property
    def addresses(self) -> tuple[bytes, bytes]:
        if self.ipv6:
            return self.ip[8:24], self.ip[24:40]
        return self.ip[12:16], self.ip[16:20]

    def classify(self) -> None:
        first = self.fragment is None or self.fragment[0] & 0xFFF8 == 0
        self.kind, self.clear = classify(
            self.body, self.protocol, self.ipv6, self.fragment is not None, first
        )


def classify(
    body: bytes, protocol: int, ipv6: bool, fragment: bool, first: bool
) -> tuple[str, int]:
    """What a body is, and how many bytes of it are no payload."""
    if protocol in (TCP, UDP) and not first:
        return "piece", 0
    if protocol == TCP and len(body) >= 20:
        header = (body[12] >> 4) * 4
        if 20 <= header <= len(body):
            return "tcp", header
    if protocol == UDP and len(body) >= 8 and (fragment or u16(body, 4) == len(body)):
        return "udp", 8
    if protocol == (ICMP6 if ipv6 else ICMP) and not fragment and len(body) >= 8:
        queries = {128, 129} if ipv6 else {0, 8, *range(13, 19)}
        errors = {1, 2, 3, 4} if ipv6 else {3, 4, 5, 11, 12}
        if body[0] in queries:
            return "query", 8
        if body[0] in errors:
            return "error", 8
        if ipv6 and body[0] in {*range(130, 138), 143}:
            return "link", 8
    return "opaque", 0


def parse(frame: bytes) -> Parts:
    if len(frame) < 14:
        raise RefusedError("malformed")
    at, kind, tags = 14, u16(frame, 12), 0
    while kind in VLAN_TYPES and tags < MAX_VLAN_TAGS:
        if len(frame) < at + 4:
            raise RefusedError("malformed")
        kind, at, tags = u16(frame, at + 2), at + 4, tags + 1
    rest, vlan = frame[at:], frame[12 : at - 2]
    if kind == 0x0800:
        parts = _ipv4(rest, vlan)
    elif kind == 0x86DD:
        parts = _ipv6(rest, vlan)
    else:
        raise RefusedError("not IP")
    if parts.trailer > 255:
        raise RefusedError("malformed")
    parts.classify()
    return parts


def _ipv4(rest: bytes, tags: bytes) -> Parts:
    if len(rest) < 20 or rest[0] >> 4 != 4:
        raise RefusedError("malformed")
    header, total, flags = (rest[0] & 15) * 4, u16(rest, 2), u16(rest, 6)
    if not 20 <= header <= min(len(rest), total) or total > len(rest):
        raise RefusedError("malformed")
    fragment = None
    if flags & 0x3FFF:
        fragment = (flags << 3 & 0xFFF8) | flags >> 13 & 1, u16(rest, 4)
    body = rest[header:total]
    return Parts(tags, rest[:header], b"", rest[9], body, len(rest) - total, fragment)


def _ipv6(rest: bytes, tags: bytes) -> Parts:
    if len(rest) < 40 or rest[0] >> 4 != 6 or 40 + u16(rest, 4) > len(rest):
        raise RefusedError("malformed")
    end, at, protocol, count = 40 + u16(rest, 4), 40, rest[6], 0
    fragment = None
    while protocol in EXTENSIONS and fragment is None:
        if count == MAX_EXTENSIONS or end - at < 8:
            raise RefusedError("malformed")
        count += 1
        size = (rest[at + 1] + 2) * 4 if protocol == 51 else (rest[at + 1] + 1) * 8
        if protocol == FRAGMENT:
            size = 8
            # Without offset and more to come it is a whole datagram.
            if u16(rest, at + 2) & 0xFFF9:
                fragment = u16(rest, at + 2), int.from_bytes(rest[at + 4 : at + 8], "big")
        if size > end - at:
            raise RefusedError("malformed")
        protocol = rest[at]
        at += size
    return Parts(tags, rest[:40], rest[40:at], protocol, rest[at:end], len(rest) - end, fragment)
