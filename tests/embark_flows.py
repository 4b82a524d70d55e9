# SPDX-License-Identifier: BSD-3-Clause
"""Flows, their packets in clear, and what a provider reads of them encrypted."""

from __future__ import annotations

from dataclasses import dataclass

from twins import embark_twin as twin

__all__ = ["Flow", "flow_of"]


@dataclass(frozen=True)
class Flow:
    """A 5-tuple as numbers; IPv4 addresses are IPv4-mapped."""

    sip: int
    dip: int
    sp: int
    dp: int
    proto: int

    @property
    def fields(self) -> tuple[int, int, int, int]:
        return self.sip, self.dip, self.sp, self.dp

    def packet(self) -> bytes:
        body = self.sp.to_bytes(2, "big") + self.dp.to_bytes(2, "big")
        if self.proto == twin.UDP:
            body += b"\0\x08\0\0"
        else:
            body += bytes(8) + b"\x50" + bytes(7)
        if self.sip >> 32 == self.dip >> 32 == 0xFFFF:
            header = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + b"\0\1\0\0\x40"
            header += bytes([self.proto, 0, 0])
            header += b"".join((n & 0xFFFFFFFF).to_bytes(4, "big") for n in (self.sip, self.dip))
            return bytes(12) + b"\x08\0" + header + body
        header = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([self.proto, 64])
        header += self.sip.to_bytes(16, "big") + self.dip.to_bytes(16, "big")
        return bytes(12) + b"\x86\xdd" + header + body


def flow_of(encrypted: bytes) -> Flow:
    """What a firewall, a NAT or a load balancer reads."""
    body = 54 + (encrypted[55] + 1) * 8
    return Flow(
        int.from_bytes(encrypted[22:38], "big"),
        int.from_bytes(encrypted[38:54], "big"),
        twin.u16(encrypted, body),
        twin.u16(encrypted, body + 2),
        encrypted[54],
    )
