# SPDX-License-Identifier: BSD-3-Clause
"""EspEncrypt and EspDecrypt: beside scapy's ESP byte by byte, and all captures there and back."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapReader

from esp_support import ETHER, FAMILIES, Sa, drops, esp, push, sa_file
from harness import Engine

DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[3] / "shared" / "data"))


def inner_packets() -> list[Packet]:
    v4, v6 = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"src": "2001:db8::1", "dst": "2001:db8::2"}
    return [
        IP(**v4, tos=0xB8, id=7, flags="DF") / UDP(sport=1, dport=2) / Raw(bytes(n))
        for n in range(8)
    ] + [
        IP(**v4, ttl=1, tos=3, id=8) / TCP(sport=1, dport=80) / Raw(b"hello"),
        IP(**v4, options=[IPOption_NOP()], id=9) / ICMP(),
        IP(**v4, id=9, frag=100, flags="MF") / Raw(bytes(64)),
        IPv6(**v6, tc=0xB9, fl=0x12345) / UDP(sport=1, dport=2) / Raw(bytes(101)),
        IPv6(**v6) / IPv6ExtHdrFragment(offset=8, m=1) / Raw(bytes(80)),
        IPv6(**v6, plen=0, nh=59),
    ]


def outer_fields(inner: Packet, outer: int, number: int) -> dict[str, Any]:
    """What RFC 4301 (5.1.2) takes over from the inner packet."""
    tos = inner.tos if inner.version == 4 else inner.tc
    if outer == 6:
        return {"tc": tos}
    df = inner.version == 6 or "DF" in inner.flags
    return {"tos": tos, "flags": "DF" if df else 0, "id": 0 if df else number}


@FAMILIES
@pytest.mark.parametrize("key_bytes", [16, 32])
@pytest.mark.parametrize("flags", [(), ("esn",), ("no-anti-replay",)])
def test_sealed_as_another_implementation_does(
    tmp_path: Path, outer: int, key_bytes: int, flags: tuple[str, ...]
) -> None:
    sa = Sa(outer, key_bytes=key_bytes, flags=flags)
    engine = esp("EspEncrypt", tmp_path, sa)
    packets = [IP(bytes(p)) if p.version == 4 else IPv6(bytes(p)) for p in inner_packets()]
    before = time.time_ns()
    made = push(engine, *(ETHER / packet for packet in packets))
    assert len(made) == len(packets)
    for number, (packet, frame) in enumerate(zip(packets, made, strict=True), 1):
        layer = Ether(frame)[ESP]
        iv = layer.data[:8]
        assert abs(int.from_bytes(iv, "big") - before) < 60 * 10**9
        header = outer_fields(packet, outer, number)
        sealed = sa.scapy(**header).encrypt(packet, seq_num=number, iv=iv, esn_en=sa.esn, esn=0)
        assert frame == bytes(ETHER / sealed)
    assert len({bytes(Ether(frame)[ESP].data[:8]) for frame in made}) == len(made)


@FAMILIES
@pytest.mark.parametrize("key_bytes", [16, 32])
@pytest.mark.parametrize("flags", [(), ("esn",), ("no-anti-replay",)])
def test_what_another_implementation_sealed_is_opened(
    tmp_path: Path, outer: int, key_bytes: int, flags: tuple[str, ...]
) -> None:
    sa = Sa(outer, key_bytes=key_bytes, flags=flags)
    engine = esp("EspDecrypt", tmp_path, sa)
    packets = inner_packets()
    frames = [sa.seal(packet.copy(), number) for number, packet in enumerate(packets, 1)]
    assert push(engine, *frames) == [bytes(ETHER / packet) for packet in packets]
    [status] = engine.module_command("m", "get_status", {})["sas"]
    assert status["packets"] == status["highest"] == len(packets)
    assert status["bytes"] == sum(len(packet) for packet in packets)
    assert drops(engine) == {}


def test_the_nonce_and_what_is_authenticated_are_those_of_the_rfc(tmp_path: Path) -> None:
    """RFC 4106, sections 4 and 5, put together by hand from the cipher itself."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    for flags in ((), ("esn",)):
        sa = Sa(flags=flags)
        inner = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"x"))
        [frame] = push(esp("EspEncrypt", tmp_path, sa), bytes(ETHER)[:12] + b"\x08\x00" + inner)
        head, iv, sealed = frame[34:42], frame[42:50], frame[50:]
        aad = head if not flags else head[:4] + (1).to_bytes(8, "big")
        text = AESGCM(sa.secret[:-4]).decrypt(sa.secret[-4:] + iv, sealed, aad)
        assert text == inner + b"\x01\x01\x04"


@FAMILIES
@pytest.mark.parametrize("tags", [(), (Dot1Q(vlan=7),), (Dot1AD(vlan=3), Dot1Q(vlan=7))])
def test_there_and_back(tmp_path: Path, outer: int, tags: tuple[Packet, ...]) -> None:
    """Ethernet headers stay; padding behind the IP packet doesn't."""
    sa = Sa(outer)
    head = ETHER
    for tag in tags:
        head = head / tag
    frames = [bytes(head / packet) for packet in inner_packets()]
    padded = [frame.ljust(64, b"\xee") for frame in frames]
    sealed = push(esp("EspEncrypt", tmp_path, sa), *padded)
    types = [len(bytes(head)) - 2, len(bytes(head))]
    ether_type = b"\x86\xdd" if outer == 6 else b"\x08\x00"
    assert {frame[slice(*types)] for frame in sealed} == {ether_type}
    assert push(esp("EspDecrypt", tmp_path, sa), *sealed) == frames


def test_all_captures_survive_there_and_back(tmp_path: Path) -> None:
    captures = sorted((DATA / "traces").glob("**/*.pcap*"))
    if not captures:
        pytest.skip(f"no captures in {DATA / 'traces'}; set E2_DATA to the folder with them")
    whole = 0
    for number, capture in enumerate(captures):
        sa = Sa(4 + number % 2 * 2, key_bytes=16 + number % 2 * 16, flags=("esn",))
        there = Engine(pool_packets=1024, buffer_bytes=4096)
        there.create_module("m", "EspEncrypt", {"sa_file": sa_file(tmp_path, sa), "mtu": 9000})
        back = Engine(pool_packets=1024, buffer_bytes=4096)
        back.create_module("m", "EspDecrypt", {"sa_file": sa_file(tmp_path, sa)})
        with RawPcapReader(str(capture)) as reader:
            frames = [frame for frame, _ in reader]
        for at in range(0, len(frames), 256):
            fit = [frame for frame in frames[at : at + 256] if len(frame) < 3000]
            before = sum(drops(there).values())
            sealed = push(there, *fit)
            assert len(sealed) + sum(drops(there).values()) - before == len(fit)
            opened = push(back, *sealed)
            assert opened == [without_padding(frame) for frame in fit if is_whole(frame)]
            whole += len(opened)
        assert drops(back) == {}
        assert set(drops(there)) <= {"not IP", "malformed"}
    assert whole > 1000


def ip_at(frame: bytes) -> int:
    """Where IP starts; 0 where it doesn't."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00"):
        at += 4
    return at + 2 if frame[at : at + 2] in (b"\x08\x00", b"\x86\xdd") else 0


def ip_end(frame: bytes) -> int:
    at = ip_at(frame)
    if frame[at] >> 4 == 4:
        return at + int.from_bytes(frame[at + 2 : at + 4], "big")
    return at + 40 + int.from_bytes(frame[at + 4 : at + 6], "big")


def is_whole(frame: bytes) -> bool:
    return ip_at(frame) != 0 and ip_end(frame) <= len(frame)


def without_padding(frame: bytes) -> bytes:
    return frame[: ip_end(frame)]
