# SPDX-License-Identifier: BSD-3-Clause
"""BPF: filter expressions, their errors, and their order."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether

from harness import run
from match_support import DROP, MACS, gates_of, raises, tcp, udp, udp6

PACKETS = {
    "tcp": tcp(sport=92, dport=443),
    "udp": udp("22.22.22.22", "12.34.56.78", sport=700, dport=53),
    "udp6": udp6("2001:db8::2"),
    "icmp": bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP()),
    "arp": bytes(
        Ether(src=MACS["src"], dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="1.1.1.1", pdst="2.2.2.2")
    ),
    "vlan": bytes(
        Ether(**MACS) / Dot1Q(vlan=7) / IP(src="9.9.9.9", dst="8.8.8.8") / UDP(sport=8, dport=9)
    ),
    "hop6": bytes(Ether(**MACS) / IPv6() / IPv6ExtHdrHopByHop() / TCP(sport=8, dport=92)),
    "frag4": bytes(Ether(**MACS) / IP(proto=17, frag=9) / bytes([0, 53] * 20)),
    "frag6": bytes(
        Ether(**MACS) / IPv6() / IPv6ExtHdrFragment(nh=17, offset=9) / bytes([0, 53] * 20)
    ),
}
IP4 = "tcp udp icmp vlan frag4"


class TestBPF:
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("", "tcp udp udp6 icmp arp vlan hop6 frag4 frag6"),
            ("ip", IP4),
            ("ip6", "udp6 hop6 frag6"),
            ("arp", "arp"),
            ("rarp", ""),
            ("tcp", "tcp hop6"),
            ("udp", "udp udp6 vlan frag4 frag6"),
            ("icmp", "icmp"),
            ("vlan", "vlan"),
            ("vlan 7", "vlan"),
            ("vlan 8", ""),
            ("tcp src port 92", "tcp"),
            ("tcp dst port 92", "hop6"),
            ("port 92", "tcp hop6"),
            ("port 53", "udp"),
            ("udp portrange 600-800", "udp"),
            ("port 53 or 443", "udp tcp"),
            ("port (53 or 443)", "udp tcp"),
            ("ether proto 0x800", IP4),
            ("ether proto arp", "arp"),
            ("ip proto 17 or ip6 proto 17", "udp udp6 vlan frag4 frag6"),
            ("ip proto \\tcp", "tcp"),
            ("proto 6", "tcp hop6"),
            ("ip host 22.22.22.22", "udp"),
            ("host 22.22.22.22 or 8.8.8.8", "udp vlan"),
            ("src 22.22.22.22", "udp"),
            ("dst host 22.22.22.22", ""),
            ("src and dst net 10.0.0.0/8", "tcp icmp"),
            ("src or dst net 10/8", "tcp icmp"),
            ("net 10", "tcp icmp"),
            ("src net 22.22", "udp"),
            ("net 9.9.0.0 mask 255.255.0.0", "vlan"),
            ("dst 8.0.0.0/8", "vlan"),
            ("host 1.1.1.1", "arp"),
            ("arp dst host 2.2.2.2", "arp"),
            ("ip host 1.1.1.1", ""),
            ("host 2001:db8::2", "udp6"),
            ("dst net 2001:db8::/32", "udp6"),
            ("broadcast", "arp"),
            ("ether multicast", "arp"),
            ("ether src 02:00:00:00:00:01", "tcp udp udp6 icmp arp vlan hop6 frag4 frag6"),
            ("ether dst host 02:00:00:00:00:02 and icmp", "icmp"),
            ("not ip and not ip6", "arp"),
            ("!(ip or ip6)", "arp"),
            ("ip && !udp && !(tcp || icmp)", ""),
            ("icmp or udp and port 53", "udp"),
            ("icmp or (udp and port 53)", "icmp udp"),
            ("not not icmp", "icmp"),
            ("len <= 42", "icmp arp"),
            ("less 42", "icmp arp"),
            ("len < 42", ""),
            ("greater 43 and not ip6 and not vlan and not udp", "tcp"),
            ("len != 42 and len = 58", "tcp"),
            ("len > 57 and tcp and ip", "tcp"),
        ],
    )
    def test_expressions(self, expression: str, expected: str) -> None:
        wanted = set(expected.split())
        got = set()
        filters = {"filters": [{"filter": expression, "gate": 1}]}
        for name, packet in PACKETS.items():
            result = run("BPF", filters, [packet])
            if gates_of(result) == {1: 1}:
                got.add(name)
            else:
                assert gates_of(result) == {0: 1}
        assert got == wanted

    def test_priority(self) -> None:
        filters = [
            {"priority": 1, "filter": "ip", "gate": 1},
            {"priority": 2, "filter": "udp", "gate": 2},
            {"priority": 2, "filter": "port 53", "gate": 3},
        ]
        packets = [PACKETS["tcp"], PACKETS["udp"], PACKETS["arp"]]
        for given in (filters, [filters[1], filters[2], filters[0]]):
            result = run("BPF", {}, packets, [("add", {"filters": given})])
            assert result.out == {1: packets[:1], 2: packets[1:2], 0: packets[2:]}

    def test_commands(self) -> None:
        low = {"priority": -1, "filter": "ip", "gate": 1}
        high = {"priority": 2, "filter": "udp", "gate": 2}
        commands = [("add", {"filters": [low, high]}), ("get_initial_arg", {})]
        result = run("BPF", {}, [], commands)
        assert result.command_results[1] == {"filters": [high, low]}
        delete = [("delete", {"filters": [high]})]
        assert gates_of(run("BPF", {"filters": [low, high]}, [udp()], delete)) == {1: 1}
        clear = [("clear", {})]
        assert gates_of(run("BPF", {"filters": [low, high]}, [udp()], clear)) == {0: 1}

    @pytest.mark.parametrize(
        ("expression", "text"),
        [
            ("tcp and", "column 8, at the end: expected a primitive"),
            ("tcp port", "column 9, at the end: expected a value"),
            ("tcp port http", "column 10, at 'http': expected a number from 0 to 65535"),
            ("port 65536", "column 6"),
            ("portrange 9-1", "column 11"),
            ("ip port 5", "column 4, at 'port': ports take tcp, udp or sctp"),
            ("tcp host 1.2.3.4", "column 5"),
            ("host example.org", "column 6, at 'example.org': expected an address"),
            ("host 10.0.0.0/8", "without a length"),
            ("net 10.0.0.1/8", "no bits beyond"),
            ("net 10.0.0.0/33", "length from 0 to 32"),
            ("ip6 host 1.2.3.4", "expected an address of ip6"),
            ("(tcp", "column 5, at the end: expected 'and', 'or' or ')'"),
            ("tcp)", "column 4, at ')': expected 'and', 'or' or the end"),
            ("tcp udp", "column 5, at 'udp'"),
            ("ip[9] = 6", "column 3, at '[': expected a word"),
            ("ether host 1:2:3", "expected a MAC address"),
            ("len 5", "expected a comparison"),
            ("vlan 4096", "from 0 to 4095"),
            ("bogus", "column 1, at 'bogus': expected a primitive"),
            ("(" * 200 + "tcp" + ")" * 200, "nested too deeply"),
            ("not " * 200 + "tcp", "nested too deeply"),
        ],
    )
    def test_bad_expressions(self, expression: str, text: str) -> None:
        with raises(text):
            run("BPF", {"filters": [{"filter": expression, "gate": 1}]}, [])

    def test_bad_gate(self) -> None:
        with raises("BPF.filters[0].gate"):
            run("BPF", {"filters": [{"filter": "tcp", "gate": DROP}]}, [])

    def test_every_cut_of_every_packet_survives(self) -> None:
        expression = "port 1 or host 1.1.1.1 or host ::1 or ether host 1:2:3:4:5:6 or vlan 1 or tcp"
        filters = {"filters": [{"filter": expression, "gate": 1}]}
        for packet in PACKETS.values():
            cuts = [packet[:n] for n in range(1, len(packet))]
            assert run("BPF", filters, cuts).forwarded == len(cuts)
