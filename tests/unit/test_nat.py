# SPDX-License-Identifier: BSD-3-Clause
"""NAT: round trips, checksums, port ranges, and packets that cannot be translated."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import Engine, EngineError, new_engine, run

EXTERNAL = "203.0.113.1"
SERVER = "198.51.100.7"
ARGS = {"ext_addrs": [{"ext_addr": EXTERNAL}]}
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def nat(args: dict[str, Any] = ARGS) -> Engine:
    engine = new_engine()
    engine.create_module("nat", "NAT", args)
    return engine


def ranges(*port_ranges: dict[str, Any]) -> dict[str, Any]:
    return {"ext_addrs": [{"ext_addr": EXTERNAL, "port_ranges": list(port_ranges)}]}


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("nat")["drops"].items() if v}


def forward(engine: Engine, packets: list[bytes]) -> list[bytes]:
    out = engine.run_packets("nat", packets, 0)
    assert not out.get(0)
    return out.get(1, [])


def reverse(engine: Engine, packets: list[bytes]) -> list[bytes]:
    out = engine.run_packets("nat", packets, 1)
    assert not out.get(1)
    return out.get(0, [])


def udp(sport: int, src: str = "10.0.0.1", dst: str = SERVER, dport: int = 53) -> bytes:
    return bytes(ETHER / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(b"query"))


def swap(packet: bytes) -> bytes:
    """The packet with source and destination exchanged; no checksum changes by that."""
    frame = Ether(packet)
    ip = frame[IP]
    ip.src, ip.dst = ip.dst, ip.src
    for layer in (TCP, UDP):
        if layer in frame:
            frame[layer].sport, frame[layer].dport = frame[layer].dport, frame[layer].sport
    return bytes(frame)


def recomputed(packet: bytes) -> bytes:
    frame = Ether(packet)
    del frame[IP].chksum
    for layer in (TCP, UDP, ICMP):
        if layer in frame and not (layer is UDP and frame[UDP].chksum == 0):
            del frame[layer].chksum
    return bytes(frame)


def random_packet(rng: random.Random) -> bytes:
    layer: Packet = ETHER
    for _ in range(rng.randrange(3)):
        layer = layer / Dot1Q(vlan=rng.randrange(4096))
    options = [b"", b"\x01\x01\x01\x00"][rng.randrange(2)]
    ip = IP(src=f"10.0.{rng.randrange(4)}.{rng.randrange(1, 9)}", dst=SERVER)
    if options:
        ip.options = options
    port = rng.choice([rng.randrange(1, 1024), rng.randrange(1024, 65536)])
    other = rng.randrange(1, 65536)
    l4: Packet = rng.choice(
        [
            TCP(sport=port, dport=other, seq=rng.getrandbits(32)),
            UDP(sport=port, dport=other),
            UDP(sport=port, dport=other, chksum=0),
            ICMP(type=8, id=port, seq=other),
        ]
    )
    return bytes(layer / ip / l4 / Raw(rng.randbytes(rng.randrange(60))))


def test_round_trip_is_the_identity() -> None:
    rng = random.Random(1)
    engine = nat()
    packets = [random_packet(rng) for _ in range(600)]
    out = forward(engine, packets)
    assert len(out) == len(packets)
    for before, after in zip(packets, out, strict=True):
        old, new = Ether(before), Ether(after)
        assert (new[IP].src, new[IP].dst) == (EXTERNAL, SERVER)
        assert recomputed(after) == after
        for layer in (TCP, UDP):
            if layer in old:
                assert (old[layer].sport < 1024) == (new[layer].sport < 1024)
                assert old[layer].dport == new[layer].dport
        if UDP in old:
            assert (old[UDP].chksum == 0) == (new[UDP].chksum == 0)
    back = reverse(engine, [swap(packet) for packet in out])
    assert [swap(packet) for packet in back] == packets
    assert drops(engine) == {}


def test_both_directions_in_one_graph() -> None:
    """0:nat:1 -> IPSwap() -> 1:nat:0, as in BESS's nat.bess."""
    rng = random.Random(3)
    engine = nat()
    engine.create_module("swap", "IPSwap", {})
    engine.connect("nat", 1, "swap", 0)
    engine.connect("swap", 0, "nat", 1)
    packets = [p for p in (random_packet(rng) for _ in range(200)) if ICMP not in Ether(p)]
    out = engine.run_packets("nat", packets)
    assert {0: [swap(packet) for packet in out[0]]} == {0: packets}


def test_mapping_is_endpoint_independent() -> None:
    engine = nat()
    out = forward(engine, [udp(5000), udp(5000, dst="192.0.2.9", dport=99), udp(5001)])
    first, second, third = (Ether(packet)[UDP].sport for packet in out)
    assert first == second != third
    stranger = ETHER / IP(src="192.0.2.77", dst=EXTERNAL) / UDP(sport=1, dport=first)
    (back,) = reverse(engine, [bytes(stranger)])
    assert (Ether(back)[IP].dst, Ether(back)[UDP].dport) == ("10.0.0.1", 5000)


def test_protocols_have_their_own_ports() -> None:
    engine = nat(ranges({"begin": 2000, "end": 2001}))
    base = ETHER / IP(src="10.0.0.1", dst=SERVER)
    packets = [base / TCP(sport=7000), base / UDP(sport=7000), base / ICMP(type=8, id=7000)]
    out = [Ether(packet) for packet in forward(engine, [bytes(packet) for packet in packets])]
    assert [out[0][TCP].sport, out[1][UDP].sport, out[2][ICMP].id] == [2000] * 3


def test_ports_run_out_and_none_is_given_twice() -> None:
    engine = nat(
        ranges(
            {"begin": 3000, "end": 3040},
            {"begin": 4000, "end": 4100, "suspended": True},
            {"begin": 3030, "end": 3070},
        )
    )
    out = forward(engine, [udp(port) for port in range(10000, 10100)])
    assert sorted(Ether(packet)[UDP].sport for packet in out) == list(range(3000, 3070))
    assert drops(engine) == {"no free port": 30}
    assert len(forward(engine, [udp(10000)])) == 1  # its mapping is still there


def test_privileged_ports_stay_privileged() -> None:
    engine = nat(ranges({"begin": 1020, "end": 1028}))
    low = forward(engine, [udp(port) for port in range(1, 10)])
    high = forward(engine, [udp(port) for port in range(5001, 5010)])
    assert sorted(Ether(packet)[UDP].sport for packet in low) == [1020, 1021, 1022, 1023]
    assert sorted(Ether(packet)[UDP].sport for packet in high) == [1024, 1025, 1026, 1027]


def test_an_internal_address_keeps_its_external_address() -> None:
    addresses = [f"203.0.113.{i}" for i in range(1, 5)]
    engine = nat({"ext_addrs": [{"ext_addr": address} for address in addresses]})
    seen = set()
    for host in range(1, 100):
        out = forward(engine, [udp(port, src=f"10.0.0.{host}") for port in (2000, 3000, 4000)])
        chosen = {Ether(packet)[IP].src for packet in out}
        assert len(chosen) == 1
        seen |= chosen
    assert seen == set(addresses)


def test_table_is_bounded() -> None:
    engine = nat({"ext_addrs": [{"ext_addr": f"203.0.113.{i}"} for i in range(1, 9)]})
    template = bytearray(udp(2000))
    template[40:42] = b"\0\0"  # no UDP checksum
    template[24:26] = b"\0\0"
    forwarded = 0
    for host in range(2):
        for start in range(1024, 65536, 512):
            packets = []
            for port in range(start, start + 512):
                template[29] = host
                template[34:36] = port.to_bytes(2, "big")
                packets.append(bytes(template))
            forwarded += len(forward(engine, packets))
    assert forwarded == 65536
    assert drops(engine) == {"no free port": 2 * (65536 - 1024) - 65536}


def test_reverse_without_a_mapping() -> None:
    engine = nat()
    assert reverse(engine, [swap(udp(5000, src=EXTERNAL))]) == []
    assert drops(engine) == {"no mapping": 1}


NOT_TRANSLATABLE = [
    ETHER / ARP(),
    ETHER / IPv6() / UDP(sport=2000),
    ETHER / IP(src="10.0.0.1", proto=47) / Raw(bytes(30)),
    ETHER / IP(src="10.0.0.1") / ICMP(type=3) / Raw(bytes(30)),
    ETHER / IP(src="10.0.0.1") / UDP(sport=0),
    ETHER / IP(src="10.0.0.1") / TCP(sport=0),
    ETHER / IP(src="10.0.0.1", flags="MF") / UDP(sport=2000) / Raw(bytes(16)),
    ETHER / IP(src="10.0.0.1", frag=2, proto=17) / Raw(bytes(30)),
]


@pytest.mark.parametrize("packet", NOT_TRANSLATABLE)
def test_not_translatable(packet: Packet) -> None:
    result = run("NAT", ARGS, [bytes(packet)])
    assert (result.forwarded, result.drops) == (0, {"not translatable": 1})


@pytest.mark.parametrize("gate", [0, 1])
def test_truncated_at_every_byte(gate: int) -> None:
    base = ETHER / Dot1Q(vlan=5) / IP(src="10.0.0.1", dst=EXTERNAL)
    for l4 in (TCP(sport=2000), UDP(sport=2000, dport=3000), ICMP(type=8, id=9)):
        packet = bytes(base / l4 / Raw(b"payload"))
        cuts = [packet[:n] for n in range(1, len(packet) + 1)]
        result = run("NAT", ARGS, cuts, in_gate=gate)
        assert result.forwarded + result.dropped == len(cuts)
        assert all(len(out) >= 18 + 20 + 8 for out in result.out.get(1, []))
        assert sorted(map(len, result.out.get(1, []))) == [
            len(cut) for cut in cuts[len(cuts) - result.forwarded :]
        ]
        assert (result.forwarded > 0) == (gate == 0)


def test_random_bytes_conserve_packets() -> None:
    rng = random.Random(2)
    packets = []
    for _ in range(2000):
        packet = bytearray(random_packet(rng))
        for _ in range(rng.randrange(1, 6)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        packets.append(bytes(packet))
    for gate in (0, 1):
        result = run("NAT", ARGS, packets, in_gate=gate)
        assert result.forwarded + result.dropped == len(packets)


def test_get_initial_arg() -> None:
    args = ranges({"begin": 10, "end": 20, "suspended": True}, {"begin": 20, "end": 30})
    commands = ["get_initial_arg", "get_runtime_config", "set_runtime_config"]
    result = run("NAT", args, [], after=[(name, {}) for name in commands])
    assert result.command_results == [args, {}, {}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "1 to 256"),
        ({"ext_addrs": [{"ext_addr": "banana"}]}, "must be an IPv4 address"),
        ({"ext_addrs": [{"ext_addr": EXTERNAL}] * 2}, "list each address once"),
        (ranges({"begin": 5, "end": 5}), "begin must be below end"),
        (ranges({"begin": 5, "end": 65537}), "end at most 65536"),
    ],
)
def test_bad_arguments(args: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError) as error:
        nat(args)
    assert message in str(error.value)
