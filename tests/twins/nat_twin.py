# SPDX-License-Identifier: BSD-3-Clause
"""What NAT does to one packet once more, in plain Python: an endpoint rewritten, checksums by
RFC 1624. And whose a reverse packet is, whatever addresses the NAT has and had."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from twins.embark_parts_twin import Parts, parse, u16

CHECKSUM_AT = {6: 16, 17: 6, 1: 2, 58: 2}


@dataclass(frozen=True, order=True)
class Endpoint:
    """An address in bytes, and a port or an echo's identifier."""

    address: bytes
    port: int

    @classmethod
    def of(cls, args: dict[str, object]) -> Endpoint:
        """As NAT's commands tell it."""
        return cls(ip_address(str(args["address"])).packed, int(str(args["port"])))

    @property
    def args(self) -> dict[str, object]:
        return {"address": str(ip_address(self.address)), "port": self.port}


def is_echo(parts: Parts) -> bool:
    types = {1: {0, 8}, 58: {128, 129} if parts.ipv6 else set()}.get(parts.protocol, set())
    return len(parts.body) >= 8 and parts.body[0] in types and parts.body[1] == 0


def ends(parts: Parts) -> tuple[Endpoint, Endpoint] | None:
    """Source and destination of a packet that can be translated."""
    if parts.fragment is not None:
        return None
    src, dst = parts.addresses
    if parts.kind in ("tcp", "udp"):
        return Endpoint(src, u16(parts.body, 0)), Endpoint(dst, u16(parts.body, 2))
    if not is_echo(parts):
        return None
    return Endpoint(src, u16(parts.body, 4)), Endpoint(dst, u16(parts.body, 4))


def updated(checksum: int, before: bytes, after: bytes) -> int:
    """RFC 1624, equation 3."""
    total = 0xFFFF - checksum
    for at in range(0, len(before), 2):
        total += 0xFFFF - u16(before, at) + u16(after, at)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def translate(frame: bytes, destination: bool, end: Endpoint) -> bytes:
    """The frame with another source, or another destination."""
    parts = parse(frame)
    ip_at = 14 + len(parts.tags)
    l4_at = ip_at + len(parts.ip) + len(parts.extensions)
    size = len(end.address)
    address_at = ip_at + (8 if parts.ipv6 else 12) + (size if destination else 0)
    port_at = l4_at + (4 if parts.protocol in (1, 58) else 2 if destination else 0)
    out = bytearray(frame)
    old_address, old_port = bytes(out[address_at : address_at + size]), out[port_at : port_at + 2]
    new_port = end.port.to_bytes(2, "big")
    out[address_at : address_at + size] = end.address
    out[port_at : port_at + 2] = new_port
    if not parts.ipv6:
        new = updated(u16(frame, ip_at + 10), old_address, end.address)
        out[ip_at + 10 : ip_at + 12] = new.to_bytes(2, "big")
    at = l4_at + CHECKSUM_AT[parts.protocol]
    old = u16(frame, at)
    if parts.protocol == 17 and old == 0:
        return bytes(out)
    pseudo = parts.protocol != 1
    before = bytes(old_port) + (old_address if pseudo else b"")
    new = updated(old, before, new_port + (end.address if pseudo else b""))
    if parts.protocol == 17 and new == 0:
        new = 0xFFFF
    out[at : at + 2] = new.to_bytes(2, "big")
    return bytes(out)


class RefusedError(Exception):
    """A command changes nothing; `code` is that of an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code


@dataclass
class AddressesTwin:
    """External addresses of a NAT, by number, and old ones by the number of what they are now.

    ``owners`` are internal endpoints, by the number of an external address, protocol and port.
    """

    current: list[bytes]
    kept: dict[bytes, int] = field(default_factory=dict)
    owners: dict[tuple[int, int, int], Endpoint] = field(default_factory=dict)

    def replace(
        self, moves: Sequence[tuple[bytes, bytes, bool]], forgotten: Sequence[bytes], most: int
    ) -> None:
        """Old addresses, new ones, whether to keep the old one; a `RefusedError` changes none."""
        kept, after = dict(self.kept), dict[int, bytes]()
        for address in forgotten:
            if kept.pop(address, None) is None:
                raise RefusedError(errno.ENOENT)
        for old, new, keep in moves:
            if old not in self.current:
                raise RefusedError(errno.ENOENT)
            number = self.current.index(old)
            if number in after or new in after.values():
                raise RefusedError(errno.EEXIST)
            after[number] = new
            if keep:
                kept[old] = number
        if len(kept) > most:
            raise RefusedError(errno.ENOSPC)
        current = [after.get(number, address) for number, address in enumerate(self.current)]
        if len({*current, *kept}) < len(current) + len(kept):
            raise RefusedError(errno.EEXIST)
        self.current, self.kept = current, kept

    def back(self, frame: bytes) -> bytes | None:
        """A reverse packet as the internal side gets it; None where it is nobody's."""
        parts = parse(frame)
        pair = ends(parts)
        if pair is None:
            return None
        numbers: Mapping[bytes, int] = self.kept | {
            address: number for number, address in enumerate(self.current)
        }
        number = numbers.get(pair[1].address, -1)
        owner = self.owners.get((number, parts.protocol, pair[1].port))
        return None if owner is None else translate(frame, True, owner)
