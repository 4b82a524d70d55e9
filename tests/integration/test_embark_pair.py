# SPDX-License-Identifier: BSD-3-Clause
"""Two gateways that share a key, what the provider has between them, and another key: first the one
gateway, then the other, under traffic all along."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.client import Client
from embark_gw.journal import journal_of
from gateway_support import EXTERNAL, Traffic, frame
from harness import wait_until
from pair_support import Draining, Pair, follow, more_answers, new_pair
from update_support import HOSTS, SERVER, Answering


def nat_between(client: Client, pool: list[str]) -> None:
    """What comes from the far side is for the NAT's address, or for nobody."""
    term = {"field": "ip6.dst", "value_bin": ip_address(pool[0]).packed}
    way = {"rules": [{"gate": 1, "priority": 1, "terms": [term]}], "default_gate": 0}
    client.create_module("MetadataMatch", "way", **way)
    client.create_module("Sink", "nobody")
    client.create_module("NAT", "nat", ext_addrs=[{"ext_addr": pool[0]}], encrypted_ports=True)
    client.connect("left_in", "nat", 0, 0)
    client.connect("nat", "right_out", 1)
    client.connect("right_in", "way")
    client.connect("way", "nobody", 0)
    client.connect("way", "nat", 1, 1)
    client.connect("nat", "left_out", 0)


def told(pair: Pair) -> tuple[dict[str, Any], dict[str, Any]]:
    with Client(pair.theirs.address) as theirs:
        nat = theirs.run_module_command("nat", "get_mappings", "NATCommandGetMappingsArg")
        way = theirs.run_module_command("way", "get_runtime_config", "EmptyArg")
    return nat, way


def packet(number: int) -> bytes:
    return frame(f"10.0.0.{2 + number % HOSTS}", SERVER, payload=b"%8d" % number)


def test_a_nat_between_two_gateways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet is lost and none comes twice, and each host keeps its translation."""
    with (
        new_pair(tmp_path, monkeypatch, nat_between, [f"{EXTERNAL}/32"]) as pair,
        Answering(pair) as answering,
    ):
        with Traffic(pair, packet) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            more_answers(answering)
            with Draining(pair, monkeypatch, nats=["nat"]) as near:
                more_answers(answering)  # which the far gateway encrypts by the old key
                nat, way = told(pair)
                (kept,) = nat["kept_addresses"]
                assert [kept["current"]] == nat["external_addresses"]
                values = [rule["terms"][0]["value_bin"] for rule in way["rules"]]
                assert values == [ip_address(kept[one]).packed for one in ("old", "current")]
                follow(pair)
                more_answers(answering)
            assert near.done is not None and near.done.moved == {kept["old"]: kept["current"]}
            assert near.done.carried.mappings == HOSTS and near.done.unforgotten == ()
            nat, way = told(pair)
            assert nat["kept_addresses"] == [] and len(way["rules"]) == 1
            more_answers(answering)
        wait_until(lambda: len(answering.back) >= sender.sent)
        assert [gateway.key for gateway in pair.gateways] == [pair.new_key] * 2
        assert not any(journal_of(gateway).exists() for gateway in pair.gateways)
        assert pair.drops() == {}
    payloads = Counter(b"%8d" % number for number in range(sender.sent))
    assert Counter(one[4] for one in answering.got) == payloads
    assert Counter(one[4] for one in answering.back) == payloads
    ends: dict[int, set[tuple[str, int]]] = {}
    for src, sport, _, _, payload in answering.got:
        assert src == EXTERNAL
        ends.setdefault(int(payload) % HOSTS, set()).add((src, sport))
    assert [len(found) for found in ends.values()] == [1] * HOSTS
    for _, _, dst, dport, payload in answering.back:
        assert (dst, dport) == (f"10.0.0.{2 + int(payload) % HOSTS}", 1000)
