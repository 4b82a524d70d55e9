# SPDX-License-Identifier: BSD-3-Clause
"""UpdateTTL, IPChecksum and L4Checksum against the Internet checksum spelled out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from harness import Result, run

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TOO_SHORT = "packet too short"
EXPIRED = "TTL expired"


def sum_twin(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def tagged(vlans: int) -> Any:
    packet = Ether(**MACS)
    if vlans > 1:
        packet /= Dot1AD(vlan=9)
    if vlans > 0:
        packet /= Dot1Q(vlan=7)
    return packet


def l2_len(vlans: int) -> int:
    return 14 + 4 * vlans


def ipv4(l4: Any, vlans: int = 0, payload: bytes = b"payload", **fields: Any) -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2", **fields)
    return bytes(tagged(vlans) / ip / l4 / payload)


def ipv6(l4: Any, vlans: int = 0, payload: bytes = b"payload", **fields: Any) -> bytes:
    return bytes(tagged(vlans) / IPv6(src="2001:db8::1", dst="fe80::2", **fields) / l4 / payload)


def put(packet: bytes, at: int, value: bytes) -> bytes:
    return packet[:at] + value + packet[at + len(value) :]


def prefixes(packet: bytes) -> list[bytes]:
    return [packet[:n] for n in range(len(packet) + 1)]


def lengths(result: Result, gate: int = 0) -> list[int]:
    return [len(packet) for packet in result.out.get(gate, [])]


class TestUpdateTTL:
    @pytest.mark.parametrize("vlans", [0, 1, 2])
    def test_every_ttl(self, vlans: int) -> None:
        packets = [ipv4(UDP(), vlans, ttl=ttl) for ttl in range(256)]
        result = run("UpdateTTL", {}, packets)
        assert result.drops == {EXPIRED: 2}
        assert result.out[0] == [ipv4(UDP(), vlans, ttl=ttl - 1) for ttl in range(2, 256)]

    @settings(deadline=None, max_examples=60)
    @given(st.binary(min_size=20, max_size=20), st.integers(2, 255))
    def test_checksum_stays_right(self, header: bytes, ttl: int) -> None:
        header = put(put(b"\x45" + header[1:], 8, bytes([ttl])), 10, b"\0\0")
        header = put(header, 10, sum_twin(header).to_bytes(2, "big"))
        packet = bytes(12) + b"\x08\x00" + header + bytes(20)
        (out,) = run("UpdateTTL", {}, [packet]).out[0]
        assert out[22] == ttl - 1
        assert sum_twin(out[14:34]) == 0
        assert put(put(out, 22, bytes([ttl])), 24, header[10:12]) == packet

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    def test_every_hop_limit(self, vlans: int) -> None:
        packets = [ipv6(UDP(), vlans, hlim=hops) for hops in range(256)]
        result = run("UpdateTTL", {}, packets)
        assert result.drops == {EXPIRED: 2}
        assert result.out[0] == [ipv6(UDP(), vlans, hlim=hops - 1) for hops in range(2, 256)]

    def test_other_protocols_pass(self) -> None:
        arp = bytes(Ether(**MACS) / ARP())
        assert run("UpdateTTL", {}, [arp]).out[0] == [arp]

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize(("make", "header"), [(ipv4, 20), (ipv6, 40)])
    def test_every_length(self, make: Any, header: int, vlans: int) -> None:
        packet = make(TCP(), vlans)
        needed = l2_len(vlans) + header
        result = run("UpdateTTL", {}, prefixes(packet))
        assert result.drops == {TOO_SHORT: needed}
        assert lengths(result) == list(range(needed, len(packet) + 1))


class TestIPChecksum:
    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("options", [0, 1, 10])
    def test_computes(self, vlans: int, options: int) -> None:
        packet = ipv4(UDP(), vlans, options=[IPOption_NOP()] * 4 * options)
        spoiled = put(packet, l2_len(vlans) + 10, b"\x12\x34")
        assert run("IPChecksum", {}, [packet, spoiled]).out[0] == [packet, packet]

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    def test_verifies(self, vlans: int) -> None:
        packet = ipv4(UDP(), vlans)
        spoiled = put(packet, l2_len(vlans) + 8, b"\x07")
        v6 = ipv6(UDP(), vlans)
        result = run("IPChecksum", {"verify": True, "hw": True}, [packet, spoiled, v6])
        assert result.out == {0: [packet, v6], 1: [spoiled]}

    @settings(deadline=None, max_examples=60)
    @given(st.binary(min_size=20, max_size=60))
    def test_any_header(self, header: bytes) -> None:
        header = header[: len(header) // 4 * 4]
        header = bytes([0x40 | len(header) // 4]) + header[1:]
        packet = bytes(12) + b"\x08\x00" + header
        right = sum_twin(put(header, 10, b"\0\0"))
        expected = put(packet, 24, right.to_bytes(2, "big"))
        assert run("IPChecksum", {}, [packet]).out[0] == [expected]
        gate = 0 if sum_twin(header) == 0 else 1
        assert run("IPChecksum", {"verify": True}, [packet]).out == {gate: [packet]}

    @pytest.mark.parametrize("verify", [False, True])
    @pytest.mark.parametrize("vlans", [0, 1, 2])
    def test_every_length(self, vlans: int, verify: bool) -> None:
        packet = ipv4(TCP(), vlans, options=[IPOption_NOP()] * 4)
        needed = l2_len(vlans) + 24
        result = run("IPChecksum", {"verify": verify}, prefixes(packet))
        assert result.drops == {TOO_SHORT: needed}
        assert lengths(result) == list(range(needed, len(packet) + 1))


L4 = {"tcp": (TCP(sport=1, dport=2), 16), "udp": (UDP(sport=1, dport=2), 6)}
MAKERS = {"ipv4": (ipv4, 20), "ipv6": (ipv6, 40)}


class TestL4Checksum:
    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("ip", MAKERS)
    @pytest.mark.parametrize("l4", L4)
    @pytest.mark.parametrize("payload", [b"", b"odd", b"even", bytes(1400)])
    def test_computes_and_verifies(self, ip: str, l4: str, vlans: int, payload: bytes) -> None:
        make, header = MAKERS[ip]
        layer, field = L4[l4]
        packet = make(layer, vlans, payload)
        at = l2_len(vlans) + header + field
        spoiled = put(packet, at, bytes([packet[at] ^ 1, packet[at + 1]]))
        assert run("L4Checksum", {}, [packet, spoiled]).out[0] == [packet, packet]
        result = run("L4Checksum", {"verify": True, "hw": True}, [packet, spoiled])
        assert result.out == {0: [packet], 1: [spoiled]}

    def test_udp_without_checksum(self) -> None:
        v4, v6 = put(ipv4(UDP()), 40, b"\0\0"), put(ipv6(UDP()), 60, b"\0\0")
        assert run("L4Checksum", {"verify": True}, [v4, v6]).out == {0: [v4], 1: [v6]}
        assert run("L4Checksum", {}, [v4, v6]).out[0] == [ipv4(UDP()), ipv6(UDP())]

    def test_udp_sum_of_zero_is_written_as_ones(self) -> None:
        base = ipv4(UDP(), payload=b"\0\0")
        packet = ipv4(UDP(), payload=base[40:42])
        (out,) = run("L4Checksum", {}, [put(packet, 40, b"\0\0")]).out[0]
        assert out[40:42] == b"\xff\xff"

    def test_behind_extension_headers_and_padding(self) -> None:
        for packet in (
            ipv6(IPv6ExtHdrDestOpt() / TCP(), payload=b"xyz"),
            ipv4(UDP(), payload=b"x") + b"padding" * 3,
            ipv4(TCP(), options=[IPOption_NOP()] * 8),
        ):
            assert run("L4Checksum", {}, [packet]).out[0] == [packet]
            assert run("L4Checksum", {"verify": True}, [packet]).out == {0: [packet]}

    def test_what_it_leaves_alone(self) -> None:
        packets = [
            bytes(Ether(**MACS) / ARP()),
            put(ipv4(ICMP()), 36, b"\x12\x34"),
            put(ipv4(UDP(), flags="MF"), 40, b"\x12\x34"),
            put(ipv4(UDP(), frag=3), 40, b"\x12\x34"),
            put(ipv6(IPv6ExtHdrFragment(m=1) / UDP()), 68, b"\x12\x34"),
        ]
        for verify in (False, True):
            assert run("L4Checksum", {"verify": verify}, packets).out == {0: packets}

    def test_every_input_gate(self) -> None:
        packet = ipv4(TCP())
        assert run("L4Checksum", {}, [packet], in_gate=8191).out[0] == [packet]

    @pytest.mark.parametrize("verify", [False, True])
    @pytest.mark.parametrize("vlans", [0, 1])
    @pytest.mark.parametrize("ip", MAKERS)
    @pytest.mark.parametrize("l4", L4)
    def test_every_length(self, ip: str, l4: str, vlans: int, verify: bool) -> None:
        make, _ = MAKERS[ip]
        packet = make(L4[l4][0], vlans)
        result = run("L4Checksum", {"verify": verify}, prefixes(packet))
        assert result.drops == {TOO_SHORT: len(packet)}
        assert result.out == {0: [packet]}
