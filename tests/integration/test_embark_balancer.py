# SPDX-License-Identifier: BSD-3-Clause
"""A load balancer between two gateways, and another key: connections stay with their backends,
whoever refuses or is killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from typer.testing import CliRunner

from bess_plugins.client import Client
from embark_gw import updates
from embark_gw.cli import app
from embark_gw.gateway import GatewayError
from embark_gw.journal import Journal, Phase, journal_of
from embark_gw.site import Key
from embark_gw.stateful import pool_of
from embark_gw.swaps import make_rotation, make_swap
from embark_gw.updates import finish_swap, rotate, update_rules
from gateway_support import Plug, Traffic, encrypt_rules, frame
from harness import wait_until
from pair_support import Draining, Pair, follow, more_answers, new_pair, secret
from update_support import HOSTS, Answering, killer, refusing

VIRTUAL, BACKENDS = "203.0.113.80", ("198.51.100.11", "198.51.100.12")


def balancer_between(client: Client, pool: list[str]) -> None:
    virtual, *backends = pool
    listed = [{"address": one, "port": 8080} for one in backends]
    service = {"address": virtual, "port": 80, "backends": listed}
    services = [service | {"protocol": protocol} for protocol in (6, 17)]
    client.create_module("L4LB", "lb", services=services)
    client.create_module("MetadataMatch", "firewall", rules=[], default_gate=0)
    client.connect("left_in", "firewall")
    client.connect("firewall", "lb", 0, 0)
    client.connect("lb", "right_out", 1)
    client.connect("right_in", "lb", 0, 1)
    client.connect("lb", "left_out", 0)


def of_balancer(pair: Pair, command: str) -> dict[str, Any]:
    words = "".join(word.title() for word in command.split("_"))
    with Client(pair.theirs.address) as theirs:
        return dict(theirs.run_module_command("lb", command, f"L4LBCommand{words}Arg"))


def to_virtual(number: int) -> bytes:
    return frame(f"10.0.0.{2 + number % HOSTS}", VIRTUAL, payload=b"%8d" % number)


def served(answering: Answering) -> list[set[tuple[str, int]]]:
    """By which backends each host's connection was served; all have answers of the virtual one."""
    found: dict[str, set[tuple[str, int]]] = {}
    for src, sport, dst, dport, _ in answering.got:
        assert sport == 1000
        found.setdefault(src, set()).add((dst, dport))
    assert {one[:2] for one in answering.back} == {(VIRTUAL, 80)}
    return [found[host] for host in sorted(found)]


@pytest.mark.parametrize("remembers", [True, False])
def test_a_balancer_between_two_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembers: bool
) -> None:
    """Connections stay with their backends, where the gateway of the clients remembers them; no
    packet is lost, and all answers are of the virtual address."""
    pool = [f"{address}/32" for address in (VIRTUAL, *BACKENDS)]
    with (
        new_pair(
            tmp_path, monkeypatch, balancer_between, pool, clients=str(remembers).lower()
        ) as pair,
        Answering(pair) as answering,
    ):
        with Traffic(pair, to_virtual) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            more_answers(answering)
            before = of_balancer(pair, "get_status")
            with Draining(pair, monkeypatch, lbs=["lb"]) as near:
                more_answers(answering)  # which the far gateway encrypts by the old key
                kept = of_balancer(pair, "get_connections")["kept_addresses"]
                assert len(kept) == len(BACKENDS)
                follow(pair)
                more_answers(answering)
            assert near.done is not None and near.done.unforgotten == ()
            carried = near.done.carried
            assert (carried.connections, carried.left) == ((HOSTS, 0) if remembers else (0, HOSTS))
            assert {one["old"]: one["current"] for one in kept}.items() < near.done.moved.items()
            assert len(near.done.moved) == len(pool)
            after = of_balancer(pair, "get_status")
            told = of_balancer(pair, "get_connections")
            assert told["kept_addresses"] == []
            assert {*told["addresses"]} == {*near.done.moved.values()}
            if remembers:
                stays = ("number", "port", "protocol", "flows", "connections")
                assert [[one[name] for name in stays] for one in after["backends"]] == [
                    [one[name] for name in stays] for one in before["backends"]
                ]
            more_answers(answering)
        wait_until(lambda: len(answering.back) >= sender.sent)
        assert [gateway.key for gateway in pair.gateways] == [pair.new_key] * 2
        assert pair.drops() == {}
    payloads = Counter(b"%8d" % number for number in range(sender.sent))
    assert Counter(one[4] for one in answering.got) == payloads
    assert Counter(one[4] for one in answering.back) == payloads
    ends = served(answering)
    assert set().union(*ends) <= {(backend, 8080) for backend in BACKENDS}
    if remembers:
        assert [len(one) for one in ends] == [1] * HOSTS


def segment(src: tuple[str, int], dst: tuple[str, int], flags: str) -> bytes:
    ether = Ether(src="02:00:00:00:01:02", dst="02:00:00:00:01:01")
    tcp = TCP(sport=src[1], dport=dst[1], flags=flags)
    return bytes(ether / IP(src=src[0], dst=dst[0]) / tcp / b"data")


def received(pair: Pair, plug: Plug, flags: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """The ends of a segment, whose checksums are right."""
    got = plug.receive()
    assert got is not None, pair.drops()
    found = Ether(got)
    ip, tcp = found[IP], found[TCP]
    assert (tcp.flags, bytes(tcp.payload)) == (flags, b"data")
    src, dst = (ip.src, tcp.sport), (ip.dst, tcp.dport)
    assert got[14:] == bytes(Ether(segment(src, dst, flags))[IP])
    return src, dst


def round_trips(pair: Pair, flags: str = "A") -> list[tuple[str, int]]:
    """A segment of each host's connection and an answer; by which backends it is served."""
    chosen = []
    for number in range(HOSTS):
        client = (f"10.0.0.{2 + number}", 2000)
        pair.host.send(segment(client, (VIRTUAL, 80), flags))
        src, backend = received(pair, pair.server, flags)
        assert src == client
        answer = "SA" if flags == "S" else "A"
        pair.server.send(segment(backend, client, answer))
        assert received(pair, pair.host, answer) == ((VIRTUAL, 80), client)
        chosen.append(backend)
    return chosen


def agree(pair: Pair) -> None:
    """Gateways and balancer have the same pool, and nothing is left to do."""
    found = []
    for gateway in pair.gateways:
        assert not journal_of(gateway).exists()
        with Client(gateway.daemon) as ours:
            found.append([one.encrypted for one in pool_of(ours)])
            assert all(worker["running"] for worker in ours.list_workers())
    told = of_balancer(pair, "get_connections")
    assert [{*told["addresses"]}] * 2 == [{*pool} for pool in found]
    assert told["kept_addresses"] == []


@contextmanager
def balanced(
    folder: Path, patch: pytest.MonkeyPatch, clients: str = "true"
) -> Iterator[tuple[Pair, list[Any]]]:
    """Two gateways with a balancer, and who has the connections of the hosts."""
    pool = [f"{address}/32" for address in (VIRTUAL, *BACKENDS)]
    with new_pair(folder, patch, balancer_between, pool, clients=clients) as pair:
        yield pair, round_trips(pair, "S")


@pytest.mark.parametrize(
    "what",
    [("lb", "get_connections"), ("lb", "replace_connections"), ("encrypt", "reencrypt"),
     ("encrypt", "update")],
    ids=" ".join,
)  # fmt: skip
def test_a_daemon_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: tuple[str, str]
) -> None:
    """The old key stays in force, and connections where they are."""
    left = [2 if what == ("lb", "get_connections") else 1]

    def once(*command: str) -> bool:
        left[0] -= command == what
        return command == what and left[0] == 0

    with balanced(tmp_path, monkeypatch) as (pair, before):
        near = pair.gateways[0]
        args: dict[str, Any] = {"provider": pair.theirs.address, "lbs": ["lb"], "drain_s": 0.0}
        made = make_rotation(near, pair.new_key, **args)
        refusing(monkeypatch, once)
        with pytest.raises(GatewayError, match="no, thank you"):
            rotate(near, made)
        assert pair.gateways[0].key == near.key
        agree(pair)
        assert round_trips(pair) == before
        monkeypatch.setattr(updates, "Client", Client)
        done = rotate(near, made)
        assert done.carried == (0, 0, HOSTS, 0)
        follow(pair)
        agree(pair)
        assert round_trips(pair) == before
        assert pair.drops() == {}


def test_a_rotation_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any step: whoever finishes it leaves connections where they are."""
    phases: Counter[str] = Counter()
    with balanced(tmp_path, monkeypatch) as (pair, before), killer(pair.near) as run:
        for step in range(0, 1000, 3):
            near, far = pair.gateways
            key = Key(file=tmp_path / f"{step}.key", epoch=3 + step // 3)
            secret(key.file)
            arg = {"key": {"file": str(key.file), "epoch": key.epoch}, "drain_s": 0.0}
            arg |= {"provider": pair.theirs.address, "lbs": ["lb"]}
            ended = run(step, "rotate", arg)
            left = Journal.read(near)
            phases["none" if left is None else left.phase] += 1
            finish_swap(pair.gateways[0])
            if pair.gateways[0].key == key:
                rotate(far, make_rotation(far, key, drain_s=0.0, told=True))
            agree(pair)
            assert round_trips(pair) == before
            if ended == 0:
                break
        assert pair.drops() == {}
    print(f"killed at {step // 3} steps: {dict(phases)}")
    assert {*phases} >= {"none", Phase.HOLD, Phase.FORWARD, Phase.DRAIN}


def test_other_rules_and_a_balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have other encryptions, addresses of the pool have the same ones."""
    with balanced(tmp_path, monkeypatch) as (pair, before):
        told = of_balancer(pair, "get_connections")
        rules = "ACCEPT\n-s 192.0.2.1 -j DROP\n-s 10.0.0.0/29 -p udp -j DROP"
        words = [word for one in (VIRTUAL, *BACKENDS) for word in ("--pool", f"{one}/32:nat")]
        words += ["--previous", str(tmp_path / "site.maps")]
        made = encrypt_rules(tmp_path, "next", rules, *words, nat=False)
        swap = make_swap(pair.theirs.address, made.maps, made.document, ["firewall"], lbs=["lb"])
        done = update_rules(pair.gateways[0], swap)
        assert done.carried == (0, 0, HOSTS, 0) and done.moved == {}
        after = of_balancer(pair, "get_connections")
        assert after["addresses"] == told["addresses"]
        clients = [{one["client"]["address"] for one in each["connections"]}
                   for each in (told, after)]  # fmt: skip
        assert len(clients[0] - clients[1]) >= 6  # 10.0.0.2 to 10.0.0.7
        assert round_trips(pair) == before
        assert pair.drops() == {}


@pytest.mark.parametrize(
    ("clients", "told"),
    [
        ("true", "{} connections of L4LBs went over"),
        (
            "false",
            "0 connections of L4LBs went over, {} did not: the gateway does not know their "
            "clients, and they may get another backend",
        ),
    ],
)
def test_the_command_tells_of_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clients: str, told: str
) -> None:
    with balanced(tmp_path, monkeypatch, clients) as (pair, before):
        words = ["rotate", pair.near, pair.new_key.file, "--epoch", 2, "--drain", 0]
        words += ["--provider", pair.theirs.address, "--lb", "lb"]
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        lines = done.output.splitlines()
        assert lines[1] == told.format(HOSTS)
        assert sum("of the pool is" in line for line in lines) == 1 + len(BACKENDS)
        follow(pair)
        after = round_trips(pair)
        assert after == before or clients == "false"


def test_what_is_refused_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with balanced(tmp_path, monkeypatch) as (pair, before):
        near, there = pair.gateways[0], pair.theirs.address
        with Client(there) as theirs:
            service = {"address": "2001:db8::1", "backends": [{"address": "2001:db8::2"}]}
            theirs.create_module("L4LB", "foreign", services=[service])
        for lbs, message in (
            ([], r"name its NATs by --nat and its L4LBs by --lb"),
            (["left_in"], "has no L4LB 'left_in'; it has foreign, lb"),
            (["lb", "foreign"], "'foreign' has no address of the pool"),
        ):
            made = make_rotation(near, pair.new_key, provider=there, lbs=lbs, drain_s=0.0)
            with pytest.raises(GatewayError, match=message):
                rotate(near, made)
            agree(pair)
        with pytest.raises(GatewayError, match="NATs and L4LBs are of a provider"):
            make_rotation(near, pair.new_key, lbs=["lb"], drain_s=0.0, told=True)
        assert round_trips(pair) == before
