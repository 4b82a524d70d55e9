# SPDX-License-Identifier: BSD-3-Clause
"""Rules and the packets that they are about, for tests of Embark's rule side."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Mapping, Sequence

import pytest
from scapy.all import RawPcapReader
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bess_plugins.sources import Location
from classbench import DATA
from embark_gw.rules import ranges
from embark_gw.rules.document import ADDRESS_FIELDS, FIELDS, EncryptedRules
from embark_gw.rules.formats import Format, read_rules
from embark_gw.rules.model import ANY_PORT, Action, Match, Packet, Rule, RuleSet
from twins import embark_twin as twin

__all__ = [
    "HERE",
    "RULE_FILES",
    "decide_encrypted",
    "frame_of",
    "number",
    "packet_of",
    "packets_around",
    "random_packet",
    "rules_for",
    "rules_of_file",
    "trace_frames",
]

HERE = Location("rules", 1, 1)
TRACES = ("sanitized4k.pcap", "wikipedia.pcap", "bro.org.pcap", "ipv6-fragmented-dns.pcap")
# The files of rules that are about headers alone.
RULE_FILES = {
    **{
        f"classbench_{kind}_{size}": Format.CLASSBENCH_5TUPLE
        for kind in ("acl1", "fw1", "ipc1")
        for size in ("1k", "10k")
    },
    **{f"et_{name}.rules": Format.SNORT for name in ("botcc", "ciarmy", "compromised", "drop")},
    "ipsum_level2.txt": Format.LIST,
}


def rules_of_file(name: str) -> RuleSet:
    """The rules of one of `RULE_FILES`; skips the test where it isn't there."""
    path = DATA / "rules" / name
    if not path.exists():
        pytest.skip(f"no rules at {path}; E2_DATA says where the data is")
    nets = {"HOME_NET": "any"} if RULE_FILES[name] is Format.SNORT else None
    return read_rules([path], RULE_FILES[name], nets=nets)


def number(text: str) -> int:
    """An address of 128 bits."""
    address = ipaddress.ip_address(text)
    return ranges.mapped(int(address)) if address.version == 4 else int(address)


def packet_of(frame: bytes) -> Packet | None:
    """What rules see of a frame; None where a gateway drops it, or seals a header that is broken.

    A classifier would take what is sealed there for ports.
    """
    try:
        parts = twin.parse(frame)
    except twin.RefusedError:
        return None
    if parts.kind == "link" or (parts.kind == "opaque" and parts.protocol in (6, 17)):
        return None
    src, dst = (
        int.from_bytes(address, "big") if parts.ipv6 else ranges.mapped(int.from_bytes(address))
        for address in parts.addresses
    )
    ports: tuple[int, ...] = ()
    if parts.kind in ("tcp", "udp"):
        ports = int.from_bytes(parts.body[:2], "big"), int.from_bytes(parts.body[2:4], "big")
    return Packet(src, dst, parts.protocol, *ports)


def frame_of(packet: Packet, serial: int, src_mac: str, dst_mac: str) -> bytes:
    """A packet with a payload of its own."""
    in_ipv4 = ranges.contains(ranges.IPV4, packet.src)
    src, dst = ranges.address_text(packet.src), ranges.address_text(packet.dst)
    ip = IP(src=src, dst=dst, proto=packet.protocol) if in_ipv4 else IPv6(src=src, dst=dst)
    if not in_ipv4:
        ip.nh = packet.protocol
    payload = Raw(serial.to_bytes(8, "big"))
    layers = {6: TCP, 17: UDP}
    if packet.protocol in layers:
        payload = layers[packet.protocol](sport=packet.sport, dport=packet.dport) / payload
    elif packet.protocol == 1 and in_ipv4:
        payload = ICMP() / payload
    return bytes(Ether(src=src_mac, dst=dst_mac) / ip / payload)


def trace_frames(*names: str, most: int = 5000) -> list[bytes]:
    """Frames of captures that a router forwards, and of which rules can see something."""
    found: dict[bytes, None] = {}
    for name in names or TRACES:
        with RawPcapReader(str(DATA / "traces" / name)) as reader:
            for frame, _ in reader:
                packet = packet_of(frame)
                lives = frame[22] if frame[12:14] == b"\x08\0" else frame[21]
                if packet is not None and lives > 1:
                    found.setdefault(frame)
    return list(found)[:most]


def rules_for(packets: Sequence[Packet], count: int, seed: int) -> RuleSet:
    """Rules of every shape, most of which some of the packets match."""
    draw = random.Random(seed)
    rules = []
    for serial in range(count):
        packet = draw.choice(packets)
        match = Match(
            src=_around(draw, packet.src),
            dst=_around(draw, packet.dst),
            sport=_ports(draw, packet.sport),
            dport=_ports(draw, packet.dport),
            protocols=draw.choice([((packet.protocol,) * 2,), ((0, 255),), ((1, 1), (17, 17))]),
        )
        if match.sport is not None or match.dport is not None:
            match = match.both(Match(protocols=((6, 6), (17, 17))))
        if not match.empty:
            action = draw.choice([Action.ACCEPT, Action.DENY])
            rules.append(Rule.of(match.checked(), action, HERE, f"rule {serial}"))
    rules.sort(key=lambda rule: _open_fields(rule) + draw.random())  # narrow ones mostly first
    return RuleSet(tuple(rules), draw.choice([Action.ACCEPT, Action.DENY]))


def packets_around(rules: RuleSet, count: int, seed: int) -> list[Packet]:
    """IPv4 packets that rules were picked for, and others that differ from those in one field."""
    draw = random.Random(seed)

    def one_of(values: ranges.Ranges) -> int:
        return draw.randint(*draw.choice(values))

    def address(values: ranges.Ranges) -> int:
        while True:
            if part := ranges.intersect((draw.choice(values),), ranges.IPV4):
                return one_of(part)

    packets = []
    for serial, rule in enumerate(draw.choices(rules.rules, k=count)):
        known = ranges.intersect(rule.protocols, ((6, 6), (17, 17), (47, 47)))
        protocol = one_of(known) if known else one_of(rule.protocols)
        values = {
            "src": address(rule.src),
            "dst": address(rule.dst),
            "protocol": protocol,
        }
        if protocol in (6, 17):
            values["sport"] = one_of(rule.sport or ANY_PORT)
            values["dport"] = one_of(rule.dport or ANY_PORT)
        if serial % 2:
            other = draw.choice([name for name in values if name != "protocol"])
            values[other] = one_of(ranges.IPV4 if other in ADDRESS_FIELDS else ANY_PORT)
        packets.append(Packet(**values))
    return packets


def _open_fields(rule: Rule) -> int:
    wide = sum(sum(last - first for first, last in side) > 2**33 for side in (rule.src, rule.dst))
    return 2 * wide + (rule.sport is None) + (rule.dport is None) + (rule.protocols == ((0, 255),))


def _around(draw: random.Random, value: int) -> ranges.Ranges:
    kind = draw.random()
    if kind < 0.4:
        return ((0, 2**128 - 1),)
    bits = draw.choice([0, 4, 8, 16, 24, 31])
    first = value >> bits << bits
    one = (first, first + 2**bits - 1)
    if kind < 0.8:
        return (one,)
    if kind < 0.9:  # all but these
        return ranges.subtract(((0, 2**128 - 1),), (one,))
    other = draw.getrandbits(128)
    return ranges.join([one, (max(0, value - 5000), value), (other, other)])


def _ports(draw: random.Random, port: int | None) -> ranges.Ranges | None:
    kind = draw.random()
    if kind < 0.6:
        return None
    if kind < 0.65 or port is None:
        return ((0, 65535),)
    if kind < 0.8:
        return ((port, port),)
    if kind < 0.9:
        return ((max(0, port - 100), min(65535, port + draw.choice([0, 1000]))),)
    return ranges.subtract(((0, 65535),), ((port, port), (port // 2, port // 2)))


def random_packet(draw: random.Random, version: int = 4) -> Packet:
    """Of a small world, in which rules meet packets."""
    nets = (
        ["10.0.0.0", "10.1.2.0", "198.51.100.0", "203.0.113.0"]
        if version == 4
        else ["2001:db8::", "2001:db8:1::", "2001:db8:1:2::"]
    )
    src, dst = (number(draw.choice(nets)) + draw.randrange(4) for _ in range(2))
    protocol = draw.choice([1, 6, 6, 17, 47]) if version == 4 else draw.choice([6, 6, 17, 47])
    if protocol not in (6, 17):
        return Packet(src, dst, protocol)
    ports = [draw.choice([1, 22, 53, 79, 80, 81, 443, 1023, 1024, 65535]) for _ in range(2)]
    return Packet(src, dst, protocol, *ports)


def decide_encrypted(document: EncryptedRules, packet: Mapping[str, int | None]) -> Action:
    """What a plain reading of the document says of an encrypted packet's fields."""
    for rule in document.rules:
        if all(_holds(document, rule, name, packet[name]) for name in FIELDS) and (
            rule.protocols is None
            or any(first <= (packet["protocol"] or 0) <= last for first, last in rule.protocols)
        ):
            return rule.action
    return document.default


def _holds(document: EncryptedRules, rule: object, name: str, value: int | None) -> bool:
    index = getattr(rule, name)
    if index is None:
        return True
    parts: Iterable[object] = getattr(document.sets, name)[index]
    return value is not None and any(_in_part(part, value) for part in parts)


def _in_part(part: object, value: int) -> bool:
    if isinstance(part, str):
        return ipaddress.IPv6Address(value) in ipaddress.IPv6Network(part)
    assert isinstance(part, tuple)
    first, last = part
    return bool(first <= value <= last)
