# SPDX-License-Identifier: BSD-3-Clause
"""IPDefrag against a twin in plain Python, over datagrams that scapy cuts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import Engine, EngineError, Result, new_engine, run

PIECES, WHOLE = 0, 1
SECOND_NS = 10**9
ARGS = {"num_flows": 8}


def datagram(rng: random.Random, payload: int) -> Packet:
    layer: Packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if rng.random() < 0.4:
        layer /= Dot1Q(vlan=rng.randrange(4096))
    ip = IP(src=f"10.0.0.{rng.randrange(256)}", dst="10.1.0.1", id=rng.randrange(65536))
    l4 = rng.choice([TCP(sport=5, dport=6), UDP(sport=7, dport=8), ICMP()])
    return Ether(bytes(layer / ip / l4 / Raw(rng.randbytes(payload))))


def cut(packet: Packet, size: int) -> list[bytes]:
    """The fragments as they come from a wire, with Ethernet's padding."""
    return [bytes(piece).ljust(60, b"\0") for piece in fragment(packet, fragsize=size)]


class Twin:
    """What is whole once a frame has come; knows neither limits of time nor of space."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[Any, ...], dict[int, Packet]] = {}

    def put(self, frame: bytes) -> bytes | None:
        packet = Ether(frame)
        if IP not in packet or not (packet[IP].frag or packet[IP].flags.MF):
            return frame
        ip = packet[IP]
        key = (ip.src, ip.dst, ip.id, ip.proto)
        held = self.pieces.setdefault(key, {})
        held.setdefault(ip.frag * 8, packet)
        data = b""
        while len(data) in held:
            piece = held[len(data)][IP]
            data += bytes(piece.payload)[: piece.len - piece.ihl * 4]
            if not piece.flags.MF:
                del self.pieces[key]
                first = held[0].copy()
                first[IP].flags.MF = False
                first[IP].remove_payload()
                del first[IP].len, first[IP].chksum
                whole: bytes = bytes(first / Raw(data))
                return whole
        return None


def push(engine: Engine, frames: list[bytes], now_ns: int = SECOND_NS) -> dict[int, list[bytes]]:
    return engine.run_packets("m", frames, 0, now_ns)


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def new(**args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", "IPDefrag", {**ARGS, **args})
    return engine


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 7), st.sampled_from([8, 64, 200, 504]))
def test_any_order_of_pieces_gives_what_was_cut(seed: int, count: int, size: int) -> None:
    rng = random.Random(seed)
    whole = [datagram(rng, rng.randrange(9, min(size * 12, 1800))) for _ in range(count)]
    frames = [piece for packet in whole for piece in cut(packet, size)]
    frames += [bytes(Ether() / ARP()), bytes(Ether() / IPv6() / UDP())]
    rng.shuffle(frames)
    twin = Twin()
    expected = [made for frame in frames if (made := twin.put(frame)) is not None]
    result = run("IPDefrag", ARGS, frames)
    assert result.out == {WHOLE: expected}
    assert result.drops == {}


def test_what_is_no_fragment_passes_unchanged() -> None:
    frames = [bytes(datagram(random.Random(i), 100)) for i in range(40)]
    frames += [frames[0][:20], b"\0" * 14, frames[1][:-50]]
    assert run("IPDefrag", ARGS, frames) == Result({WHOLE: frames}, {}, [])


def test_a_datagram_too_long_for_a_buffer_leaves_in_pieces() -> None:
    packet = datagram(random.Random(1), 4000)
    pieces = [bytes(piece) for piece in fragment(packet, fragsize=800)]
    result = run("IPDefrag", ARGS, pieces[::-1])
    assert result.out == {PIECES: pieces}
    assert result.drops == {}


def test_pieces_wait_for_a_second() -> None:
    first, last = cut(datagram(random.Random(2), 500), 400)
    for wait_ns, out in ((SECOND_NS, 1), (SECOND_NS + 1, 0)):
        engine = new()
        assert push(engine, [first]) == {}
        assert len(push(engine, [last], SECOND_NS + wait_ns).get(WHOLE, [])) == out
        assert drops(engine) == ({} if out else {"incomplete": 1})
        assert engine.mempool()["in_use"] == 1 - out
        engine.reset_modules()
        assert engine.mempool()["in_use"] == 0


def test_the_oldest_datagram_makes_room() -> None:
    cuts = [cut(datagram(random.Random(i), 500), 400) for i in range(10)]
    engine = new(num_flows=4)
    assert push(engine, [pieces[0] for pieces in cuts]) == {}
    assert drops(engine) == {"table full": 6}
    # The first of the four makes room for the end of one that was given up, and so on.
    assert len(push(engine, [cuts[9][1], cuts[8][1]])[WHOLE]) == 2
    assert engine.modules()[0]["desc"] == "2 of 4 datagrams"


def changed(frame: bytes, **fields: int) -> bytes:
    packet = Ether(frame)
    for name, value in fields.items():
        setattr(packet[IP], name, value)
    return bytes(packet)


@pytest.mark.parametrize(
    ("change", "reason", "lost"),
    [
        (lambda a, b, c: [a, a, b, c], "overlap", 1),  # the same once more: dropped alone
        (lambda a, b, c: [a, b, changed(c, frag=1), c], "overlap", 3),
        (lambda a, b, c: [a, c, changed(b, frag=200)], "overlap", 3),  # behind the end
        (lambda a, b, c: [a, c, changed(c, frag=60)], "overlap", 3),  # another end
        (lambda a, b, c: [changed(a, len=93), b], "bad fragment", 1),  # no multiple of 8
        (lambda a, b, c: [changed(c, frag=8191)], "bad fragment", 1),  # beyond 65,535
        (lambda a, b, c: [changed(a, len=20)], "bad fragment", 1),
        (lambda a, b, c: [a[:-8], b, c], "cut short", 1),
    ],
)
def test_wrong_fragments(change: Any, reason: str, lost: int) -> None:
    packet = Ether(src="02:00:00:00:00:01") / IP(id=7) / UDP() / Raw(b"x" * 500)
    a, b, c = (bytes(piece) for piece in fragment(packet, fragsize=200))
    result = run("IPDefrag", ARGS, change(a, b, c))
    assert result.drops == {reason: lost}


def test_no_more_than_16_pieces() -> None:
    packet = Ether() / IP(id=7) / UDP() / Raw(b"x" * 128)  # 136 bytes
    pieces = cut(packet, 8)
    assert len(pieces) == 17
    assert run("IPDefrag", ARGS, pieces[:16]).drops == {}
    assert run("IPDefrag", ARGS, pieces).drops == {"many fragments": 17}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_flows": 0}, "num_flows is 0; must be 1 to 1048576"),
        ({"num_flows": 1 << 21}, "num_flows is 2097152"),
        ({"num_flows": 1, "numa": 1}, "numa is 1; must be 0 or -1"),
    ],
)
def test_bad_arguments(args: dict[str, int], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        new(**args)
