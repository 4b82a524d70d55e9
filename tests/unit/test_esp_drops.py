# SPDX-License-Identifier: BSD-3-Clause
"""What EspEncrypt and EspDecrypt drop, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from esp_support import ENDS, ETHER, FAMILIES, Sa, drops, esp, push, sealed_frames, udp


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (bytes(ETHER / ARP()), "not IP"),
        (bytes(ETHER / udp())[:30], "malformed"),
        (bytes(ETHER / udp())[:-1], "malformed"),
        (bytes(ETHER / udp(len=19)), "malformed"),
        (bytes(ETHER / IPv6(plen=0, nh=0) / Raw(bytes(80))), "malformed"),
        (bytes(ETHER / IPv6(plen=81, nh=17) / Raw(bytes(80))), "malformed"),
        (b"\x02" * 13, "malformed"),
        (bytes(ETHER / udp(1500)), "over MTU"),
    ],
)
def test_what_cannot_be_sealed(tmp_path: Path, frame: bytes, reason: str) -> None:
    engine = esp("EspEncrypt", tmp_path, Sa())
    good = bytes(ETHER / udp())
    first, second = push(engine, good, frame, good)
    numbers = [Ether(made)[ESP].seq for made in (first, second)]
    assert numbers == [1, 2]  # no gap
    assert drops(engine) == {reason: 1}


@FAMILIES
def test_the_mtu_is_that_of_the_outer_packet(tmp_path: Path, outer: int) -> None:
    engine = esp("EspEncrypt", tmp_path, Sa(outer), mtu=600, ttl=9)
    made = [push(engine, ETHER / udp(size)) for size in range(480, 560)]
    lengths = [len(out[0]) - 14 for out in made if out]
    assert max(lengths) == 600 and drops(engine) == {"over MTU": len(made) - len(lengths)}
    packet = Ether(made[0][0]).payload
    assert (packet.ttl if outer == 4 else packet.hlim) == 9


def changed(frame: bytes, at: int, value: int | None = None) -> bytes:
    made = bytearray(frame)
    made[at] = made[at] ^ 1 if value is None else value
    return bytes(made)


def test_a_changed_byte_anywhere_is_found(tmp_path: Path) -> None:
    """But in the outer header, of which only lengths, protocol and destination matter."""
    sa = Sa()
    engine = esp("EspDecrypt", tmp_path, sa)
    [frame] = sealed_frames(sa, first=2)
    for at in range(34, len(frame)):
        assert push(engine, changed(frame, at)) == []
    found = drops(engine)
    assert found.pop("unknown SA") == 4
    assert found == {"bad tag": len(frame) - 38}
    assert push(engine, frame) != []  # nothing of that counts as seen


@pytest.mark.parametrize("cut", range(1, 60))
def test_cut_packets(tmp_path: Path, cut: int) -> None:
    """Both where the header says so and where it doesn't."""
    sa = Sa()
    engine = esp("EspDecrypt", tmp_path, sa)
    [frame] = sealed_frames(sa)
    short = Ether(frame[:-cut])
    short[IP].len, short[IP].chksum = len(short) - 14, None
    assert push(engine, frame[:-cut], bytes(short)) == []
    expected = {"bad length": 1, "bad tag": 1} if cut % 4 == 0 else {"bad length": 2}
    assert drops(engine) == expected


def by_hand(sa: Sa, text: bytes, number: int = 1, tos: int = 0) -> bytes:
    """A frame with anything sealed in it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    head = sa.spi.to_bytes(4, "big") + number.to_bytes(4, "big")
    iv = number.to_bytes(8, "big")
    sealed = AESGCM(sa.secret[:-4]).encrypt(sa.secret[-4:] + iv, text, head)
    src, dst = ENDS[4]
    return bytes(ETHER / IP(src=src, dst=dst, proto=50, tos=tos) / Raw(head + iv + sealed))


INNER = bytes(udp(20))  # 48 bytes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (INNER + b"\1\2\0\4", None),  # TFC padding
        (INNER + b"\1\2\2\4", None),
        (INNER + bytes(range(1, 255)) + b"\xfe\4", None),
        (INNER + b"\1\3\2\4", "bad padding"),
        (INNER + b"\0\0\2\4", "bad padding"),
        (b"\1\2\3\4\5\6\xff\4", "bad padding"),
        (b"\1\2\2\4", "bad inner"),
        (b"\1\2\x02\x3b", "dummy"),
        (INNER[20:] + b"\1\2\2\x11", "not a tunnel"),
        (INNER + b"\1\2\2\x29", "bad inner"),
        (b"\x60" + INNER[1:] + b"\1\2\2\4", "bad inner"),
        (b"\x44" + INNER[1:] + b"\1\2\2\4", "bad inner"),
        (INNER[:2] + b"\0\x31" + INNER[4:] + b"\1\2\2\4", "bad inner"),
        (INNER[:2] + b"\0\x13" + INNER[4:] + b"\1\2\2\4", "bad inner"),
        (INNER[:20] + b"\1\2\2\4", "bad inner"),
        (b"\x60" + bytes(39) + b"\1\2\2\x29", None),
        (b"\x60" + bytes(4) + b"\1" + bytes(34) + b"\1\2\2\x29", "bad inner"),
        (b"\x60" + bytes(35) + b"\1\2\2\x29", "bad inner"),
    ],
)
def test_what_is_authentic_and_wrong(tmp_path: Path, text: bytes, reason: str | None) -> None:
    sa = Sa()
    engine = esp("EspDecrypt", tmp_path, sa)
    assert len(push(engine, by_hand(sa, text))) == (reason is None)
    assert drops(engine) == ({} if reason is None else {reason: 1})


@pytest.mark.parametrize("inner_version", [4, 6])
@pytest.mark.parametrize("inner", range(4))
@pytest.mark.parametrize("outer", range(4))
def test_congestion_marks(tmp_path: Path, inner_version: int, inner: int, outer: int) -> None:
    """RFC 6040, figure 4."""
    wanted = [
        [0, 0, 0, None],  # by inner, then outer
        [1, 1, 1, 3],
        [2, 1, 2, 3],
        [3, 3, 3, 3],
    ][inner][outer]
    sa = Sa()
    packet = udp(20, tos=0xB8 | inner) if inner_version == 4 else IPv6(tc=0xB8 | inner) / UDP()
    next_header = 4 if inner_version == 4 else 41
    engine = esp("EspDecrypt", tmp_path, sa)
    out = push(engine, by_hand(sa, bytes(packet) + bytes([1, 2, 2, next_header]), tos=outer))
    if wanted is None:
        assert out == [] and drops(engine) == {"congestion": 1}
        return
    marked = packet.copy()
    setattr(marked, "tos" if inner_version == 4 else "tc", 0xB8 | wanted)
    assert out == [bytes(ETHER / marked)]


def test_what_is_no_esp_of_ours(tmp_path: Path) -> None:
    sa = Sa()
    engine = esp("EspDecrypt", tmp_path, sa, Sa(6, spi=0x2000))
    [frame] = sealed_frames(sa)
    packet = Ether(frame)[IP]
    pieces = [IP(bytes(packet)), IP(bytes(packet)), IP(bytes(packet))]
    pieces[0].flags, pieces[1].frag, pieces[2].dst = "MF", 5, "198.51.100.3"
    for piece in pieces:
        piece.chksum = None
    other_spi = changed(frame, 37)
    [wrong_family] = sealed_frames(Sa(4, spi=0x2000))
    no_sa = [ETHER / pieces[2], other_spi, wrong_family]
    assert push(engine, ETHER / udp(), ETHER / ARP(), *(ETHER / p for p in pieces[:2])) == []
    assert push(engine, *no_sa) == []
    assert drops(engine) == {"not ESP": 2, "fragment": 2, "unknown SA": 3}
