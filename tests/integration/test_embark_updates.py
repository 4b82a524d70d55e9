# SPDX-License-Identifier: BSD-3-Clause
"""Rules that change under traffic, or don't: no packet meets rules that aren't its own.

Two rule sets show a mix of them (`update_support`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.client import Client
from embark_gw import quiet, updates
from embark_gw.gateway import GatewayError
from embark_gw.journal import Journal, Phase, Swap, journal_of, owned, staged_maps
from embark_gw.keeper import Keeper
from embark_gw.updates import finish_swap, update_rules
from gateway_support import Lab, Rules, Traffic, kept, new_lab, read
from harness import wait_until
from update_support import (
    GOOD,
    HOSTS,
    OPEN,
    STRICT,
    Answering,
    check,
    killer,
    packet,
    refusing,
    signature,
)

SECONDS = 20


def test_rules_that_change_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every packet is classified by the rules that it is encrypted for, and none is lost."""
    with new_lab(tmp_path, STRICT) as lab, kept(lab, monkeypatch), Answering(lab) as answering:
        with Traffic(lab, packet) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            maps, moved, held = lab.gateway.maps, 0, []
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                began = time.monotonic()
                text = OPEN if len(held) % 2 == 0 else STRICT
                rules = lab.encrypt(f"r{len(held)}", text, "--previous", str(maps))
                done = update_rules(lab.gateway, lab.swap(rules))
                maps = rules.maps
                moved += done.carried.mappings
                held.append(done.held_s)
                time.sleep(max(0.0, began + 1 - time.monotonic()))
        wait_until(lambda: len(answering.back) >= sender.sent // 2)
        time.sleep(0.2)  # for what should not come
        sent = sender.sent
        dropped = lab.drops("firewall")
        queues = {name: lab.drops(f"queue:{name}.1") for name in ("in", "out")}
    print(
        f"{len(held)} updates, {sent} packets, {moved} translations moved, held {max(held):.2f} s"
    )
    assert len(held) >= SECONDS / 4 and moved >= HOSTS * len(held)
    check(answering, sent)
    assert sum(dropped.values()) == sent - len(answering.got)  # the bad ones
    assert queues == {"in": {}, "out": {}}


def test_a_mix_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule sets above tell, or the tests here would prove nothing."""
    with new_lab(tmp_path, STRICT) as lab, kept(lab, monkeypatch):
        assert lab.pass_through(packet(1)) is not None
        other = lab.encrypt("other", OPEN, "--previous", str(lab.gateway.maps))
        with Client(lab.theirs.address) as theirs:
            config = theirs.run_module_command("firewall", "get_runtime_config", "EmptyArg")
            set_rules(theirs, other.config)
            wait_until(lambda: lab.pass_through(packet(0), within_s=0.5) is not None)
            set_rules(theirs, config)
        update_rules(lab.gateway, lab.swap(other))
        with Client(lab.theirs.address) as theirs:
            set_rules(theirs, config)
        assert lab.pass_through(packet(1), within_s=0.5) is None


def set_rules(theirs: Client, config: Any) -> None:
    theirs.run_module_command("firewall", "set_runtime_config", "MetadataMatchConfig", config)


class State:
    """A gateway with two rule sets, and which of them is in force."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        maps = lab.gateway.maps
        self.rules: list[Rules] = []
        for number, text in enumerate((STRICT, OPEN)):
            self.rules.append(lab.encrypt(f"s{number}", text, "--previous", str(maps)))
        update_rules(lab.gateway, lab.swap(self.rules[0]))
        self.now = 0
        self.translation = self.probe()

    @property
    def other(self) -> Swap:
        return self.lab.swap(self.rules[1 - self.now], settle_s=0.02)

    def probe(self) -> tuple[str, int]:
        """What the good host's endpoint is; the bad one has none."""
        self.lab.host.send(packet(0))
        got = self.lab.pass_through(packet(1))
        assert got is not None
        *_, payload = found = read(got)
        assert payload.startswith(GOOD)
        return found[0], found[1]

    def agree(self) -> None:
        """Gateway and provider have the same rules, and packets flow under them."""
        maps = self.lab.gateway.maps.read_bytes()
        (self.now,) = [n for n in (0, 1) if self.rules[n].maps.read_bytes() == maps]
        with Client(self.lab.theirs.address) as theirs:
            told = theirs.run_module_command("firewall", "get_runtime_config", "EmptyArg")
        assert signature(told) == signature(self.rules[self.now].config)
        with Client(self.lab.ours.address) as ours:
            assert all(worker["running"] for worker in ours.list_workers())
        assert not journal_of(self.lab.gateway).exists()
        assert self.probe() == self.translation


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """A gateway that was built, and that nobody looks after."""
    with new_lab(tmp_path, STRICT) as lab:
        monkeypatch.setattr("embark_gw.keeper.draw", lab.over_sockets)
        Keeper(lambda: lab.gateway, print).start()
        lab.plug_in()
        yield State(lab)


def test_an_update_that_is_killed_at_every_step(state: State) -> None:
    """Who looks after the gateway then finishes it, or nothing was done yet."""
    phases: Counter[str] = Counter()
    with killer(state.lab.site) as run:
        for step in range(1000):
            if (ended := run(step, "update", asdict(state.other))) == 0:
                break
            assert ended == -9
            left = Journal.read(state.lab.gateway)
            phases["none" if left is None else left.phase] += 1
            done = finish_swap(state.lab.gateway)
            assert (left is None) == (done is None)
            state.agree()
        state.agree()
    print(f"killed at {step} steps: {dict(phases)}")
    assert {*phases} == {"none", Phase.HOLD, Phase.FORWARD, Phase.DONE}


@pytest.mark.parametrize(
    "what",
    [("firewall", "set_runtime_config"), ("nat", "get_mappings"), ("nat", "replace_mappings"),
     ("encrypt", "update")],
    ids=" ".join,
)  # fmt: skip
def test_a_daemon_that_refuses(
    state: State, monkeypatch: pytest.MonkeyPatch, what: tuple[str, str]
) -> None:
    """The old rules stay in force, and no packet is lost."""
    lab, left = state.lab, [1]

    def once(*command: str) -> bool:
        return command == what and bool(left) and left.pop() == 1

    with Answering(lab) as answering:
        with Traffic(lab, packet) as sender:
            wait_until(lambda: len(answering.back) >= HOSTS)
            refusing(monkeypatch, once)
            with pytest.raises(GatewayError, match=r"no, thank you"):
                update_rules(lab.gateway, state.other)
            since = len(answering.back)
            wait_until(lambda: len(answering.back) > since + HOSTS)
        wait_until(lambda: len(answering.back) >= sender.sent // 2)
    check(answering, sender.sent)
    assert not left
    state.agree()
    assert state.now == 0 and not staged_maps(lab.gateway).exists()
    update_rules(lab.gateway, state.other)
    state.agree()
    assert state.now == 1


def test_whoever_takes_over_is_refused(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the provider had before the update is what it gets, not what it was left with."""
    kill_forward(state)
    refusing(monkeypatch, lambda _, command: command == "replace_mappings" and bool(left.pop()))
    left = [False, False, True]
    with pytest.raises(GatewayError, match=r"nat|no, thank you"):
        finish_swap(state.lab.gateway)
    state.agree()
    assert state.now == 0


def kill_forward(state: State) -> None:
    """An update that ends when the provider's firewall has the new rules, and nothing else has."""
    with killer(state.lab.site) as run:
        for step in range(1000):
            assert run(step, "update", asdict(state.other)) == -9
            left = Journal.read(state.lab.gateway)
            with Client(state.lab.theirs.address) as theirs:
                told = theirs.run_module_command("firewall", "get_runtime_config", "EmptyArg")
            if signature(told) != signature(state.rules[0].config):
                assert left is not None and left.phase is Phase.FORWARD
                return
            finish_swap(state.lab.gateway) if left is None else undo(state)
    raise AssertionError("no update came so far")


def undo(state: State) -> None:
    """Nothing is changed yet but that workers wait."""
    journal_of(state.lab.gateway).unlink()
    with Client(state.lab.ours.address) as ours:
        ours.resume()


def test_a_provider_that_is_gone_for_a_while(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets wait in the gateway rather than meet rules that aren't theirs."""
    lab = state.lab
    gone = [False]

    def refused(name: str, command: str) -> bool:
        gone[0] |= command == "replace_mappings"
        return gone[0] and name in ("firewall", "nat")

    refusing(monkeypatch, refused)
    with pytest.raises(GatewayError, match=r"packets wait in the gateway until"):
        update_rules(lab.gateway, state.other)
    for _ in range(3):
        lab.host.send(packet(1))
    assert lab.server.receive(0.5) is None
    with pytest.raises(GatewayError):
        finish_swap(lab.gateway)
    monkeypatch.setattr(updates, "Client", Client)
    done = finish_swap(lab.gateway)
    assert done is not None and done.taken_back
    assert [read(one)[4][:4] for one in lab.server.all()] == [GOOD] * 3
    state.agree()
    assert state.now == 0


def test_the_gateways_daemon_dies_in_an_update(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built with workers that wait until provider and gateway have the same rules."""
    lab = state.lab
    kill_forward(state)
    lab.kill_ours()
    with kept(lab, monkeypatch) as (_, told):
        wait_until(lambda: any("finished an update" in one for one in told))
        state.translation = state.probe()  # the daemon knew whose the old one was
        state.agree()
        assert state.now == 1


def test_rules_without_anything_of_the_old_ones(state: State) -> None:
    """The NAT's own address is encrypted anew, too, and where it is known."""
    lab = state.lab
    state.rules[1] = lab.encrypt("fresh", OPEN)
    assert state.rules[1].document.pool != state.rules[0].document.pool
    done = update_rules(lab.gateway, state.other)
    assert len(done.moved) == 1 and done.carried.mappings >= 1
    state.agree()
    assert state.now == 1
    update_rules(lab.gateway, state.other)
    state.agree()
    assert state.now == 0


def test_only_one_changes_a_gateway(state: State) -> None:
    with owned(state.lab.gateway) as mine:
        assert mine
        with pytest.raises(GatewayError, match="another change"):
            update_rules(state.lab.gateway, state.other)
        assert finish_swap(state.lab.gateway) is None
    state.agree()


def test_what_is_refused_before_anything_changes(state: State, tmp_path: Path) -> None:
    lab = state.lab
    fresh = lab.swap(lab.encrypt("fresh", OPEN))
    with pytest.raises(GatewayError, match=r"203\.0\.113\.1 of the pool .* --previous"):
        update_rules(lab.gateway, replace(fresh, nats=[]))
    spoiled = tmp_path / "spoiled.maps"
    spoiled.touch(0o600)
    spoiled.write_bytes(state.rules[1].maps.read_bytes()[:-1])
    for swap, message in (
        (Swap(**{**asdict(state.other), "maps": str(spoiled)}), "maps_file"),
        (Swap(**{**asdict(state.other), "maps": str(tmp_path / "none")}), "No such file"),
        (Swap(**{**asdict(state.other), "firewalls": ["wall"]}), "has no MetadataMatch 'wall'"),
        (Swap(**{**asdict(state.other), "nats": ["firewall"]}), "has no NAT 'firewall'"),
        (Swap(**{**asdict(state.other), "pool": []}), "a pool of 0 addresses, the gateway has 1"),
        (Swap(**{**asdict(state.other), "provider": "127.0.0.1:1"}), "no daemon at 127.0.0.1:1"),
        (replace(state.other, pool=fresh.pool), "pool is encrypted in another way"),
    ):
        with pytest.raises(GatewayError, match=message):
            update_rules(lab.gateway, swap)
        assert not staged_maps(lab.gateway).exists()
        state.agree()
    state.rules[1].maps.chmod(0o644)
    with pytest.raises(GatewayError, match="others can use"):
        update_rules(lab.gateway, state.other)
    state.agree()
    assert state.now == 0


def test_a_provider_that_never_rests(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's packets: it can't be known when the last of the gateway's is through."""
    monkeypatch.setattr(quiet, "_MOST_S", 0.3)
    lab = state.lab
    with Client(lab.theirs.address) as theirs:
        theirs.create_module("Source", "noise")
        theirs.create_module("Queue", "never", size=1 << 14)
        theirs.create_module("Sink", "sink")
        theirs.connect("noise", "never")
        theirs.connect("never", "sink")
        theirs.add_tc("slow", "rate_limit", wid=0, resource="count", limit={"count": 300})
        theirs.attach_task("noise", "slow")
        theirs.add_tc("none", "rate_limit", wid=0, resource="count", limit={"count": 1})
        theirs.attach_task("never", "none")
    with pytest.raises(GatewayError, match="packets still move at the provider"):
        update_rules(lab.gateway, state.other)
    state.agree()
    assert state.now == 0


def test_a_journal_that_is_spoiled(state: State) -> None:
    journal_of(state.lab.gateway).write_text("{", encoding="utf-8")
    with pytest.raises(GatewayError, match=r"\.swap can't be read .*; remove it"):
        finish_swap(state.lab.gateway)
    with suppress(FileNotFoundError):
        journal_of(state.lab.gateway).unlink()
    state.agree()
