# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules in firewalls that know nothing of encryption decide as the plain rules do."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from chain_support import Chain, run_counted
from embark_support import write_key
from scapy.all import wrpcap
from scapy.layers.l2 import Ether

from bess_plugins._crypto import SiteKeys, write_prefix_maps
from bess_plugins.client import Client
from classbench import DATA
from clear_rules import clear_config
from embark_gw.provider.ip6tables import render_ip6tables
from embark_gw.provider.metadata_match import config_of
from embark_gw.provider.nft import render_nft
from embark_gw.rules.document import FIELDS, EncryptedRules, check_model
from embark_gw.rules.encrypt import encrypt
from embark_gw.rules.formats import Format, parse_rules
from embark_gw.rules.model import Action, Packet, RuleSet, combine
from forwarding_support import HOST_MAC, ROUTER_MAC, Router, needs_router, router
from harness import new_engine, real_daemon, run_program
from rules_support import (
    RULE_FILES,
    frame_of,
    packet_of,
    packets_around,
    rules_for,
    rules_of_file,
    trace_frames,
)

HEADERS = {
    *("frame", "eth", "ethertype", "ipv6", "ipv6.dstopts", "ipv6.fraghdr", "tcp", "udp", "data"),
    *("_ws.malformed", "_ws.short", "pkt_comment"),
}
SITE_KEY = bytes(range(100, 132))
MOST = 200_000

needs_traces = pytest.mark.skipif(not (DATA / "traces").is_dir(), reason="no captures in E2_DATA")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def packets_of(frames: list[bytes]) -> list[Packet]:
    """Without those that gateways drop."""
    return [packet for frame in frames if (packet := packet_of(frame)) is not None]


class World:
    """Plain packets, what rules say of them, and both encrypted."""

    def __init__(self, folder: Path, frames: list[bytes], rules: RuleSet) -> None:
        key = write_key(folder / "site.key", SITE_KEY)
        self.packets: list[Packet] = packets_of(frames)
        assert len(self.packets) == len(frames)
        self.rules: RuleSet = rules
        made = encrypt(self.rules, SiteKeys(key))
        # As a provider gets it.
        self.document: EncryptedRules = check_model(EncryptedRules, made.document.text(), "rules")
        write_prefix_maps(folder / "site.maps", *(made.maps[name] for name in FIELDS))
        site = {"file": str(key), "epoch": 1}
        args = {
            "key": site,
            "maps_file": str(folder / "site.maps"),
            "src_mac": HOST_MAC,
            "dst_mac": ROUTER_MAC,
            "sealed_payload": True,
        }
        chain: Chain = [("PayloadSeal", {"key": site}), ("PrefixMatchEncrypt", args)]
        self.frames, drops = run_counted(folder, chain, frames)
        assert len(self.frames) == len(frames), drops
        self.wanted = [self.rules.decide(packet) for packet in self.packets]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    frames = [
        frame
        for frame in trace_frames()
        if (frame[22] if frame[12:14] == b"\x08\0" else frame[21]) > 1
    ]
    return World(tmp_path_factory.mktemp("world"), frames, rules_for(packets_of(frames), 60, 7))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Router]:
    with router("ru-emb") as made:
        yield made


def decisions(passed: list[bool]) -> list[Action]:
    return [Action.ACCEPT if one else Action.DENY for one in passed]


@needs_traces
def test_the_packets_try_the_rules(world: World) -> None:
    assert len(world.frames) > 3000
    assert {*world.wanted} == {Action.ACCEPT, Action.DENY}
    used = {
        next((n for n, rule in enumerate(world.rules.rules) if rule.holds(packet)), None)
        for packet in world.packets
    }
    assert len(used) > 10


@needs_traces
@needs_router
@needs("nft")
def test_nftables(world: World, kernel: Router) -> None:
    kernel.run("nft", "flush", "ruleset")
    assert all(kernel.passed(world.frames))
    kernel.run("nft", "-f", "-", text=render_nft(world.document))
    assert decisions(kernel.passed(world.frames)) == world.wanted
    kernel.run("nft", "-f", "-", text=render_nft(world.document))  # it replaces what is there
    tables = kernel.run("nft", "list", "tables").split("\n")
    assert tables == ["table ip6 embark", ""]
    kernel.run("nft", "flush", "ruleset")


@needs_traces
@needs_router
@needs("ip6tables-restore")
def test_ip6tables(world: World, kernel: Router) -> None:
    kernel.run("ip6tables-restore", text=render_ip6tables(world.document, MOST))
    try:
        assert decisions(kernel.passed(world.frames)) == world.wanted
    finally:
        kernel.run("nft", "flush", "ruleset")


def decided(config: dict[str, Any], frames: list[bytes]) -> list[Action]:
    """By MetadataMatch."""
    engine = new_engine()
    engine.create_module("m", "MetadataMatch", config)
    passed = Counter(engine.run_packets("m", frames).get(0, []))
    assert all(count == 1 for count in Counter(frames).values())
    return [Action.ACCEPT if passed[frame] else Action.DENY for frame in frames]


@needs_traces
def test_metadata_match(world: World) -> None:
    assert decided(config_of(world.document), world.frames) == world.wanted


@pytest.mark.parametrize("name", RULE_FILES)
def test_every_rule_set_decides_alike_in_clear_and_encrypted(name: str, tmp_path: Path) -> None:
    """One classifier, packet by packet, and no rule becomes several."""
    rules = rules_of_file(name)
    packets = packets_around(rules, 600, seed=3)
    made = [frame_of(packet, n, HOST_MAC, ROUTER_MAC) for n, packet in enumerate(packets)]
    frames = [frame for frame in made if packet_of(frame) is not None]
    assert len(frames) > 500
    world = World(tmp_path, frames, rules)
    assert {*world.wanted} == {Action.ACCEPT, Action.DENY}
    config = config_of(world.document)
    assert len(config["rules"]) == len(world.document.rules) <= len(rules.rules)
    assert decided(clear_config(rules), frames) == world.wanted
    assert decided(config, world.frames) == world.wanted


@needs_traces
@needs("tshark")
def test_tshark_finds_nothing_wrong(world: World, tmp_path: Path) -> None:
    capture = tmp_path / "encrypted.pcap"
    wrpcap(str(capture), [Ether(frame) for frame in world.frames])
    # Contents are sealed, and no protocol's; headers are looked at closely.
    known = (
        line.split("\t")[2] for line in run_program(["tshark", "-G", "protocols"]).splitlines()
    )
    others = [
        word for name in known if name not in HEADERS for word in ("--disable-protocol", name)
    ]
    # A checksum over several fragments is the receiver's, who has them in clear again.
    settings = ("tcp.check_checksum:TRUE", "udp.check_checksum:TRUE", "ipv6.defragment:FALSE")
    checked = [word for setting in settings for word in ("-o", setting)]
    command = ["tshark", "-n", "-r", str(capture), *others, *checked]
    wrong = "_ws.malformed || tcp.checksum.status == 0 || udp.checksum.status == 0 || !ipv6.dstopts"
    assert run_program([*command, "-Y", wrong]) == ""
    assert run_program([*command, "-Y", "tcp.checksum.status == 1"]).count("\n") > 1000


def applied(path: Path, daemon: str, *more: str) -> subprocess.CompletedProcess[str]:
    """`embark-gw provider apply` with rules."""
    command = ("provider", "apply", str(path), "--daemon", daemon, *more)
    return subprocess.run(
        [sys.executable, "-P", "-m", "embark_gw.cli", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def crossing_sets(count: int) -> dict[str, Any]:
    """A document with sets of ports of which any two have one port together."""
    rules = [{"action": "deny", "dport": n, "protocols": [[6, 6]]} for n in range(count)]
    ports = [[[n, n], [60000, 60000]] for n in range(count)]
    return {"default": "accept", "sets": {"dport": ports}, "rules": rules}


@pytest.mark.parametrize("name", RULE_FILES)
def test_a_daemon_takes_every_rule_set(name: str, tmp_path: Path) -> None:
    """Through its own messages, and tells them as they are."""
    key = write_key(tmp_path / "site.key", SITE_KEY)
    document = encrypt(rules_of_file(name), SiteKeys(key)).document
    path = tmp_path / "rules.json"
    path.write_text(document.text())
    with real_daemon(tmp_path) as e2d, Client(e2d.address) as client:
        done = applied(path, e2d.address, "--module", "fw", "--json")
        assert done.returncode == 0, done.stderr
        made = {"module": "fw", "created": True, "rules": len(document.rules)}
        assert json.loads(done.stdout) == made
        told = client.run_module_command("fw", "get_runtime_config")
        assert len(told["rules"]) == len(document.rules)
        assert len(told["sets"]) == len(config_of(document)["sets"])


@needs_traces
def test_a_daemon_gets_rules_and_others_instead(world: World, tmp_path: Path) -> None:
    """`provider apply` makes the classifier, then replaces all that it has, or nothing."""
    path = tmp_path / "rules.json"
    path.write_text(world.document.text())

    def embark_gw(*more: str) -> subprocess.CompletedProcess[str]:
        return applied(path, e2d.address, *more)

    def rules_of(client: Client) -> list[dict[str, Any]]:
        config = client.run_module_command("fw", "get_runtime_config")
        return list(config.get("rules", []))

    with real_daemon(tmp_path) as e2d, Client(e2d.address) as client:
        first = embark_gw("--module", "fw")
        assert first.returncode == 0, first.stderr
        assert first.stdout.startswith("made fw with ")
        before = rules_of(client)
        assert len(before) == len(config_of(world.document)["rules"])
        small = world.document.model_copy(update={"rules": world.document.rules[:3]})
        path.write_text(small.text())
        done = json.loads(embark_gw("--module", "fw", "--json").stdout)
        assert done["created"] is False
        assert len(rules_of(client)) == done["rules"] == len(config_of(small)["rules"])
        many = EncryptedRules.model_validate(crossing_sets(600))
        path.write_text(many.text())
        failed = embark_gw("--module", "fw")
        assert failed.returncode == 1 and "sets of l4.dport: too many cross" in failed.stderr
        assert len(rules_of(client)) == done["rules"]
        client.create_module("Sink", "other")
        failed = embark_gw("--module", "other")
        assert failed.stderr == "embark-gw: module other is a Sink; rules are for a MetadataMatch\n"


def test_blocklists_take_a_prefix_per_direction(tmp_path: Path) -> None:
    """Thousands of addresses, and packets of theirs and beside them."""
    draw = random.Random(5)
    listed = sorted({draw.randrange(0x0B000000, 0xDF000000) for _ in range(5000)})
    text = "\n".join(str(IPv4Address(value)) for value in listed)
    rules = combine([parse_rules(text, "list", Format.LIST)])
    key = write_key(tmp_path / "site.key", SITE_KEY)
    made = encrypt(rules, SiteKeys(key))
    assert made.report.expanded == 2
    assert {made.maps[name].sets for name in ("src", "dst")} == {2}
