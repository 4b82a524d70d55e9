# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch once more: all rules, one after another, over a dict of a packet's fields.

Fields are numbers; a packet's bytes by offset and its attributes are in ``Seen`` as they are. Sets
are lists of ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, _ICMPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet

Rule = Mapping[str, Any]
Term = Mapping[str, Any]
Set = Mapping[str, Any]

BITS = {
    "eth.src": 48,
    "eth.dst": 48,
    "eth.type": 16,
    "vlan.id": 12,
    "vlan.pcp": 3,
    "mpls.label": 20,
    "mpls.tc": 3,
    "mpls.ttl": 8,
    "ip.version": 4,
    "ip.proto": 8,
    "ip.src": 32,
    "ip.dst": 32,
    "ip6.src": 128,
    "ip6.dst": 128,
    "ip.tos": 8,
    "ip6.tclass": 8,
    "ip.dscp": 6,
    "ip.ttl": 8,
    "ip.fragment": 1,
    "l4.sport": 16,
    "l4.dport": 16,
    "tcp.sport": 16,
    "tcp.dport": 16,
    "tcp.flags": 8,
    "udp.sport": 16,
    "udp.dport": 16,
    "sctp.sport": 16,
    "sctp.dport": 16,
    "icmp.type": 8,
    "icmp.code": 8,
    "packet.len": 16,
}


@dataclass(frozen=True)
class Seen:
    """What rules can see of a packet."""

    fields: Mapping[str, int]
    frame: bytes = b""
    meta: Mapping[str, bytes] = field(default_factory=dict)

    def get(self, name: str) -> tuple[int, int] | None:
        """A field and its bits, or None where the packet lacks it."""
        if name.startswith("raw."):
            offset, size = map(int, name.split(".")[1:])
            if offset + size > len(self.frame):
                return None
            return int.from_bytes(self.frame[offset : offset + size], "big"), 8 * size
        if name.startswith("meta."):
            value = self.meta[name.removeprefix("meta.")]
            return int.from_bytes(value, "big"), 8 * len(value)
        return (self.fields[name], BITS[name]) if name in self.fields else None


def seen(packet: Packet, meta: Mapping[str, bytes] | None = None) -> Seen:
    """Reads the fields of an Ethernet frame that scapy took apart."""
    frame = bytes(packet)
    ether = packet[Ether]
    found = {"packet.len": len(frame)}
    for name, text in (("eth.src", ether.src), ("eth.dst", ether.dst)):
        found[name] = int(text.replace(":", ""), 16)
    last = ether
    while isinstance(last.payload, Dot1Q):  # Dot1AD is one as well
        last = last.payload
        found.setdefault("vlan.id", last.vlan)
        found.setdefault("vlan.pcp", last.prio)
    found["eth.type"] = last.type
    if isinstance(last.payload, MPLS):
        label = last.payload
        found |= {"mpls.label": label.label, "mpls.tc": label.cos, "mpls.ttl": label.ttl}
    elif isinstance(last.payload, IP | IPv6):
        _ip(last.payload, found)
    return Seen(found, frame, meta or {})


def _ip(ip: Packet, found: dict[str, int]) -> None:
    src, dst = int(ip_address(ip.src)), int(ip_address(ip.dst))
    if isinstance(ip, IP):
        found |= {"ip.version": 4, "ip.proto": ip.proto, "ip.src": src, "ip.dst": dst}
        found |= {"ip.tos": ip.tos, "ip.dscp": ip.tos >> 2, "ip.ttl": ip.ttl}
        found["ip.fragment"] = int(bool(ip.flags.MF) or ip.frag > 0)
        if ip.frag > 0:
            return
    else:
        proto = ip.payload.nh if IPv6ExtHdrDestOpt in ip else ip.nh
        found |= {"ip.version": 6, "ip.proto": proto, "ip6.src": src, "ip6.dst": dst}
        found |= {"ip6.tclass": ip.tc, "ip.dscp": ip.tc >> 2, "ip.ttl": ip.hlim, "ip.fragment": 0}
    for kind, name in ((TCP, "tcp"), (UDP, "udp"), (SCTP, "sctp")):
        if kind in ip:
            ports = {"sport": ip[kind].sport, "dport": ip[kind].dport}
            found |= {f"{layer}.{end}": n for layer in ("l4", name) for end, n in ports.items()}
    if TCP in ip:
        found["tcp.flags"] = int(ip[TCP].flags) & 0xFF
    icmp = ip.getlayer(ICMP) or ip.payload
    if isinstance(icmp, ICMP | _ICMPv6):
        found |= {"icmp.type": icmp.type, "icmp.code": icmp.code}


def ends(one: Mapping[str, Any]) -> tuple[int, int]:
    """First and last value of a range of a set."""
    if one.get("max_bin"):
        return int.from_bytes(one["min_bin"], "big"), int.from_bytes(one["max_bin"], "big")
    return one.get("min", 0), one.get("max", 0)


def holds(term: Term, packet: Seen, sets: Sequence[Set] = ()) -> bool:
    got = packet.get(term["field"])
    if got is None:
        return False
    value, bits = got
    if "set" in term:
        (named,) = [one for one in sets if one["name"] == term["set"]]
        return any(first <= value <= last for first, last in map(ends, named["ranges"]))
    if "range" in term:
        return term["range"].get("min", 0) <= value <= term["range"]["max"]
    full = (1 << bits) - 1
    if term.get("value_bin"):
        wanted = int.from_bytes(term["value_bin"], "big")
        mask = int.from_bytes(term.get("mask_bin", b""), "big") or full
    else:
        wanted, mask = term.get("value", 0), term.get("mask", 0) or full
    return value & mask == wanted


def best_gate(rules: Sequence[Rule], default: int, packet: Seen, sets: Sequence[Set] = ()) -> int:
    """Rules in the order of their age."""
    for rule in sorted(rules, key=lambda rule: -rule.get("priority", 0)):
        if all(holds(term, packet, sets) for term in rule.get("terms", [])):
            return int(rule.get("gate", 0))
    return default
