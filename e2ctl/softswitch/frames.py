# SPDX-License-Identifier: BSD-3-Clause
"""What switch rules see of a frame: the fields of its headers, its tags, and its flow id.

As in Open vSwitch, IP is looked for behind at most one tag, and ports are in a datagram's first
fragment only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from e2ctl.softswitch.forward import QINQ, VLAN, Tag
from e2ctl.switch_rules import ETHER_TYPES, ID_BITS, WITH_PORTS

__all__ = ["Frame", "parse", "with_tags"]

_TAG_TYPES = (VLAN, QINQ)
_MACS = 12
_MOST_EXTENSIONS = 8
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION)


@dataclass(frozen=True)
class Frame:
    """A frame without its tags, which are apart, and its fields by name."""

    macs: bytes
    tags: tuple[Tag, ...]
    rest: bytes  # from the type on
    fields: dict[str, int]

    @property
    def flow_id(self) -> int:
        """A hash of addresses, protocol and ports that is the same in both directions."""
        get = self.fields.get
        ends = [
            (get("ip.src", get("ip6.src", 0)), get("l4.sport", 0)),
            (get("ip.dst", get("ip6.dst", 0)), get("l4.dport", 0)),
        ]
        return zlib.crc32(repr((sorted(ends), get("ip.proto"))).encode()) & ((1 << ID_BITS) - 1)


def parse(frame: bytes, port: int) -> Frame | None:
    """A frame that came in by a port; None where it ends within the Ethernet header."""
    tags: list[Tag] = []
    at = _MACS
    while (kind := _number(frame, at, 2)) in _TAG_TYPES:
        tags.append((kind, _number(frame, at + 2, 2)))
        at += 4
    if at + 2 > len(frame):
        return None
    fields = {"port": port, "mac": _number(frame, 0, 6), "tagged": int(bool(tags))}
    if tags:
        fields["tag"] = fields["vlan.id"] = tags[0][1] & 0xFFF
    if len(tags) > 1:
        fields["eth.type"] = tags[1][0]
    else:
        fields["eth.type"] = kind
        fields |= _network(kind, frame[at + 2 :])
    return Frame(frame[:_MACS], tuple(tags), frame[at:], fields)


def with_tags(frame: Frame, tags: tuple[Tag, ...]) -> bytes:
    """The frame with other tags."""
    words = (number.to_bytes(2, "big") for tag in tags for number in tag)
    return b"".join((frame.macs, *words, frame.rest))


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _network(kind: int, packet: bytes) -> dict[str, int]:
    if kind == ETHER_TYPES[4] and len(packet) >= 20 and packet[0] >> 4 == 4:
        return _ipv4(packet)
    if kind == ETHER_TYPES[6] and len(packet) >= 40 and packet[0] >> 4 == 6:
        return _ipv6(packet)
    return {}


def _ipv4(packet: bytes) -> dict[str, int]:
    fields = {
        "ip.version": 4,
        "ip.proto": packet[9],
        "ip.src": _number(packet, 12, 4),
        "ip.dst": _number(packet, 16, 4),
    }
    if _number(packet, 6, 2) & 0x1FFF:
        return fields
    return fields | _ports(packet[9], packet[(packet[0] & 0xF) * 4 :])


def _ipv6(packet: bytes) -> dict[str, int]:
    fields = {
        "ip.version": 6,
        "ip6.src": _number(packet, 8, 16),
        "ip6.dst": _number(packet, 24, 16),
    }
    kind, at, later = packet[6], 40, False
    for _ in range(_MOST_EXTENSIONS):
        if kind not in _EXTENSIONS or at + 8 > len(packet):
            break
        if kind == _FRAGMENT:
            later = bool(_number(packet, at + 2, 2) & 0xFFF8)
        units = {_FRAGMENT: 8, _AUTHENTICATION: (packet[at + 1] + 2) * 4}
        kind, at = packet[at], at + units.get(kind, (packet[at + 1] + 1) * 8)
        if later:
            break
    fields["ip.proto"] = kind
    return fields if later else fields | _ports(kind, packet[at:])


def _ports(kind: int, segment: bytes) -> dict[str, int]:
    if kind not in WITH_PORTS or len(segment) < 8:
        return {}
    return {"l4.sport": _number(segment, 0, 2), "l4.dport": _number(segment, 2, 2)}
