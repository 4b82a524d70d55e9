# SPDX-License-Identifier: BSD-3-Clause
"""The tunnel of ext/modules/tunnel_encap.cc and tunnel_decap.cc once more, over scapy's packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from twins.headers_twin import mac_hash, parse, path_hash, u16

OPTION_CLASS = 0xFFE2
PORT = 6081


@dataclass
class Tunnel:
    """Arguments of both ends."""

    ipv6: bool = False
    vni: int = 77
    ttl: int = 64
    copy_dscp: bool = False
    zero_checksum: bool = False
    # (name, size, type, critical)
    options: list[tuple[str, int, int, bool]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def addresses(self) -> dict[str, str]:
        if self.ipv6:
            return {"src": "2001:db8::1", "dst": "2001:db8::2"}
        return {"src": "192.0.2.1", "dst": "192.0.2.2"}

    def option_args(self) -> list[dict[str, Any]]:
        return [
            {"attr_name": name, "size": size, "type": kind, "critical": critical}
            for name, size, kind, critical in self.options
        ]

    def encap_args(self) -> dict[str, Any]:
        return {
            "src_mac": "02:00:00:00:00:01",
            "dst_mac": "02:00:00:00:00:02",
            "src_ip": self.addresses["src"],
            "dst_ip": self.addresses["dst"],
            "vni": self.vni,
            "ttl": self.ttl,
            "copy_dscp": self.copy_dscp,
            "zero_checksum": self.zero_checksum,
            "options": self.option_args(),
            **self.more,
        }

    def decap_args(self) -> dict[str, Any]:
        return {
            "edges": {self.vni: 0},
            "zero_checksum": self.zero_checksum,
            "options": self.option_args(),
        }


def source_port(inner: bytes) -> int:
    """From the hash of the inner flow, of IPv6 by its label; fragments have no ports, what isn't
    IP only MACs."""
    row = parse(inner)
    if row.ip_version == 0:
        return mac_hash(inner) & 0xFFFF | 0xC000
    label = u16(inner, _ip(inner) + 2) | (inner[_ip(inner) + 1] & 15) << 16
    if row.ip_version == 6 and label:
        row.sport, row.dport, row.ip_proto = label & 0xFFFF, label >> 16, 0
    elif _more_fragments(inner):
        row.sport = row.dport = 0
    return path_hash(row) & 0xFFFF | 0xC000


def _ip(inner: bytes) -> int:
    """Where the inner IP header is."""
    off = 12
    while u16(inner, off) in (0x8100, 0x88A8, 0x9100):
        off += 4
    return off + 2


def _more_fragments(inner: bytes) -> bool:
    ip = _ip(inner)
    if inner[ip] >> 4 == 4:
        return bool(inner[ip + 6] & 0x20)
    return inner[ip + 6] == 44 and bool(inner[ip + 43] & 1)


def dscp(inner: bytes) -> int:
    if parse(inner).ip_version == 0:
        return 0
    ip = _ip(inner)
    return (inner[ip + 1] if inner[ip] >> 4 == 4 else u16(inner, ip) >> 4) & 0xFC


def encapsulate(tunnel: Tunnel, inner: bytes, attrs: dict[str, bytes]) -> bytes:
    """What goes onto the wire."""
    tos = dscp(inner) if tunnel.copy_dscp else 0
    options = [
        GeneveOptions(
            classid=OPTION_CLASS,
            type=kind | 0x80 * critical,
            length=-(-size // 4),
            data=attrs[name] + bytes(-size % 4),
        )
        for name, size, kind, critical in tunnel.options
    ]
    geneve = GENEVE(
        vni=tunnel.vni,
        proto=0x6558,
        critical=any(critical for *_, critical in tunnel.options),
        options=options,
    )
    ip: Any
    if tunnel.ipv6:
        ip = IPv6(**tunnel.addresses, hlim=tunnel.ttl, tc=tos)
    else:
        ip = IP(**tunnel.addresses, ttl=tunnel.ttl, tos=tos, flags="DF", id=0)
    udp = UDP(sport=source_port(inner), dport=PORT)
    if tunnel.zero_checksum:
        udp.chksum = 0
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return bytes(ether / ip / udp / geneve / Raw(inner))
