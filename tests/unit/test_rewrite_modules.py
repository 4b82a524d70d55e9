# SPDX-License-Identifier: BSD-3-Clause
"""Modules that change bytes in place: Update, RandomUpdate, Rewrite, MACSwap and IPSwap; and no
packet is lost in these, nor in Timestamp, Measure and Dump."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether

from harness import Engine, EngineError, Result, new_engine, run

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TOO_SHORT = "packet too short"


def ipv4(l4: Any, vlans: int = 0, **fields: Any) -> bytes:
    packet = Ether(**MACS)
    for n in range(vlans):
        packet /= Dot1Q(vlan=n + 1)
    return bytes(packet / IP(src="10.0.0.1", dst="10.0.0.2", **fields) / l4 / b"payload")


def ipv6(l4: Any, vlans: int = 0, extension: bool = False) -> bytes:
    packet = Ether(**MACS)
    for n in range(vlans):
        packet /= Dot1Q(vlan=n + 1)
    packet /= IPv6(src="2001:db8::1", dst="2001:db8::2")
    if extension:
        packet /= IPv6ExtHdrDestOpt()
    return bytes(packet / l4 / b"payload")


def prefixes(packet: bytes) -> list[bytes]:
    return [packet[:n] for n in range(len(packet) + 1)]


def conserved(result: Result, packets: list[bytes]) -> bool:
    return result.forwarded + result.dropped == len(packets)


def write_twin(packet: bytes, fields: list[dict[str, int]]) -> bytes | None:
    """The packet with all fields written in order, or None where one doesn't fit."""
    out = bytearray(packet)
    for field in fields:
        end = field["offset"] + field["size"]
        if end > len(out):
            return None
        out[field["offset"] : end] = field["value"].to_bytes(field["size"], "big")
    return bytes(out)


class TestUpdate:
    @pytest.mark.parametrize("size", range(1, 9))
    def test_every_size_at_every_length(self, size: int) -> None:
        fields = [{"offset": 5, "size": size, "value": 2 ** (8 * size) - 2}]
        packets = prefixes(bytes(range(40)))
        result = run("Update", {"fields": fields}, packets)
        twins = [write_twin(packet, fields) for packet in packets]
        assert result.out[0] == [twin for twin in twins if twin is not None]
        assert result.drops == {TOO_SHORT: twins.count(None)}

    def test_later_fields_win_and_add_appends(self) -> None:
        first = {"offset": 0, "size": 4, "value": 0x01020304}
        second = {"offset": 2, "size": 1, "value": 0xFF}
        result = run("Update", {"fields": [first]}, [bytes(8)], [("add", {"fields": [second]})])
        assert result.out[0] == [b"\x01\x02\xff\x04\0\0\0\0"]

    def test_clear(self) -> None:
        field = {"offset": 6, "size": 4, "value": 1}
        result = run("Update", {"fields": [field]}, [b"ab"], [("clear", {})])
        assert result.out[0] == [b"ab"]

    def test_headroom(self) -> None:
        packet = bytes(range(20))
        fields = [{"offset": -2, "size": 4, "value": 0xAABBCCDD}]
        result = run("Update", {"fields": fields}, [packet])
        assert result.out[0] == [b"\xcc\xdd" + packet[2:]]

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ({"offset": 0, "size": 0, "value": 0}, "'size'"),
            ({"offset": 0, "size": 9, "value": 0}, "'size'"),
            ({"offset": 2045, "size": 4, "value": 0}, "'offset'"),
            ({"offset": -257, "size": 4, "value": 0}, "'offset'"),
            ({"offset": 0, "size": 1, "value": 256}, "'value'"),
        ],
    )
    def test_bad_fields(self, field: dict[str, int], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("Update", {"fields": [field]}, [])

    def test_at_most_16_fields_all_or_none(self) -> None:
        field = {"offset": 0, "size": 1, "value": 1}
        engine = new_engine()
        engine.create_module("m", "Update", {"fields": [field] * 16})
        with pytest.raises(EngineError, match="16"):
            engine.module_command("m", "add", {"fields": [field]})
        engine.module_command("m", "clear", {})
        bad = {"offset": 0, "size": 1, "value": 256}
        with pytest.raises(EngineError, match="item 1"):
            engine.module_command("m", "add", {"fields": [field, bad]})
        assert engine.run_packets("m", [b"\0\0"])[0] == [b"\0\0"]


class TestRandomUpdate:
    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_range_is_inclusive_and_covered(self, size: int) -> None:
        fields = [{"offset": 3, "size": size, "min": 10, "max": 13}]
        packets = [bytes(range(16))] * 400
        out = run("RandomUpdate", {"fields": fields}, packets).out[0]
        values = Counter(int.from_bytes(packet[3 : 3 + size], "big") for packet in out)
        assert set(values) == {10, 11, 12, 13}
        assert all(p[:3] + p[3 + size :] == bytes([0, 1, 2, *range(3 + size, 16)]) for p in out)

    def test_full_range_and_cut_bounds(self) -> None:
        fields = [
            {"offset": 0, "size": 4, "min": 0, "max": 2**32 - 1},
            {"offset": 4, "size": 1, "min": 999, "max": 9999},
        ]
        out = run("RandomUpdate", {"fields": fields}, [bytes(8)] * 300).out[0]
        tops = {packet[0] for packet in out}
        assert min(tops) < 16 and max(tops) > 239
        assert {packet[4] for packet in out} == {255}

    def test_every_length(self) -> None:
        packets = prefixes(bytes(20))
        fields = [{"offset": 8, "size": 4, "min": 1, "max": 1}]
        result = run("RandomUpdate", {"fields": fields}, packets)
        assert result.out[0] == [bytes(8) + b"\0\0\0\1" + bytes(n) for n in range(9)]
        assert result.drops == {TOO_SHORT: 12}

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ({"offset": 0, "size": 3, "min": 0, "max": 1}, "'size'"),
            ({"offset": -1, "size": 4, "min": 0, "max": 1}, "'offset'"),
            ({"offset": 2047, "size": 2, "min": 0, "max": 1}, "'offset'"),
            ({"offset": 0, "size": 1, "min": 2, "max": 1}, "'min'"),
        ],
    )
    def test_bad_fields(self, field: dict[str, int], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("RandomUpdate", {"fields": [field]}, [])


class TestRewrite:
    def test_without_templates_packets_pass(self) -> None:
        assert run("Rewrite", {}, [b"abc"]).out[0] == [b"abc"]

    @pytest.mark.parametrize("count", [1, 2, 5, 32])
    def test_round_robin_over_batches(self, count: int) -> None:
        templates = [bytes([0x80 + n]) * (n * 47 + 1) for n in range(count)]
        packets = prefixes(bytes(99))
        out = run("Rewrite", {"templates": templates}, packets).out[0]
        assert out == [templates[n % count] for n in range(len(packets))]

    @pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128, 1536, 1791, 1792])
    def test_lengths(self, length: int) -> None:
        template = bytes(n * 7 % 251 for n in range(length))
        assert run("Rewrite", {"templates": [template]}, [b"x" * 60]).out[0] == [template]

    def test_add_and_clear(self) -> None:
        commands = [("clear", {}), ("add", {"templates": [b"\x80b"]}), ("add", {"templates": []})]
        result = run("Rewrite", {"templates": [b"\x80a"]}, [b"p", b"q"], commands)
        assert result.out[0] == [b"\x80b", b"\x80b"]

    def test_a_template_that_does_not_fit_the_buffer(self) -> None:
        engine = Engine(pool_packets=64, buffer_bytes=512)
        engine.create_module("m", "Rewrite", {"templates": [b"\x80" * 1000, b"\x81" * 512]})
        out = engine.run_packets("m", [b"p", b"q"])
        assert out[0] == [b"\x81" * 512]
        assert engine.module_info("m")["drops"]["template too long"] == 1

    @pytest.mark.parametrize("templates", [[b"x" * 1793], [b"x"] * 33])
    def test_bad_templates(self, templates: list[bytes]) -> None:
        with pytest.raises(EngineError, match="'templates'"):
            run("Rewrite", {"templates": templates}, [])


def mac_swap_twin(packet: bytes) -> bytes | None:
    return packet[6:12] + packet[:6] + packet[12:] if len(packet) >= 14 else None


def ip_swap_twin(packet: bytes) -> bytes:
    """Swaps addresses and ports of a whole packet, by scapy."""
    frame = Ether(packet)
    ip = frame[IP] if IP in frame else frame[IPv6]
    ip.src, ip.dst = ip.dst, ip.src
    for layer in (TCP, UDP):
        if layer in frame:
            frame[layer].sport, frame[layer].dport = frame[layer].dport, frame[layer].sport
    return bytes(frame)


class TestSwaps:
    def test_mac_at_every_length(self) -> None:
        packets = prefixes(ipv4(UDP(sport=1, dport=2)))
        result = run("MACSwap", {}, packets)
        twins = [mac_swap_twin(packet) for packet in packets]
        assert result.out[0] == [twin for twin in twins if twin is not None]
        assert result.drops == {TOO_SHORT: 14}

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("l4", [TCP(sport=1, dport=2), UDP(sport=3, dport=4), ICMP()])
    def test_ipv4(self, l4: Any, vlans: int) -> None:
        packet = ipv4(l4, vlans)
        assert run("IPSwap", {}, [packet]).out[0] == [ip_swap_twin(packet)]

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("extension", [False, True])
    @pytest.mark.parametrize("l4", [TCP(sport=1, dport=2), UDP(sport=3, dport=4)])
    def test_ipv6(self, l4: Any, vlans: int, extension: bool) -> None:
        packet = ipv6(l4, vlans, extension)
        assert run("IPSwap", {}, [packet]).out[0] == [ip_swap_twin(packet)]

    def test_twice_is_nothing(self) -> None:
        packet = ipv6(TCP(sport=1, dport=2))
        once = run("IPSwap", {}, [packet]).out[0]
        assert once != [packet]
        assert run("IPSwap", {}, once).out[0] == [packet]

    def test_later_fragments_have_no_ports(self) -> None:
        packet = ipv4(UDP(sport=1, dport=2), frag=5)
        expected = packet[:26] + packet[30:34] + packet[26:30] + packet[34:]
        assert run("IPSwap", {}, [packet]).out[0] == [expected]

    def test_other_protocols_pass(self) -> None:
        arp = bytes(Ether(**MACS) / ARP())
        assert run("IPSwap", {}, [arp]).out[0] == [arp]

    @pytest.mark.parametrize(
        ("packet", "needed"),
        [
            (ipv4(TCP()), 14 + 20 + 20),
            (ipv4(UDP(), 1), 18 + 20 + 8),
            (ipv6(UDP()), 14 + 40 + 8),
            (ipv6(TCP(), 2, True), 22 + 40 + 8 + 20),
        ],
    )
    def test_every_length(self, packet: bytes, needed: int) -> None:
        packets = prefixes(packet)
        result = run("IPSwap", {}, packets)
        assert result.drops == {TOO_SHORT: needed}
        assert [len(p) for p in result.out[0]] == list(range(needed, len(packet) + 1))


@pytest.mark.parametrize(
    ("mclass", "args"),
    [
        ("MACSwap", {}),
        ("IPSwap", {}),
        ("Timestamp", {"offset": 42}),
        ("Measure", {"offset": 42}),
        ("Update", {"fields": [{"offset": 30, "size": 8, "value": 1}]}),
        ("RandomUpdate", {"fields": [{"offset": 30, "size": 4, "min": 0, "max": 9}]}),
        ("Rewrite", {"templates": [b"\x80" * 99]}),
        ("Dump", {"interval": 1000}),
    ],
)
def test_no_packet_is_lost_at_any_length(mclass: str, args: dict[str, Any]) -> None:
    for whole in (ipv4(TCP(), 1), ipv6(UDP(), 2, True), bytes(Ether(**MACS) / ARP())):
        packets = prefixes(whole)
        assert conserved(run(mclass, args, packets), packets)
