# SPDX-License-Identifier: BSD-3-Clause
"""StatefulFirewall: beginnings and ends of connections, what is dropped, and a full table."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from functools import cache
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from bess_plugins.client import Client
from bess_plugins.daemon.server import Server, make_engine
from harness import Engine, EngineError, new_engine, wait_until

MS = 1_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
REASONS = ("mid-connection", "table full", "bad segment", "fragment")
HOSTS = {4: (IP, "10.0.0.1", "10.0.0.2"), 6: (IPv6, "2001:db8::1", "2001:db8::2")}


def firewall(**args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", "StatefulFirewall", args)
    return engine


@cache
def segment(flags: str, port: int = 1000, version: int = 4, data: bytes = b"") -> bytes:
    """A segment of the connection from that port; of the server's if flags begin with `<`."""
    ip, client, server = HOSTS[version]
    if flags.startswith("<"):
        head = ip(src=server, dst=client) / TCP(sport=80, dport=port, flags=flags[1:])
    else:
        head = ip(src=client, dst=server) / TCP(sport=port, dport=80, flags=flags)
    return bytes(ETHER / head / Raw(data))


def passes(engine: Engine, packet: str | bytes | Packet, ms: float = 0, port: int = 1000) -> bool:
    """Whether one packet at a time leaves by gate 0, unchanged."""
    frame = segment(packet, port) if isinstance(packet, str) else bytes(packet)
    out = engine.run_packets("m", [frame], 0, START + int(ms * MS))
    assert out in ({}, {0: [frame]})
    return bool(out)


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def status(engine: Engine) -> tuple[int, int, dict[str, int]]:
    """Connections now and begun, and drops, which the module's own counters agree with."""
    found = engine.module_command("m", "get_status", {})
    names = [f"{reason.replace('-', '_').replace(' ', '_')}_packets" for reason in REASONS]
    told = dict(zip(REASONS, (found[name] for name in names), strict=True))
    assert set(found) == {"connections", "begun", *names}
    assert {reason: count for reason, count in told.items() if count} == drops(engine)
    return found["connections"], found["begun"], drops(engine)


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_passes_from_its_start_on_both_ways(version: int) -> None:
    engine = firewall()
    handshake = [segment(flags, version=version) for flags in ("S", "<SA", "A")]
    data = [segment(flags, version=version, data=b"hello") for flags in ("PA", "<PA", "<A", "A")]
    packets = [*handshake, *data * 20]  # the start and what follows in one batch
    assert engine.run_packets("m", packets, 0, START) == {0: packets}
    assert status(engine) == (1, 1, {})
    assert "1 connections, 1 begun" in engine.module_info("m")["desc"]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "flags", ["A", "PA", "<A", "<SA", "FA", "F", "R", "RA", "", "SF", "SR", "SFA", "U", "P"]
)
def test_what_begins_in_the_middle_is_dropped(version: int, flags: str) -> None:
    engine = firewall()
    packet = segment(flags, version=version, data=b"x")
    assert not passes(engine, packet)
    assert status(engine) == (0, 0, {"mid-connection": 1})
    assert passes(engine, segment("S", version=version))
    assert passes(engine, packet)


@pytest.mark.parametrize("flags", ["S", "SEC", "SP", "SU", "<S"])
def test_what_begins_a_connection(flags: str) -> None:
    """Also with ECN, with data (TCP Fast Open), from the server, and from both at once."""
    engine = firewall()
    assert all(passes(engine, packet) for packet in (flags, "<S", "S", "<SA", "SA", "A", "<A"))
    assert status(engine) == (1, 1, {})


def test_connections_differ_in_every_part_of_the_tuple() -> None:
    engine = firewall()
    assert passes(engine, "S")
    others = [
        IP(src="10.0.0.3", dst="10.0.0.2") / TCP(sport=1000, dport=80, flags="A"),
        IP(src="10.0.0.1", dst="10.0.0.3") / TCP(sport=1000, dport=80, flags="A"),
        IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1001, dport=80, flags="A"),
        IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=81, flags="A"),
        IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=80, dport=1000, flags="A"),
        IPv6(src="::10.0.0.1", dst="::10.0.0.2") / TCP(sport=1000, dport=80, flags="A"),
    ]
    assert [passes(engine, ETHER / other) for other in others] == [False] * len(others)
    assert status(engine) == (1, 1, {"mid-connection": len(others)})


def test_what_is_not_tcp_passes() -> None:
    engine = firewall()
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    ip6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
    packets = [
        ETHER / ip / UDP(sport=1000, dport=80) / b"x",
        ETHER / ip / ICMP(),
        ETHER / ip6 / UDP(sport=1000, dport=80) / b"x",
        ETHER / ip / UDP() / Raw(b"x" * 40),
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2", proto=17, frag=3) / Raw(b"x" * 40),
        ETHER / IP(src="10.0.0.1", dst="10.0.0.2", proto=17) / b"cut",
        ETHER / ip / IP() / TCP(flags="A"),
        ETHER / ARP(),
        Ether(type=0x88B5) / b"own",
    ]
    assert all(passes(engine, packet) for packet in packets)
    assert status(engine) == (0, 0, {})


@pytest.mark.parametrize(
    ("sent", "closed"),
    [
        (["A"], False),
        (["FA"], False),
        (["FA", "FA", "<A"], False),
        (["FA", "<FA"], True),
        (["<FA", "A", "FA", "<A"], True),
        (["R"], True),
        (["<RA"], True),
        (["FA", "<R"], True),
        (["FA", "S"], False),
        (["FA", "<FA", "S"], False),
        (["R", "<S"], False),
        (["R", "S", "FA"], False),
        (["R", "S", "FA", "<FA"], True),
        (["R", "<SA"], True),
    ],
)
def test_ends_of_connections(sent: list[str], closed: bool) -> None:
    engine = firewall(timeout_ms=1000, linger_ms=10)
    for flags in ["S", "<SA", "A", *sent]:
        assert passes(engine, flags)
    # Late segments pass, and keep open what is not closed.
    assert passes(engine, "A", ms=9.9)
    assert passes(engine, "<A", ms=10) is not closed
    assert status(engine)[0] == (0 if closed else 1)
    assert passes(engine, "A", ms=1009) is not closed
    assert not passes(engine, "A", ms=2009)
    assert passes(engine, "S", ms=2010)
    assert passes(engine, "<SA", ms=3009)


def test_a_connection_begun_anew_is_counted() -> None:
    engine = firewall(linger_ms=10)
    for flags in ("S", "<SA", "S", "R", "A", "S", "A"):
        assert passes(engine, flags)
    assert status(engine) == (1, 2, {})
    assert passes(engine, "A", ms=100)


def test_idle_connections_end() -> None:
    engine = firewall(timeout_ms=100)
    assert passes(engine, "S")
    assert passes(engine, "<SA", ms=99)
    assert passes(engine, "A", ms=198)
    assert status(engine)[0] == 1
    assert passes(engine, "S", ms=297, port=2000)  # keeps no other one
    assert not passes(engine, "A", ms=298)
    assert not passes(engine, "<SA", ms=299)
    assert status(engine) == (1, 2, {"mid-connection": 2})
    assert passes(engine, "S", ms=300)  # and the first once more
    assert status(engine) == (2, 3, {"mid-connection": 2})


def test_times_that_were_not_given() -> None:
    engine = firewall()
    assert passes(engine, "S") and passes(engine, "S", port=2000)
    assert passes(engine, "R", port=2000)
    assert passes(engine, "A", ms=999, port=2000) and not passes(engine, "A", ms=1000, port=2000)
    assert passes(engine, "A", ms=299_999)
    assert not passes(engine, "A", ms=599_999)


def test_connections_end_for_whoever_asks() -> None:
    engine = firewall(timeout_ms=50)
    engine.run_packets("m", [segment("S")])
    wait_until(lambda: status(engine)[0] == 0)
    assert status(engine)[1] == 1


def test_a_full_table_takes_no_more() -> None:
    engine = firewall(flows=4, timeout_ms=1000, linger_ms=10)
    assert [passes(engine, "S", port=port) for port in range(10)] == [True] * 4 + [False] * 6
    assert status(engine) == (4, 4, {"table full": 6})
    assert [passes(engine, "<SA", port=port) for port in range(5)] == [True] * 4 + [False]
    assert status(engine) == (4, 4, {"table full": 6, "mid-connection": 1})
    assert passes(engine, "R", port=2)
    assert passes(engine, "S", ms=5, port=2)  # in its own place
    assert passes(engine, "R", ms=5, port=1)
    assert not passes(engine, "S", ms=14, port=5)
    assert passes(engine, "S", ms=15, port=5)
    assert status(engine) == (4, 6, {"table full": 7, "mid-connection": 1})
    # Places are given back as connections end, whether or not anybody asks for them.
    assert all(passes(engine, "S", ms=2000, port=port) for port in range(20, 24))
    assert status(engine)[:2] == (4, 10)


def test_segments_that_cannot_be_read() -> None:
    engine = firewall()
    assert passes(engine, "S") and passes(engine, segment("S", version=6))
    whole = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=80, flags="A"))
    whole6 = segment("A", version=6)
    offset = bytearray(whole)
    cut = [whole[:n] for n in range(34, 54)] + [whole6[:n] for n in range(54, 74)]
    for value in (0x40, 0x60):  # data offset 4, and 6 without options
        offset[46] = value
        cut.append(bytes(offset))
    short = bytearray(whole)
    short[16:18] = (19).to_bytes(2, "big")  # IP ends inside its own header
    cut += [bytes(short), *(whole[:n] for n in range(14, 34)), *(whole6[:n] for n in range(14, 54))]
    options = IPv6(src="2001:db8::1", dst="2001:db8::2")
    for _ in range(9):
        options = options / IPv6ExtHdrDestOpt()
    cut.append(bytes(ETHER / options / TCP(sport=1000, dport=80, flags="A")))
    assert not any(passes(engine, packet) for packet in cut)
    assert status(engine) == (2, 2, {"bad segment": len(cut)})
    assert passes(engine, whole) and passes(engine, whole6)


def test_fragments_are_dropped() -> None:
    engine = firewall()
    assert passes(engine, "S") and passes(engine, segment("S", version=6))
    ip = {"src": "10.0.0.1", "dst": "10.0.0.2", "proto": 6}
    tcp = TCP(sport=1000, dport=80, flags="A")
    ip6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
    pieces = [
        ETHER / IP(**ip, flags="MF") / tcp / Raw(b"x" * 20),
        ETHER / IP(**ip, flags="MF") / Raw(bytes(tcp)[:8]),
        ETHER / IP(**ip, frag=5) / Raw(b"x" * 40),
        ETHER / ip6 / IPv6ExtHdrFragment(m=1, nh=6) / tcp / Raw(b"x" * 20),
        ETHER / ip6 / IPv6ExtHdrFragment(offset=5, nh=6) / Raw(b"x" * 40),
    ]
    assert not any(passes(engine, piece) for piece in pieces)
    assert status(engine) == (2, 2, {"fragment": len(pieces)})
    assert passes(engine, ETHER / ip6 / IPv6ExtHdrFragment(nh=6) / tcp)  # all in one piece


def test_tags_and_extension_headers_are_looked_through() -> None:
    engine = firewall()
    assert passes(engine, "S") and passes(engine, segment("S", version=6))
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    ip6 = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrDestOpt()
    for head in (ip, ip6):
        frame = ETHER / Dot1Q(vlan=5) / Dot1Q(vlan=6) / head
        assert passes(engine, frame / TCP(sport=1000, dport=80, flags="A"))
        assert not passes(engine, frame / TCP(sport=1001, dport=80, flags="A"))
    assert status(engine) == (2, 2, {"mid-connection": 2})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"flows": (1 << 21) + 1}, r"StatefulFirewall\.flows is 2097153; must be between 1 and"),
        ({"timeout_ms": 1 << 60}, r"StatefulFirewall\.timeout_ms is 1152921504606846976; must be"),
        ({"linger_ms": 1 << 60}, r"StatefulFirewall\.linger_ms is"),
    ],
)
def test_bad_arguments(args: dict[str, int], message: str) -> None:
    with pytest.raises(EngineError, match=message) as error:
        firewall(**args)
    assert error.value.code == errno.EINVAL


class Twin:
    """What the module should do, one packet after the other, as a dict."""

    def __init__(self, flows: int, timeout_ms: int, linger_ms: int) -> None:
        self.flows, self.timeout_ms, self.linger_ms = flows, timeout_ms, linger_ms
        self.ends: dict[int, tuple[set[str], int]] = {}  # by port; the last time that counts
        self.begun = 0

    def alive(self, port: int, ms: int) -> bool:
        sides, used = self.ends.get(port, (set(), -(1 << 60)))
        return ms - used < (self.linger_ms if len(sides) == 2 else self.timeout_ms)

    def step(self, port: int, flags: str, ms: int) -> str:
        start = set(flags.lstrip("<")) & set("SAFR") == {"S"}
        self.ends = {known: end for known, end in self.ends.items() if self.alive(known, ms)}
        if port not in self.ends and not start:
            return "mid-connection"
        if port not in self.ends and len(self.ends) == self.flows:
            return "table full"
        sides = self.ends.get(port, (set(), ms))[0]
        if start and (port not in self.ends or sides):
            self.begun += 1
            self.ends[port] = set(), ms
        elif len(sides) < 2:
            sides = sides | ({flags[:1] == "<"} if "F" in flags else set())
            self.ends[port] = ({False, True} if "R" in flags else sides), ms
        return ""


def test_random_segments_like_a_dict() -> None:
    rng = random.Random(11)
    flags = ["S", "S", "<SA", "A", "<A", "PA", "FA", "<FA", "R", "<RA", "<S", "SF"]
    for version in (4, 6):
        # So few connections that each new one sees all of the table.
        args = {"flows": 4, "timeout_ms": 50, "linger_ms": 10}
        engine, twin, ms = firewall(**args), Twin(**args), 0
        expected: Counter[str] = Counter()
        for _ in range(400):
            ms += rng.choice((0, 0, 1, 3, 9, 10, 30))
            sent = [(rng.randrange(7), rng.choice(flags)) for _ in range(rng.randrange(1, 40))]
            frames = [segment(text, port, version) for port, text in sent]
            fates = [twin.step(port, text, ms) for port, text in sent]
            expected.update(fate for fate in fates if fate)
            passed = [frame for frame, fate in zip(frames, fates, strict=True) if not fate]
            assert engine.run_packets("m", frames, 0, START + ms * MS).get(0, []) == passed
        alive = sum(twin.alive(port, ms) for port in twin.ends)
        assert status(engine) == (alive, twin.begun, expected)
        assert min(expected.values()) > 50 and twin.begun > 100


def test_commands_beside_a_worker() -> None:
    """Connections begin and end by the thousand, and whoever asks hears no more than there are."""
    fields = [
        {"offset": 34, "size": 2, "min": 1, "max": 512},
        {"offset": 47, "size": 1, "min": 0, "max": 31},
    ]
    with Server(make_engine(4096), port=0) as server, Client(server.address) as client:
        client.add_worker(0, min(os.sched_getaffinity(0)))
        client.create_module("Source", "source")
        client.create_module("Rewrite", "rewrite", templates=[segment("S")])
        client.create_module("RandomUpdate", "vary", fields=fields)
        client.create_module("StatefulFirewall", "m", flows=256, timeout_ms=20, linger_ms=1)
        client.create_module("Sink", "sink")
        for here, there in (("source", "rewrite"), ("rewrite", "vary"), ("vary", "m")):
            client.connect(here, there)
        client.connect("m", "sink")
        client.resume()

        def ask() -> dict[str, Any]:
            return client.run_module_command(
                "m", "get_status", "StatefulFirewallCommandGetStatusArg", {}
            )

        wait_until(lambda: ask()["table_full_packets"] > 0 and ask()["begun"] > 10_000)
        begun = 0
        for _ in range(50):
            found = ask()
            assert found["connections"] <= 256 and found["begun"] >= begun
            begun = found["begun"]
        client.pause()
        wait_until(lambda: ask()["connections"] == 0)
