# SPDX-License-Identifier: BSD-3-Clause
"""PathMtu does to any frame what its twin in plain Python does."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import new_engine
from twins.path_mtu_twin import PathMtuTwin, checksum, put16

V4 = ["10.0.0.1", "198.51.100.7", "127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255"]
V6 = ["2001:db8::1", "2001:db8::2", "::", "::1", "ff02::1", "fe80::1"]
MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff"]
twins = st.builds(
    PathMtuTwin,
    mtu=st.sampled_from([68, 75, 300, 576, 1280, 1396]),
    mtu6=st.sampled_from([1280, 1283, 1500]),
    clamp_mss=st.booleans(),
    address=st.sampled_from(["", "192.0.2.1"]),
    address6=st.sampled_from(["", "2001:db8::9"]),
)


@st.composite
def tcp_options(draw: st.DrawFn) -> bytes:
    kinds = [b"\2\4\5\xb4", b"\2\4\x23\x28", b"\1", b"\0", b"\3\3\7", b"\4\2", b"\2\3\1", b"\2\4"]
    made = b"".join(draw(st.lists(st.sampled_from(kinds), max_size=9)))[:40]
    return made + bytes(-len(made) % 4)


@st.composite
def ip_options(draw: st.DrawFn) -> bytes:
    kinds = [b"\x94\4\0\0", b"\7\7\4abcd", b"\x82\x0b" + b"x" * 9, b"\1", b"\0", b"\x88\4ab", b"\7"]
    made = b"".join(draw(st.lists(st.sampled_from(kinds), max_size=5)))[:40]
    return made + bytes(-len(made) % 4)


def mended(frame: bytes, link: int) -> bytes:
    """With the right IPv4 checksum, options included."""
    end = link + (frame[link] & 15) * 4
    frame = put16(frame, link + 10, 0)
    return put16(frame, link + 10, checksum(frame[link:end]))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames of all kinds, most of them near to an MTU and many too long."""

    def usual(values: list[str]) -> str:
        return draw(st.one_of(st.sampled_from(values[:2]), st.sampled_from(values)))

    link: Packet = Ether(src=usual(MACS), dst=usual(MACS))
    for tag in draw(st.lists(st.sampled_from([Dot1Q, Dot1AD]), max_size=2)):
        link /= tag(vlan=draw(st.integers(0, 4095)))
    payload = Raw(bytes(draw(st.sampled_from([0, 30, 300, 560, 1240, 1380, 1500, 1800]))))
    payload.load += bytes(draw(st.integers(0, 40)))
    options = draw(tcp_options())
    tcp = TCP(flags=draw(st.sampled_from(["S", "SA", "A"])), dataofs=5 + len(options) // 4)
    icmp_type = draw(st.sampled_from([0, 3, 8, 11, 13]))
    kind = draw(st.sampled_from(["v4", "v4", "v6", "arp"]))
    if kind == "arp":
        frame = link / ARP() / payload
    elif kind == "v4":
        l4 = draw(st.sampled_from([tcp / Raw(options), UDP(), ICMP(type=icmp_type)]))
        ip_extra = draw(ip_options())
        ip = IP(
            src=usual(V4),
            dst=usual(V4),
            id=draw(st.integers(0, 65535)),
            flags=draw(st.sampled_from(["", "", "DF", "MF", "DF+MF"])),
            frag=draw(st.sampled_from([0, 0, 0, 1, 185, 8000, 8191])),
            ihl=5 + len(ip_extra) // 4,
            proto=l4.overload_fields[IP]["proto"] if IP in l4.overload_fields else 17,
        )
        frame = Raw(mended(bytes(link / ip / Raw(ip_extra) / l4 / payload), len(link)))
    else:
        l4 = draw(
            st.sampled_from([tcp / Raw(options), UDP(), ICMPv6EchoRequest(), ICMPv6TimeExceeded()])
        )
        base: Packet = IPv6(src=usual(V6), dst=usual(V6))
        between = draw(st.sampled_from(["", "options", "first", "later"]))
        if between == "options":
            base /= IPv6ExtHdrDestOpt()
        elif between:
            base /= IPv6ExtHdrFragment(m=1, offset=0 if between == "first" else 20)
        frame = link / base / l4 / payload
    raw = bytearray(bytes(frame))
    damage = draw(st.sampled_from(["", "", "", "cut", "pad", "flip", "lie"]))
    if damage == "cut":
        del raw[draw(st.integers(1, len(raw))) :]
    elif damage == "pad":
        raw += bytes(draw(st.integers(1, 46)))
    elif damage == "flip":
        raw[draw(st.integers(0, min(len(raw), 120) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif damage == "lie" and len(raw) > 20:
        raw[16:18] = draw(st.integers(0, 3000)).to_bytes(2, "big")
    return bytes(raw[:2000])


@settings(deadline=None, max_examples=150)
@given(twins, st.lists(frames(), min_size=1, max_size=20))
def test_any_frame(twin: PathMtuTwin, packets: list[bytes]) -> None:
    engine = new_engine()
    engine.create_module("m", "PathMtu", vars(twin) | {"errors_per_second": 1000})
    expected: dict[int, list[bytes]] = {}
    reasons: Counter[str] = Counter()
    for packet in packets:
        outcome = twin.put(packet)
        if isinstance(outcome, str):
            reasons[outcome] += 1
            continue
        for gate, out in outcome:
            expected.setdefault(gate, []).append(out)
    assert engine.run_packets("m", packets) == expected
    assert {k: v for k, v in engine.module_info("m")["drops"].items() if v} == reasons
    assert engine.mempool()["in_use"] == 0
