# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules in firewalls that know nothing of encryption decide as the plain rules do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_support import run_counted
from embark_support import write_key

from bess_plugins._crypto import SiteKeys, write_prefix_maps
from classbench import DATA
from embark_gw.provider.ip6tables import render_ip6tables
from embark_gw.provider.metadata_match import config_of
from embark_gw.provider.nft import render_nft
from embark_gw.rules.document import FIELDS, EncryptedRules, check_model
from embark_gw.rules.encrypt import encrypt
from embark_gw.rules.model import Action, Packet, RuleSet
from forwarding_support import HOST_MAC, ROUTER_MAC, Router, needs_router, router
from harness import new_engine
from rules_support import packet_of, rules_for, trace_frames

SITE_KEY = bytes(range(100, 132))
MOST = 200_000

needs_traces = pytest.mark.skipif(not (DATA / "traces").is_dir(), reason="no captures in E2_DATA")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


class World:
    """Plain packets, what rules say of them, and both encrypted."""

    def __init__(self, folder: Path, frames: list[bytes], count: int, seed: int) -> None:
        key = write_key(folder / "site.key", SITE_KEY)
        plain = [packet_of(frame) for frame in frames]
        self.packets: list[Packet] = [packet for packet in plain if packet is not None]
        assert len(self.packets) == len(frames)
        self.rules: RuleSet = rules_for(self.packets, count, seed)
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
        chain = [("PayloadSeal", {"key": site}), ("PrefixMatchEncrypt", args)]
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
    return World(tmp_path_factory.mktemp("world"), frames, 60, 7)


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


@needs_traces
def test_metadata_match(world: World) -> None:
    engine = new_engine()
    engine.create_module("m", "MetadataMatch", config_of(world.document, MOST))
    found = {frame: Action.ACCEPT for frame in engine.run_packets("m", world.frames).get(0, [])}
    assert [found.get(frame, Action.DENY) for frame in world.frames] == world.wanted
