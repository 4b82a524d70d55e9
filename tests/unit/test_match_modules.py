# SPDX-License-Identifier: BSD-3-Clause
"""ExactMatch, WildcardMatch and IPLookup: which gate does a packet leave through?"""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from harness import run
from match_support import DROP, MACS, as_bytes, gates_of, raises, udp, udp6

SRC_DST = [{"offset": 26, "num_bytes": 4}, {"offset": 30, "num_bytes": 4}]
ADDED = [
    ("add", {"gate": 1, "fields": [{"value_bin": b"\x0a\0\0\1"}, {"value_int": 0x0A000002}]}),
    ("add", {"gate": 2, "fields": [{"value_int": 0x0A000003}, {"value_int": 0x0A000004}]}),
]


class TestExactMatch:
    def test_gates(self) -> None:
        hit, other, miss = udp(), udp("10.0.0.3", "10.0.0.4"), udp("10.0.0.1", "10.0.0.4")
        result = run("ExactMatch", {"fields": SRC_DST}, [hit, other, miss], ADDED)
        assert result.out == {1: [hit], 2: [other]}
        assert result.drops == {"no match": 1}

    def test_default_gate(self) -> None:
        commands = [*ADDED, ("set_default_gate", {"gate": 3})]
        result = run("ExactMatch", {"fields": SRC_DST}, [udp("1.2.3.4")], commands)
        assert gates_of(result) == {3: 1}

    def test_drop_gate_of_a_rule(self) -> None:
        rule = {"gate": DROP, "fields": [{"value_int": 0x0800}]}
        fields = [{"offset": 12, "num_bytes": 2}]
        result = run("ExactMatch", {"fields": fields}, [udp()], [("add", rule)])
        assert result.drops == {"rule": 1}

    def test_masks(self) -> None:
        args = {"fields": SRC_DST[:1], "masks": [{"value_int": 0xFFFFFF00}]}
        rule = {"gate": 4, "fields": [{"value_int": 0x0A000000}]}
        packets = [udp("10.0.0.77"), udp("10.0.1.77")]
        result = run("ExactMatch", args, packets, [("add", rule)])
        assert result.out == {4: packets[:1]}

    def test_replaces_a_rule(self) -> None:
        again = ("add", {"gate": 9, "fields": ADDED[0][1]["fields"]})
        result = run("ExactMatch", {"fields": SRC_DST}, [udp()], [*ADDED, again])
        assert gates_of(result) == {9: 1}

    def test_delete_and_clear(self) -> None:
        delete = ("delete", {"fields": ADDED[0][1]["fields"]})
        packets = [udp(), udp("10.0.0.3", "10.0.0.4")]
        result = run("ExactMatch", {"fields": SRC_DST}, packets, [*ADDED, delete])
        assert gates_of(result) == {2: 1}
        result = run("ExactMatch", {"fields": SRC_DST}, packets, [*ADDED, ("clear", {})])
        assert result.drops == {"no match": 2}
        with raises("doesn't exist", code=2):
            run("ExactMatch", {"fields": SRC_DST}, [], [*ADDED, delete, delete])

    def test_bytes_beyond_the_end_are_zero(self) -> None:
        args = {"fields": [{"offset": 10, "num_bytes": 4}]}
        rule = ("add", {"gate": 1, "fields": [{"value_bin": b"ab\0\0"}]})
        for packet in (b"0123456789ab", b"0123456789ab\0", b"0123456789ab\0\0\1"):
            assert gates_of(run("ExactMatch", args, [packet], [rule])) == {1: 1}

    def test_attributes_without_a_writer_are_zero(self) -> None:
        args = {"fields": [{"attr_name": "color", "num_bytes": 2}]}
        rule = ("add", {"gate": 1, "fields": [{"value_int": 0}]})
        assert gates_of(run("ExactMatch", args, [udp()], [rule])) == {1: 1}

    def test_eight_fields_of_all_sizes(self) -> None:
        packet = bytes(range(64))
        places = [(0, 1), (50, 7), (3, 2), (9, 8), (20, 3), (30, 5), (40, 6), (60, 4)]
        args = {"fields": [{"offset": at, "num_bytes": size} for at, size in places]}
        fields = [{"value_bin": packet[at : at + size]} for at, size in places]
        result = run("ExactMatch", args, [packet], [("add", {"gate": 5, "fields": fields})])
        assert gates_of(result) == {5: 1}
        for at, _ in places:
            other = packet[:at] + b"\xff" + packet[at + 1 :]
            result = run("ExactMatch", args, [other], [("add", {"gate": 5, "fields": fields})])
            assert result.drops == {"no match": 1}

    def test_values_are_written(self) -> None:
        args = {
            "fields": [{"offset": 12, "num_bytes": 2}],
            "values": [{"offset": 0, "num_bytes": 2}, {"offset": 40, "num_bytes": 1}],
            "masksv": [{"value_int": 0xFF}, {"value_int": 0}],
        }
        values = [{"value_int": 0xAABB}, {"value_bin": b"\xcc"}]
        rule = {"gate": 1, "fields": [{"value_int": 0x0800}], "values": values}
        packet = udp()
        short = packet[:40]
        result = run("ExactMatch", args, [packet, short], [("add", rule)])
        assert result.out == {1: [packet[:1] + b"\xbb" + packet[2:40] + b"\xcc" + packet[41:]]}
        assert result.drops == {"too short": 1}

    def test_configuration(self) -> None:
        args = {
            "fields": [{"attr_name": "babylon", "num_bytes": 2}, {"offset": 10, "num_bytes": 1}],
            "masks": [{"value_bin": b"\xff\xf0"}, {"value_bin": b"\x7f"}],
        }
        rules = [
            {"gate": 1, "fields": [{"value_bin": b"\x88\x80"}, {"value_bin": b"\x03"}]},
            {"gate": 2, "fields": [{"value_bin": b"\x77\x70"}, {"value_bin": b"\x05"}]},
        ]
        config = {"default_gate": 3, "rules": rules}
        commands = [
            ("set_runtime_config", {"default_gate": 3, "rules": rules[::-1]}),
            ("get_initial_arg", {}),
            ("get_runtime_config", {}),
        ]
        result = run("ExactMatch", args, [], commands)
        assert as_bytes(result.command_results[1:]) == as_bytes([args, config])

    def test_bad_configuration_changes_nothing(self) -> None:
        bad = {"rules": [{"gate": 1, "fields": [{"value_int": 1}]}]}
        with raises("rules[0].fields: has 1 entries; must have 2"):
            run("ExactMatch", {"fields": SRC_DST}, [], [("set_runtime_config", bad)])

    @pytest.mark.parametrize(
        ("args", "text"),
        [
            ({"fields": [{"num_bytes": 2}]}, "must specify 'offset' or 'attr_name'"),
            ({"fields": [{"offset": 0, "num_bytes": 9}]}, "num_bytes is 9"),
            ({"fields": [{"offset": 0, "num_bytes": 0}]}, "num_bytes is 0"),
            ({"fields": [{"offset": 1025, "num_bytes": 1}]}, "offset must be 0 to 1024"),
            ({"fields": [{"offset": 0, "num_bytes": 1}] * 9}, "at most 8"),
            ({"fields": SRC_DST, "masks": [{"value_int": 1}]}, "1 masks for 2 fields"),
            ({"fields": SRC_DST[:1], "masks": [{"value_int": 1 << 32}]}, "does not fit"),
        ],
    )
    def test_bad_arguments(self, args: dict, text: str) -> None:
        with raises(text):
            run("ExactMatch", args, [])

    @pytest.mark.parametrize(
        ("rule", "text"),
        [
            ({"gate": 8193, "fields": [{"value_int": 1}] * 2}, "gate: not a gate"),
            ({"gate": 1}, "fields is empty"),
            ({"gate": 1, "fields": [{"value_bin": b"abc"}] * 2}, "has 3 bytes; must have 4"),
            ({"gate": 1, "fields": [{"value_int": 1 << 32}] * 2}, "value_int does not fit"),
            ({"gate": 1, "fields": [{"value_int": 1}] * 2, "values": [{}]}, "add: values: has 1"),
        ],
    )
    def test_bad_rules(self, rule: dict, text: str) -> None:
        with raises(text):
            run("ExactMatch", {"fields": SRC_DST}, [], [("add", rule)])


def wildcard(gate: int, priority: int, src: tuple[int, int], dst: tuple[int, int]) -> tuple:
    return (
        "add",
        {
            "gate": gate,
            "priority": priority,
            "values": [{"value_int": src[0]}, {"value_int": dst[0]}],
            "masks": [{"value_int": src[1]}, {"value_int": dst[1]}],
        },
    )


ANY = (0, 0)
HOST = 0xFFFFFFFF


class TestWildcardMatch:
    args = {"fields": SRC_DST}

    def test_priority(self) -> None:
        commands = [
            wildcard(1, 10, (0x0A000000, 0xFF000000), ANY),
            wildcard(2, 20, (0x0A000001, HOST), ANY),
            wildcard(3, -5, ANY, ANY),
            wildcard(4, 15, ANY, (0x0A000002, HOST)),
        ]
        packets = [udp(), udp("10.9.9.9"), udp("10.9.9.9", "1.1.1.1"), udp("9.9.9.9", "1.1.1.1")]
        result = run("WildcardMatch", self.args, packets, commands)
        assert result.out == {2: packets[:1], 4: packets[1:2], 1: packets[2:3], 3: packets[3:]}

    def test_the_older_rule_wins_among_equals(self) -> None:
        one, two = wildcard(1, 5, (0x0A000001, HOST), ANY), wildcard(2, 5, ANY, (0x0A000002, HOST))
        assert gates_of(run("WildcardMatch", self.args, [udp()], [one, two])) == {1: 1}
        assert gates_of(run("WildcardMatch", self.args, [udp()], [two, one])) == {2: 1}

    def test_defaults(self) -> None:
        assert run("WildcardMatch", self.args, [udp()]).drops == {"no match": 1}
        gate = ("set_default_gate", {"gate": 7})
        assert gates_of(run("WildcardMatch", self.args, [udp()], [gate])) == {7: 1}
        drop = wildcard(DROP, 0, ANY, ANY)
        assert run("WildcardMatch", self.args, [udp()], [gate, drop]).drops == {"rule": 1}

    def test_delete(self) -> None:
        high, low = wildcard(1, 9, (0x0A000001, HOST), ANY), wildcard(2, 1, ANY, ANY)
        delete = ("delete", {k: high[1][k] for k in ("values", "masks")})
        result = run("WildcardMatch", self.args, [udp()], [high, low, delete])
        assert gates_of(result) == {2: 1}
        with raises("doesn't exist", code=2):
            run("WildcardMatch", self.args, [], [high, delete, delete])
        result = run("WildcardMatch", self.args, [udp()], [high, low, ("clear", {})])
        assert result.drops == {"no match": 1}

    def test_a_replaced_rule_loses_its_old_priority(self) -> None:
        commands = [
            wildcard(1, 9, (0x0A000001, HOST), ANY),
            wildcard(2, 5, ANY, ANY),
            wildcard(1, 1, (0x0A000001, HOST), ANY),
        ]
        assert gates_of(run("WildcardMatch", self.args, [udp()], commands)) == {2: 1}

    def test_values_are_written(self) -> None:
        args = {"fields": SRC_DST[:1], "values": [{"offset": 0, "num_bytes": 2}]}
        rule = {
            "gate": 1,
            "values": [{"value_int": 0}],
            "masks": [{"value_int": 0}],
            "valuesv": [{"value_bin": b"xy"}],
        }
        packet = udp()
        result = run("WildcardMatch", args, [packet, b"z"], [("add", rule)])
        assert result.out == {1: [b"xy" + packet[2:]]}
        assert result.drops == {"too short": 1}

    def test_configuration(self) -> None:
        def bins(*values: bytes) -> list:
            return [{"value_bin": value} for value in values]

        args = {
            "fields": [{"attr_name": "babylon", "num_bytes": 2}, {"offset": 10, "num_bytes": 1}]
        }
        rules = [
            {"priority": 1, "gate": 1, "masks": bins(b"\xff\xf0", b"\x7f"),
             "values": bins(b"\x88\x80", b"\x03")},
            {"priority": 2, "gate": 2, "masks": bins(b"\xf0\xff", b"\x3f"),
             "values": bins(b"\x70\x70", b"\x05")},
        ]  # fmt: skip
        config = {"default_gate": 3, "rules": rules}
        commands = [
            ("set_runtime_config", {"default_gate": 3, "rules": rules[::-1]}),
            ("get_initial_arg", {}),
            ("get_runtime_config", {}),
        ]
        result = run("WildcardMatch", args, [], commands)
        assert as_bytes(result.command_results[1:]) == as_bytes([args, config])

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (
                {"masks": [{"value_int": 0}] * 2, "values": [{"value_int": 1}] * 2},
                "outside masks[0]",
            ),
            ({"masks": []}, "masks: has 0 entries; must have 2"),
            ({"values": [{"value_int": 0}]}, "values: has 1 entries; must have 2"),
            ({"valuesv": [{"value_int": 0}]}, "valuesv: has 1 entries; must have 0"),
            ({"gate": 9000}, "gate: not a gate"),
        ],
    )
    def test_bad_rules(self, change: dict, text: str) -> None:
        rule = {**wildcard(1, 0, ANY, ANY)[1], **change}
        with raises(text):
            run("WildcardMatch", self.args, [], [("add", rule)])


def route(prefix: str, length: int, gate: int) -> tuple:
    return ("add", {"prefix": prefix, "prefix_len": length, "gate": gate})


def unroute(prefix: str, length: int) -> tuple:
    return ("delete", {"prefix": prefix, "prefix_len": length})


class TestIPLookup:
    def gate(self, packet: bytes, *commands: tuple) -> int | str:
        result = run("IPLookup", {}, [packet], commands)
        return next(iter(gates_of(result)), None) or next(iter(result.drops))

    def test_longest_prefix(self) -> None:
        routes = [
            route("10.0.0.0", 8, 1),
            route("10.1.0.0", 16, 2),
            route("10.1.1.0", 24, 3),
            route("10.1.1.128", 25, 4),
            route("10.1.1.200", 32, 5),
            route("10.1.0.0", 23, 6),
        ]
        expected = {
            "10.2.0.1": 1, "10.1.2.1": 2, "10.1.1.1": 3, "10.1.1.129": 4, "10.1.1.200": 5,
            "10.1.0.1": 6, "11.0.0.1": "no route",
        }  # fmt: skip
        for order in (routes, routes[::-1]):
            for dst, gate in expected.items():
                assert self.gate(udp(dst=dst), *order) == gate

    def test_delete_uncovers_the_shorter_prefix(self) -> None:
        routes = [route("10.0.0.0", 8, 1), route("10.1.1.0", 24, 2), route("10.1.1.4", 30, 3)]
        assert self.gate(udp(dst="10.1.1.5"), *routes, unroute("10.1.1.4", 30)) == 2
        assert self.gate(udp(dst="10.1.1.5"), *routes, unroute("10.1.1.0", 24)) == 3
        assert self.gate(udp(dst="10.1.1.9"), *routes, unroute("10.1.1.0", 24)) == 1
        assert self.gate(udp(dst="10.1.1.5"), *routes, ("clear", {})) == "no route"
        with raises("no rule 10.1.0.0/16", code=2):
            self.gate(udp(), *routes, unroute("10.1.0.0", 16))

    def test_default_route(self) -> None:
        default = route("0.0.0.0", 0, 5)
        assert self.gate(udp(), default) == 5
        assert self.gate(udp(), default, unroute("0.0.0.0", 0)) == "no route"
        assert self.gate(udp6("::5"), default) == "no route"
        assert self.gate(udp6("::5"), route("::", 0, 6)) == 6

    def test_ipv6(self) -> None:
        routes = [
            route("2001:db8::", 32, 1),
            route("2001:db8:1::", 48, 2),
            route("2001:db8:1::7", 128, 3),
            route("8000::", 1, 4),
        ]
        expected = {"2001:db8:2::1": 1, "2001:db8:1::1": 2, "2001:db8:1::7": 3, "fe80::1": 4}
        for dst, gate in expected.items():
            assert self.gate(udp6(dst), *routes) == gate
        assert self.gate(udp6("3000::1"), *routes) == "no route"
        assert self.gate(udp6("2001:db8:1::7"), *routes, unroute("2001:db8:1::7", 128)) == 2

    def test_vlan_and_not_ip(self) -> None:
        tagged = bytes(Ether(**MACS) / Dot1Q(vlan=5) / IP(dst="10.0.0.2") / UDP())
        assert self.gate(tagged, route("10.0.0.0", 8, 1)) == 1
        arp = bytes(Ether(**MACS) / ARP())
        default = route("0.0.0.0", 0, 5)
        assert self.gate(arp, default) == "not IP"
        assert self.gate(udp()[:30], default) == "not IP"
        assert self.gate(udp(), route("10.0.0.0", 8, DROP)) == "rule"

    @pytest.mark.parametrize(
        ("prefix", "length", "text"),
        [
            ("", 8, "prefix is missing"),
            ("10.0.0", 8, "not an IPv4 or IPv6 address"),
            ("10.0.0.0", 33, "must be 0 to 32"),
            ("::", 129, "must be 0 to 128"),
            ("10.0.0.1", 24, "10.0.0.1/24 has bits beyond its length"),
            ("2001:db8::1", 64, "has bits beyond its length"),
            ("10.0.0.0", 0, "has bits beyond its length"),
        ],
    )
    def test_bad_prefixes(self, prefix: str, length: int, text: str) -> None:
        for command in (route(prefix, length, 1), unroute(prefix, length)):
            with raises(text):
                run("IPLookup", {}, [], [command])

    def test_max_rules(self) -> None:
        routes = [route("10.0.0.0", 8, 1), route("::1", 128, 2), route("10.0.0.0", 8, 3)]
        run("IPLookup", {"max_rules": 2}, [], routes)
        with raises("max_rules of 2", code=28):
            run("IPLookup", {"max_rules": 2}, [], [*routes, route("11.0.0.0", 8, 3)])


def test_addresses_of_the_tests_are_what_they_say() -> None:
    assert udp()[26:34] == socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
