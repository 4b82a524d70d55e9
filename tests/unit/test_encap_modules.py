# SPDX-License-Identifier: BSD-3-Clause
"""Modules that add and remove headers, and the metadata they speak through: SetMetadata,
EtherEncap, IPEncap, VXLANEncap, VXLANDecap, GenericEncap, GenericDecap, VLANPush and VLANPop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chain_support import Chain, constants, prefixes, reveal, run_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN

from harness import EngineError, new_engine, run

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TOO_SHORT = "packet too short"
NO_HEADROOM = "no headroom"
HEADROOM = 256


def udp(payload: bytes = b"payload", sport: int = 1) -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    return bytes(Ether(**MACS) / ip / UDP(sport=sport, dport=2) / payload)


def metadata_twin(packet: bytes, offset: int, size: int, shift: int, mask: bytes) -> bytes:
    """(value >> shift bits) & mask, over a big-endian number of `size` bytes."""
    value = int.from_bytes(packet[offset : offset + size], "big")
    value = value >> shift if shift >= 0 else value << -shift
    value &= 2 ** (8 * size) - 1
    if mask:
        value &= int.from_bytes(mask, "big")
    return value.to_bytes(size, "big")


class TestSetMetadata:
    @settings(deadline=None, max_examples=40)
    @given(data=st.data())
    def test_copies_shifts_and_masks(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        size = data.draw(st.integers(1, 8))
        offset = data.draw(st.integers(0, 40))
        shift = 8 * data.draw(st.integers(1 - size, size - 1))
        mask = data.draw(st.one_of(st.just(b""), st.binary(min_size=size, max_size=size)))
        packet = data.draw(st.binary(min_size=60, max_size=60))
        attr = {"name": "x", "size": size, "offset": offset, "rshift_bits": shift, "mask": mask}
        chain = [("SetMetadata", {"attrs": [attr]}), reveal(x=size)]
        (out,) = run_chain(tmp_path_factory.mktemp("chain"), chain, [packet])
        assert out == metadata_twin(packet, offset, size, shift, mask) + packet

    def test_constants(self, tmp_path: Path) -> None:
        attrs = [
            {"name": "a", "size": 4, "value_int": 0x01020304},
            {"name": "b", "size": 2, "value_bin": b"\x80\x81"},
            {"name": "c", "size": 8, "value_int": 5},
        ]
        chain = [("SetMetadata", {"attrs": attrs}), reveal(a=4, b=2, c=8)]
        assert run_chain(tmp_path, chain, [b"\xffpacket"]) == [
            bytes.fromhex("01020304 8081 0000000000000005") + b"\xffpacket"
        ]

    def test_every_length(self) -> None:
        packets = prefixes(bytes(40))
        attrs = [{"name": "a", "size": 4, "offset": 20}, {"name": "b", "size": 1, "value_int": 1}]
        result = run("SetMetadata", {"attrs": attrs}, packets)
        assert result.out[0] == packets[24:]
        assert result.drops == {TOO_SHORT: 24}
        assert run("SetMetadata", {"attrs": attrs[1:]}, packets).out[0] == packets

    def test_get_initial_arg(self) -> None:
        args = {"attrs": [{"name": "a", "size": 2, "value_int": 7}]}
        assert run("SetMetadata", args, [], [("get_initial_arg", {})]).command_results == [args]

    @pytest.mark.parametrize(
        ("attr", "message"),
        [
            ({"size": 4}, "'name'"),
            ({"name": "a", "size": 0}, "'size'"),
            ({"name": "a", "size": 33}, "'size'"),
            ({"name": "a", "size": 1, "value_int": 256}, "'value_int'"),
            ({"name": "a", "size": 3, "value_bin": b"\x80"}, "'value_bin'"),
            ({"name": "a", "size": 4, "offset": -1}, "'offset'"),
            ({"name": "a", "size": 4, "offset": 2044}, "'offset'"),
            ({"name": "a", "size": 4, "offset": 0, "rshift_bits": 4}, "'rshift_bits'"),
            ({"name": "a", "size": 4, "offset": 0, "rshift_bits": 32}, "'rshift_bits'"),
            ({"name": "a", "size": 4, "offset": 0, "rshift_bits": -32}, "'rshift_bits'"),
            ({"name": "a", "size": 4, "offset": 0, "mask": b"\xff"}, "'mask'"),
        ],
    )
    def test_bad_attributes(self, attr: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("SetMetadata", {"attrs": [attr]}, [])

    @pytest.mark.parametrize("count", [0, 17])
    def test_number_of_attributes(self, count: int) -> None:
        attrs = [{"name": f"a{n}", "size": 1, "value_int": n} for n in range(count)]
        with pytest.raises(EngineError, match="'attrs'"):
            run("SetMetadata", {"attrs": attrs}, [])


class TestEtherEncap:
    def test_header_from_metadata(self, tmp_path: Path) -> None:
        ether = constants(
            ether_src=b"\x02\0\0\0\0\1", ether_dst=b"\x02\0\0\0\0\2", ether_type=b"\x86\xdd"
        )
        packets = prefixes(udp())
        expected = [bytes(Ether(**MACS, type=0x86DD)) + packet for packet in packets]
        assert run_chain(tmp_path, [ether, ("EtherEncap", {})], packets) == expected

    def test_attributes_that_nobody_sets_are_zero(self) -> None:
        assert run("EtherEncap", {}, [b"x"]).out[0] == [bytes(14) + b"x"]


class TestIPEncap:
    attrs = constants(ip_src=b"\x0a\0\0\1", ip_dst=b"\x0a\0\0\2", ip_proto=b"\x11")

    def test_header_and_what_it_tells(self, tmp_path: Path) -> None:
        packets = prefixes(b"\0\1\0\2 some UDP payload")
        chain = [self.attrs, ("IPEncap", {}), reveal(ip_nexthop=4, ether_type=2)]
        out = run_chain(tmp_path, chain, packets)
        header = {"src": "10.0.0.1", "dst": "10.0.0.2", "id": 0, "flags": "DF", "ttl": 64}
        assert out == [
            b"\x0a\0\0\2\x08\0" + bytes(IP(**header, proto=17, len=20 + len(p))) + p
            for p in packets
        ]


def vxlan_frame(inner: bytes, vlans: int = 0, options: int = 0, **fields: Any) -> bytes:
    outer = Ether(**MACS)
    for n in range(vlans):
        outer /= Dot1Q(vlan=n + 1)
    ip = IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption_NOP()] * options, **fields)
    vxlan = bytes(VXLAN(vni=0x123456, flags="Instance"))
    return bytes(outer / ip / UDP(sport=5, dport=4789, chksum=0) / (vxlan + inner))


class TestVXLAN:
    tunnel = constants(tun_ip_src=b"\xc0\0\2\1", tun_ip_dst=b"\xc0\0\2\2", tun_id=b"\0\x12\x34\x56")

    def encapsulate(self, tmp_path: Path, args: dict[str, Any], inner: list[bytes]) -> list[bytes]:
        chain = [self.tunnel, ("VXLANEncap", args), reveal(ip_src=4, ip_dst=4, ip_proto=1)]
        return run_chain(tmp_path, chain, inner)

    @pytest.mark.parametrize(("args", "port"), [({}, 4789), ({"dstport": 8472}, 8472)])
    def test_headers(self, tmp_path: Path, args: dict[str, Any], port: int) -> None:
        inner = prefixes(udp())
        for packet, out in zip(inner, self.encapsulate(tmp_path, args, inner), strict=True):
            assert out[:9] == b"\xc0\0\2\1\xc0\0\2\2\x11"
            assert int.from_bytes(out[9:11], "big") >= 0xC000
            assert int.from_bytes(out[11:13], "big") == port
            assert int.from_bytes(out[13:15], "big") == 16 + len(packet)
            assert out[15:17] == b"\0\0"
            assert out[17:25] == bytes(VXLAN(vni=0x123456, flags="Instance"))
            assert out[25:] == packet

    def test_source_port_follows_the_flow(self, tmp_path: Path) -> None:
        frames = [udp(b"one"), udp(b"another"), *(udp(sport=n) for n in range(2, 60))]
        frames += [bytes(Ether(**MACS) / IPv6() / TCP(sport=n)) for n in range(60)]
        ports = [out[9:11] for out in self.encapsulate(tmp_path, {}, frames)]
        assert ports[0] == ports[1]
        assert len(set(ports)) > 100

    def test_bad_port(self) -> None:
        with pytest.raises(EngineError, match="'dstport'"):
            run("VXLANEncap", {"dstport": 65536}, [])

    def test_there_and_back(self, tmp_path: Path) -> None:
        chain = [
            self.tunnel,
            ("VXLANEncap", {}),
            ("IPEncap", {}),
            ("EtherEncap", {}),
            ("VXLANDecap", {}),
            reveal(tun_ip_src=4, tun_ip_dst=4, tun_id=4),
        ]
        inner = prefixes(udp())
        told = b"\xc0\0\2\1\xc0\0\2\2\0\x12\x34\x56"
        assert run_chain(tmp_path, chain, inner) == [told + packet for packet in inner]

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("options", [0, 8])
    def test_decap_of_scapy_frames(self, tmp_path: Path, vlans: int, options: int) -> None:
        inner = udp()
        frame = vxlan_frame(inner, vlans=vlans, options=options)
        chain: Chain = [("VXLANDecap", {}), reveal(tun_ip_src=4, tun_ip_dst=4, tun_id=4)]
        expected = b"\xc0\0\2\1\xc0\0\2\2\0\x12\x34\x56" + inner
        assert run_chain(tmp_path, chain, [frame, frame + b"padding"]) == [expected] * 2

    def test_decap_of_every_length(self) -> None:
        frame = vxlan_frame(udp(), vlans=1)
        result = run("VXLANDecap", {}, prefixes(frame))
        assert result.drops == {TOO_SHORT: 18 + 20 + 16}
        assert result.out[0] == prefixes(udp())

    def test_decap_of_what_is_not_vxlan(self) -> None:
        no_flag = bytearray(vxlan_frame(udp()))
        no_flag[42] = 0
        packets = [
            bytes(no_flag),
            bytes(Ether(**MACS) / ARP()),
            bytes(Ether(**MACS) / IPv6() / UDP() / bytes(20)),
            bytes(Ether(**MACS) / IP() / TCP() / bytes(20)),
            vxlan_frame(udp(), flags="MF"),
            vxlan_frame(udp(), frag=2),
        ]
        assert run("VXLANDecap", {}, packets).drops == {"not VXLAN": len(packets)}


class TestGeneric:
    def test_encap(self, tmp_path: Path) -> None:
        fields = [
            {"size": 4, "value": {"value_int": 0xDEADBEEF}},
            {"size": 2, "attribute": "foo"},
            {"size": 3, "value": {"value_bin": b"\x80\x81\x82"}},
            {"size": 8, "attribute": "bar"},
            {"size": 1, "value": {"value_int": 7}},
        ]
        attrs = constants(foo=b"\xa0\xa1", bar=b"\x90barbaz\x91")
        packets = prefixes(bytes(20))
        out = run_chain(tmp_path, [attrs, ("GenericEncap", {"fields": fields})], packets)
        header = bytes.fromhex("deadbeef a0a1 808182") + b"\x90barbaz\x91\x07"
        assert out == [header + packet for packet in packets]

    def test_no_fields(self) -> None:
        assert run("GenericEncap", {}, [b"x"]).out[0] == [b"x"]

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ({"size": 0, "value": {"value_int": 0}}, "'size'"),
            ({"size": 9, "value": {"value_int": 0}}, "'size'"),
            ({"size": 2, "value": {"value_int": 65536}}, "'value_int'"),
            ({"size": 2, "value": {"value_bin": b"\x80"}}, "'value_bin'"),
            ({"size": 2}, "'value' or 'attribute'"),
            ({"size": 2, "attribute": ""}, "'attribute'"),
        ],
    )
    def test_bad_fields(self, field: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("GenericEncap", {"fields": [field]}, [])

    def test_at_most_8_fields(self) -> None:
        with pytest.raises(EngineError, match="'fields'"):
            run("GenericEncap", {"fields": [{"size": 1, "value": {"value_int": 1}}] * 9}, [])

    @pytest.mark.parametrize("count", [0, 1, 14, 30])
    def test_decap_at_every_length(self, count: int) -> None:
        packets = prefixes(bytes(range(40)))
        result = run("GenericDecap", {"bytes": count}, packets)
        assert result.out[0] == [packet[count:] for packet in packets[count:]]
        assert result.drops == ({TOO_SHORT: count} if count else {})

    def test_bad_decap(self) -> None:
        with pytest.raises(EngineError, match="'bytes'"):
            run("GenericDecap", {"bytes": 1025}, [])


def push_twin(packet: bytes, tci: int) -> bytes | None:
    if len(packet) < 14:
        return None
    kind = b"\x88\xa8" if packet[12:14] == b"\x81\x00" else b"\x81\x00"
    return packet[:12] + kind + tci.to_bytes(2, "big") + packet[12:]


def pop_twin(packet: bytes) -> bytes | None:
    if len(packet) < 14:
        return None
    if packet[12:14] not in (b"\x81\x00", b"\x88\xa8"):
        return packet
    return packet[:12] + packet[16:] if len(packet) >= 18 else None


FRAMES = {
    "plain": Ether(**MACS) / IP() / UDP() / b"x",
    "ipv6": Ether(**MACS) / IPv6() / TCP() / b"x",
    "tagged": Ether(**MACS) / Dot1Q(vlan=7, prio=3) / IP() / UDP() / b"x",
    "double": Ether(**MACS) / Dot1AD(vlan=9) / Dot1Q(vlan=7) / IPv6() / UDP() / b"x",
    "triple": Ether(**MACS) / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / ARP(),
}


class TestVLAN:
    @pytest.mark.parametrize("frame", FRAMES)
    def test_push_at_every_length(self, frame: str) -> None:
        packets = prefixes(bytes(FRAMES[frame]))
        result = run("VLANPush", {"tci": 0xE123}, packets)
        twins = [push_twin(packet, 0xE123) for packet in packets]
        assert result.out[0] == [twin for twin in twins if twin is not None]
        assert result.drops == {TOO_SHORT: 14}

    @pytest.mark.parametrize("frame", FRAMES)
    def test_pop_at_every_length(self, frame: str) -> None:
        packets = prefixes(bytes(FRAMES[frame]))
        result = run("VLANPop", {}, packets)
        twins = [pop_twin(packet) for packet in packets]
        assert result.out[0] == [twin for twin in twins if twin is not None]
        assert result.drops == {TOO_SHORT: twins.count(None)}

    @pytest.mark.parametrize("frame", FRAMES)
    def test_pop_undoes_push(self, tmp_path: Path, frame: str) -> None:
        packet = bytes(FRAMES[frame])
        assert run_chain(tmp_path, [("VLANPush", {"tci": 5}), ("VLANPop", {})], [packet]) == [
            packet
        ]

    def test_scapy_reads_the_tag(self) -> None:
        (out,) = run("VLANPush", {"tci": 5 << 13 | 1 << 12 | 291}, [udp()]).out[0]
        tag = Ether(out)[Dot1Q]
        assert (tag.prio, tag.vlan, tag.type) == (5, 291, 0x0800)

    def test_set_tci(self) -> None:
        result = run("VLANPush", {"tci": 1}, [udp()], [("set_tci", {"tci": 2})])
        assert result.out[0] == [push_twin(udp(), 2)]

    def test_description(self) -> None:
        engine = new_engine()
        engine.create_module("m", "VLANPush", {"tci": 0xB007})
        assert engine.module_info("m")["desc"] == "PCP=5 DEI=1 VID=7"

    def test_bad_tci(self) -> None:
        with pytest.raises(EngineError, match="'tci'"):
            run("VLANPush", {"tci": 65536}, [])


@pytest.mark.parametrize(
    ("step", "size"),
    [
        (("EtherEncap", {}), 14),
        (("IPEncap", {}), 20),
        (("VXLANEncap", {}), 16),
        (("VLANPush", {"tci": 1}), 4),
        (("GenericEncap", {"fields": [{"size": 8, "value": {"value_int": 1}}]}), 8),
    ],
)
def test_headroom_runs_out(step: tuple[str, dict[str, Any]], size: int) -> None:
    mclass, args = step
    engine = new_engine()
    fits = HEADROOM // size
    for n in range(fits + 1):
        engine.create_module(f"m{n}", mclass, args)
        if n:
            engine.connect(f"m{n - 1}", 0, f"m{n}", 0)
    engine.create_module("sink", "Sink", {})
    engine.connect(f"m{fits}", 0, "sink", 0)
    engine.run_packets("m0", [udp()] * 5)
    drops = [engine.module_info(f"m{n}")["drops"].get(NO_HEADROOM, 0) for n in range(fits + 1)]
    assert drops == [0] * fits + [5]
