# SPDX-License-Identifier: BSD-3-Clause
"""NAT over IPv6, of both families at once, and the commands about its mappings."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import Engine, EngineError, new_engine, run
from twins.embark_parts_twin import parse
from twins.nat_twin import Endpoint, ends, translate

MS = 1_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
EXTERNAL, EXTERNAL4 = "2001:db8:ffff::1", "203.0.113.1"
SERVER = "2001:db8:2::7"
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ARGS: dict[str, Any] = {"ext_addrs": [{"ext_addr": EXTERNAL}]}
BOTH: dict[str, Any] = {"ext_addrs": [{"ext_addr": EXTERNAL4}, {"ext_addr": EXTERNAL}]}
Mapping = dict[str, Any]


def nat(args: dict[str, Any] = ARGS) -> Engine:
    engine = new_engine()
    engine.create_module("nat", "NAT", args)
    return engine


def send(engine: Engine, packets: list[bytes], gate: int = 0, ms: float = 0) -> list[bytes]:
    out = engine.run_packets("nat", packets, gate, START + int(ms * MS))
    assert set(out) <= {1 - gate}
    return out.get(1 - gate, [])


def source(packet: bytes) -> Endpoint:
    pair = ends(parse(packet))
    assert pair is not None
    return pair[0]


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("nat")["drops"].items() if v}


def udp(sport: int, src: str = "2001:db8:1::1") -> bytes:
    return bytes(ETHER / IPv6(src=src, dst=SERVER) / UDP(sport=sport, dport=53) / Raw(b"query"))


def udp4(sport: int, src: str = "10.0.0.1") -> bytes:
    return bytes(ETHER / IP(src=src, dst="198.51.100.7") / UDP(sport=sport, dport=53) / b"query")


def random_packet(rng: random.Random) -> bytes:
    layer: Packet = ETHER
    for _ in range(rng.randrange(3)):
        layer = layer / Dot1Q(vlan=rng.randrange(4096))
    layer = layer / IPv6(src=f"2001:db8:1::{rng.randrange(1, 99):x}", dst=SERVER)
    for _ in range(rng.randrange(3)):
        layer = layer / rng.choice([IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop()])
    port = rng.choice([rng.randrange(1, 1024), rng.randrange(1024, 65536)])
    l4: Packet = rng.choice(
        [
            TCP(sport=port, dport=rng.randrange(1, 65536), seq=rng.getrandbits(32)),
            UDP(sport=port, dport=rng.randrange(1, 65536)),
            ICMPv6EchoRequest(id=port, data=rng.randbytes(7)),
        ]
    )
    if ICMPv6EchoRequest in l4:
        return bytes(layer / l4)
    return bytes(layer / l4 / Raw(rng.randbytes(rng.randrange(60))))


def test_round_trip_is_the_identity() -> None:
    rng = random.Random(1)
    engine = nat()
    packets = [random_packet(rng) for _ in range(500)]
    out = send(engine, packets)
    for before, after in zip(packets, out, strict=True):
        assert source(after).address == Endpoint.of({"address": EXTERNAL, "port": 0}).address
        assert after == translate(before, False, source(after))
        if parse(before).protocol != 58:
            assert (source(before).port < 1024) == (source(after).port < 1024)
    for before, after in zip(packets, out, strict=True):
        frame = Ether(after)
        frame[IPv6].src, frame[IPv6].dst = frame[IPv6].dst, frame[IPv6].src
        for layer in (TCP, UDP):
            if layer in frame:
                frame[layer].sport, frame[layer].dport = frame[layer].dport, frame[layer].sport
        answer = bytes(frame)  # no checksum changes by that
        assert send(engine, [answer], gate=1) == [translate(answer, True, source(before))]
    assert drops(engine) == {}


def test_an_echo_reply_of_icmp_behind_ipv6() -> None:
    """As IPv4's ICMP is between gateways: its checksum is of no address."""
    engine = nat()
    (out,) = send(engine, [bytes(ETHER / IPv6(src="2001:db8:1::1", dst=SERVER, nh=1) / ICMP(id=9))])
    assert ICMP(out[54:]).chksum == ICMP(bytes(ICMP(id=ICMP(out[54:]).id))).chksum
    reply = ICMP(type=0, id=ICMP(out[54:]).id)
    back = send(engine, [bytes(ETHER / IPv6(src=SERVER, dst=EXTERNAL, nh=1) / reply)], gate=1)
    assert back == [bytes(ETHER / IPv6(src=SERVER, dst="2001:db8:1::1", nh=1) / ICMP(type=0, id=9))]
    echo = ETHER / IPv6(src=SERVER, dst=EXTERNAL) / ICMPv6EchoReply(id=reply.id)
    assert send(engine, [bytes(echo)], gate=1) == []
    assert drops(engine) == {"no mapping": 1}


def test_families_are_translated_within_themselves() -> None:
    engine = nat(BOTH)
    packets = [packet for port in range(2000, 2100) for packet in (udp(port), udp4(port))]
    out = send(engine, packets)
    assert len(out) == 200
    for before, after in zip(packets, out, strict=True):
        assert after == translate(before, False, source(after))
    assert len({source(packet) for packet in out}) == 200
    assert "200 mappings" in engine.module_info("nat")["desc"]
    (only4,) = send(nat({"ext_addrs": [{"ext_addr": EXTERNAL4}]}), [udp(2000), udp4(2000)])
    assert parse(only4).ipv6 is False


@pytest.mark.parametrize("encrypted", [False, True])
def test_encrypted_ports_are_of_no_class(encrypted: bool) -> None:
    port_ranges = [{"begin": 2000, "end": 2002}]
    addresses = [{"ext_addr": EXTERNAL, "port_ranges": port_ranges}]
    engine = nat({"ext_addrs": addresses, "encrypted_ports": encrypted})
    out = send(engine, [udp(0), udp(80)])
    assert len(out) == (2 if encrypted else 0)
    assert drops(engine) == ({} if encrypted else {"not translatable": 1, "no free port": 1})


NOT_TRANSLATABLE = [
    ETHER / IPv6(dst=EXTERNAL) / IPv6ExtHdrFragment(m=1) / UDP(sport=9) / Raw(bytes(16)),
    ETHER / IPv6(dst=EXTERNAL) / IPv6ExtHdrFragment(offset=2, nh=17) / Raw(bytes(16)),
    ETHER / IPv6(dst=EXTERNAL) / ICMPv6DestUnreach() / IPv6() / UDP(),
    ETHER / IPv6(dst=EXTERNAL, nh=132) / Raw(bytes(30)),
    ETHER / IPv6(dst=EXTERNAL) / UDP(sport=0, dport=0),
    ETHER / IP(src="10.0.0.1") / UDP(sport=2000),
]


@pytest.mark.parametrize("gate", [0, 1])
@pytest.mark.parametrize("packet", NOT_TRANSLATABLE)
def test_not_translatable(packet: Packet, gate: int) -> None:
    result = run("NAT", ARGS, [bytes(packet)], in_gate=gate)
    assert (result.forwarded, result.drops) == (0, {"not translatable": 1})


def test_reverse_to_another_stop_is_not_translated() -> None:
    routed = ETHER / IPv6(dst=EXTERNAL) / IPv6ExtHdrRouting(addresses=[SERVER]) / UDP(dport=9)
    assert run("NAT", ARGS, [bytes(routed)], in_gate=1).drops == {"not translatable": 1}
    assert run("NAT", ARGS, [bytes(routed)]).forwarded == 1


@pytest.mark.parametrize("gate", [0, 1])
def test_truncated_at_every_byte(gate: int) -> None:
    head = ETHER / Dot1Q(vlan=5) / IPv6(src="2001:db8:1::1", dst=EXTERNAL) / IPv6ExtHdrDestOpt()
    for l4 in (TCP(sport=2000), UDP(sport=2000, dport=3000), ICMPv6EchoRequest(id=9)):
        packet = bytes(head / l4 / Raw(b"payload"))
        cuts = [packet[:n] for n in range(1, len(packet) + 1)]
        result = run("NAT", BOTH, cuts, in_gate=gate)
        assert result.forwarded + result.dropped == len(cuts)
        assert (result.forwarded > 0) == (gate == 0)


def mappings(engine: Engine) -> list[Mapping]:
    found: list[Mapping] = engine.module_command("nat", "get_mappings", {})["mappings"]
    return found


def test_mappings_are_told_and_set() -> None:
    engine = nat(BOTH)
    first = send(engine, [udp(2000), udp4(2000)])
    later = send(engine, [udp(2001), udp4(2001)], ms=50_000)
    told = mappings(engine)
    assert [one["idle_ms"] for one in told] == [50_000, 0, 50_000, 0]
    assert [Endpoint.of(one["internal"]).port for one in told] == [2000, 2001, 2000, 2001]
    by_source = {Endpoint.of(one["internal"]): Endpoint.of(one["external"]) for one in told}
    packets = [udp(2000), udp4(2000), udp(2001), udp4(2001)]
    assert [by_source[source(packet)] for packet in packets] == list(map(source, [*first, *later]))

    other = nat(BOTH)
    send(other, [udp(9)])  # forgotten
    other.module_command("nat", "set_mappings", {"mappings": told})
    assert [one | {"idle_ms": 0} for one in mappings(other)] == [
        one | {"idle_ms": 0} for one in told
    ]
    assert send(other, packets, ms=1) == [*first, *later]
    assert len(send(other, [udp(port) for port in range(3000, 3200)])) == 200


def test_restored_mappings_end_on_time() -> None:
    engine = nat()
    send(engine, [udp(2000), udp(2001)])
    send(engine, [udp(2001)], ms=100_000)
    told = mappings(engine)
    other = nat()
    send(other, [udp(1)], ms=100_000)
    other.module_command("nat", "set_mappings", {"mappings": told})
    send(other, [udp(7)], ms=121_000)
    assert {Endpoint.of(one["internal"]).port for one in mappings(other)} == {2001, 7}


def test_internal_endpoints_are_replaced() -> None:
    """External endpoints and ages stay; two may change places."""
    engine = nat(BOTH)
    out = send(engine, [udp(2000), udp(2001), udp4(2000), udp(2002)])
    send(engine, [udp(2001)], ms=30_000)
    before = mappings(engine)
    a, b, c, _ = (source(packet) for packet in (udp(2000), udp(2001), udp4(2000), udp(2002)))
    fresh = source(udp4(4444, "10.77.0.1"))
    moves = [(a, b), (b, a), (c, fresh), (source(udp(9)), source(udp(10)))]
    args = [{"protocol": 17, "old": old.args, "new": new.args} for old, new in moves]
    answer = engine.module_command("nat", "replace_mappings", {"mappings": args})
    assert answer == {"replaced": 3, "ended": 1}
    new_of = {old: new for old, new in moves}
    expected = [
        one | {"internal": new_of.get(end, end).args}
        for one in before
        for end in [Endpoint.of(one["internal"])]
    ]
    assert mappings(engine) == expected
    now = send(engine, [udp(2001), udp(2000), udp4(4444, "10.77.0.1"), udp(2002)], ms=30_001)
    assert [source(packet) for packet in now] == [source(packet) for packet in out]
    back = send(engine, [translate(udp4(53, "198.51.100.7"), True, source(out[2]))], 1, 30_002)
    assert [ends(parse(packet)) for packet in back] == [
        (Endpoint.of({"address": "198.51.100.7", "port": 53}), fresh)
    ]


def externals(engine: Engine) -> list[str]:
    told = engine.module_command("nat", "get_mappings", {})["external_addresses"]
    return [str(address) for address in told]


def test_external_addresses_are_told() -> None:
    """Those of IPv4 first."""
    listed = [{"ext_addr": address} for address in (EXTERNAL, "203.0.113.7", "203.0.113.5")]
    assert externals(nat({"ext_addrs": listed})) == ["203.0.113.7", "203.0.113.5", EXTERNAL]


def test_external_addresses_are_replaced() -> None:
    second = "2001:db8:ffff::2"
    engine = nat({"ext_addrs": [{"ext_addr": EXTERNAL}, {"ext_addr": second}]})
    packets = [udp(2000, f"2001:db8:1::{n:x}") for n in range(1, 30)]
    before = [source(packet) for packet in send(engine, packets)]
    moves = [{"old": EXTERNAL, "new": second}, {"old": second, "new": "2001:db8:ffff::3"}]
    assert externals(engine) == [EXTERNAL, second]
    engine.module_command("nat", "replace_mappings", {"external_addresses": moves})
    assert externals(engine) == [one["new"] for one in moves]
    new_of = {
        Endpoint.of({"address": one["old"], "port": 0}).address: Endpoint.of(
            {"address": one["new"], "port": 0}
        ).address
        for one in moves
    }
    expected = [Endpoint(new_of[end.address], end.port) for end in before]
    assert [source(packet) for packet in send(engine, packets)] == expected
    answers = [translate(udp(53, SERVER), True, end) for end in expected]
    assert len(send(engine, answers, gate=1)) == len(packets)
    assert drops(engine) == {}
    for bad, code in (
        ([{"old": "2001:db8:ffff::9", "new": "::1"}], errno.ENOENT),
        ([{"old": second, "new": "2001:db8:ffff::3"}], errno.EEXIST),
        ([{"old": second, "new": "::1"}, {"old": second, "new": "::2"}], errno.EEXIST),
        ([{"old": second, "new": "10.0.0.1"}], errno.EINVAL),
    ):
        with pytest.raises(EngineError) as error:
            engine.module_command("nat", "replace_mappings", {"external_addresses": bad})
        assert error.value.code == code
    assert [source(packet) for packet in send(engine, packets)] == expected


BAD_REPLACEMENTS = [
    ([("2001:db8:1::1", 2000, "10.0.0.1", 1)], errno.EINVAL),
    ([("banana", 2000, "2001:db8:1::1", 1)], errno.EINVAL),
    ([("2001:db8:1::1", 2000, "2001:db8:1::1", 65536)], errno.EINVAL),
    ([("2001:db8:1::1", 2000, "2001:db8:1::1", 2001)], errno.EEXIST),  # which another has
    ([("2001:db8:1::1", 2000, "::1", 1), ("2001:db8:1::1", 2001, "::1", 1)], errno.EEXIST),
    ([("2001:db8:1::1", 2000, "::1", 1), ("2001:db8:1::1", 2000, "::2", 1)], errno.EEXIST),
    ([("10.0.0.1", 2000, "10.0.0.2", 1)], errno.ENOENT),
]


@pytest.mark.parametrize(("moves", "code"), BAD_REPLACEMENTS)
def test_replacing_is_all_or_nothing(moves: list[tuple[str, int, str, int]], code: int) -> None:
    engine = nat()
    send(engine, [udp(2000), udp(2001), udp(2002)])
    before = mappings(engine)
    good = {"protocol": 17, "old": source(udp(2002)).args, "new": source(udp(5)).args}
    args = [
        {
            "protocol": 17,
            "old": {"address": old, "port": old_port},
            "new": {"address": new, "port": new_port},
        }
        for old, old_port, new, new_port in moves
    ]
    with pytest.raises(EngineError) as error:
        engine.module_command("nat", "replace_mappings", {"mappings": [good, *args]})
    assert error.value.code == code
    assert mappings(engine) == before


BAD_MAPPINGS: list[tuple[dict[str, Any], int]] = [
    ({"protocol": 47}, errno.EINVAL),
    ({"external": {"address": "2001:db8:ffff::2", "port": 7}}, errno.ENOENT),
    ({"external": {"address": EXTERNAL, "port": 0}}, errno.EINVAL),
    ({"internal": {"address": "2001:db8:1::9", "port": 1}}, errno.EEXIST),
    ({"external": {"address": EXTERNAL, "port": 1}}, errno.EEXIST),
    ({"external": {"address": EXTERNAL4, "port": 1}}, errno.EINVAL),
]


@pytest.mark.parametrize(("change", "code"), BAD_MAPPINGS)
def test_setting_is_all_or_nothing(change: dict[str, Any], code: int) -> None:
    engine = nat()
    send(engine, [udp(2000)])
    before = mappings(engine)
    one = {
        "protocol": 17,
        "internal": {"address": "2001:db8:1::9", "port": 1},
        "external": {"address": EXTERNAL, "port": 1},
    }
    other = one | {
        "internal": {"address": "2001:db8:1::9", "port": 2},
        "external": {"address": EXTERNAL, "port": 2},
    }
    with pytest.raises(EngineError) as error:
        engine.module_command("nat", "set_mappings", {"mappings": [one, other | change]})
    assert error.value.code == code
    assert mappings(engine) == before
