# SPDX-License-Identifier: BSD-3-Clause
"""A key that is changed under traffic behind a provider's NAT, whoever refuses or is killed."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bess_plugins.client import Client
from embark_gw import updates
from embark_gw.cli import app
from embark_gw.gateway import GatewayError
from embark_gw.journal import Journal, Phase, journal_of, stage
from embark_gw.keeper import Keeper
from embark_gw.site import Key
from embark_gw.stateful import pool_of
from embark_gw.swaps import SwapResult, make_rotation
from embark_gw.updates import finish_swap, rotate, update_rules
from gateway_support import EXTERNAL, Lab, Traffic, kept, new_lab, read
from harness import wait_until
from update_support import HOSTS, OPEN, STRICT, Answering, check, killer, packet, refusing

_NUMBERS = count(2)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A gateway that was built, with a NAT at the provider; nobody looks after it."""
    with new_lab(tmp_path, STRICT) as made:
        monkeypatch.setattr("embark_gw.keeper.draw", made.over_sockets)
        Keeper(lambda: made.gateway, print).start()
        made.plug_in()
        yield made


def new_key(lab: Lab) -> Key:
    number = next(_NUMBERS)
    file = lab.folder / f"{number}.key"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    return Key(file=file, epoch=number % 256)


def change(lab: Lab, key: Key, **more: Any) -> SwapResult:
    args = {"drain_s": 0.05, "provider": lab.theirs.address, "nats": ["nat"], "settle_s": 0.2}
    gateway = lab.gateway
    return rotate(gateway, make_rotation(gateway, key, **(args | more)))


def agree(lab: Lab) -> None:
    """Gateway and provider have the same pool, workers run, and nothing is left to do."""
    assert not journal_of(lab.gateway).exists()
    with Client(lab.ours.address) as ours, Client(lab.theirs.address) as theirs:
        assert all(worker["running"] for worker in ours.list_workers())
        (own,) = [one.encrypted for one in pool_of(ours)]
        told = theirs.run_module_command("nat", "get_mappings", "NATCommandGetMappingsArg")
        way = theirs.run_module_command("way", "get_runtime_config", "EmptyArg")
    assert {one["external"]["address"] for one in told["mappings"]} <= {own}
    assert told["external_addresses"] == [own] and told["kept_addresses"] == []
    (rule,) = way["rules"]
    assert rule["terms"][0]["value_bin"] == ip_address(own).packed


def undropped(lab: Lab) -> None:
    """No packet was one that nobody could decrypt, or that the NAT did not know."""
    drops = {name: lab.drops(name) for name in ("encrypt", "decrypt", "open", "nat", "way")}
    drops |= {name: lab.drops(f"queue:{name}.1") for name in ("in", "out")}
    assert not any(drops.values()), drops


def answered(answering: Answering) -> None:
    """Packets come back, once more than there were."""
    since = len(answering.back)
    wait_until(lambda: len(answering.back) > since + HOSTS)


def test_keys_that_change_under_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, then rules, then once more: all translations survive, no packet is lost."""
    with new_lab(tmp_path, STRICT) as lab, kept(lab, monkeypatch), Answering(lab) as answering:
        with Traffic(lab, packet) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            first = lab.gateway.key
            for _ in range(2):
                key = new_key(lab)
                done = change(lab, key)
                assert done.carried.mappings == HOSTS and len(done.moved) == 1
                assert (lab.gateway.key, lab.gateway.accept) == (key, ())
                agree(lab)
                answered(answering)
            rules = lab.encrypt("rules", OPEN, key=key.file)
            update_rules(lab.gateway, lab.swap(rules))
            agree(lab)
            answered(answering)
            change(lab, new_key(lab))
            answered(answering)
        wait_until(lambda: len(answering.back) >= sender.sent // 2)
        time.sleep(0.2)  # for what should not come
        agree(lab)
        undropped(lab)
        epochs = [one[59] for one in lab.cable.seen]
        assert first.epoch == epochs[0] and len({*epochs}) == 4
    check(answering, sender.sent)


def test_a_rotation_that_is_killed_at_every_step(lab: Lab) -> None:
    """Under traffic: whoever looks after the gateway finishes it, or nothing was done yet."""
    phases: Counter[str] = Counter()
    with Answering(lab) as answering, killer(lab.site) as run:
        with Traffic(lab, packet) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            for step in range(1000):
                old, key = lab.gateway.key, new_key(lab)
                arg = {"key": {"file": str(key.file), "epoch": key.epoch}, "drain_s": 0.0}
                arg |= {"provider": lab.theirs.address, "nats": ["nat"], "settle_s": 0.2}
                ended = run(step, "rotate", arg)
                left = Journal.read(lab.gateway)
                if ended == 0:
                    break
                assert ended == -9
                phases["none" if left is None else left.phase] += 1
                done = finish_swap(lab.gateway)
                assert (left is None) == (done is None)
                begun = left is not None or phases[Phase.DRAIN] > 0
                assert lab.gateway.key == (key if begun else old)
                agree(lab)
                answered(answering)
        wait_until(lambda: len(answering.back) >= sender.sent // 2)
        agree(lab)
        undropped(lab)
    check(answering, sender.sent)
    print(f"killed at {step} steps: {dict(phases)}; {sender.sent} packets")
    assert {*phases} == {"none", Phase.HOLD, Phase.FORWARD, Phase.DONE, Phase.DRAIN}


@pytest.mark.parametrize(
    "what",
    [("way", "set_runtime_config"), ("nat", "get_mappings"), ("nat", "replace_mappings"),
     ("encrypt", "reencrypt"), ("encrypt", "update"), ("seal", "update"), ("decrypt", "update")],
    ids=" ".join,
)  # fmt: skip
def test_a_daemon_that_refuses(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, what: tuple[str, str]
) -> None:
    """The old key stays in force, and no packet is lost."""
    old, left = lab.gateway.key, [2 if what == ("nat", "get_mappings") else 1]

    def once(*command: str) -> bool:
        left[0] -= command == what
        return command == what and left[0] == 0

    with Answering(lab) as answering:
        with Traffic(lab, packet) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            refusing(monkeypatch, once)
            with pytest.raises(GatewayError, match=r"no, thank you"):
                change(lab, new_key(lab))
            agree(lab)
            assert lab.gateway.key == old
            answered(answering)
            monkeypatch.setattr(updates, "Client", Client)
            key = new_key(lab)
            change(lab, key)
            agree(lab)
            assert lab.gateway.key == key
            answered(answering)
        wait_until(lambda: len(answering.back) >= sender.sent // 2)
        undropped(lab)
    check(answering, sender.sent)


@pytest.mark.parametrize(
    "what", [("way", "set_runtime_config"), ("nat", "replace_mappings")], ids=" ".join
)
def test_a_provider_that_does_not_forget(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, what: tuple[str, str]
) -> None:
    """The new key is in force all the same; the NAT's next change tells it again."""
    calls = count()
    refusing(monkeypatch, lambda *command: command == what and next(calls) == 1)
    assert lab.pass_through(packet(1)) is not None
    key = new_key(lab)
    done = change(lab, key)
    assert done.unforgotten == (f"provider at {lab.theirs.address}: no, thank you (EINVAL)",)
    assert (lab.gateway.key, lab.gateway.accept) == (key, ())
    assert not journal_of(lab.gateway).exists()
    assert lab.pass_through(packet(1)) is not None
    ((old, new),) = done.moved.items()
    with Client(lab.theirs.address) as theirs:
        told = theirs.run_module_command("nat", "get_mappings", "NATCommandGetMappingsArg")
        kept_by_nat = [{"old": old, "current": new}] if what[0] == "nat" else []
        assert told["kept_addresses"] == kept_by_nat
        way = theirs.run_module_command("way", "get_runtime_config", "EmptyArg")
        assert len(way["rules"]) == (2 if what[0] == "way" else 1)
        way["rules"] = way["rules"][-1:]
        theirs.run_module_command("way", "set_runtime_config", "MetadataMatchConfig", way)
    monkeypatch.setattr(updates, "Client", Client)
    assert change(lab, new_key(lab)).unforgotten == ()
    agree(lab)


def test_a_daemon_that_is_restarted_has_the_key_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the description has the old one still, which the NAT knows nothing of any more."""
    with new_lab(tmp_path, STRICT) as lab, kept(lab, monkeypatch) as (keeper, _):
        assert lab.pass_through(packet(1)) is not None
        key = new_key(lab)
        words = ["rotate", lab.site, key.file, "--epoch", key.epoch, "--drain", 0]
        words += ["--provider", lab.theirs.address, "--nat", "nat", "--settle", 0.2]
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        told, moved, _ = done.output.splitlines()
        assert told.startswith(f"epoch {key.epoch}: in use; packets waited for ")
        assert told.endswith("1 translations of NATs went over") and "of the pool is" in moved
        lab.kill_ours()
        wait_until(lambda: keeper.rebuilt == 1)
        lab.plug_in()
        got = lab.pass_through(packet(1))
        assert got is not None and read(got)[0] == EXTERNAL
        assert lab.cable.seen[-1][59] == key.epoch
        assert lab.gateway.key == key
        # Once the description has it, nothing else says so.
        text = lab.site.read_text(encoding="utf-8")
        other = new_key(lab)
        written = text.replace("site.key, epoch: 1", f"{other.file}, epoch: {other.epoch}")
        lab.site.write_text(written, encoding="utf-8")
        assert lab.gateway.key == other


def test_whoever_looks_after_it_finishes_by_the_key_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules are updated after the key, and the update is killed; the gateway has run all along."""
    with new_lab(tmp_path, STRICT) as lab, kept(lab, monkeypatch) as (_, told):
        assert lab.pass_through(packet(1)) is not None
        key = new_key(lab)
        change(lab, key)
        maps = str(lab.gateway.maps)
        swap = lab.swap(lab.encrypt("next", STRICT, "--previous", maps, key=key.file))
        with killer(lab.site) as run:
            for step in range(30, 200):
                assert run(step, "update", asdict(swap)) == -9
                wait_until(lambda: not journal_of(lab.gateway).exists())
                if any("finished an update" in one for one in told):
                    break
        agree(lab)
        assert lab.pass_through(packet(1)) is not None
        assert lab.cable.seen[-1][59] == key.epoch


def test_maps_that_a_killed_update_left(lab: Lab) -> None:
    """Before it began: they are nobody's."""
    maps = lab.gateway.maps.read_bytes()
    stage(lab.gateway, lab.encrypt("other", OPEN).maps)
    change(lab, new_key(lab))
    agree(lab)
    assert lab.gateway.maps.read_bytes() == maps
    assert lab.pass_through(packet(1)) is not None


def test_what_is_refused_before_anything_changes(lab: Lab) -> None:
    old, key = lab.gateway.key, new_key(lab)
    assert lab.pass_through(packet(1)) is not None
    for more, message in (
        ({"provider": "", "nats": []}, "name its daemon by --provider"),
        ({"provider": ""}, "name its daemon by --provider"),
        ({"told": True}, "leave one of both out"),
        ({"nats": []}, r"203\.0\.113\.1 of the pool would have another encryption"),
        ({"nats": ["firewall"]}, "has no NAT 'firewall'"),
        ({"provider": "127.0.0.1:1"}, "no daemon at 127.0.0.1:1"),
    ):
        with pytest.raises(GatewayError, match=message):
            change(lab, key, **more)
        agree(lab)
        assert lab.gateway.key == old
    with Client(lab.theirs.address) as theirs:
        args = {"ext_addrs": [{"ext_addr": "2001:db8::1"}]}
        theirs.create_module("NAT", "foreign", **args)
    with pytest.raises(GatewayError, match="'foreign' writes 2001:db8::1, which is no address"):
        change(lab, key, nats=["foreign"])
    key.file.chmod(0o644)
    with pytest.raises(GatewayError, match="others can use"):
        change(lab, key)
    agree(lab)
