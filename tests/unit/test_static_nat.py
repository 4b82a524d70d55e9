# SPDX-License-Identifier: BSD-3-Clause
"""StaticNAT against a twin in plain Python over scapy's packets."""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import EngineError, run

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
PAIRS = [
    ("172.16.0.0", "172.31.255.255", "55.1.0.0", "55.16.255.255"),
    ("192.168.0.0", "192.168.0.255", "66.77.0.0", "66.77.0.255"),
    ("192.168.0.128", "192.168.1.0", "99.0.0.0", "99.0.0.128"),
]
ADDRESSES = [
    *("172.15.255.255", "172.16.0.0", "172.20.1.2", "172.31.255.255", "172.32.0.0"),
    *("192.168.0.0", "192.168.0.200", "192.168.0.255", "192.168.1.0", "192.168.1.1"),
    *("55.0.255.255", "55.1.0.0", "55.16.255.255", "66.77.0.255", "99.0.0.0", "99.0.0.128"),
]


def arguments(pairs: list[tuple[str, str, str, str]]) -> dict[str, Any]:
    return {
        "pairs": [
            {"int_range": {"start": a, "end": b}, "ext_range": {"start": c, "end": d}}
            for a, b, c, d in pairs
        ]
    }


ARGS = arguments(PAIRS)


def mapped(address: str, forward: bool) -> str:
    number = int(IPv4Address(address))
    for pair in PAIRS:
        int_start, int_end, ext_start, ext_end = (int(IPv4Address(text)) for text in pair)
        start, end, to = (
            (int_start, int_end, ext_start) if forward else (ext_start, ext_end, int_start)
        )
        if start <= number <= end:
            return str(IPv4Address(number - start + to))
    return address


def random_packet(rng: random.Random) -> Packet:
    layer: Packet = Ether(**MACS)
    for _ in range(rng.randrange(3)):
        layer /= Dot1Q(vlan=rng.randrange(4096))
    ip = IP(src=rng.choice(ADDRESSES), dst=rng.choice(ADDRESSES), id=rng.randrange(65536))
    payload = Raw(rng.randbytes(rng.randrange(1, 60)))
    l4 = [TCP(sport=5, dport=6), UDP(), UDP(chksum=0), ICMP(), UDP(chksum=0xFFFF)]
    return layer / ip / rng.choice(l4) / payload


def twin(packet: Packet, forward: bool) -> bytes:
    """The packet with the address changed, and all checksums computed anew by scapy."""
    changed = Ether(bytes(packet))
    ip = changed[IP]
    field = "src" if forward else "dst"
    after = mapped(ip.getfieldval(field), forward)
    if after == ip.getfieldval(field):
        return bytes(packet)
    ip.setfieldval(field, after)
    del ip.chksum
    if TCP in changed:
        del changed[TCP].chksum
    if UDP in changed and changed[UDP].chksum != 0:
        del changed[UDP].chksum
    return bytes(changed)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_twin(seed: int, forward: bool) -> None:
    rng = random.Random(seed)
    packets = [random_packet(rng) for _ in range(300)]
    packets = [packet for packet in packets if UDP not in packet or packet[UDP].chksum != 0xFFFF]
    result = run("StaticNAT", ARGS, [bytes(p) for p in packets], in_gate=0 if forward else 1)
    expected = [twin(packet, forward) for packet in packets]
    assert (result.out, result.drops) == ({1 if forward else 0: expected}, {})


def test_there_and_back() -> None:
    rng = random.Random(9)
    packets = [bytes(random_packet(rng)) for _ in range(300)]
    sources = {mapped(address, True) for address in ADDRESSES}
    packets = [p for p in packets if mapped(Ether(p)[IP].src, True) != Ether(p)[IP].src]
    out = run("StaticNAT", arguments(PAIRS[:2]), packets).out[1]
    back = []
    for packet in out:
        frame = Ether(packet)
        assert frame[IP].src in sources | set(ADDRESSES)
        frame[IP].src, frame[IP].dst = frame[IP].dst, frame[IP].src
        back.append(bytes(frame))
    again = run("StaticNAT", arguments(PAIRS[:2]), back, in_gate=1).out[0]
    for before, after in zip(packets, again, strict=True):
        frame = Ether(after)
        frame[IP].src, frame[IP].dst = frame[IP].dst, frame[IP].src
        if UDP in frame and Ether(before)[UDP].chksum == 0xFFFF:
            continue  # a wrong sum stays wrong, though not by the same amount
        assert bytes(frame) == before


def test_wrong_sums_stay_wrong() -> None:
    packet = Ether(**MACS) / IP(src="172.16.0.1", chksum=1) / TCP(chksum=2)
    (out,) = run("StaticNAT", ARGS, [bytes(packet)]).out[1]
    frame = Ether(out)
    assert frame[IP].src == "55.1.0.1"
    right = Ether(twin(packet, True))
    assert frame[IP].chksum != right[IP].chksum
    assert frame[TCP].chksum != right[TCP].chksum


def test_fragments_are_mapped_alike() -> None:
    first = Ether(**MACS) / IP(src="172.16.0.1", flags="MF") / UDP(chksum=7) / Raw(bytes(8))
    later = Ether(**MACS) / IP(src="172.16.0.1", frag=2, proto=17) / Raw(b"\x01" * 8)
    out = run("StaticNAT", ARGS, [bytes(first), bytes(later)]).out[1]
    assert [Ether(packet)[IP].src for packet in out] == ["55.1.0.1"] * 2
    assert out[1][34:] == bytes(later)[34:]
    assert Ether(out[0])[UDP].chksum != 7


def test_what_is_not_ipv4_passes() -> None:
    packets = [bytes(Ether(**MACS) / layer) for layer in (ARP(), IPv6() / UDP())]
    assert run("StaticNAT", ARGS, packets).out == {1: packets}


def test_every_length() -> None:
    for l4, need in ((TCP(), 20), (UDP(), 8), (ICMP(), 0)):
        packet = bytes(Ether(**MACS) / IP(src="172.16.0.1") / l4 / Raw(b"xyz"))
        cuts = [packet[:n] for n in range(1, len(packet) + 1)]
        result = run("StaticNAT", ARGS, cuts)
        assert result.drops == {"packet too short": 33 + need}
        assert len(result.out[1]) == len(cuts) - 33 - need


def test_get_initial_arg() -> None:
    commands = ["get_initial_arg", "get_runtime_config", "set_runtime_config"]
    result = run("StaticNAT", ARGS, [], after=[(name, {}) for name in commands])
    assert result.command_results == [ARGS, {}, {}]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("10.0.0.2", "10.0.0.1", "1.0.0.1", "1.0.0.2"), "int_range is 10.0.0.2 to 10.0.0.1"),
        (("10.0.0.1", "10.0.0.2", "1.0.0.2", "1.0.0.1"), "ext_range is"),
        (("10.0.0.1", "10.0.0.2", "1.0.0.1", "1.0.0.3"), "maps 2 addresses to 3"),
        (("10.0.0.x", "10.0.0.2", "1.0.0.1", "1.0.0.3"), "int_range.start is"),
        (("10.0.0.1", "10.0.0.2", "1.0.0.1", ""), "ext_range.end is"),
        (("255.255.255.254", "255.255.255.255", "1.0.0.1", "1.0.0.2"), "before 255.255.255.255"),
    ],
)
def test_bad_arguments(pair: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(EngineError) as error:
        run("StaticNAT", arguments([PAIRS[0], pair]), [])
    assert "StaticNAT.pairs[1]" in str(error.value)
    assert message in str(error.value)
