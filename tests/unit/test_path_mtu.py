# SPDX-License-Identifier: BSD-3-Clause
"""PathMtu against scapy: what fits, errors, fragments, segment sizes and limits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from chain_support import constants, prefixes, reveal, run_chain, run_counted
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPerror,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    UDPerror,
    fragment,
)
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import Engine, EngineError, new_engine, run

SECOND_NS = 10**9
MTU = 1396
HOST, GATEWAY = "02:00:00:00:00:01", "02:00:00:00:00:02"
MACS = {"src": HOST, "dst": GATEWAY}
V4 = {"src": "10.0.0.1", "dst": "198.51.100.7"}
V6 = {"src": "2001:db8:1::1", "dst": "2001:db8:2::7"}
TAGS = {
    "untagged": Ether(**MACS),
    "tagged": Ether(**MACS) / Dot1Q(vlan=5, prio=3),
    "twice": Ether(**MACS) / Dot1AD(vlan=7) / Dot1Q(vlan=5),
}
by_tags = pytest.mark.parametrize("link", TAGS.values(), ids=TAGS)
FITS, ERRORS = 0, 1


def udp4(length: int, link: Packet = TAGS["untagged"], **ip: Any) -> bytes:
    """An IPv4 packet of that many bytes in a frame."""
    body = random.Random(length).randbytes(length - 28)
    return bytes(link / IP(**{**V4, "id": 77, **ip}) / UDP(sport=5, dport=6) / Raw(body))


def udp6(length: int, link: Packet = TAGS["untagged"], **ip: Any) -> bytes:
    body = random.Random(length).randbytes(length - 48)
    return bytes(link / IPv6(**{**V6, **ip}) / UDP(sport=5, dport=6) / Raw(body))


def fate(frame: bytes, **args: Any) -> str:
    """Why a frame is dropped, or by which gate something leaves."""
    result = run("PathMtu", {"mtu": MTU, **args}, [frame])
    (name,) = [*result.drops, *(f"gate {gate}" for gate in result.out)]
    return name


class TestWhatFits:
    @by_tags
    def test_passes_unchanged(self, link: Packet) -> None:
        frames = [
            *(udp4(n, link) for n in (28, 600, MTU)),
            *(udp4(n, link, flags="DF") for n in (28, MTU)),
            *(udp6(n, link) for n in (48, 1280, MTU)),
            udp4(30, link) + bytes(16),  # Ethernet's padding
            bytes(link / ARP()),
            bytes(link / Raw(bytes(1800))),  # no IP, of any length
            bytes(link / IP(**V4) / TCP(flags="A") / Raw(b"x" * 100)),
            bytes(link / IPv6(**V6) / TCP(flags="PA") / Raw(b"x" * 100)),
            bytes(link / IP(**V4, frag=9, proto=6) / Raw(b"\xff" * 100)),
        ]
        result = run("PathMtu", {"mtu": MTU}, frames)
        assert (result.out, result.drops) == ({FITS: frames}, {})

    def test_each_family_has_its_own(self) -> None:
        frames = [udp4(1300, flags="DF"), udp4(1301, flags="DF"), udp6(1400), udp6(1401)]
        result = run("PathMtu", {"mtu": 1300, "mtu6": 1400}, frames)
        assert result.out[FITS] == [frames[0], frames[2]]
        assert [Ether(frame)[1].src for frame in result.out[ERRORS]] == [V4["dst"], V6["dst"]]

    def test_a_header_that_is_cut(self) -> None:
        for whole, header in ((udp4(40), 34), (udp6(60), 54)):
            frames = prefixes(whole[:header])[1:]
            result = run("PathMtu", {"mtu": MTU}, frames)
            assert (result.forwarded, result.drops) == (1, {"packet too short": header - 1})


class TestErrors:
    @by_tags
    @pytest.mark.parametrize("length", [MTU + 1, 1500, 1900])
    def test_ipv4(self, link: Packet, length: int) -> None:
        frame = udp4(length, link, flags="DF")
        (out,) = run("PathMtu", {"mtu": MTU}, [frame + bytes(3)]).out[ERRORS]
        head = len(bytes(link))
        error = Ether(out)
        assert (error.src, error.dst) == (GATEWAY, HOST)
        assert out[12:head] == frame[12:head]
        assert len(out) == head + 576
        assert (error[IP].src, error[IP].dst) == (V4["dst"], V4["src"])
        assert (error[IP].len, error[IP].tos, error[IP].ttl) == (576, 0xC0, 64)
        assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, MTU)
        assert out[head + 28 :] == frame[head : head + 548]
        assert (error[IPerror].len, error[UDPerror].dport) == (length, 6)
        assert checksums_are_right(out)

    @by_tags
    @pytest.mark.parametrize("length", [MTU + 1, 1900])
    def test_ipv6(self, link: Packet, length: int) -> None:
        frame = udp6(length, link)
        (out,) = run("PathMtu", {"mtu": MTU}, [frame]).out[ERRORS]
        head = len(bytes(link))
        error = Ether(out)
        assert (error.src, error.dst) == (GATEWAY, HOST)
        assert out[12:head] == frame[12:head]
        assert len(out) == head + 1280
        assert (error[IPv6].src, error[IPv6].dst) == (V6["dst"], V6["src"])
        assert (error[ICMPv6PacketTooBig].code, error[ICMPv6PacketTooBig].mtu) == (0, MTU)
        assert out[head + 48 :] == frame[head : head + 1232]
        assert error[IPerror6].plen == length - 40
        assert checksums_are_right(out)

    def test_a_short_packet_is_quoted_as_a_whole(self) -> None:
        frame = udp4(69, flags="DF")
        (out,) = run("PathMtu", {"mtu": 68, "mtu6": 1280}, [frame + b"padding"]).out[ERRORS]
        assert out[42:] == frame[14:]
        assert checksums_are_right(out)

    def test_source_addresses(self) -> None:
        own = {"address": "192.0.2.1", "address6": "2001:db8::1"}
        frames = [udp4(1500, flags="DF"), udp6(1500)]
        out = run("PathMtu", {"mtu": MTU, **own}, frames).out[ERRORS]
        assert [Ether(frame)[1].src for frame in out] == list(own.values())
        assert [Ether(frame)[1].dst for frame in out] == [V4["src"], V6["src"]]
        assert all(checksums_are_right(frame) for frame in out)

    @pytest.mark.parametrize(
        "change",
        [
            {"src": "0.0.0.0"},
            {"src": "0.1.2.3"},
            {"src": "127.0.0.1"},
            {"src": "224.0.0.1"},
            {"src": "255.255.255.255"},
            {"dst": "239.1.2.3"},
            {"dst": "255.255.255.255"},
            {"dst": "127.0.0.1"},
            {"frag": 5},
            {"frag": 5, "flags": "DF+MF"},
        ],
    )
    def test_none_about_ipv4(self, change: dict[str, Any]) -> None:
        assert fate(udp4(1404, **{"flags": "DF", **change})) == "over MTU"

    @pytest.mark.parametrize(
        "change", [{"src": "::"}, {"src": "::1"}, {"src": "ff02::1"}, {"dst": "ff0e::1"}]
    )
    def test_none_about_ipv6(self, change: dict[str, Any]) -> None:
        assert fate(udp6(1404, **change)) == "over MTU"

    @pytest.mark.parametrize("macs", [{"dst": "ff:ff:ff:ff:ff:ff"}, {"dst": "33:33:00:00:00:01"}])
    def test_none_about_what_came_to_many(self, macs: dict[str, str]) -> None:
        link = Ether(**{**MACS, **macs})
        assert fate(udp4(1404, link, flags="DF")) == "over MTU"
        assert fate(udp6(1404, link)) == "over MTU"

    def test_none_about_errors(self) -> None:
        pad = Raw(bytes(1400))
        ip, ip6 = Ether(**MACS) / IP(**V4, flags="DF"), Ether(**MACS) / IPv6(**V6)
        for kind in range(256):
            expected = "over MTU" if kind in (3, 4, 5, 11, 12) else "gate 1"
            assert fate(bytes(ip / ICMP(type=kind) / pad)) == expected
        for kind in range(256):
            frame = bytearray(bytes(ip6 / ICMPv6EchoRequest() / pad))
            frame[54] = kind
            assert fate(bytes(frame)) == ("over MTU" if kind < 128 or kind == 137 else "gate 1")
        behind = ip6 / IPv6ExtHdrDestOpt()
        for error in (ICMPv6TimeExceeded(), ICMPv6PacketTooBig(), ICMPv6ND_Redirect()):
            assert fate(bytes(behind / error / pad)) == "over MTU"
        assert fate(bytes(behind / ICMPv6EchoRequest() / pad)) == "gate 1"

    def test_first_and_later_fragments(self) -> None:
        assert fate(udp4(1404, flags="DF+MF")) == "gate 1"
        link = Ether(**MACS) / IPv6(**V6)
        for offset in (0, 7):  # RFC 4443 tells none of IPv6's fragments apart
            piece = IPv6ExtHdrFragment(nh=17, offset=offset, m=1)
            assert fate(bytes(link / piece / Raw(bytes(1400)))) == "gate 1"
        unknown = IPv6ExtHdrFragment(nh=58, offset=7, m=1)  # of an error, perhaps
        assert fate(bytes(link / unknown / Raw(bytes(1400)))) == "over MTU"
        endless = bytearray(bytes(link / IPv6ExtHdrDestOpt() / Raw(bytes(1400))))
        endless[55] = 255  # extension headers past the end
        assert fate(bytes(endless)) == "over MTU"

    def test_malformed(self) -> None:
        for frame in (udp4(1500, flags="DF"), udp4(1500)):
            wrong = frame[:24] + b"\x12\x34" + frame[26:]
            assert fate(wrong) == "bad IP header"
            assert fate(frame[:-1]) == "cut short"
        assert fate(udp6(1500)[:-1]) == "cut short"

    def test_no_more_than_the_rate_allows(self) -> None:
        engine = new_engine()
        engine.create_module("m", "PathMtu", {"mtu": MTU, "errors_per_second": 10})
        frames = [udp4(1500, flags="DF"), udp6(1500)] * 15

        def errors(now_ns: int) -> int:
            return len(engine.run_packets("m", frames, 0, now_ns).get(ERRORS, []))

        assert errors(SECOND_NS + SECOND_NS // 100) == 10  # a second's worth at once
        assert errors(SECOND_NS + SECOND_NS // 50) == 0
        assert errors(SECOND_NS + SECOND_NS // 50 + SECOND_NS // 10) == 1
        assert errors(100 * SECOND_NS) == 10
        assert drops(engine) == {"rate limit": 4 * 30 - 21}

    def test_no_errors_at_all(self) -> None:
        assert fate(udp4(1500, flags="DF"), errors_per_second=0) == "rate limit"

    def test_a_hundred_in_a_second_by_default(self) -> None:
        result = run("PathMtu", {"mtu": MTU}, [udp6(1500)] * 300)
        assert len(result.out[ERRORS]) in range(100, 110)
        assert result.forwarded + result.drops["rate limit"] == 300

    def test_no_headroom(self, tmp_path: Path) -> None:
        """Headers that were put before a packet took what the buffer had."""
        for front, lost in ((224, {}), (240, {"no headroom": 1})):
            frame = udp4(1404, flags="DF")
            words = [{"value_bin": frame[at : at + 8]} for at in range(0, front, 8)]
            fields = [{"size": 8, "value": word} for word in words]
            encaps = [("GenericEncap", {"fields": fields[at : at + 8]}) for at in range(0, 30, 8)]
            chain = [*reversed(encaps), ("PathMtu", {"mtu": MTU})]
            assert run_counted(tmp_path, chain, [frame[front:]]) == ([], lost or {"no gate": 1})


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def checksums_are_right(frame: bytes) -> bool:
    """Whether scapy would write what is there; of fragments only IP's."""
    made = Ether(frame)
    layers = [(IP, "chksum"), (ICMP, "chksum"), (ICMPv6PacketTooBig, "cksum"), (TCP, "chksum")]
    for layer, field in layers:
        if layer in made:
            made[layer].delfieldval(field)
    return bytes(made) == frame


def payloads(frames: list[bytes]) -> list[bytes]:
    return [bytes(Ether(frame)[IP].payload)[: Ether(frame)[IP].len - 20] for frame in frames]


class TestFragments:
    @by_tags
    @pytest.mark.parametrize("length", [MTU + 1, 1500, 1984])
    def test_scapys_are_the_same(self, link: Packet, length: int) -> None:
        whole = Ether(udp4(length, link))
        out = run("PathMtu", {"mtu": 596, "mtu6": 1280}, [bytes(whole) + bytes(9)]).out[FITS]
        assert out == [bytes(piece) for piece in fragment(whole, fragsize=576)]
        assert all(checksums_are_right(frame) for frame in out)

    @pytest.mark.parametrize("mtu", [68, 100, 576, 1396])
    def test_defrag_puts_them_together(self, mtu: int) -> None:
        frames = [udp4(n) for n in range(mtu - 40, min(1900, mtu * 8), 7)]
        for frame in frames:
            cut = run("PathMtu", {"mtu": mtu, "mtu6": 1280}, [frame]).out[FITS]
            assert run("IPDefrag", {"num_flows": 4}, cut).out == {1: [frame]}

    def test_no_piece_is_longer(self) -> None:
        for mtu in range(68, 200):
            out = run("PathMtu", {"mtu": mtu, "mtu6": 1280}, [udp4(1000)]).out[FITS]
            lengths = [Ether(frame)[IP].len for frame in out]
            assert max(lengths) <= mtu
            assert min(lengths[:-1]) > mtu - 8
            assert b"".join(payloads(out)) == udp4(1000)[34:]

    def test_of_a_fragment(self) -> None:
        first, middle, last = (bytes(f) for f in fragment(Ether(udp4(1900)), fragsize=800))
        out = run("PathMtu", {"mtu": 424, "mtu6": 1280}, [first, middle, last]).out[FITS]
        ips = [Ether(frame)[IP] for frame in out]
        assert [ip.frag * 8 for ip in ips] == [0, 400, 800, 1200, 1600]
        assert [ip.flags.MF for ip in ips] == [True] * 4 + [False]
        assert {ip.id for ip in ips} == {77}
        assert b"".join(payloads(out)) == udp4(1900)[34:]

    def test_options_say_whether_they_are_copied(self) -> None:
        options = [IPOption_RR(routers=["1.2.3.4"] * 3), IPOption_NOP(), IPOption_Router_Alert()]
        frame = udp4(1000, options=options)
        out = run("PathMtu", {"mtu": 568, "mtu6": 1280}, [frame]).out[FITS]
        first, last = (Ether(frame)[IP] for frame in out)
        assert bytes(first)[20:40] == frame[34:54]
        assert (last.ihl, bytes(last)[20:24]) == (6, bytes(IPOption_Router_Alert()))
        assert bytes(first.payload) + bytes(last.payload) == frame[54:]

    @pytest.mark.parametrize("options", [b"\x07\x01\0\0", b"\x94\x05\0\0", b"\1\1\1\x94"])
    def test_options_that_make_no_sense(self, options: bytes) -> None:
        frame = bytearray(udp4(1500))
        frame[14] = 0x46
        frame[34:38] = options
        frame[24:26] = bytes(2)
        made = Ether(bytes(frame))
        frame[24:26] = checksum(bytes(frame[14:38])).to_bytes(2, "big")
        assert made[IP].ihl == 6
        assert fate(bytes(frame)) == "bad IP header"

    @pytest.mark.parametrize(
        "change",
        [{"frag": 8191}, {"frag": (65536 - 1400) // 8}, {"flags": "MF", "length": 1501}],
    )
    def test_fragments_that_no_datagram_has(self, change: dict[str, Any]) -> None:
        assert fate(udp4(**{"length": 1500, **change})) == "bad IP header"

    def test_order_stays(self) -> None:
        frames = [udp4(n, src=f"10.0.0.{n % 256}") for n in (100, 1900, 200, 1397, 300)] * 7
        out = run("PathMtu", {"mtu": MTU}, frames).out[FITS]
        sources = [Ether(frame)[IP].src for frame in out]
        assert sources == [
            Ether(frame)[IP].src for frame in frames for _ in range(1 + (len(frame) > MTU + 14))
        ]

    def test_metadata_goes_with_each_piece(self, tmp_path: Path) -> None:
        chain = [constants(a=b"mark"), ("PathMtu", {"mtu": 576, "mtu6": 1280}), reveal(a=4)]
        out = run_chain(tmp_path, chain, [udp4(1800)])
        assert [frame[:4] for frame in out] == [b"mark"] * 4

    def test_no_buffer(self) -> None:
        """All pieces leave, or none."""
        engine = Engine(pool_packets=64, buffer_bytes=2048)
        engine.create_module("m", "PathMtu", {"mtu": 68, "mtu6": 1280})
        out = engine.run_packets("m", [udp4(1500)] * 40)[FITS]
        lost = engine.module_info("m")["drops"]["no buffer"]
        assert 0 < lost < 40
        assert len(out) == (40 - lost) * 31
        assert b"".join(payloads(out)) == udp4(1500)[34:] * (40 - lost)
        assert engine.mempool()["in_use"] == 0


def checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


OPTIONS: dict[str, list[Any]] = {
    "alone": [("MSS", 1460)],
    "Linux": [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)],
    "behind": [("Timestamp", (1, 2)), ("MSS", 9000), ("WScale", 7)],
    "odd": [("NOP", None), ("MSS", 1460), ("WScale", 7)],
    "twice": [("MSS", 1460), ("NOP", None), ("NOP", None), ("NOP", None), ("MSS", 5000)],
}


def syn(ipv6: bool, options: list[Any], link: Packet, flags: str = "S") -> bytes:
    ip = IPv6(**V6) if ipv6 else IP(**V4)
    return bytes(link / ip / TCP(sport=1, dport=2, flags=flags, options=options))


class TestSegmentSizes:
    @by_tags
    @pytest.mark.parametrize("ipv6", [False, True])
    @pytest.mark.parametrize("flags", ["S", "SA", "SEC"])
    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_lowered(self, link: Packet, ipv6: bool, flags: str, options: list[Any]) -> None:
        most = MTU - (60 if ipv6 else 40)
        lowered = [(name, most if name == "MSS" else value) for name, value in options]
        out = run("PathMtu", {"mtu": MTU}, [syn(ipv6, options, link, flags)]).out[FITS]
        assert out == [syn(ipv6, lowered, link, flags)]  # the checksum as well

    @pytest.mark.parametrize("ipv6", [False, True])
    def test_left_alone(self, ipv6: bool) -> None:
        most = MTU - (60 if ipv6 else 40)
        link = TAGS["untagged"]
        frames = [
            syn(ipv6, [("MSS", most)], link),
            syn(ipv6, [("MSS", 536)], link),
            syn(ipv6, [], link),
            syn(ipv6, [("EOL", None), ("MSS", 1460)], link),
            syn(ipv6, [("MSS", 1460)], link, "A"),
            syn(ipv6, [("MSS", 1460)], link, "R"),
        ]
        assert run("PathMtu", {"mtu": MTU}, frames).out == {FITS: frames}
        high = [syn(ipv6, [("MSS", 1460)], link)]
        assert run("PathMtu", {"mtu": MTU, "clamp_mss": False}, high).out == {FITS: high}

    @pytest.mark.parametrize(
        "options",
        [
            b"\2\3\5\xb4",
            b"\2\0\5\xb4",
            b"\2\1\5\xb4",
            b"\2\xff\5\xb4",
            b"\1\1\1\2",
            b"\1\1\2\4",
            b"\x08\0\2\4\5\xb4\0\0",
            b"\x08\x09\2\4\5\xb4\0\0",
            b"\2\5\5\xb4\0\0\0\0",
        ],
    )
    def test_malformed_options_are_left_alone(self, options: bytes) -> None:
        segment = TCP(flags="S", dataofs=5 + len(options) // 4)
        frame = bytes(TAGS["untagged"] / IP(**V4) / segment / Raw(options))
        assert run("PathMtu", {"mtu": MTU}, [frame]).out == {FITS: [frame]}

    def test_wrong_checksums_stay_wrong(self) -> None:
        frame = bytearray(syn(False, OPTIONS["odd"], TAGS["untagged"]))
        frame[50] ^= 0x55
        (out,) = run("PathMtu", {"mtu": MTU}, [bytes(frame)]).out[FITS]
        assert Ether(out)[TCP].options[1] == ("MSS", MTU - 40)
        assert not checksums_are_right(out)

    def test_behind_extension_headers_and_in_pieces(self) -> None:
        tcp = TCP(flags="S", options=[("MSS", 9000)])
        frames = [
            bytes(Ether(**MACS) / IPv6(**V6) / IPv6ExtHdrDestOpt() / tcp),
            bytes(Ether(**MACS) / IP(**V4, flags="MF") / tcp / Raw(bytes(1400))),
        ]
        out = run("PathMtu", {"mtu": MTU}, frames).out[FITS]
        assert len(out) == 3
        assert Ether(out[0])[TCP].options == [("MSS", MTU - 60)]
        assert Ether(out[1])[TCP].options == [("MSS", MTU - 40)]

    def test_an_error_quotes_what_came(self) -> None:
        tcp = TCP(flags="S", options=[("MSS", 9000)])
        frame = bytes(Ether(**MACS) / IP(**V4, flags="DF") / tcp / Raw(bytes(1400)))
        (out,) = run("PathMtu", {"mtu": MTU}, [frame]).out[ERRORS]
        assert out[42:] == frame[14 : 14 + 548]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "PathMtu.mtu is 0; must be 68 to 65535"),
        ({"mtu": 67}, "PathMtu.mtu is 67"),
        ({"mtu": 65536}, "PathMtu.mtu is 65536"),
        ({"mtu": 1000}, "PathMtu.mtu6 is 1000, as mtu is; must be 1280 to 65535"),
        ({"mtu": 1400, "mtu6": 1279}, "PathMtu.mtu6 is 1279; must be 1280"),
        ({"mtu": 1400, "address": "2001:db8::1"}, 'address is "2001:db8::1"; must be .* IPv4'),
        ({"mtu": 1400, "address": "224.0.0.1"}, "must be a host's IPv4 address"),
        ({"mtu": 1400, "address6": "ff02::1"}, "must be a host's IPv6 address"),
        ({"mtu": 1400, "address6": "192.0.2.1"}, "must be a host's IPv6 address"),
        ({"mtu": 1400, "errors_per_second": 10**7}, "errors_per_second is 10000000; must be 0 to"),
    ],
)
def test_bad_arguments(args: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        run("PathMtu", args, [])
