# SPDX-License-Identifier: BSD-3-Clause
"""ext/modules/path_mtu.cc once more, in plain Python: everything is made anew from bytes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from twins.headers_twin import MAX_VLAN_TAGS, TCP, VLAN_TYPES, Row, parse, u16

ICMP, ICMPV6 = 1, 58
FITS, ERRORS = 0, 1
SYN = 2
ICMP_ERRORS = {3, 4, 5, 11, 12}

Outcome = str | list[tuple[int, bytes]]  # why it was dropped, or what leaves by which gate


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(u16(data, at) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def put16(data: bytes, off: int, value: int) -> bytes:
    return data[:off] + value.to_bytes(2, "big") + data[off + 2 :]


@dataclass(frozen=True)
class PathMtuTwin:
    mtu: int
    mtu6: int
    clamp_mss: bool = True
    address: str = ""
    address6: str = ""

    def put(self, frame: bytes) -> Outcome:
        """What becomes of a frame; knows no limit of rates or buffers."""
        row = parse(frame)
        at = _link_bytes(frame)
        if row.ip_version == 0:
            cut = at == 0 or row.ether_type in (0x0800, 0x86DD)
            return "packet too short" if cut else [(FITS, frame)]
        link, ip = frame[:at], frame[at:]
        if row.ip_version == 6:
            total = u16(ip, 4) + 40
            if total <= self.mtu6:
                return [(FITS, self._clamped(frame, row, self.mtu6 - 60))]
            return "cut short" if total > len(ip) else self._report(link, ip[:total], row)
        total, header = u16(ip, 2), (ip[0] & 15) * 4
        if total <= self.mtu:
            return [(FITS, self._clamped(frame, row, self.mtu - 40))]
        if checksum(ip[:header]):
            return "bad IP header"
        if total > len(ip):
            return "cut short"
        if ip[6] & 0x40:
            return self._report(link, ip[:total], row)
        whole = self._clamped(frame, row, self.mtu - 40)[len(link) :][:total]
        pieces = self._cut(whole, header)
        return "bad IP header" if pieces is None else [(FITS, link + piece) for piece in pieces]

    def _clamped(self, frame: bytes, row: Row, most: int) -> bytes:
        if not (self.clamp_mss and row.ip_proto == TCP and row.payload_off and row.l4_off):
            return frame
        tcp = frame[row.l4_off : row.payload_off]
        if not tcp[13] & SYN:
            return frame
        at, made = 20, tcp
        while at < len(tcp) and tcp[at] != 0:
            if tcp[at] == 1:
                at += 1
                continue
            if at + 1 == len(tcp) or tcp[at + 1] < 2 or at + tcp[at + 1] > len(tcp):
                break
            if tcp[at : at + 2] == b"\2\4":
                made = put16(made, at + 2, min(most, u16(made, at + 2)))
            at += tcp[at + 1]
        if made == tcp:
            return frame
        # By how much the sum of all words changed; right stays right, and wrong stays wrong.
        old, new = (~checksum(bytes([*data[:16], 0, 0, *data[18:]])) for data in (tcp, made))
        total = (~u16(tcp, 16) & 0xFFFF) + (new & 0xFFFF) + (~old & 0xFFFF)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        made = put16(made, 16, ~total & 0xFFFF)
        return frame[: row.l4_off] + made + frame[row.payload_off :]

    def _cut(self, ip: bytes, header: int) -> list[bytes] | None:
        field = u16(ip, 6)
        start, rest = (field & 0x1FFF) * 8, ip[header:]
        if start + len(rest) + header > 0xFFFF or (field & 0x2000 and len(rest) % 8):
            return None
        options = _copied(ip[20:header])
        if options is None:
            return None
        head, pieces = ip[:header], []
        while rest:
            room = self.mtu - len(head)
            last = len(rest) <= room and pieces
            size = len(rest) if last else room // 8 * 8
            more = 0 if last else 0x2000
            made = put16(put16(head, 2, len(head) + size), 6, (field & 0xE000 | start // 8) | more)
            made = put16(made, 10, 0)
            pieces.append(put16(made, 10, checksum(made)) + rest[:size])
            start, rest = start + size, rest[size:]
            head = bytes([0x45 + len(options) // 4]) + ip[1:20] + options
        return pieces

    def _report(self, link: bytes, ip: bytes, row: Row) -> Outcome:
        if not _may_report(link, ip, row):
            return "over MTU"
        back = link[6:12] + link[:6] + link[12:]
        if row.ip_version == 6:
            source = ipaddress.ip_address(self.address6).packed if self.address6 else ip[24:40]
            body = b"\2\0\0\0" + self.mtu6.to_bytes(4, "big") + ip[: 1280 - 48]
            length = len(body).to_bytes(2, "big")
            addresses = source + ip[8:24]
            made = put16(body, 2, checksum(addresses + b"\0\0" + length + b"\0\0\0\x3a" + body))
            return [(ERRORS, back + b"\x60\0\0\0" + length + b"\x3a\x40" + addresses + made)]
        source = ipaddress.ip_address(self.address).packed if self.address else ip[16:20]
        body = b"\3\4\0\0" + self.mtu.to_bytes(4, "big") + ip[: 576 - 28]
        body = put16(body, 2, checksum(body))
        head = b"\x45\xc0" + (20 + len(body)).to_bytes(2, "big") + b"\0\0\x40\0\x40\1\0\0"
        head += source + ip[12:16]
        return [(ERRORS, back + put16(head, 10, checksum(head)) + body)]


def _link_bytes(frame: bytes) -> int:
    """Of Ethernet with its VLAN tags; 0 where the frame ends before."""
    at = 14
    while len(frame) >= at and u16(frame, at - 2) in VLAN_TYPES and at < 14 + 4 * MAX_VLAN_TAGS:
        at += 4
    return at if len(frame) >= at else 0


def _copied(options: bytes) -> bytes | None:
    """Options for all pieces but the first, padded; None where one is malformed."""
    kept, at = b"", 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            return None
        if options[at] & 0x80:
            kept += options[at : at + size]
        at += size
    return kept + bytes(-len(kept) % 4)


def _may_report(link: bytes, ip: bytes, row: Row) -> bool:
    if (link[0] | link[6]) & 1:
        return False
    if row.ip_version == 4:
        for bytes_ in (ip[12:16], ip[16:20]):
            address = ipaddress.IPv4Address(bytes_)
            bad = address.is_multicast or address.is_loopback or address.is_reserved
            if bad or bytes_[0] == 0:
                return False
        if u16(ip, 6) & 0x1FFF:
            return False
        kind = ip[(ip[0] & 15) * 4]
        return row.ip_proto != ICMP or (row.l4_off != 0 and kind not in ICMP_ERRORS)
    for bytes_ in (ip[8:24], ip[24:40]):
        address6 = ipaddress.IPv6Address(bytes_)
        if address6.is_multicast or address6.is_loopback or address6.is_unspecified:
            return False
    if row.ip_proto == 0:  # extension headers without an end
        return False
    if row.ip_proto != ICMPV6:
        return True
    kind = ip[row.l4_off - len(link)] if row.l4_off else 0
    return kind >= 128 and kind != 137
