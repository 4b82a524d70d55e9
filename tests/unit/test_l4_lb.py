# SPDX-License-Identifier: BSD-3-Clause
"""L4LB: who gets a connection, that it stays there, health, draining, and live changes."""

from __future__ import annotations

import errno
import random
from collections import Counter
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import Engine, EngineError, new_engine, run
from twins import headers_twin, l4_lb_twin
from twins.nat_twin import Endpoint, ends, parse, translate

MS = 1_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
VIP, VIP6 = "192.0.2.80", "2001:db8:80::1"
HOSTS = {4: (IP, "10.0.0.1", VIP), 6: (IPv6, "2001:db8::1", VIP6)}
NETS = {4: "10.9.0.", 6: "2001:db8:9::"}


def backends(count: int, version: int = 4, port: int = 8080) -> list[dict[str, Any]]:
    return [{"address": f"{NETS[version]}{n}", "port": port} for n in range(1, count + 1)]


def service(count: int = 4, version: int = 4, **args: Any) -> dict[str, Any]:
    address = HOSTS[version][2]
    return {"address": address, "port": 80, "backends": backends(count, version)} | args


def balancer(*services: dict[str, Any], **args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", "L4LB", {"services": list(services or [service()])} | args)
    return engine


def client(port: int, flags: str = "S", version: int = 4, dport: int = 80) -> bytes:
    ip, src, vip = HOSTS[version]
    return bytes(
        ETHER / ip(src=src, dst=vip) / TCP(sport=port, dport=dport, flags=flags) / b"hello"
    )


def send(engine: Engine, packets: list[bytes], ms: float = 0, gate: int = 0) -> list[bytes]:
    out = engine.run_packets("m", packets, gate, START + int(ms * MS))
    assert set(out) <= {1 - gate}
    return out.get(1 - gate, [])


def destination(packet: bytes) -> Endpoint:
    pair = ends(parse(packet))
    assert pair is not None
    return pair[1]


def host(packet: bytes) -> int:
    """The number of the backend that a packet is sent to."""
    return destination(packet).address[-1]


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def status(engine: Engine) -> dict[int, dict[str, Any]]:
    """Backends by the last byte of their addresses."""
    found = engine.module_command("m", "get_status", {})["backends"]
    return {Endpoint.of(one).address[-1]: one for one in found}


def answer(packet: bytes, flags: str = "SA") -> bytes:
    """What the backend that got a packet says to its sender."""
    frame = Ether(packet)
    ip = frame[IP] if IP in frame else frame[IPv6]
    tcp = frame[TCP]
    head = type(ip)(src=ip.dst, dst=ip.src) / TCP(sport=tcp.dport, dport=tcp.sport, flags=flags)
    return bytes(ETHER / head / b"data")


@pytest.mark.parametrize("version", [4, 6])
def test_connections_and_answers_are_rewritten(version: int) -> None:
    engine = balancer(service(version=version))
    packets = [client(port, version=version) for port in range(2000, 2200)]
    out = send(engine, packets)
    for before, after in zip(packets, out, strict=True):
        assert after == translate(before, True, destination(after))
        assert destination(after).port == 8080
    back = send(engine, [answer(packet) for packet in out], gate=1)
    vip = HOSTS[version][2]
    for packet, sent in zip(back, out, strict=True):
        assert packet == translate(answer(sent), False, Endpoint.of({"address": vip, "port": 80}))
    assert sum(one["flows"] for one in status(engine).values()) == 200
    assert drops(engine) == {}


@pytest.mark.parametrize("version", [4, 6])
def test_the_hashing_is_the_twins(version: int) -> None:
    weights = [1, 2, 1, 3, 1]
    listed = [
        {"address": f"{NETS[version]}{n + 1}", "port": 8080, "weight": weight}
        for n, weight in enumerate(weights)
    ]
    engine = balancer(service(version=version, backends=listed))
    table = l4_lb_twin.make_table(
        [l4_lb_twin.Backend(one["address"], 8080, one["weight"]) for one in listed]
    )
    packets = [client(port, version=version) for port in range(3000, 3400)]
    hashes = [headers_twin.flow_hash(headers_twin.parse(packet)) for packet in packets]
    assert [host(packet) - 1 for packet in send(engine, packets)] == [
        l4_lb_twin.pick(table, value) for value in hashes
    ]
    shares = Counter(table)
    assert all(abs(shares[n] * 8 / l4_lb_twin.TABLE - w) < 0.01 for n, w in enumerate(weights))

    down = {"address": listed[1]["address"], "port": 8080, "up": False}
    engine.module_command("m", "set_health", down)
    others = [client(port, version=version) for port in range(4000, 4400)]
    hashes = [headers_twin.flow_hash(headers_twin.parse(packet)) for packet in others]
    assert [host(packet) - 1 for packet in send(engine, others)] == [
        l4_lb_twin.pick(table, value, frozenset({1})) for value in hashes
    ]


def test_a_failure_moves_nobody_else() -> None:
    """New connections of the backends that stay go where they would have gone."""
    packets = [client(port) for port in range(2000, 4000)]
    before = [host(packet) for packet in send(balancer(service(8)), packets)]
    engine = balancer(service(8))
    engine.module_command("m", "set_health", backends(8)[2] | {"up": False})
    after = [host(packet) for packet in send(engine, packets)]
    assert 3 not in after
    assert [a for b, a in zip(before, after, strict=True) if b != 3] == [
        b for b in before if b != 3
    ]
    # One that is not listed any more moves few of the others.
    fewer = [host(packet) for packet in send(balancer(service(7)), packets)]
    moved = sum(a != b for b, a in zip(before, fewer, strict=True) if b != 8)
    assert moved < 0.06 * len(packets)


def test_changes_of_the_list_move_no_connection() -> None:
    engine = balancer(service(4))
    ports = range(2000, 2400)
    before = [host(packet) for packet in send(engine, [client(port) for port in ports])]
    more = {"services": [service(4, backends=backends(9)[1:])]}  # the first goes, others come
    engine.module_command("m", "update", more)
    middle = [client(port, "A") for port in ports]
    assert [host(packet) for packet in send(engine, middle, 100)] == before
    fresh = [host(packet) for packet in send(engine, [client(port) for port in range(3000, 3400)])]
    assert set(fresh) == set(range(2, 10))
    told = status(engine)
    assert told[1]["removed"] and told[1]["flows"] == before.count(1)
    # Its answers are still those of the service; with the last connection it goes.
    (sent,) = send(engine, [middle[before.index(1)]])
    (back,) = send(engine, [answer(sent, "A")], gate=1)
    assert Ether(back)[IP].src == VIP
    send(engine, [client(2000, "A")], 1_000_000)
    engine.module_command("m", "update", more)
    assert 1 not in status(engine)


def test_draining() -> None:
    engine = balancer(service(3))
    ports = range(2000, 2300)
    before = [host(packet) for packet in send(engine, [client(port) for port in ports])]
    drain = backends(3)[1] | {"draining": True}
    engine.module_command("m", "set_draining", drain)
    assert [
        host(packet) for packet in send(engine, [client(port, "A") for port in ports])
    ] == before
    fresh = [host(packet) for packet in send(engine, [client(port) for port in range(3000, 3300)])]
    assert set(fresh) == {1, 3}
    engine.module_command("m", "set_draining", drain | {"draining": False})
    fresh = [host(packet) for packet in send(engine, [client(port) for port in range(4000, 4300)])]
    assert set(fresh) == {1, 2, 3}


def test_a_connection_ends() -> None:
    engine = balancer(service(4), timeout_ms=1000, linger_ms=100)
    send(engine, [client(2000), client(2001), client(2002)])
    send(engine, [client(2000, "FA"), client(2001, "R")], 10)
    assert engine.module_command("m", "get_status", {})["flows"] == 3
    send(engine, [client(2002, "A")], 500)
    flows = [one["flows"] for one in status(engine).values()]
    assert sum(flows) == 1
    send(engine, [client(2002, "A")], 1400)  # it is kept by its own packets
    send(engine, [client(2999)], 2500)
    assert sum(one["flows"] for one in status(engine).values()) == 1


def test_a_silent_backend_fails_and_is_tried_again() -> None:
    engine = balancer(service(2), syn_failures=3, answer_ms=500, retry_ms=1000)
    asked: list[bytes] = []
    port = 2000
    while len(asked) < 3:  # SYNs to backend 2, which never answers; 1 always does
        port += 1
        (sent,) = send(engine, [client(port)], 250 * len(asked))
        if host(sent) == 1:
            send(engine, [answer(sent)], gate=1)
        else:
            asked.append(client(port))
    told = status(engine)
    assert (told[1]["failing"], told[2]["failing"]) == (False, True)
    assert told[2]["unanswered_syns"] == 3
    events = [event for event in engine.events()["events"] if event["kind"] == "backend_failing"]
    assert [event["values"] for event in events] == [
        {"backend": told[2]["number"], "unanswered_syns": 3}
    ]
    # New connections go elsewhere, and so does a SYN that is sent again; a connection stays.
    assert {host(packet) for packet in send(engine, [client(p) for p in range(5000, 5050)])} == {1}
    assert [host(packet) for packet in send(engine, asked, 501)] == [1, 1, 1]
    tried = send(engine, [client(p) for p in range(6000, 6050)], 1501)
    assert [host(packet) for packet in tried].count(2) == 1  # and the others wait for its answer
    for packet in tried:
        send(engine, [answer(packet)], 1501, gate=1)
    assert not status(engine)[2]["failing"]
    fresh = send(engine, [client(p) for p in range(8000, 8050)], 1502)  # not failures yet
    assert {host(packet) for packet in fresh} == {1, 2}


def test_nobody_left() -> None:
    engine = balancer(service(2))
    for one in backends(2):
        engine.module_command("m", "set_health", one | {"up": False})
    assert send(engine, [client(2000)]) == []
    assert drops(engine) == {"no backend": 1}
    assert send(balancer(service(0)), [client(2000)]) == []


def test_all_ports() -> None:
    listed = [{"address": f"10.9.0.{n}"} for n in (1, 2)]
    engine = balancer({"address": VIP, "protocol": 17, "backends": listed})
    packets = [
        bytes(ETHER / IP(src="10.0.0.1", dst=VIP) / UDP(sport=5, dport=port) / b"x")
        for port in range(1, 60)
    ]
    out = send(engine, packets)
    assert [destination(packet).port for packet in out] == list(range(1, 60))
    assert {host(packet) for packet in out} == {1, 2}
    answers = [bytes(ETHER / IP(src="10.9.0.1", dst="10.0.0.1") / UDP(sport=7, dport=5) / b"x")]
    (back,) = send(engine, answers, gate=1)
    assert (Ether(back)[IP].src, Ether(back)[UDP].sport) == (VIP, 7)


def test_direct_server_return() -> None:
    macs = [f"02:00:00:00:09:0{n}" for n in (1, 2)]
    listed = [one | {"mac": mac} for one, mac in zip(backends(2), macs, strict=True)]
    engine = balancer(service(backends=listed, direct=True))
    packets = [client(port) for port in range(2000, 2050)]
    out = send(engine, packets)
    assert [packet[6:] for packet in out] == [packet[6:] for packet in packets]
    assert {Ether(packet).dst for packet in out} == set(macs)
    packet = answer(client(2000))  # from the virtual address
    assert send(engine, [packet], gate=1) == [packet]


OTHERS = [
    ETHER / ARP(),
    ETHER / IP(src="10.0.0.1", dst=VIP) / ICMP(),
    ETHER / IP(src="10.0.0.1", dst=VIP) / TCP(dport=81),
    ETHER / IP(src="10.0.0.1", dst=VIP) / UDP(dport=80),
    ETHER / IP(src="10.0.0.1", dst="192.0.2.81") / TCP(dport=80),
    ETHER / IP(src="10.0.0.1", dst="192.0.2.81", flags="MF") / TCP(dport=80),
    ETHER / IPv6(dst=VIP6) / IPv6ExtHdrRouting(addresses=["2001:db8::7"]) / TCP(dport=80),
]


@pytest.mark.parametrize("packet", OTHERS)
@pytest.mark.parametrize("gate", [0, 1])
def test_all_else_passes_unchanged(packet: Packet, gate: int) -> None:
    engine = balancer(service(), service(version=6))
    assert send(engine, [bytes(packet)], gate=gate) == [bytes(packet)]


def test_behind_tags_and_extension_headers() -> None:
    engine = balancer(service(version=6))
    head = ETHER / Dot1Q(vlan=5) / IPv6(src="2001:db8::1", dst=VIP6) / IPv6ExtHdrDestOpt()
    packet = bytes(head / TCP(sport=9, dport=80, flags="S") / b"hello")
    (out,) = send(engine, [packet])
    assert out == translate(packet, True, destination(out))
    assert destination(out).port == 8080


def test_fragments_to_a_service_are_dropped() -> None:
    engine = balancer()
    for fragment in ({"flags": "MF"}, {"frag": 4, "proto": 6}):
        packet = bytes(ETHER / IP(src="10.0.0.1", dst=VIP, **fragment) / Raw(bytes(24)))
        assert send(engine, [packet]) == []
    assert drops(engine) == {"fragment": 2}


def test_a_full_table() -> None:
    engine = balancer(service(4), max_flows=10)
    packets = [client(port) for port in range(2000, 2050)]
    first = [host(packet) for packet in send(engine, packets)]
    assert [host(packet) for packet in send(engine, packets)] == first
    told = engine.module_command("m", "get_status", {})
    assert (told["flows"], told["max_flows"], told["untracked_packets"]) == (10, 10, 80)


@pytest.mark.parametrize("gate", [0, 1])
def test_damaged_packets_are_conserved(gate: int) -> None:
    rng = random.Random(gate)
    packets = []
    for number in range(2000):
        whole = bytearray(client(2000 + number, version=rng.choice((4, 6))))
        for _ in range(rng.randrange(1, 5)):
            whole[rng.randrange(len(whole))] = rng.randrange(256)
        packets.append(bytes(whole[: rng.randrange(1, len(whole) + 1)]))
    args = {"services": [service(), service(version=6)]}
    result = run("L4LB", args, packets, in_gate=gate)
    assert result.forwarded + result.dropped == len(packets)
    assert (
        sorted(map(len, result.out.get(1 - gate, [])))
        == sorted(map(len, packets))[: result.forwarded]
        or result.dropped
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "1 to 256"),
        ({"services": [{"address": "banana"}]}, "must be an IPv4 or IPv6 address"),
        ({"services": [service(), service()]}, "give each once"),
        ({"services": [service(port=70000)]}, "at most 65535"),
        ({"services": [service(protocol=1)]}, "6 (TCP) or 17 (UDP)"),
        ({"services": [service(backends=backends(1) * 2)]}, "give each once"),
        ({"services": [service(backends=backends(1, 6))]}, "another IP version"),
        ({"services": [service(port=0)]}, "must be 0"),
        ({"services": [service(backends=[{"address": "10.9.0.1", "weight": 101}])]}, "1 and 100"),
        ({"services": [service(direct=True)]}, "must be a MAC address"),
        ({"services": [service()], "retry_ms": 1 << 60}, "retry_ms"),
    ],
)
def test_bad_arguments(args: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError) as error:
        new_engine().create_module("m", "L4LB", args)
    assert message in str(error.value)


def test_bad_commands_change_nothing() -> None:
    engine = balancer(service(2))
    for command in ("set_health", "set_draining"):
        with pytest.raises(EngineError) as error:
            engine.module_command("m", command, {"address": "10.9.0.9", "port": 8080})
        assert error.value.code == errno.ENOENT
    bad = {"services": [service(3), service(3)]}
    with pytest.raises(EngineError):
        engine.module_command("m", "update", bad)
    assert set(status(engine)) == {1, 2}
