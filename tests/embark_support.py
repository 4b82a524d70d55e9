# SPDX-License-Identifier: BSD-3-Clause
"""A site with keys and maps, its gateways' modules, and packets of every kind they treat."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chain_support import Chain, run_counted
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6NIQueryIPv6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from bess_plugins._crypto import PrefixMap, write_prefix_maps
from twins import embark_twin as twin

MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
MAC_ARGS = {"src_mac": MACS["src"], "dst_mac": MACS["dst"]}
MAC_BYTES = bytes.fromhex("020000000002020000000001")
MAP_SEED = bytes(range(16))
MAPPED = 0xFFFF << 32
SITE = 0x2001_0DB8 << 96
ADDRESSES = [
    (MAPPED + (10 << 24), MAPPED + (11 << 24) - 1),
    (MAPPED + (10 << 24) + 5, MAPPED + (10 << 24) + 5),
    (SITE, SITE + 2**80),
    (0, 5),
]
PORTS = [(80, 80), (0, 1023), (5000, 6000)]
RANGES = (ADDRESSES, ADDRESSES, PORTS, PORTS)
V4: dict[str, Any] = {"src": "10.1.2.3", "dst": "198.51.100.7"}
V6: dict[str, Any] = {"src": "2001:db8::1:2", "dst": "2001:db8:9:8:7:6:5:4"}
SECRET = b"the-secret-payload"


@dataclass(frozen=True)
class Site:
    """Files of a site, and the same things for the twin."""

    folder: Path
    site_key: bytes = bytes(range(100, 132))
    epoch: int = 3
    pool: tuple[tuple[str, bool], ...] = ()
    ranges: tuple[list[tuple[int, int]], ...] = RANGES
    mtu: int = 0
    map_seed: bytes = MAP_SEED
    bound: bool = False
    made: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_key(self.key_file, self.site_key)
        seed = self.map_seed
        bits = (128, 128, 16, 16)
        maps = [
            PrefixMap(r, b, bytes(16), seed=seed) for r, b in zip(self.ranges, bits, strict=True)
        ]
        write_prefix_maps(self.maps_file, *maps)

    @property
    def key_file(self) -> Path:
        return self.folder / "site.key"

    @property
    def maps_file(self) -> Path:
        return self.folder / "site.maps"

    @property
    def key(self) -> dict[str, Any]:
        return {"file": str(self.key_file), "epoch": self.epoch}

    @property
    def pool_args(self) -> list[dict[str, Any]]:
        return [{"prefix": address, "nat": nat} for address, nat in self.pool]

    @property
    def plan(self) -> dict[str, Any]:
        """What `update` of PrefixMatchEncrypt takes."""
        return {"key": self.key, "maps_file": str(self.maps_file), "pool": self.pool_args}

    def encrypts(self, sealed: bool = False) -> Chain:
        args = self.plan | MAC_ARGS | {"sealed_payload": sealed, "mtu": self.mtu}
        args["bound_seals"] = self.bound
        seals: Chain = [("PayloadSeal", {"key": self.key})] if sealed else []
        return [*seals, ("PrefixMatchEncrypt", args)]

    def decrypts(self, opened: bool = False) -> Chain:
        args = {"keys": [self.key], "pool": self.pool_args, "sealed_payload": opened} | MAC_ARGS
        opens: Chain = [("PayloadOpen", {"keys": [self.key]})] if opened else []
        return [("PrefixMatchDecrypt", args), *opens]

    @property
    def ring(self) -> dict[int, twin.SiteKeys]:
        return {self.epoch: self.gateway.keys}

    @property
    def gateway(self) -> twin.Gateway:
        if "gateway" not in self.made:
            keys = twin.SiteKeys(self.site_key)
            maps = twin.make_maps(keys, self.ranges, self.map_seed)
            self.made["gateway"] = twin.Gateway(
                keys,
                maps,
                self.epoch,
                MAC_BYTES,
                self.mtu or 65535,
                twin.Pool(self.pool),
                self.bound,
            )
        gateway: twin.Gateway = self.made["gateway"]
        return gateway

    def encrypt(self, packets: list[bytes], sealed: bool = False) -> list[bytes]:
        """All of them; none may be dropped."""
        out, drops = run_counted(self.folder, self.encrypts(sealed), packets)
        assert drops == {}
        assert len(out) == len(packets)
        return out

    def decrypt(
        self, packets: list[bytes], opened: bool = False
    ) -> tuple[list[bytes], dict[str, int]]:
        return run_counted(self.folder, self.decrypts(opened), packets)

    def drops(self, packet: bytes, opened: bool = False) -> str:
        """Why one packet is dropped."""
        out, drops = self.decrypt([packet], opened)
        assert out == [] and sum(drops.values()) == 1
        return next(iter(drops))

    def expected(self, packet: bytes, encrypted: bytes, sealed: bool = False) -> bytes:
        """What the twin makes of a packet under the nonces of the encrypted one."""
        nonce, seal_nonce = nonces_of(encrypted)
        if not sealed:
            return twin.encrypt(packet, self.gateway, nonce, seal_nonce=seal_nonce)
        packet, seal = twin.seal(packet, self.gateway.keys, self.epoch, seal_nonce)
        return twin.encrypt(packet, self.gateway, nonce, seal, seal_nonce)


def write_key(path: Path, site_key: bytes) -> Path:
    path.touch(0o600)
    path.write_text(site_key.hex() + "\n")
    return path


def nonces_of(encrypted: bytes) -> tuple[bytes, bytes]:
    """The header's, and the payload's or zeros."""
    option = encrypted[54:]
    end = (option[1] + 1) * 8
    seal = option[end - 32 : end] if option[4] & 3 else bytes(32)
    return option[6:18], seal[4:16]


def restored(packet: bytes) -> bytes:
    """How a packet comes back: with the gateway's MAC addresses, and zeros behind the IP packet."""
    trailer = twin.parse(packet).trailer
    return MAC_BYTES + packet[12 : len(packet) - trailer] + bytes(trailer)


def change(packet: bytes, at: int, value: bytes) -> bytes:
    return packet[:at] + value + packet[at + len(value) :]


def build(*layers: Any, **ether: Any) -> bytes:
    packet = Ether(**(MACS | ether))
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def make_frames() -> dict[str, bytes]:
    tcp, udp = TCP(sport=5555, dport=80, flags="PA", seq=7), UDP(sport=1234, dport=53)
    v4, v6, inner = IP(**V4, ttl=9, tos=0xB8, id=77), IPv6(**V6, hlim=9, tc=5, fl=0x12345), IP(**V4)
    found = {
        "tcp": build(v4, tcp, SECRET),
        "tcp options": build(v4, TCP(sport=1, dport=2, options=[("MSS", 1460)]), SECRET),
        "bare ack": build(v4, TCP(sport=1, dport=2, flags="A")),
        "udp": build(v4, udp, SECRET + b"!"),
        "udp no payload": build(v4, udp),
        "df": build(IP(**V4, flags="DF"), udp, SECRET),
        "evil": build(IP(**V4, flags="evil"), udp, SECRET),
        "echo": build(v4, ICMP(id=0x4242, seq=3), SECRET),
        "timestamp": build(v4, ICMP(type=13, id=5)),
        "unreachable": build(v4, ICMP(type=3, code=4), inner, udp, SECRET),
        "redirect": build(v4, ICMP(type=5, gw="10.9.9.9"), inner, udp),
        "router": build(v4, ICMP(type=9), SECRET),
        "gre": build(IP(**V4, proto=47), SECRET),
        "nothing": build(IP(**V4, proto=47)),
        "options": build(IP(**V4, options=[IPOption_NOP()] * 3 + [IPOption_RR()]), tcp, SECRET),
        "padded": build(v4, udp) + b"padding of Ethernet",
        "vlan": build(Dot1Q(vlan=0xABC, prio=3), v4, tcp, SECRET),
        "qinq": build(Dot1AD(vlan=0xABC), Dot1Q(vlan=0xDEF), v4, udp, SECRET),
        "first": build(IP(**V4, flags="MF", id=99), UDP(sport=9, dport=80, len=99), SECRET * 2),
        "first tcp": build(IP(**V4, flags="MF", id=99), tcp, SECRET),
        "middle": build(IP(**V4, flags="MF", frag=3, id=99), SECRET),
        "last": build(IP(**V4, frag=6, id=99), SECRET),
        "last icmp": build(IP(**V4, frag=6, id=99, proto=1), SECRET),
        "tcp6": build(v6, tcp, SECRET),
        "udp6": build(v6, udp, SECRET),
        "echo6": build(v6, ICMPv6EchoRequest(id=0x4242, data=SECRET)),
        "unreachable6": build(v6, ICMPv6DestUnreach(), IPv6(**V6), udp, SECRET),
        "node information": build(v6, ICMPv6NIQueryIPv6()),
        "sctp6": build(IPv6(**V6, nh=132), SECRET),
        "none6": build(IPv6(**V6, nh=59)),
        "hop by hop": build(v6, IPv6ExtHdrHopByHop(), udp, SECRET),
        "destination": build(v6, IPv6ExtHdrDestOpt(), tcp, SECRET),
        "routing": build(v6, IPv6ExtHdrRouting(addresses=["2001:db8::77"]), udp, SECRET),
        "atomic": build(v6, IPv6ExtHdrFragment(id=5, nh=6), tcp, SECRET),
        "first6": build(v6, IPv6ExtHdrFragment(m=1, id=9, nh=17), UDP(sport=9, len=99), SECRET),
        "middle6": build(v6, IPv6ExtHdrFragment(m=1, offset=3, id=9, nh=17), SECRET),
        "last6": build(v6, IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(offset=6, id=9, nh=6), SECRET),
        "options in a fragment": build(
            v6, IPv6ExtHdrFragment(m=1, nh=60), IPv6ExtHdrDestOpt(), udp
        ),
        "vlan6": build(Dot1Q(vlan=0xABC), v6, udp, SECRET),
        "ipv4 in ipv6": build(IPv6(**V6, nh=1), ICMP(), SECRET),
    }
    ip_at, l4_at = 14, 34
    tcp_frame, udp_frame = found["tcp"], found["udp"]
    found |= {
        "ip checksum": change(tcp_frame, ip_at + 10, b"\x12\x34"),
        "ip checksum 0": change(tcp_frame, ip_at + 10, bytes(2)),
        "ip checksum 0xffff": change(tcp_frame, ip_at + 10, b"\xff\xff"),
        "tcp checksum": change(tcp_frame, l4_at + 16, b"\x12\x34"),
        "udp checksum 0": change(udp_frame, l4_at + 6, bytes(2)),
        "udp checksum": change(udp_frame, l4_at + 6, b"\x12\x34"),
        "first checksum 0": change(found["first"], l4_at + 6, bytes(2)),
        "echo checksum": change(found["echo"], l4_at + 2, b"\x12\x34"),
        "tcp header of 4": change(tcp_frame, l4_at + 12, b"\x10"),
        "tcp header of 60": change(tcp_frame, l4_at + 12, b"\xf0"),
        "tcp cut": build(IP(**V4, proto=6), bytes(tcp)[:19]),
        "udp too long": change(udp_frame, l4_at + 4, b"\x00\xff"),
        "udp too short": change(udp_frame, l4_at + 4, b"\x00\x0a"),
        "udp cut": build(IP(**V4, proto=17), bytes(udp)[:7]),
        "icmp cut": build(IP(**V4, proto=1), bytes(ICMP())[:7]),
    }
    return found


FRAMES = make_frames()
# Not these: by reason.
REFUSED = {
    "arp": (build(ARP()), "not IP"),
    "mpls": (build(b"\0\0\x11\x40" + FRAMES["udp"][14:], type=0x8847), "not IP"),
    "short": (b"short", "malformed"),
    "cut tag": (FRAMES["vlan"][:16], "malformed"),
    "cut": (FRAMES["tcp"][:-1], "malformed"),
    "cut6": (FRAMES["tcp6"][:-1], "malformed"),
    "header cut": (FRAMES["tcp"][:30], "malformed"),
    "ihl": (change(FRAMES["tcp"], 14, b"\x44"), "malformed"),
    "total": (change(FRAMES["tcp"], 16, b"\0\0"), "malformed"),
    "trailer of 256": (FRAMES["udp"] + bytes(256), "malformed"),
    "extension": (change(FRAMES["destination"], 55, b"\xff"), "malformed"),
    "solicitation": (build(IPv6(**V6, hlim=255), ICMPv6ND_NS()), "of the link"),
    "listener": (build(IPv6(**V6, nh=58), bytes([143]) + bytes(11)), "of the link"),
}
