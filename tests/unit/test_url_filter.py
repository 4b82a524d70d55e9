# SPDX-License-Identifier: BSD-3-Clause
"""UrlFilter: requests whole and in pieces, what is sent instead, and what is not looked at."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import Engine, new_engine

BLACKLIST = [
    {"host": "www.blocked.com", "path": "/"},
    {"host": "www.blocked.com", "path": "/secret?x=1"},
    {"host": "Port.blocked.com:8080", "path": "/"},
]
BAD = b"GET / HTTP/1.1\r\nUser-Agent: me\r\nHost: www.blocked.com\r\nAccept: */*\r\n\r\n"
GOOD = b"GET / HTTP/1.1\r\nHost: www.good.com\r\n\r\n"
ANSWER = b"HTTP/1.1 403 Bad Forbidden\r\nConnection: Closed\r\n\r\n"
ISN = 0xFFFFFFF0  # sequence numbers wrap inside the request
ACK = 23456


class Client:
    """One connection of a client, as packets of scapy."""

    def __init__(self, number: int = 1, ipv6: bool = False, tags: int = 0) -> None:
        self.l2: Packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        for n in range(tags):
            self.l2 /= Dot1Q(vlan=n + 5)
        self.ip: Packet = (
            IPv6(src=f"2001:db8::{number}", dst="2001:db8:ffff::1")
            if ipv6
            else IP(src=f"192.168.0.{number}", dst="10.0.0.1")
        )

    def segment(self, offset: int, data: bytes = b"", flags: str = "A") -> bytes:
        seq = (ISN + 1 + offset) % (1 << 32)
        tcp = TCP(sport=10001, dport=80, seq=seq, ack=ACK, flags=flags)
        return bytes(self.l2 / self.ip / tcp / Raw(data))

    def syn(self, data: bytes = b"") -> bytes:
        return self.segment(-1, data, "S")

    def expected(self, offset: int) -> tuple[bytes, list[bytes]]:
        """What the server and the client get instead of the segment at `offset`."""
        seq = (ISN + 1 + offset) % (1 << 32)
        there, back = self.ip.copy(), self.ip.copy()
        back.src, back.dst = self.ip.dst, self.ip.src
        l2_back = self.l2.copy()
        l2_back.src, l2_back.dst = self.l2.dst, self.l2.src
        if isinstance(there, IP):
            there.id = 2
        reset = {"flags": "RA", "window": 0}
        answer = back.copy()
        if isinstance(back, IP):
            back.id = 2
        ports = {"sport": 80, "dport": 10001}
        end = ACK + len(ANSWER)
        return (
            bytes(self.l2 / there / TCP(sport=10001, dport=80, seq=seq, ack=ACK, **reset)),
            [
                bytes(
                    l2_back / answer / TCP(seq=ACK, ack=seq, flags="A", window=0, **ports) / ANSWER
                ),
                bytes(l2_back / back / TCP(seq=end, ack=seq, **ports, **reset)),
            ],
        )


def new_filter(blacklist: list[dict[str, str]] = BLACKLIST) -> Engine:
    engine = new_engine()
    engine.create_module("m", "UrlFilter", {"blacklist": blacklist})
    return engine


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def is_blocked(request: bytes, engine: Engine | None = None) -> bool:
    client = Client()
    out = (engine or new_filter()).run_packets("m", [client.syn(), client.segment(0, request)])
    return 1 in out


@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("ipv6", [False, True])
def test_whole_request(ipv6: bool, tags: int) -> None:
    engine = new_filter()
    client, other = Client(1, ipv6, tags), Client(2, ipv6, tags)
    passing = [client.syn(), other.syn(), other.segment(0, GOOD)]
    later = [client.segment(len(BAD), b"more"), client.segment(len(BAD), flags="F"), client.syn()]
    after = other.segment(len(GOOD), BAD)
    out = engine.run_packets("m", [*passing, client.segment(0, BAD), *later, after])
    reset, answers = client.expected(0)
    assert out == {0: [*passing, reset, after], 1: answers}
    assert drops(engine) == {"blocked request": 1, "blocked connection": 3}


@pytest.mark.parametrize("seed", range(20))
def test_request_in_pieces_of_any_order(seed: int) -> None:
    """The piece that completes the Host line is the one that is dropped, whichever it is."""
    rng = random.Random(seed)
    client = Client(tags=seed % 2, ipv6=seed % 3 == 0)
    cuts = sorted({0, len(BAD), *(rng.randrange(1, len(BAD)) for _ in range(rng.randrange(8)))})
    pieces = [(a, BAD[a : min(len(BAD), b + rng.randrange(5))]) for a, b in pairwise(cuts)]
    rng.shuffle(pieces)
    need = BAD.index(b"\r\nAccept") + 2
    have: set[int] = set()
    passed: list[bytes] = [client.syn()]
    blocked_at = None
    for offset, data in pieces:
        have |= set(range(offset, offset + len(data)))
        if have >= set(range(need)):
            blocked_at = offset
            break
        passed.append(client.segment(offset, data))
    assert blocked_at is not None
    reset, answers = client.expected(blocked_at)
    packets = [client.syn(), *(client.segment(offset, data) for offset, data in pieces)]
    engine = new_filter()
    out: dict[int, list[bytes]] = {0: [], 1: []}
    size = rng.choice([1, 100])
    for first in range(0, len(packets), size):
        for gate, sent in engine.run_packets("m", packets[first : first + size]).items():
            out[gate] += sent
    assert out == {0: [*passed, reset], 1: answers}


def test_one_byte_at_a_time() -> None:
    client = Client()
    engine = new_filter()
    packets = [client.syn(), *(client.segment(n, BAD[n : n + 1]) for n in range(len(BAD)))]
    out = engine.run_packets("m", packets)
    assert len(out[1]) == 2
    assert len(out[0]) == 1 + BAD.index(b"\r\nAccept") + 1 + 1  # SYN, the bytes before \n, RST


@pytest.mark.parametrize(
    ("request_bytes", "blocked"),
    [
        (BAD.replace(b"Host:", b"hOST:\t "), True),
        (BAD.replace(b"www.blocked.com", b"WWW.Blocked.COM"), True),
        (BAD.replace(b"www.blocked.com", b"www.blocked.com:80"), True),
        (BAD.replace(b"www.blocked.com", b"port.blocked.com:8080"), True),
        (BAD.replace(b"www.blocked.com", b"port.blocked.com"), False),
        (BAD.replace(b"\r\n", b"\n"), True),
        (b"\r\n" + BAD, True),
        (BAD.replace(b"GET", b"POST"), True),
        (BAD.replace(b"/1.1", b"/1.0"), True),
        (BAD.replace(b"GET / ", b"GET /secret?x=1 "), True),
        (BAD.replace(b"GET / ", b"GET /secret "), False),
        (BAD.replace(b"GET / ", b"GET /index.html "), False),
        (BAD.replace(b"HTTP/1.1", b"HTTP/2.0"), False),
        (BAD.replace(b"GET / ", b"GET  / "), False),
        (BAD.replace(b"\r\nHost", b"\r\n\r\nHost"), False),
        (BAD.replace(b"Host: ", b"X-Host: "), False),
        (BAD.replace(b"www.blocked.com\r\nAccept: */*\r\n\r\n", b"www.blocked.com"), False),
        (BAD.replace(b"www.blocked.com", b"w" * 300), False),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 40 + b"Host: www.blocked.com\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: www.blocked.com\r\n", True),
        (b"\x16\x03\x01" + BAD, False),
        (GOOD, False),
    ],
)
def test_requests(request_bytes: bytes, blocked: bool) -> None:
    assert len(request_bytes) < 1400
    assert is_blocked(request_bytes) == blocked


def test_host_past_the_first_4096_bytes_passes() -> None:
    for padding, blocked in ((3900, True), (4096, False)):
        request = b"GET / HTTP/1.1\r\nX: " + b"y" * padding + b"\r\nHost: www.blocked.com\r\n\r\n"
        client = Client()
        packets = [client.segment(n, request[n : n + 1000]) for n in range(0, len(request), 1000)]
        out = new_filter().run_packets("m", [client.syn(), *packets])
        assert (1 in out) == blocked


def test_data_in_the_syn_and_before_it() -> None:
    client = Client()
    out = new_filter().run_packets("m", [client.syn(BAD)])
    assert 1 in out
    overlap = [client.syn(), client.segment(-5, b"12345" + BAD)]
    assert 1 in new_filter().run_packets("m", overlap)
    old = [client.syn(), client.segment(-9, b"123"), client.segment(0, BAD)]
    assert 1 in new_filter().run_packets("m", old)


def test_a_connection_ends_with_fin_and_starts_again_with_syn() -> None:
    client = Client()
    split = 20
    ended = [client.syn(), client.segment(0, BAD[:split], "FA"), client.segment(split, BAD[split:])]
    assert 1 not in new_filter().run_packets("m", ended)
    half = [client.syn(), client.segment(0, BAD[:split])]
    new = TCP(sport=10001, dport=80, seq=ISN + 1000 & 0xFFFFFFFF, flags="S")
    again = [*half, bytes(client.l2 / client.ip / new), client.segment(split, BAD[split:])]
    assert 1 not in new_filter().run_packets("m", again)
    repeated = [*half, client.syn(), client.segment(split, BAD[split:])]
    assert 1 in new_filter().run_packets("m", repeated)


def test_only_connections_from_their_syn_on() -> None:
    assert 1 not in new_filter().run_packets("m", [Client().segment(0, BAD)])


def test_reverse_traffic_passes() -> None:
    client = Client()
    packets = [client.syn(), client.segment(0, BAD), b"\0" * 5]
    assert new_filter().run_packets("m", packets, 1) == {1: packets}


def test_other_packets_pass() -> None:
    client = Client()
    fragment = IP(src="192.168.0.1", dst="10.0.0.1", frag=3, proto=6) / Raw(BAD)
    others = [client.l2 / layer for layer in (ARP(), IP() / UDP() / Raw(BAD), fragment)]
    packets = [bytes(packet) for packet in others]
    packets += [client.syn()[:n] for n in range(1, 54)]
    engine = new_filter()
    assert engine.run_packets("m", packets) == {0: packets}
    assert drops(engine) == {}


def test_many_connections_are_told_apart() -> None:
    clients = [Client(n, ipv6=n % 2 == 0) for n in range(1, 200)]
    packets = [client.syn() for client in clients]
    packets += [c.segment(0, BAD if n % 3 == 0 else GOOD) for n, c in enumerate(clients)]
    engine = new_filter()
    out = engine.run_packets("m", packets)
    bad = len(range(0, len(clients), 3))
    assert (len(out[0]), len(out[1])) == (2 * len(clients), 2 * bad)
    assert drops(engine) == {"blocked request": bad}
    assert engine.mempool()["in_use"] == 0


def test_commands() -> None:
    engine = new_filter([])
    assert not is_blocked(BAD, engine)
    engine.module_command("m", "add", {"blacklist": list(reversed(BLACKLIST))})
    assert engine.module_info("m")["desc"] == "2 hosts"
    config = engine.module_command("m", "get_runtime_config", {})
    in_order = [BLACKLIST[2] | {"host": "port.blocked.com:8080"}, *BLACKLIST[:2]]
    assert config == {"blacklist": in_order}
    assert engine.module_command("m", "get_initial_arg", {}) == {}
    engine.module_command("m", "clear", {})
    assert engine.module_command("m", "get_runtime_config", {}) == {"blacklist": []}
    engine.module_command("m", "set_runtime_config", config)
    assert engine.module_command("m", "get_runtime_config", {}) == config
    engine.module_command("m", "set_runtime_config", {"blacklist": BLACKLIST[:1]})
    assert engine.module_info("m")["desc"] == "1 hosts"
    assert is_blocked(BAD, engine)


def test_one_worker_only() -> None:
    info: Any = new_engine().module_classes()["UrlFilter"]
    assert (info["igates"], info["ogates"]) == (2, 2)
