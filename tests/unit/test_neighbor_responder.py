# SPDX-License-Identifier: BSD-3-Clause
"""NeighborResponder against a twin in plain Python over scapy's packets."""

from __future__ import annotations

import errno
import ipaddress
import random
from typing import Any

import pytest
from chain_support import prefixes
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import EngineError, new_engine, run

ASKER = {"mac": "02:1e:67:9f:4d:ae", "ip": "2001:db8::99"}
ADDRESSES = {"2001:db8::1": "a0:22:33:44:55:66", "fe80::1": "02:aa:bb:cc:dd:ee"}
ADDS = [("add", {"ip": ip, "mac_addr": address}) for ip, address in ADDRESSES.items()]
TARGET = "2001:db8::1"


def solicited_node(target: str) -> str:
    low = ipaddress.IPv6Address(target).packed[-3:]
    return str(ipaddress.IPv6Address(b"\xff\2" + bytes(9) + b"\1\xff" + low))


def ethernet(dst: str, tags: int) -> Packet:
    layer: Packet = Ether(src=ASKER["mac"], dst=dst)
    for n in range(tags):
        layer /= Dot1Q(vlan=n + 1, prio=5)
    return layer


def solicitation(target: str, tags: int = 0, probe: bool = False, **fields: Any) -> Packet:
    """What a host sends; a probe is from the unspecified address."""
    group = solicited_node(target)
    mac = "33:33:ff:" + ":".join(f"{b:02x}" for b in ipaddress.IPv6Address(group).packed[-3:])
    ip = {"src": "::" if probe else ASKER["ip"], "dst": group, "hlim": 255}
    layer = ethernet(mac, tags) / IPv6(**{**ip, **fields}) / ICMPv6ND_NS(tgt=target)
    return layer if probe else layer / ICMPv6NDOptSrcLLAddr(lladdr=ASKER["mac"])


def advertisement(request: Packet, mac: str, router: bool = False) -> bytes:
    """The twin: a packet made anew."""
    asker, target = request[IPv6].src, request[ICMPv6ND_NS].tgt
    probe = asker == "::"
    link = request.copy()
    link[IPv6].underlayer.remove_payload()
    link.src, link.dst = mac, "33:33:00:00:00:01" if probe else request.src
    ip = IPv6(src=target, dst="ff02::1" if probe else asker, hlim=255)
    answer = ICMPv6ND_NA(R=router, S=not probe, O=1, tgt=target)
    return bytes(link / ip / answer / ICMPv6NDOptDstLLAddr(lladdr=mac))


def answers(packets: list[Packet], args: dict[str, Any] | None = None) -> Any:
    return run("NeighborResponder", args or {}, [bytes(packet) for packet in packets], ADDS)


class TestAnswers:
    @pytest.mark.parametrize("tags", [0, 1, 2])
    @pytest.mark.parametrize("probe", [False, True])
    def test_known_addresses(self, tags: int, probe: bool) -> None:
        requests = [solicitation(ip, tags, probe) for ip in ADDRESSES]
        expected = [
            advertisement(packet, mac)
            for packet, mac in zip(requests, ADDRESSES.values(), strict=True)
        ]
        assert answers(requests).out == {0: expected}

    def test_to_the_address_itself(self) -> None:
        """Whether a neighbour is still there (RFC 4861, 7.3)."""
        request = solicitation(TARGET, dst=TARGET)
        request.dst = ADDRESSES[TARGET]
        assert answers([request]).out == {0: [advertisement(request, ADDRESSES[TARGET])]}

    def test_other_options_and_padding(self) -> None:
        nonce = ICMPv6NDOptUnknown(type=14, data=b"nonce!")  # RFC 7527, as Linux sends
        probe = solicitation(TARGET, probe=True) / nonce
        asked = solicitation(TARGET) / nonce / nonce
        bare = ethernet("33:33:ff:00:00:01", 0) / IPv6(
            src=ASKER["ip"], dst=solicited_node(TARGET), hlim=255
        )
        bare /= ICMPv6ND_NS(tgt=TARGET)
        requests = [probe, asked, bare]
        frames = [bytes(probe), bytes(asked) + bytes(40), bytes(bare)]
        result = run("NeighborResponder", {}, frames, ADDS)
        mac = ADDRESSES[TARGET]
        assert result.out == {0: [advertisement(request, mac) for request in requests]}

    def test_traffic_class_and_flow_label_are_its_own(self) -> None:
        request = solicitation(TARGET, tc=0xC0, fl=77)
        assert answers([request]).out == {0: [advertisement(request, ADDRESSES[TARGET])]}

    def test_a_router_says_so(self) -> None:
        args = {"ip": TARGET, "mac_addr": "02:00:00:00:00:99", "router": True}
        request = solicitation(TARGET)
        out = run("NeighborResponder", args, [bytes(request)]).out
        assert out == {0: [advertisement(request, "02:00:00:00:00:99", router=True)]}
        assert answers([request], args).out == {0: [advertisement(request, ADDRESSES[TARGET])]}


class TestTable:
    @pytest.mark.parametrize("seed", range(6))
    def test_twin_of_a_dict(self, seed: int) -> None:
        """Random additions and removals of prefixes that nest; the longest one counts."""
        rng = random.Random(seed)
        engine = new_engine()
        engine.create_module("m", "NeighborResponder", {})
        table: dict[ipaddress.IPv6Network, str] = {}
        for step in range(60):
            bits = rng.choice([0, 32, 64, 96, 120, 125, 127, 128])
            address = int(ipaddress.IPv6Address("2001:db8::")) + rng.randrange(16)
            net = ipaddress.IPv6Network((address >> 128 - bits << 128 - bits, bits))
            if net in table and rng.random() < 0.6:
                engine.module_command("m", "delete", {"ip": str(net)})
                del table[net]
            else:
                table[net] = f"02:00:00:00:00:{step:02x}"
                entry = {"ip": str(net), "mac_addr": table[net]}
                engine.module_command("m", "add", entry)
            assert engine.module_info("m")["desc"] == f"{len(table)} prefixes"
            asked, expected = [], []
            for n in range(18):
                target = ipaddress.IPv6Address("2001:db8::") + n
                request = solicitation(str(target), probe=n % 3 == 0)
                asked.append(bytes(request))
                holding = [net for net in table if target in net]
                if holding:
                    longest = max(holding, key=lambda net: net.prefixlen)
                    expected.append(advertisement(request, table[longest]))
            assert engine.run_packets("m", asked).get(0, []) == expected

    def test_delete_what_is_not_there(self) -> None:
        engine = new_engine()
        engine.create_module("m", "NeighborResponder", {"ip": TARGET, "mac_addr": "2:0:0:0:0:1"})
        for ip in ("2001:db8::/64", "2001:db8::2"):
            with pytest.raises(EngineError, match=f"delete: ip: no answers for {ip}") as error:
                engine.module_command("m", "delete", {"ip": ip})
            assert error.value.code == errno.ENOENT
        engine.module_command("m", "delete", {"ip": TARGET})
        assert engine.run_packets("m", [bytes(solicitation(TARGET))]) == {}

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"ip": "10.0.0.1", "mac_addr": "02:00:00:00:00:01"}, "ip is .* must be an IPv6"),
            ({"ip": "2001:db8::/129", "mac_addr": "02:00:00:00:00:01"}, "ip is "),
            ({"ip": "ff02::1", "mac_addr": "02:00:00:00:00:01"}, "ip is .* no multicast"),
            ({"ip": "2001:db8::1/64", "mac_addr": "02:00:00:00:00:01"}, "ip: .* beyond its length"),
            ({"ip": "2001:db8::1", "mac_addr": "02:00"}, "mac_addr is"),
            ({"ip": "2001:db8::1"}, "mac_addr is"),
            ({"mac_addr": "02:00:00:00:00:01"}, "ip is"),
        ],
    )
    def test_bad_addresses(self, args: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=f"NeighborResponder.{message}"):
            run("NeighborResponder", args, [])
        with pytest.raises(EngineError, match=f"add: {message}"):
            run("NeighborResponder", {}, [], [("add", args)])


def with_option(data: bytes) -> Packet:
    request = solicitation(TARGET, probe=True)
    return request / Raw(data)


class TestDrops:
    @pytest.mark.parametrize(
        ("packet", "reason"),
        [
            (solicitation("2001:db8::2"), "unknown address"),
            (ethernet("02:00:00:00:00:01", 0) / IP() / UDP(), "not a solicitation"),
            (ethernet("02:00:00:00:00:01", 0) / ARP(), "not a solicitation"),
            (ethernet("02:00:00:00:00:01", 0) / IPv6() / UDP(), "not a solicitation"),
            (
                ethernet("02:00:00:00:00:01", 0) / IPv6() / ICMPv6EchoRequest(data=bytes(40)),
                "not a solicitation",
            ),
            (
                ethernet("02:00:00:00:00:01", 0) / IPv6(hlim=255) / ICMPv6ND_NA(tgt=TARGET),
                "not a solicitation",
            ),
            (solicitation(TARGET, hlim=254), "bad solicitation"),
            (solicitation(TARGET, hlim=64), "bad solicitation"),
            (solicitation("ff02::1:ff00:1"), "bad solicitation"),
            (solicitation(TARGET, probe=True, dst=TARGET), "bad solicitation"),
            (solicitation(TARGET, probe=True, dst="ff02::1"), "bad solicitation"),
            (solicitation(TARGET, src="::"), "bad solicitation"),  # with a MAC address
            (with_option(b"\x0e\0" + bytes(6)), "bad solicitation"),
            (with_option(b"\x0e\2" + bytes(6)), "bad solicitation"),
            (with_option(b"\x0e\1" + bytes(7)), "bad solicitation"),
        ],
    )
    def test_reason(self, packet: Packet, reason: str) -> None:
        assert (answers([packet]).out, answers([packet]).drops) == ({}, {reason: 1})

    def test_code_and_checksum(self) -> None:
        request = solicitation(TARGET)
        request[ICMPv6ND_NS].code = 1
        assert answers([request]).drops == {"bad solicitation": 1}
        good = bytes(solicitation(TARGET))
        places = range(22, len(good))
        flipped = [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in places]
        result = run("NeighborResponder", {}, flipped, ADDS)
        assert result.out == {}
        # Bits of the type are told before the checksum.
        assert result.drops == {"bad solicitation": len(flipped) - 1, "not a solicitation": 1}

    def test_behind_extension_headers(self) -> None:
        for header in (IPv6ExtHdrFragment(), IPv6ExtHdrDestOpt()):
            ip = IPv6(src=ASKER["ip"], dst=TARGET, hlim=255)
            packet = ethernet("02:00:00:00:00:01", 0) / ip / header / ICMPv6ND_NS(tgt=TARGET)
            assert answers([packet]).drops == {"not a solicitation": 1}

    @pytest.mark.parametrize("tags", [0, 1])
    def test_every_length(self, tags: int) -> None:
        frames = prefixes(bytes(solicitation(TARGET, tags)))[:-1]
        result = run("NeighborResponder", {}, frames[1:], ADDS)
        assert (result.out, result.drops) == ({}, {"packet too short": len(frames) - 1})

    def test_every_claimed_length(self) -> None:
        """Lengths that the IPv6 header may claim; one is right."""
        good = bytes(solicitation(TARGET))
        frames = [good[:18] + n.to_bytes(2, "big") + good[20:] for n in range(60)]
        result = run("NeighborResponder", {}, frames, ADDS)
        assert len(result.out[0]) == 1
        assert result.drops == {"packet too short": 8 + 27, "bad solicitation": 24}
