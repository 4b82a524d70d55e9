# SPDX-License-Identifier: BSD-3-Clause
"""L4LB with other addresses and other endpoints of clients, as under another key."""

from __future__ import annotations

import errno
import random
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from harness import Engine, EngineError, new_engine
from twins import headers_twin, l4_lb_twin
from twins.embark_parts_twin import parse
from twins.nat_twin import Endpoint, RefusedError, ends, translate

MS = 1_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
NAMES = {
    4: [f"192.0.2.{n}" for n in range(1, 11)],
    6: [f"2001:db8:{n:x}:80::{n}" for n in range(1, 11)],
}
PORTS = [(1, 2000), (1, 2001), (2, 2000), (3, 7), (4, 8)]
CLIENTS = {
    4: [(f"10.0.0.{n}", port) for n, port in PORTS],
    6: [(f"2001:db8:ff::{n}", port) for n, port in PORTS],
}
Command = dict[str, Any]


def end_of(address: str, port: int) -> Endpoint:
    return Endpoint(ip_address(address).packed, port)


def balancer(version: int = 6, **args: Any) -> Engine:
    """Two services of two backends each."""
    names = NAMES[version]
    services = [
        {"address": names[at], "port": 80, "backends": [
            {"address": one, "port": 8080} for one in names[at + 1 : at + 3]]}
        for at in (0, 3)
    ]  # fmt: skip
    engine = new_engine()
    engine.create_module("m", "L4LB", {"services": services} | args)
    return engine


def packet(source: Endpoint, target: Endpoint, flags: str = "A") -> bytes:
    version = 4 if len(source.address) == 4 else 6
    head = (IP if version == 4 else IPv6)(
        src=str(ip_address(source.address)), dst=str(ip_address(target.address))
    )
    return bytes(ETHER / head / TCP(sport=source.port, dport=target.port, flags=flags) / b"hello")


def send(engine: Engine, packets: list[bytes], gate: int = 0, ms: float = 0) -> list[bytes]:
    out = engine.run_packets("m", packets, gate, START + int(ms * MS))
    assert set(out) <= {1 - gate}
    return out.get(1 - gate, [])


def pair_of(frame: bytes) -> tuple[Endpoint, Endpoint]:
    pair = ends(parse(frame))
    assert pair is not None
    return pair


def status(engine: Engine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.module_command("m", "get_status", {})["backends"]
    return found


def told(engine: Engine) -> dict[str, Any]:
    return dict(engine.module_command("m", "get_connections", {}))


def replace(engine: Engine, **arg: Any) -> dict[str, Any]:
    return dict(engine.module_command("m", "replace_connections", arg))


def client_arg(old: Endpoint, new: Endpoint, protocol: int = 6) -> Command:
    return {"protocol": protocol, "old": old.args, "new": new.args}


def moves_of(pairs: list[tuple[str, str]]) -> list[Command]:
    return [{"old": old, "new": new} for old, new in pairs]


def connections(engine: Engine) -> dict[tuple[Endpoint, Endpoint], int]:
    listed = told(engine)["connections"]
    found = {(Endpoint.of(one["client"]), Endpoint.of(one["service"])): one["backend"]
             for one in listed}  # fmt: skip
    assert len(found) == len(listed)
    return found


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_whose_a_connection_is(version: int, seed: int) -> None:
    """Commands of any kind, half of them refused: after each all is as the twin has it."""
    rng = random.Random(seed)
    names, clients = NAMES[version], [end_of(*one) for one in CLIENTS[version]]
    engine = balancer(version)
    twin = l4_lb_twin.ConnectionsTwin(
        [end_of(names[at], 80) for at in (0, 3)],
        [(end_of(names[at], 8080), at // 3) for at in (1, 2, 4, 5)],
    )
    for client in clients[:3]:
        for service in twin.services:
            (sent,) = send(engine, [packet(client, service, "S")])
            twin.flows[client, service] = [one for one, _ in twin.backends].index(pair_of(sent)[1])
    assert connections(engine) == twin.flows
    codes = set()
    for _ in range(40):
        some_clients = [(rng.choice(clients), rng.choice(clients)) for _ in range(rng.randrange(3))]
        moves = [(rng.choice(names), rng.choice(names)) for _ in range(rng.randrange(4))]
        forgotten = rng.sample(names, rng.choice((0, 0, 1)))
        if rng.randrange(2):  # one that is likely to be taken
            known = [str(ip_address(address)) for address in twin.addresses]
            fresh = [name for name in names if name not in known]
            moves = list(zip(rng.sample(known, 2), rng.sample(fresh, 2), strict=True))
            forgotten = [str(ip_address(one)) for one in {end.address for end in twin.kept}]
        keep = bool(rng.randrange(2))
        code = twin_code = 0
        counts = (0, 0)
        try:
            packed = [(ip_address(old).packed, ip_address(new).packed) for old, new in moves]
            gone = [ip_address(one).packed for one in forgotten]
            counts = twin.replace(some_clients, packed, keep, gone)
        except RefusedError as error:
            twin_code = error.code
        try:
            arg = {"connections": [client_arg(*pair) for pair in some_clients]}
            arg |= {"addresses": moves_of(moves)}
            done = replace(engine, **arg, keep_old=keep, forget_addresses=forgotten)
            assert (done["replaced"], done["ended"]) == counts
        except EngineError as error:
            code = error.code
        assert code == twin_code
        codes.add(code)
        assert connections(engine) == twin.flows
        found = told(engine)
        assert {ip_address(one).packed for one in found["addresses"]} == twin.addresses
        kept = {ip_address(one["old"]).packed for one in found["kept_addresses"]}
        assert kept == {end.address for end in twin.kept}
        for (client, service), number in twin.flows.items():
            if service in twin.services:
                frame = packet(client, service)
                assert send(engine, [frame]) == [translate(frame, True, twin.backends[number][0])]
        for name in names:
            frame = packet(end_of(name, 8080), clients[0])
            wanted = translate(frame, False, twin.answer(end_of(name, 8080)))
            assert send(engine, [frame], gate=1) == [wanted]
        assert connections(engine) == twin.flows
    assert {0, errno.EEXIST} <= codes


def test_backends_keep_all_else() -> None:
    """Numbers, health, draining, counters, ages; hashing is that of the new addresses."""
    engine = balancer()
    names, service = NAMES[6], end_of(NAMES[6][0], 80)
    client, other = end_of("2001:db8:aa::1", 5), end_of("2001:db8:bb::2", 6)
    send(engine, [packet(client, service, "S")])
    engine.module_command("m", "set_health", {"address": names[4], "port": 8080, "up": False})
    engine.module_command(
        "m", "set_draining", {"address": names[5], "port": 8080, "draining": True}
    )
    send(engine, [packet(client, service, "A")], ms=1000)
    before = status(engine)
    fresh = [name.replace("2001:db8:", "2001:db8:1") for name in names[:6]]
    pairs = list(zip(names, fresh, strict=False))
    replace(engine, addresses=moves_of(pairs), connections=[client_arg(client, other)])
    new_of = dict(pairs)
    assert status(engine) == [
        one | {"address": new_of[one["address"]], "virtual_address": new_of[one["virtual_address"]]}
        for one in before
    ]
    ((_, number),) = connections(engine).items()
    (sent,) = send(engine, [packet(other, end_of(fresh[0], 80))], ms=2000)
    assert number == [one["address"] for one in status(engine)].index(
        str(ip_address(pair_of(sent)[1].address))
    )
    table = l4_lb_twin.make_table([l4_lb_twin.Backend(one, 8080) for one in fresh[1:3]])
    packets = [packet(end_of("2001:db8:cc::1", port), end_of(fresh[0], 80), "S")
               for port in range(3000, 3200)]  # fmt: skip
    hashes = [headers_twin.flow_hash(headers_twin.parse(one)) for one in packets]
    chosen = [str(ip_address(pair_of(one)[1].address)) for one in send(engine, packets, ms=2000)]
    assert chosen == [
        fresh[1:3][number] for value in hashes
        if (number := l4_lb_twin.pick(table, value)) is not None
    ]  # fmt: skip


def test_a_connection_ends_on_its_own_time() -> None:
    engine = balancer(timeout_ms=1000)
    service = end_of(NAMES[6][0], 80)
    client, other = end_of("2001:db8:aa::1", 5), end_of("2001:db8:bb::2", 6)
    send(engine, [packet(client, service, "S")])
    (one,) = told(engine)["connections"]
    assert one["idle_ms"] == 0
    replace(engine, connections=[client_arg(client, other)])
    send(engine, [packet(end_of("2001:db8:cc::3", 9), service, "S")], ms=999)
    assert (other, service) in connections(engine)
    send(engine, [packet(end_of("2001:db8:cc::3", 9), service)], ms=1000)
    assert (other, service) not in connections(engine)


def test_an_old_backend_still_answers_syns() -> None:
    """It is the same one: what it answers under its old address says that it lives."""
    engine = balancer(syn_failures=3)
    service = end_of(NAMES[6][0], 80)
    (sent,) = send(engine, [packet(end_of("2001:db8:aa::1", 5), service, "S")])
    backend = pair_of(sent)[1]
    old = str(ip_address(backend.address))
    fresh = "2001:db8:77::7"
    replace(engine, addresses=moves_of([(old, fresh)]), keep_old=True)
    asked = {one["address"]: one["unanswered_syns"] for one in status(engine)}
    assert asked[fresh] == 1
    send(engine, [packet(backend, end_of("2001:db8:aa::1", 5), "SA")], gate=1)
    assert all(one["unanswered_syns"] == 0 for one in status(engine))
    # With the backend, what it was goes as well.
    engine.module_command("m", "update", {"services": [{"address": NAMES[6][3], "port": 80}]})
    send(engine, [packet(end_of("2001:db8:aa::1", 9), service, "S")], ms=10_000_000)
    engine.module_command("m", "update", {"services": [{"address": NAMES[6][3], "port": 80}]})
    assert told(engine)["kept_addresses"] == [] and status(engine) == []


ONE, TWO = end_of("2001:db8:aa::1", 5), end_of("2001:db8:bb::2", 6)
BAD: list[tuple[Command, int, str]] = [
    ({"connections": [client_arg(ONE, TWO, 1)]}, errno.EINVAL, "6 .TCP. or 17 .UDP."),
    ({"connections": [client_arg(ONE, end_of("10.0.0.1", 1))]}, errno.EINVAL, "of one kind"),
    ({"connections": [{"protocol": 6, "old": {"address": "banana"}, "new": TWO.args}]},
     errno.EINVAL, r"connections\[1\]\.old is .banana."),
    ({"connections": [{"protocol": 6, "old": ONE.args, "new": TWO.args | {"port": 65536}}]},
     errno.EINVAL, "at most 65535"),
    ({"connections": [client_arg(ONE, TWO)] * 2}, errno.EEXIST, "give each once"),
    ({"connections": [client_arg(ONE, TWO)]}, errno.EEXIST, "has a connection of its own"),
    ({"addresses": moves_of([("2001:db8::1", "2001:db8::2")])}, errno.ENOENT, "no service"),
    ({"addresses": moves_of([(NAMES[6][0], "10.0.0.1")])}, errno.EINVAL, "two IPv4 or two IPv6"),
    ({"addresses": moves_of([(NAMES[6][0], "::1")] * 2)}, errno.EEXIST, "give each once"),
    ({"addresses": moves_of([(NAMES[6][0], NAMES[6][3])])}, errno.EEXIST, "would be two services"),
    ({"addresses": moves_of([(NAMES[6][1], NAMES[6][4])])}, errno.EEXIST, "would be two backends"),
    ({"addresses": moves_of([(NAMES[6][1], NAMES[6][2]), (NAMES[6][2], "2001:db8::9")]),
      "keep_old": True}, errno.EEXIST, "an old address that is kept"),
    ({"forget_addresses": [NAMES[6][1]]}, errno.ENOENT, "no old address"),
    ({"forget_addresses": ["banana"]}, errno.EINVAL, "must be an IPv4 or IPv6 address"),
]  # fmt: skip


@pytest.mark.parametrize(("arg", "code", "message"), BAD)
def test_replacing_is_all_or_nothing(arg: Command, code: int, message: str) -> None:
    engine = balancer()
    service = end_of(NAMES[6][0], 80)
    send(engine, [packet(one, service, "S") for one in (ONE, TWO, end_of("2001:db8:cc::3", 7))])
    before = (connections(engine), status(engine), told(engine)["addresses"])
    good = {
        "connections": [client_arg(end_of("2001:db8:cc::3", 7), end_of("2001:db8:dd::4", 8))],
        "addresses": moves_of([(NAMES[6][5], "2001:db8:ee::5")]),
    }
    both = {name: [*good.get(name, []), *value] if isinstance(value, list) else value
            for name, value in arg.items()}  # fmt: skip
    with pytest.raises(EngineError, match=message) as error:
        replace(engine, **(good | both))
    assert error.value.code == code
    assert (connections(engine), status(engine), told(engine)["addresses"]) == before
