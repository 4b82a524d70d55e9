# SPDX-License-Identifier: BSD-3-Clause
"""Header columns and flow hashes over arrays, against the plain-Python twin and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP

from bess_plugins import _arrays as arrays
from twins import headers_twin as twin

E = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="10.0.0.1", dst="192.168.7.9")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2:3")
U = UDP(sport=1234, dport=53)
FRAMES = {
    "udp4": E / V4 / U / b"payload",
    "tcp4_options": E / V4 / TCP(sport=80, dport=4000, options=[("MSS", 1460)]) / b"data",
    "ip_options": E / IP(src="1.2.3.4", dst="5.6.7.8", options=[b"\x01\x01\x01\x00"]) / U / b"x",
    "icmp4": E / V4 / ICMP() / b"ping",
    "sctp4": E / V4 / SCTP(sport=7, dport=9),
    "gre": E / IP(src="1.1.1.1", dst="2.2.2.2", proto=47) / b"opaque",
    "first_fragment4": E / IP(src="1.1.1.1", dst="2.2.2.2", flags="MF") / U / b"part one",
    "later_fragment4": E / IP(src="1.1.1.1", dst="2.2.2.2", frag=3, proto=17) / b"part two",
    "vlan": E / Dot1Q(vlan=42, prio=5) / V4 / U,
    "qinq": E / Dot1AD(vlan=7) / Dot1Q(vlan=8) / V6 / U / b"inner",
    "udp6": E / V6 / U / b"payload",
    "tcp6": E / V6 / TCP(sport=1, dport=2) / b"data",
    "icmp6": E / V6 / ICMPv6EchoRequest(),
    "extensions6": E / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(sport=1, dport=2),
    "first_fragment6": E / V6 / IPv6ExtHdrFragment(m=1) / U / b"part one",
    "later_fragment6": E / V6 / IPv6ExtHdrFragment(offset=9, nh=17) / b"part two",
    "no_next6": E / IPv6(src="::1", dst="::2", nh=59),
    "arp": E / ARP(),
    "padded": E / V4 / U / b"x" / b"",
}
RAW = {name: bytes(frame) for name, frame in FRAMES.items()}
RAW["padded"] = RAW["padded"].ljust(60, b"\xee")
UINT32 = NDArray[np.uint32]


def packed(frames: Sequence[bytes]) -> tuple[bytes, UINT32, UINT32]:
    lengths = np.array([len(frame) for frame in frames], np.uint32)
    offsets = np.zeros(len(frames), np.uint32)
    offsets[1:] = np.cumsum(lengths)[:-1]
    return b"".join(frames), offsets, lengths


def check(frames: Sequence[bytes]) -> None:
    """Every column and every hash is what the twin says."""
    columns = arrays.parse(*packed(frames))
    hashes = arrays.flow_hashes(*packed(frames))
    assert set(columns) == {field.name for field in fields(twin.Row)}
    for i, frame in enumerate(frames):
        values = {
            name: bytes(column[i]) if column.ndim == 2 else int(column[i])
            for name, column in columns.items()
        }
        row = twin.parse(frame)
        assert twin.Row(**values) == row, frame.hex()
        assert int(hashes[i]) == twin.flow_hash(row), frame.hex()


def test_all_frames_at_once() -> None:
    check(list(RAW.values()))


@pytest.mark.parametrize("name", RAW)
def test_truncated_at_every_byte(name: str) -> None:
    frame = RAW[name]
    check([frame[:size] for size in range(len(frame) + 1)])


@pytest.mark.parametrize("name", ["udp4", "ip_options", "tcp4_options", "qinq", "extensions6"])
def test_every_header_byte_changed(name: str) -> None:
    frame = RAW[name]
    check(
        [
            frame[:at] + bytes([value]) + frame[at + 1 :]
            for at in range(12, len(frame))
            for value in (0, 1, 0x45, 0x60, 0xFF, frame[at] ^ 0x10)
        ]
    )


def test_stacked_vlan_tags_up_to_the_limit() -> None:
    inner = RAW["udp4"]
    tag = b"\x81\x00\x00\x05"
    check([inner[:12] + tag * count + inner[12:] for count in range(11)])


def test_values_by_hand() -> None:
    columns = arrays.parse(*packed([RAW["vlan"], RAW["udp6"], RAW["later_fragment4"]]))
    assert columns["ether_type"].tolist() == [0x0800, 0x86DD, 0x0800]
    assert columns["vlan_tci"].tolist() == [5 << 13 | 42, 0, 0]
    assert columns["ip_version"].tolist() == [4, 6, 4]
    assert columns["ip_proto"].tolist() == [17, 17, 17]
    assert columns["src"][0].tolist() == [10, 0, 0, 1] + [0] * 12
    assert bytes(columns["dst"][1]).hex() == "20010db8000000000000000000020003"
    assert columns["sport"].tolist() == [1234, 1234, 0]
    assert columns["dport"].tolist() == [53, 53, 0]
    assert columns["l4_off"].tolist() == [38, 54, 0]
    assert columns["payload_off"].tolist() == [46, 62, 34]
    assert columns["payload_len"].tolist() == [0, 7, 8]


def test_column_types() -> None:
    columns = arrays.parse(*packed([RAW["udp4"]] * 3))
    assert {name: column.dtype.name for name, column in columns.items()} == {
        "ip_version": "uint8",
        "ip_proto": "uint8",
        "src": "uint8",
        "dst": "uint8",
    } | dict.fromkeys(
        ["ether_type", "vlan_tci", "sport", "dport", "l4_off", "payload_off", "payload_len"],
        "uint16",
    )
    assert columns["src"].shape == columns["dst"].shape == (3, 16)
    assert arrays.flow_hashes(*packed([RAW["udp4"]])).dtype == np.uint64


def test_a_flow_has_one_hash() -> None:
    again = bytes(E / V4 / U / b"another payload")
    other = bytes(E / V4 / UDP(sport=1235, dport=53) / b"payload")
    first, same, third, arp = arrays.flow_hashes(*packed([RAW["udp4"], again, other, RAW["arp"]]))
    assert first == same != third
    assert arp == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_kinds_of_buffer(kind: type) -> None:
    data, offsets, lengths = packed([RAW["udp4"]])
    assert arrays.parse(kind(data), offsets, lengths)["dport"].tolist() == [53]
    view = np.frombuffer(data, np.uint8)
    assert arrays.parse(view, offsets, lengths)["dport"].tolist() == [53]


def test_packets_may_overlap_and_be_in_any_order() -> None:
    data = RAW["udp4"] + RAW["tcp6"]
    offsets = np.array([len(RAW["udp4"]), 0, 0], np.uint32)
    lengths = np.array([len(RAW["tcp6"]), len(RAW["udp4"]), 20], np.uint32)
    assert arrays.parse(data, offsets, lengths)["dport"].tolist() == [2, 53, 0]


def test_nothing() -> None:
    none = np.zeros(0, np.uint32)
    assert all(len(column) == 0 for column in arrays.parse(b"", none, none).values())
    assert arrays.flow_hashes(b"", none, none).tolist() == []
    zero = np.zeros(2, np.uint32)
    assert arrays.parse(b"", zero, zero)["ether_type"].tolist() == [0, 0]


@pytest.mark.parametrize("function", [arrays.parse, arrays.flow_hashes])
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 11), (10, 1), (11, 0), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF)]
)
def test_packets_outside_the_buffer(function: object, offset: int, length: int) -> None:
    assert callable(function)
    offsets = np.array([0, offset], np.uint32)
    lengths = np.array([10, length], np.uint32)
    with pytest.raises(ValueError, match="packet 1 ends at"):
        function(bytes(10), offsets, lengths)


def test_wrong_shapes_and_types() -> None:
    two = np.zeros(2, np.uint32)
    with pytest.raises(ValueError, match="2 offsets but 1 lengths"):
        arrays.parse(b"", two, two[:1])
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        arrays.parse(b"", two.astype(np.int64), two)
    with pytest.raises(ValueError, match="contiguous"):
        arrays.parse(np.zeros(8, np.uint8)[::2], two, two)
