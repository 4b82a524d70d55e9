# SPDX-License-Identifier: BSD-3-Clause
"""EspEncrypt and EspDecrypt: beside scapy's ESP byte by byte, what is dropped and why, SAs that
change, and all captures there and back."""

from __future__ import annotations

import errno
import os
import random
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapReader

from harness import Engine, EngineError, new_engine

DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[3] / "shared" / "data"))
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ENDS: dict[int, tuple[str, str]] = {
    4: ("192.0.2.1", "198.51.100.2"),
    6: ("2001:db8:1::1", "2001:db8:2::2"),
}
FAMILIES = pytest.mark.parametrize("outer", [4, 6])
WINDOW = 4096
DRAW = random.Random(1)


@dataclass(frozen=True)
class Sa:
    """One SA, as a line of a file and as scapy has it."""

    outer: int = 4
    spi: int = 0x1001
    key_bytes: int = 16
    flags: tuple[str, ...] = ()
    # No key serves two modules of a process.
    key: bytes = field(default_factory=partial(DRAW.randbytes, 36))

    @property
    def secret(self) -> bytes:
        return self.key[: self.key_bytes + 4]

    @property
    def esn(self) -> bool:
        return "esn" in self.flags

    @property
    def line(self) -> str:
        return " ".join((f"{self.spi:#x}", self.secret.hex(), *ENDS[self.outer], *self.flags))

    def scapy(self, **header: Any) -> SecurityAssociation:
        src, dst = ENDS[self.outer]
        made = (
            IPv6(src=src, dst=dst, hlim=64, **header)
            if self.outer == 6
            else IP(src=src, dst=dst, ttl=64, **header)
        )
        return SecurityAssociation(
            ESP, self.spi, crypt_algo="AES-GCM", crypt_key=self.secret, tunnel_header=made
        )

    def seal(self, packet: Packet, number: int, **header: Any) -> bytes:
        """A frame as scapy makes it."""
        made = self.scapy(**header)
        made.seq_num = number & 0xFFFFFFFF
        iv = number.to_bytes(8, "big")
        return bytes(ETHER / made.encrypt(packet, iv=iv, esn_en=self.esn, esn=number >> 32))


def sa_file(folder: Path, *sas: Sa | str) -> str:
    path = folder / "sas"
    path.touch(0o600)
    path.write_text("".join(f"{sa.line if isinstance(sa, Sa) else sa}\n" for sa in sas))
    return str(path)


def esp(mclass: str, folder: Path, *sas: Sa, **args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", mclass, {"sa_file": sa_file(folder, *sas), **args})
    return engine


def push(engine: Engine, *frames: bytes | Packet) -> list[bytes]:
    return engine.run_packets("m", [bytes(frame) for frame in frames], 0).get(0, [])


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


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


# --- what is dropped ---


def udp(size: int = 100, **fields: Any) -> Packet:
    return IP(src="10.0.0.1", dst="10.0.0.2", **fields) / UDP() / Raw(bytes(size))


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


def sealed_frames(sa: Sa, count: int = 1, first: int = 1) -> list[bytes]:
    return [sa.seal(udp(), number) for number in range(first, first + count)]


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


# --- sequence numbers ---


def accepted(engine: Engine, sa: Sa, *numbers: int) -> list[bool]:
    return [bool(push(engine, sa.seal(udp(), number))) for number in numbers]


def test_replayed_packets_and_the_window(tmp_path: Path) -> None:
    sa = Sa()
    engine = esp("EspDecrypt", tmp_path, sa)
    assert accepted(engine, sa, 0, 1, 1, 3, 2, 3, 2) == [
        False,
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert accepted(engine, sa, 3 + WINDOW, 3, 4, 5) == [True, False, True, True]
    assert accepted(engine, sa, 2**32 - 1, 2**32 - WINDOW - 1, 2**32 - WINDOW) == [
        True,
        False,
        True,
    ]
    assert drops(engine) == {"replayed": 6}


def test_a_receiver_without_protection_takes_all(tmp_path: Path) -> None:
    sa = Sa(flags=("no-anti-replay",))
    engine = esp("EspDecrypt", tmp_path, sa)
    assert all(accepted(engine, sa, 5, 5, 1, 0, 2**32 - 1))


def test_extended_numbers_are_found_from_half_of_them(tmp_path: Path) -> None:
    """Jumps below 2^32, over the end of the lower half and back within the window."""
    sa = Sa(flags=("esn",))
    engine = esp("EspDecrypt", tmp_path, sa)
    half = 2**32
    steps = [1, half - 2, half + 5, half - 1, half, half + 1, half + 5 + half - WINDOW]
    steps += [2 * half + 100, 2 * half + 100 - (WINDOW - 1), 3 * half - 4000, 3 * half + 50]
    steps += [3 * half - 1]
    assert all(accepted(engine, sa, *steps))
    assert accepted(engine, sa, *steps[-2:]) == [False, False]
    assert drops(engine) == {"replayed": 2}
    # Too old for the window, or too far ahead: taken for another number, so not authentic.
    assert accepted(engine, sa, 3 * half + 50 - WINDOW, 5 * half) == [False, False]
    assert drops(engine) == {"replayed": 2, "bad tag": 2}


def test_extended_numbers_like_the_rfc(tmp_path: Path) -> None:
    """Appendix A2.2 of RFC 4303 itself, over random walks."""

    def infer(top: int, sent: int) -> int:
        high, low = divmod(top, 2**32)
        if low >= WINDOW - 1:
            return sent + 2**32 * (high if sent >= low - WINDOW + 1 else high + 1)
        if high == 0:
            return sent
        return sent + 2**32 * (high - 1 if sent >= (low - WINDOW + 1) % 2**32 else high)

    draw = random.Random(3)
    sa = Sa(flags=("esn",))
    engine = esp("EspDecrypt", tmp_path, sa)
    top, seen = 1, {1}
    assert accepted(engine, sa, 1) == [True]
    for _ in range(300):
        step = draw.choice([3, WINDOW, WINDOW + 2, 2**20, 2**31, 2**32 - WINDOW, 2**32, 2**32 + 9])
        number = max(1, top + draw.choice([1, -1]) * draw.randrange(step + 1))
        right = infer(top, number % 2**32) == number and number > top - WINDOW
        fresh = right and number not in seen
        assert accepted(engine, sa, number) == [fresh]
        if fresh:
            top, seen = max(top, number), seen | {number}


# --- files and changes ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "it has no security association"),
        ("# 0x100", "it has no security association"),
        ("0x100 {k}", r"line 1: must be SPI KEY SOURCE DESTINATION \[esn\] \[no-anti-replay\]"),
        ("255 {k} {e}", r"line 1: the SPI '255' must be a number within 256\.\.4294967295"),
        ("0x1ffffffff {k} {e}", "line 1: the SPI '0x1ffffffff' must be"),
        ("spi {k} {e}", "line 1: the SPI 'spi' must be"),
        ("\n\n0x100 {k}00 {e}", "line 3: the key must be 40 hexadecimal digits, of AES-128, or 72"),
        ("0x100 {k:.39}g {e}", "line 1: the key must be 40 hexadecimal digits"),
        ("0x100 {k:.39} {e}", "line 1: the key must be 40 hexadecimal digits"),
        ("0x100 {k} 1.2.3 4.5.6.7", r"line 1: '1\.2\.3' must be an IPv4 or IPv6 address"),
        ("0x100 {k} 1.2.3.4 x", "line 1: 'x' must be an IPv4 or IPv6 address"),
        ("0x100 {k} 1.2.3.4 ::1", r"line 1: '::1' must be of the same family as '1\.2\.3\.4'"),
        ("0x100 {k} {e} ens", "line 1: 'ens' is unknown; expected esn or no-anti-replay"),
        ("0x100 {k} {e} esn no-anti-replay", "line 1: esn needs the protection from replay"),
        ("0x100 {k} {e}\n256 {o} {e}", "line 2: the SPI is given twice"),
        ("0x100 {k} {e}\n257 {k} {e}", "line 2: the key is that of SPI 0x00000100; each needs one"),
    ],
)
@pytest.mark.parametrize("mclass", ["EspEncrypt", "EspDecrypt"])
def test_files_that_are_wrong(tmp_path: Path, mclass: str, line: str, message: str) -> None:
    key, other = DRAW.randbytes(20).hex(), DRAW.randbytes(20).hex()
    path = sa_file(tmp_path, line.format(k=key, o=other, e="192.0.2.1 192.0.2.2"))
    with pytest.raises(EngineError, match=f"{mclass}.sa_file: '{path}': {message}") as caught:
        new_engine().create_module("m", mclass, {"sa_file": path})
    assert caught.value.code == errno.EINVAL
    assert key[:30] not in str(caught.value)


@pytest.mark.parametrize("mclass", ["EspEncrypt", "EspDecrypt"])
def test_files_of_others_are_refused(tmp_path: Path, mclass: str) -> None:
    path = Path(sa_file(tmp_path, Sa()))
    path.chmod(0o640)
    with pytest.raises(EngineError, match="must be private: chmod 600"):
        new_engine().create_module("m", mclass, {"sa_file": str(path)})
    with pytest.raises(EngineError, match="can't read '/nowhere'"):
        new_engine().create_module("m", mclass, {"sa_file": "/nowhere"})
    with pytest.raises(EngineError, match=f"{mclass}.sa_file is missing"):
        new_engine().create_module("m", mclass, {})


def test_arguments_that_are_wrong(tmp_path: Path) -> None:
    path = sa_file(tmp_path, Sa())
    for args, message in [
        ({"mtu": 127}, r"EspEncrypt.mtu is 127; must be within 128\.\.65535"),
        ({"mtu": 65536}, "EspEncrypt.mtu is 65536"),
        ({"ttl": 256}, r"EspEncrypt.ttl is 256; must be within 1\.\.255"),
        ({"spi": 5}, f"EspEncrypt.spi: '{path}' has no SPI 0x00000005"),
    ]:
        with pytest.raises(EngineError, match=message):
            new_engine().create_module("m", "EspEncrypt", {"sa_file": path, **args})


def test_a_key_encrypts_in_one_module(tmp_path: Path) -> None:
    sa = Sa()
    engine = esp("EspEncrypt", tmp_path, sa)
    args = {"sa_file": sa_file(tmp_path, sa)}
    with pytest.raises(
        EngineError, match="the key of SPI 0x00001001 encrypts already in this process"
    ):
        engine.create_module("other", "EspEncrypt", args)
    engine.create_module("back", "EspDecrypt", args)
    engine.destroy_module("m")
    engine.create_module("other", "EspEncrypt", args)


def test_a_clock_that_is_behind_is_refused(tmp_path: Path) -> None:
    path = sa_file(tmp_path, Sa())
    later = time.time() + 3600
    os.utime(path, (later, later))
    with pytest.raises(EngineError, match="the clock is behind the last change"):
        new_engine().create_module("m", "EspEncrypt", {"sa_file": path})


def test_ivs_go_on_where_a_module_begins_anew(tmp_path: Path) -> None:
    sa = Sa()
    ivs: list[int] = []
    for _ in range(3):
        engine = esp("EspEncrypt", tmp_path, sa)
        frames = push(engine, *[ETHER / udp()] * 100)
        ivs += [int.from_bytes(Ether(frame)[ESP].data[:8], "big") for frame in frames]
        engine.destroy_module("m")
    assert ivs == sorted(set(ivs))


def test_another_sa_while_the_module_lives(tmp_path: Path) -> None:
    old, new = Sa(), Sa(6, spi=0x2002, key_bytes=32, flags=("esn",))
    there, back = new_engine(), new_engine()
    path = sa_file(tmp_path, old, new)
    there.create_module("m", "EspEncrypt", {"sa_file": path})
    back.create_module("m", "EspDecrypt", {"sa_file": path})

    def cross(count: int = 1) -> list[int]:
        sealed = push(there, *[ETHER / udp()] * count)
        assert len(push(back, *sealed)) == count
        return [Ether(frame)[ESP].seq for frame in sealed]

    assert cross(2) == [1, 2]
    there.module_command("m", "update", {"sa_file": path})
    assert cross() == [3]  # the same SA goes on
    with pytest.raises(EngineError, match="has no SPI 0x00000007"):
        there.module_command("m", "update", {"sa_file": path, "spi": 7})
    assert cross() == [4]
    there.module_command("m", "update", {"sa_file": path, "spi": 0x2002})
    assert cross() == [1]
    assert there.module_command("m", "get_status", {}) == {
        "spi": 0x2002,
        "packets": 1,
        "bytes": len(udp()),
        "packets_left": 2**64 - 2,
    }
    found = back.module_command("m", "get_status", {})["sas"]
    assert [(sa["spi"], sa["packets"], sa["highest"]) for sa in found] == [
        (0x1001, 4, 4),
        (0x2002, 1, 1),
    ]

    replayed = push(there, ETHER / udp())
    assert push(back, *replayed) != []
    back.module_command("m", "update", {"sa_file": sa_file(tmp_path, new)})
    assert push(back, *replayed) == []  # what was seen stays seen
    assert push(back, *sealed_frames(old, first=100)) == []
    assert drops(back) == {"replayed": 1, "unknown SA": 1}
    with pytest.raises(EngineError, match="line 1"):
        back.module_command("m", "update", {"sa_file": sa_file(tmp_path, "x")})
    assert cross() == [3]


def test_keys_are_nowhere_to_be_read(tmp_path: Path) -> None:
    sa = Sa()
    for mclass in ("EspEncrypt", "EspDecrypt"):
        engine = esp(mclass, tmp_path, sa)
        text = str(engine.module_info("m")) + str(engine.module_command("m", "get_status", {}))
        assert sa.secret.hex()[:16] not in text
        engine.destroy_module("m")


def test_sas_change_under_traffic(tmp_path: Path) -> None:
    """Both ends take other files again and again while packets pass: none is lost."""
    free = ("no-anti-replay",)
    sas = [Sa(flags=free), Sa(6, spi=0x2002, key_bytes=32, flags=free)]
    paths = []
    for number, order in enumerate((sas, sas[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(sa_file(folder, *order))
    engine = Engine(pool_packets=1024, buffer_bytes=2048)
    engine.add_worker(0, max(os.sched_getaffinity(0)))
    chain = [
        ("Source", {}),
        ("Rewrite", {"templates": [bytes(ETHER / udp())]}),
        ("EspEncrypt", {"sa_file": paths[0]}),
        ("EspDecrypt", {"sa_file": paths[0]}),
        ("Sink", {}),
    ]
    for at, (mclass, args) in enumerate(chain):
        engine.create_module(mclass, mclass, args)
        if at:
            engine.connect(chain[at - 1][0], 0, mclass, 0)
    engine.resume_all()
    for number in range(200):
        for mclass in ("EspEncrypt", "EspDecrypt"):
            engine.module_command(mclass, "update", {"sa_file": paths[number % 2]})
    engine.pause_all()
    found = engine.module_command("EspDecrypt", "get_status", {})["sas"]
    assert all(sa["packets"] > 0 for sa in found)
    passed = engine.module_info("Sink")["igates"][0]["pkts"]
    assert passed == sum(sa["packets"] for sa in found)
    for mclass in ("EspEncrypt", "EspDecrypt"):
        assert not any(engine.module_info(mclass)["drops"].values())
    engine.reset_modules()
