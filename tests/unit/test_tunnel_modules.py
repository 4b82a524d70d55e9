# SPDX-License-Identifier: BSD-3-Clause
"""The tunnel between servers: TunnelEncap and TunnelDecap, against a twin over scapy and tshark."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chain_support import constants, prefixes, reveal, run_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import wrpcap
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether

from harness import EngineError, new_engine, run
from twins.tunnel_twin import OPTION_CLASS, Tunnel, encapsulate

MACS = {"src": "02:00:00:00:00:11", "dst": "02:00:00:00:00:12"}
V4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
V6 = {"src": "2001:db8:1::1", "dst": "2001:db8:1::2"}
FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])


def udp(sport: int = 1, payload: bytes = b"payload", **ip: Any) -> bytes:
    return bytes(Ether(**MACS) / IP(**V4, **ip) / UDP(sport=sport, dport=2) / payload)


FRAMES = {
    "udp": udp(),
    "tcp6": bytes(Ether(**MACS) / IPv6(**V6, tc=0xB8) / TCP(sport=5, dport=6) / b"x"),
    "vlan": bytes(Ether(**MACS) / Dot1Q(vlan=5) / IP(**V4, tos=0x2A) / ICMP() / b"ping"),
    "arp": bytes(Ether(**MACS) / ARP()),
    "first": udp(flags="MF"),
    "later": udp(frag=3),
    "first6": bytes(Ether(**MACS) / IPv6(**V6) / IPv6ExtHdrFragment(m=1, nh=17) / UDP(sport=3)),
    "later6": bytes(Ether(**MACS) / IPv6(**V6) / IPv6ExtHdrFragment(offset=2, nh=17) / b"12345678"),
    "label": bytes(Ether(**MACS) / IPv6(**V6, fl=0xABCDE) / UDP(sport=4, dport=5)),
    "label first6": bytes(Ether(**MACS) / IPv6(**V6, fl=1) / IPv6ExtHdrFragment(m=1, nh=17)),
    "label vlan": bytes(Ether(**MACS) / Dot1Q(vlan=5) / IPv6(**V6, fl=0xF0000) / TCP(sport=9)),
    "bare": bytes(14),
    "odd": udp(payload=b"odd"),
    "long": udp(payload=bytes(range(256)) * 7),
}
inner_frames = st.one_of(
    st.sampled_from(sorted(FRAMES.values())),
    st.binary(min_size=14, max_size=200),
    st.binary(min_size=26, max_size=60).map(lambda b: b[:12] + b"\x08\x00\x45" + b[12:]),
    st.binary(min_size=50, max_size=90).map(lambda b: b[:12] + b"\x86\xdd\x60" + b[12:]),
)


@st.composite
def tunnels(draw: st.DrawFn, largest: int = 32) -> Tunnel:
    ipv6 = draw(st.booleans())
    room = 128 - (70 if ipv6 else 50)
    options = []
    types = draw(st.lists(st.integers(0, 127), max_size=4, unique=True))
    for n, kind in enumerate(types):
        size = draw(st.sampled_from([4, *range(1, largest + 1)]))
        room -= 4 + -(-size // 4) * 4
        if room < 0:
            break
        options.append((f"a{n}", size, kind, draw(st.booleans())))
    return Tunnel(
        ipv6=ipv6,
        vni=draw(st.integers(0, 0xFFFFFF)),
        ttl=draw(st.integers(1, 255)),
        copy_dscp=draw(st.booleans()),
        zero_checksum=draw(st.booleans()),
        options=options,
    )


def values(data: st.DataObject, tunnel: Tunnel) -> dict[str, bytes]:
    return {
        name: data.draw(st.binary(min_size=size, max_size=size))
        for name, size, *_ in tunnel.options
    }


def set_attributes(attrs: dict[str, bytes]) -> list[tuple[str, dict[str, Any]]]:
    return [constants(**attrs)] if attrs else []


def one_option(**more: Any) -> Tunnel:
    return Tunnel(options=[("a0", 4, 9, False)], **more)


def drops(frames: list[bytes], **args: Any) -> dict[str, int]:
    """Why frames are not taken out of the tunnel of one option."""
    result = run("TunnelDecap", one_option().decap_args() | args, frames)
    assert result.forwarded + result.dropped == len(frames)
    return result.drops


class TestAgainstTheTwin:
    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_encap_is_the_twins(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        tunnel = data.draw(tunnels())
        inner = data.draw(st.lists(inner_frames, min_size=1, max_size=40))
        attrs = values(data, tunnel)
        chain = [*set_attributes(attrs), ("TunnelEncap", tunnel.encap_args())]
        out = run_chain(tmp_path_factory.mktemp("chain"), chain, inner)
        assert out == [encapsulate(tunnel, packet, attrs) for packet in inner]

    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_there_and_back_is_the_identity(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        tunnel = data.draw(tunnels(largest=8))
        inner = data.draw(st.lists(inner_frames, min_size=1, max_size=40))
        attrs = values(data, tunnel)
        chain = [
            *set_attributes(attrs),
            ("TunnelEncap", tunnel.encap_args()),
            # Else the values might be there from before.
            ("TunnelDecap", tunnel.decap_args() | {"vni_attr": "edge"}),
            reveal(edge=4, **{name: len(value) for name, value in attrs.items()}),
        ]
        told = tunnel.vni.to_bytes(4, "big") + b"".join(attrs.values())
        out = run_chain(tmp_path_factory.mktemp("chain"), chain, inner)
        assert out == [told + packet for packet in inner]

    @settings(deadline=None, max_examples=30)
    @given(data=st.data())
    def test_options_in_any_order_among_others(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Long attributes too: what a second tunnel is given is what the first one carried."""
        tunnel = data.draw(tunnels())
        attrs = values(data, tunnel)
        mixed = Tunnel(**{**vars(tunnel), "options": data.draw(st.permutations(tunnel.options))})
        frame = Ether(encapsulate(mixed, FRAMES["udp"], attrs))
        others = [
            GeneveOptions(classid=0x0102, type=0x80 >> 1, length=1, data=b"abcd"),
            GeneveOptions(classid=OPTION_CLASS ^ 1, type=5, length=0, data=b""),
        ]
        geneve = frame[GENEVE]
        at = data.draw(st.integers(0, len(geneve.options)))
        geneve.options = geneve.options[:at] + others + geneve.options[at:]
        for layer in (geneve, frame[UDP], frame.getlayer(1)):
            for name in ("optionlen", "len", "plen", "chksum"):
                if name in layer.fields and not (name == "chksum" and tunnel.zero_checksum):
                    layer.delfieldval(name)
        chain = [
            ("TunnelDecap", tunnel.decap_args()),
            ("TunnelEncap", tunnel.encap_args()),
        ]
        if tunnel.zero_checksum and not tunnel.ipv6:
            frame[IP].delfieldval("chksum")
        out = run_chain(tmp_path_factory.mktemp("chain"), chain, [bytes(frame)])
        assert out == [encapsulate(tunnel, FRAMES["udp"], attrs)]


class TestEncap:
    @FAMILIES
    def test_one_flow_keeps_one_port(self, ipv6: bool) -> None:
        flows = [udp(sport=n, payload=bytes(n % 50)) for n in range(300)]
        flows += [udp(sport=n, payload=bytes(n % 30), ttl=9, tos=4) for n in range(300)]
        out = run("TunnelEncap", Tunnel(ipv6).encap_args(), flows).out[0]
        ports = [Ether(packet)[UDP].sport for packet in out]
        assert ports[:300] == ports[300:]
        assert min(ports) >= 0xC000
        assert len(set(ports)) > 290

    def test_fragments_keep_one_port(self) -> None:
        datagram = [udp(flags="MF"), udp(frag=1, flags="MF"), udp(frag=2)]
        out = run("TunnelEncap", Tunnel().encap_args(), datagram).out[0]
        assert len({Ether(packet)[UDP].sport for packet in out}) == 1

    def test_a_flow_label_stands_for_the_flow(self) -> None:
        """RFC 6438: what is behind the fixed header doesn't count then."""
        heads = [bytes(Ether(**MACS) / IPv6(**V6, fl=n)) for n in range(1, 300)]
        packets = [head + bytes(UDP(sport=port)) for port in (1, 2) for head in heads]
        out = run("TunnelEncap", Tunnel().encap_args(), packets).out[0]
        ports = [Ether(packet)[UDP].sport for packet in out]
        assert ports[:299] == ports[299:]
        assert len(set(ports)) > 290

    @FAMILIES
    def test_longer_than_the_mtu(self, ipv6: bool) -> None:
        outer = 40 + 16 if ipv6 else 20 + 16
        frames = [bytes(n) for n in range(900, 1000)]
        result = run("TunnelEncap", Tunnel(ipv6, more={"mtu": 970}).encap_args(), frames)
        assert [len(p) for p in result.out[0]] == [
            14 + outer + n for n in range(900, 970 - outer + 1)
        ]
        assert result.drops == {"over MTU": 99 - (70 - outer)}

    def test_shorter_than_an_ethernet_header(self) -> None:
        result = run("TunnelEncap", Tunnel().encap_args(), prefixes(bytes(20)))
        assert result.drops == {"no inner frame": 14}
        assert len(result.out[0]) == 7

    def test_no_headroom(self, tmp_path: Path) -> None:
        """Hosts give packets more or less of it; six times the headers fit in none."""
        engine = new_engine()
        names = [f"m{n}" for n in range(6)]
        for name in names:
            engine.create_module(name, "TunnelEncap", Tunnel().encap_args())
        for first, second in pairwise(names):
            engine.connect(first, 0, second, 0)
        engine.run_packets("m0", [udp()] * 5)
        drops = [engine.module_info(name)["drops"]["no headroom"] for name in names]
        assert sum(drops) == 5

    def test_edge_from_an_attribute(self, tmp_path: Path) -> None:
        args = Tunnel().encap_args() | {"vni": None, "vni_attr": "edge"}
        del args["vni"]
        chain = [constants(edge=b"\0\xab\xcd\xef"), ("TunnelEncap", args)]
        (out,) = run_chain(tmp_path, chain, [udp()])
        assert out == encapsulate(Tunnel(vni=0xABCDEF), udp(), {})
        chain[0] = constants(edge=b"\1\0\0\0")
        assert run_chain(tmp_path, chain, [udp()]) == []

    def test_description(self) -> None:
        engine = new_engine()
        engine.create_module("m", "TunnelEncap", Tunnel().encap_args())
        assert engine.module_info("m")["desc"] == "to 192.0.2.2"

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"src_mac": ""}, "'src_mac'"),
            ({"src_mac": "02:00:00:00:00:0g"}, "'src_mac'"),
            ({"dst_mac": "2:0:0:0:0:1"}, "'dst_mac'"),
            ({"dst_mac": "02:00:00:00:00:01"}, "must lead to another server"),
            ({"src_ip": "x"}, "'src_ip'"),
            ({"dst_ip": ""}, "'dst_ip'"),
            ({"dst_ip": "2001:db8::2"}, "same family"),
            ({"dst_ip": "192.0.2.1"}, "this server itself"),
            ({"dst_ip": "127.0.0.5"}, "this server itself"),
            ({"src_ip": "::2", "dst_ip": "::1"}, "this server itself"),
            ({"src_ip": "0.0.0.0"}, "'src_ip'"),
            ({"dst_ip": "0.0.0.0"}, "'dst_ip'"),
            ({"vni": 1 << 24}, "'vni'"),
            ({"vni_attr": "edge"}, "either 'vni'"),
            ({"ttl": 256}, "'ttl'"),
            ({"mtu": 49}, "'mtu' must be within 50"),
            ({"mtu": 65536}, "'mtu'"),
            ({"options": [{"size": 4}]}, "'attr_name'"),
            ({"options": [{"attr_name": "a", "size": 0}]}, "'size'"),
            ({"options": [{"attr_name": "a", "size": 33}]}, "'size'"),
            ({"options": [{"attr_name": "a", "size": 4, "type": 128}]}, "'type'"),
            ({"options": [{"attr_name": n, "size": 4} for n in "ab"]}, "is that of 'a'"),
            (
                {"options": [{"attr_name": "a", "size": 4, "type": n} for n in (1, 2)]},
                "in the list twice",
            ),
            (
                {"options": [{"attr_name": f"a{n}", "size": 1, "type": n} for n in range(17)]},
                "at most 16",
            ),
            (
                {"options": [{"attr_name": f"a{n}", "size": 32, "type": n} for n in range(3)]},
                "158 bytes long; packets have room for 128",
            ),
        ],
    )
    def test_bad_arguments(self, args: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("TunnelEncap", Tunnel().encap_args() | args, [])

    def test_no_edge(self) -> None:
        args = Tunnel().encap_args()
        del args["vni"]
        with pytest.raises(EngineError, match="either 'vni'"):
            run("TunnelEncap", args, [])


FRAME = encapsulate(one_option(), udp(), {"a0": b"abcd"})
FRAME6 = encapsulate(one_option(ipv6=True), udp(), {"a0": b"abcd"})
GENEVE_AT = 42


def changed(change: Callable[[Any], None], frame: bytes = FRAME) -> bytes:
    """A frame with fields changed, and lengths and checksums as they should be then."""
    packet = Ether(frame)
    change(packet)
    for layer in (packet.getlayer(1), packet[UDP]):
        layer.delfieldval("chksum")
    return bytes(packet)


def set_option(**fields: Any) -> Callable[[Any], None]:
    return lambda packet: [setattr(packet[GENEVE].options[0], k, v) for k, v in fields.items()]


def set_geneve(**fields: Any) -> Callable[[Any], None]:
    return lambda packet: [setattr(packet[GENEVE], k, v) for k, v in fields.items()]


class TestDecap:
    def test_what_goes_off_with_the_headers(self) -> None:
        tagged = Ether(FRAME)
        tagged = Ether(**MACS) / Dot1Q(vlan=3) / tagged[IP]
        optioned = Ether(FRAME)
        optioned[IP].options = [IPOption_NOP()] * 8
        for name in ("ihl", "len", "chksum"):
            optioned[IP].delfieldval(name)
        extended = Ether(FRAME6)
        extended = (
            Ether(**MACS) / IPv6(**Tunnel(True).addresses) / IPv6ExtHdrDestOpt() / extended[UDP]
        )
        frames = [
            FRAME,
            FRAME + b"padding",
            bytes(tagged),
            bytes(optioned),
            FRAME6,
            bytes(extended),
        ]
        result = run("TunnelDecap", one_option().decap_args(), frames)
        assert result.drops == {}
        assert result.out[0] == [udp()] * len(frames)

    @FAMILIES
    def test_no_prefix_gets_through(self, ipv6: bool) -> None:
        frame = FRAME6 if ipv6 else FRAME
        result = run("TunnelDecap", one_option().decap_args(), prefixes(frame)[:-1])
        assert result.forwarded == 0
        assert set(result.drops) == {"not Geneve", "bad length"}

    @FAMILIES
    def test_no_changed_bit_gets_through(self, ipv6: bool) -> None:
        """But for what no checksum covers, which does not matter: MAC addresses and IPv6's first
        fields."""
        frame = FRAME6 if ipv6 else FRAME
        free = [*range(12), *([14, 15, 16, 17, 21] if ipv6 else [])]
        for at in range(len(frame)):
            flipped = []
            for bit in range(8):
                copy = bytearray(frame)
                copy[at] ^= 1 << bit
                flipped.append(bytes(copy))
            result = run("TunnelDecap", one_option().decap_args(), flipped)
            assert result.forwarded + result.dropped == 8
            assert result.forwarded == 0 or at in free, at
            assert all(packet == udp() for packet in result.out.get(0, []))

    @pytest.mark.parametrize(
        ("reason", "frame"),
        [
            ("not Geneve", bytes(Ether(**MACS) / ARP())),
            ("not Geneve", changed(lambda p: setattr(p[UDP], "dport", 6082))),
            ("not Geneve", changed(lambda p: setattr(p[IP], "proto", 6))),
            ("fragment", changed(lambda p: setattr(p[IP], "flags", "MF"))),
            ("fragment", changed(lambda p: setattr(p[IP], "frag", 1))),
            ("bad length", changed(lambda p: setattr(p[UDP], "len", p[UDP].len - 1))),
            ("bad length", changed(lambda p: setattr(p[UDP], "len", p[UDP].len + 1))),
            ("bad length", changed(lambda p: setattr(p[IP], "len", p[IP].len + 1))),
            ("bad length", changed(lambda p: setattr(p[IP], "len", p[IP].len - 1))),
            ("bad length", changed(set_geneve(optionlen=63))),
            ("bad IP checksum", FRAME[:24] + b"\x12\x34" + FRAME[26:]),
            ("bad UDP checksum", FRAME[:40] + b"\x12\x34" + FRAME[42:]),
            ("bad UDP checksum", FRAME6[:60] + b"\0\0" + FRAME6[62:]),
            ("unknown version", changed(set_geneve(version=1))),
            ("unknown version", changed(set_geneve(version=2))),
            ("control packet", changed(set_geneve(oam=1))),
            ("not Ethernet", changed(set_geneve(proto=0x0800))),
            ("bad option", changed(set_option(length=2))),
            ("bad option", changed(set_option(length=0))),
            ("bad option", changed(set_option(length=31))),
            ("bad option", changed(set_option(classid=0x0102, length=2))),
            ("unknown critical option", changed(set_option(type=0x8A))),
            ("unknown critical option", changed(set_option(classid=0x0102, type=0x89))),
            ("unknown edge", changed(set_geneve(vni=78))),
        ],
    )
    def test_drop_reasons(self, reason: str, frame: bytes) -> None:
        assert drops([frame]) == {reason: 1}

    def test_an_option_twice(self) -> None:
        twice = encapsulate(
            Tunnel(options=[("a0", 4, 9, False), ("a1", 4, 9, True)]),
            udp(),
            {"a0": b"abcd", "a1": b"efgh"},
        )
        assert drops([twice]) == {"bad option": 1}

    def test_less_than_an_ethernet_header(self) -> None:
        frames = [encapsulate(one_option(), bytes(n), {"a0": b"abcd"}) for n in range(10, 16)]
        assert drops(frames) == {"not Ethernet": 4}

    def test_what_does_not_matter(self, tmp_path: Path) -> None:
        frames = [
            changed(set_geneve(reserved=63, reserved2=255)),
            changed(set_geneve(critical=1)),
            changed(set_option(reserved=7)),
            changed(set_option(type=0x89)),  # critical, and known
            FRAME[:40] + b"\0\0" + FRAME[42:],  # no checksum
        ]
        chain = [("TunnelDecap", one_option().decap_args()), reveal(a0=4)]
        assert run_chain(tmp_path, chain, frames) == [b"abcd" + udp()] * len(frames)

    def test_ipv6_without_checksum_where_agreed(self) -> None:
        frame = FRAME6[:60] + b"\0\0" + FRAME6[62:]
        assert drops([frame], zero_checksum=True) == {}

    def test_an_attribute_that_does_not_travel_is_zero(self, tmp_path: Path) -> None:
        chain = [
            constants(a0=b"old!"),
            ("TunnelDecap", one_option().decap_args()),
            reveal(a0=4),
        ]
        frame = encapsulate(Tunnel(), udp(), {})
        assert run_chain(tmp_path, chain, [frame]) == [bytes(4) + udp()]


@FAMILIES
def test_tshark_reads_it(ipv6: bool, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed (Debian: tshark)")
    tunnel = Tunnel(ipv6, vni=0x123456, options=[("a0", 4, 9, True), ("a1", 6, 3, False)])
    attrs = {"a0": b"abcd", "a1": b"123456"}
    chain = [constants(**attrs), ("TunnelEncap", tunnel.encap_args())]
    inner = [FRAMES["udp"], FRAMES["tcp6"], FRAMES["arp"]]
    frames = [Ether(packet) for packet in run_chain(tmp_path, chain, inner)]
    wrpcap(str(tmp_path / "t.pcap"), frames)
    fields = [
        "geneve.vni", "geneve.option.class", "geneve.option.type", "geneve.option.length",
        "geneve.flags.critical", "udp.checksum.status", "frame.protocols", "_ws.malformed",
    ]  # fmt: skip
    command = ["tshark", "-r", str(tmp_path / "t.pcap"), "-T", "fields", "-E", "separator=;"]
    command += ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    for name in fields:
        command += ["-e", name]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split(";") for line in result.stdout.splitlines()]
    ends = ["ip:udp:data", "ipv6:tcp:data", "arp"]
    for row, end in zip(rows, ends, strict=True):
        assert row[0] == "0x123456"
        assert row[1] == "0xffe2,0xffe2"
        assert row[2] == "0x89,0x03"
        assert row[3] == "20,8,12"  # of all together, then of each
        assert row[4] in ("1", "True")
        assert row[5].split(",")[0] == "1"  # good
        assert row[6].startswith(f"eth:ethertype:{'ipv6' if ipv6 else 'ip'}:udp:geneve")
        assert row[6].endswith(end)
        assert row[7] == ""
