# SPDX-License-Identifier: BSD-3-Clause
"""Rules that change for new flows only: no flow meets two rule sets, and none loses a packet.

::

    way -> chain -> firewall ----.
        |        -> firewall_backup -> NAT -> turn
        '-- to the NAT's own address --^
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from bess_plugins.client import Client
from embark_gw.cli import app
from embark_gw.gateway import Flows, GatewayError, flows_of
from embark_gw.journal import Journal, Phase, Swap, journal_of, staged_maps
from embark_gw.keeper import Keeper
from embark_gw.metrics import GatewayCollector
from embark_gw.site import Key, way_of_new_flows
from embark_gw.swaps import make_rotation, make_swap
from embark_gw.updates import finish_swap, rotate, update_rules
from gateway_support import Lab, Rules, Traffic, frame, kept, new_lab, read
from harness import wait_until
from update_support import SERVER, Answering, killer, signature

PEER = "02:00:00:00:03:03"
FIREWALLS = ("firewall", "firewall_backup")
# Each lets one half of the hosts through.
RULES = ("ACCEPT\n-s 10.0.1.0/24 -j DROP", "ACCEPT\n-s 10.0.0.0/24 -j DROP")
SHORT = 64  # packets of a short flow, of either half


def packet(number: int) -> bytes:
    """Of eight flows that last, four of either half, and of short ones."""
    kind, half, turn = number % 4 // 2, number % 2, number // 4
    host, sport = (2 + turn % 4, 1000) if kind == 0 else (9, 2000 + turn // SHORT)
    return frame(f"10.0.{half}.{host}", SERVER, sport=sport, payload=b"%8d" % number)


def flow_of(number: int) -> tuple[str, int]:
    return read(packet(number))[:2]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with new_lab(tmp_path, RULES[0]) as made:
        text = made.site.read_text(encoding="utf-8")
        backup = f'  backup: {{peer: "{PEER}", idle_s: 1, flows: 4096}}\n'
        made.site.write_text(text.replace("  mtu: 1700\n", "  mtu: 1700\n" + backup))
        with Client(made.theirs.address) as theirs:
            theirs.pause()
            config = theirs.run_module_command("firewall", "get_runtime_config", "EmptyArg")
            theirs.create_module("MetadataMatch", "firewall_backup", **config)
            term = {"field": "eth.dst", "value": int(PEER.replace(":", ""), 16)}
            rule = {"gate": 1, "priority": 1, "terms": [term]}
            theirs.create_module("MetadataMatch", "chain", rules=[rule], default_gate=0)
            theirs.disconnect("way", 0)
            theirs.connect("way", "chain", 0)
            for gate, name in enumerate(FIREWALLS):
                theirs.connect("chain", name, gate)
            theirs.connect("firewall_backup", "nat", 0, 0)
            theirs.resume()
        monkeypatch.setattr("embark_gw.keeper.draw", made.over_sockets)
        Keeper(lambda: made.gateway, print).start()
        made.plug_in()
        yield made


def swap_of(lab: Lab, rules: Rules) -> Swap:
    way = 1 - way_of_new_flows(lab.gateway)
    return make_swap(lab.theirs.address, rules.maps, rules.document, [FIREWALLS[way]], way=way)


def encrypt(lab: Lab, number: int) -> Rules:
    return lab.encrypt(f"r{number}", RULES[number % 2], "--previous", str(lab.gateway.maps))


def flows(lab: Lab) -> Flows:
    with Client(lab.ours.address) as ours:
        return flows_of(ours)


def test_no_flow_meets_two_rule_sets(lab: Lab) -> None:
    """Flows that last keep the old rules, whatever begins has the new ones, several times."""
    changes = [0]
    with Answering(lab) as answering:
        for number in (1, 2):
            with Traffic(lab, lambda n, base=changes[-1]: packet(base + n)) as sender:
                wait_until(lambda: sender.sent > 8 * SHORT)
                assert flows(lab).left == 0
                done = update_rules(lab.gateway, swap_of(lab, encrypt(lab, number)))
                assert done.kept >= 8 and flows(lab).left >= 8
                goal = sender.sent + 8 * SHORT
                wait_until(lambda goal=goal: sender.sent > goal)  # type: ignore[misc]
                with pytest.raises(GatewayError, match="flows have the rules before the latest"):
                    update_rules(lab.gateway, swap_of(lab, encrypt(lab, number + 1)))
                assert flows(lab).left >= 8
                shown = CliRunner().invoke(app, ["status", str(lab.site), "--json"])
                assert json.loads(shown.output)["flows"]["old_rules"] >= 8
            changes.append(changes[-1] + sender.sent)
            wait_until(lambda: flows(lab).left == 0)
    passed = Counter(int(one[4]) for one in answering.got)
    assert Counter(int(one[4]) for one in answering.back) == passed
    assert {*passed.values()} == {1}
    # Each time of traffic for itself: flows that last have ended between, and begin once more.
    for number, (first, last) in enumerate(pairwise(changes)):
        ways: dict[tuple[str, int], set[bool]] = defaultdict(set)
        for one in range(first, last):
            ways[flow_of(one)].add(one in passed)
        assert {len(found) for found in ways.values()} == {1}
        open_half = number % 2
        for half in (0, 1):
            lasting = {ways[f"10.0.{half}.{2 + host}", 1000].copy().pop() for host in range(4)}
            assert lasting == {half == open_half}
        late = [flow_of(last - back) for back in range(1, 5)]
        short = {src: ways[src, sport].copy().pop() for src, sport in late if sport != 1000}
        assert short == {f"10.0.{half}.9": half != open_half for half in (0, 1)}
    for name in ("encrypt", "encrypt_backup", "decrypt", "open", "nat", "steer"):
        assert lab.drops(name) == {}


def test_an_update_that_is_killed_at_every_step(lab: Lab) -> None:
    """Who looks after the gateway finishes it, or nothing was done yet."""
    phases: Counter[str] = Counter()
    rules = [encrypt(lab, 0), encrypt(lab, 1)]
    in_force = 0
    with killer(lab.site) as run:
        for step in range(1000):
            wait_until(lambda: flows(lab).left == 0)
            way, new = 1 - way_of_new_flows(lab.gateway), rules[1 - in_force]
            ended = run(step, "update", asdict(swap_of(lab, new)))
            left = Journal.read(lab.gateway)
            phases["none" if left is None else left.phase] += 1
            done = finish_swap(lab.gateway)
            assert (left is None) == (done is None)
            if left is not None or ended == 0 or phases[Phase.DONE]:
                in_force = 1 - in_force
                assert flows(lab).way == way == way_of_new_flows(lab.gateway)
                assert lab.gateway.maps.read_bytes() == new.maps.read_bytes()
                with Client(lab.theirs.address) as theirs:
                    told = theirs.run_module_command(
                        FIREWALLS[way], "get_runtime_config", "EmptyArg"
                    )
                assert signature(told) == signature(new.config)
            else:
                assert flows(lab).way == 1 - way == way_of_new_flows(lab.gateway)
            assert not journal_of(lab.gateway).exists()
            assert left is None or not staged_maps(lab.gateway).exists()
            good = frame(f"10.0.{in_force}.2", SERVER, sport=3000 + step)
            lab.host.send(frame(f"10.0.{1 - in_force}.2", SERVER, sport=3000 + step))
            got = lab.pass_through(good)
            assert got is not None and read(got)[4] == read(good)[4]
            if ended == 0:
                break
    print(f"killed at {step} steps: {dict(phases)}")
    assert {*phases} == {"none", Phase.HOLD, Phase.FORWARD, Phase.DONE}


def test_what_is_refused_and_leaves_everything(lab: Lab) -> None:
    rules = encrypt(lab, 1)
    swap = swap_of(lab, rules)
    for wrong, message in (
        ({"firewalls": ["wall"]}, "has no MetadataMatch 'wall'"),
        ({"provider": "127.0.0.1:1"}, "no daemon at 127.0.0.1:1"),
        ({"way": 0}, "rules have changed meanwhile"),
    ):
        with pytest.raises(GatewayError, match=message):
            update_rules(lab.gateway, Swap(**(asdict(swap) | wrong)))
        assert not journal_of(lab.gateway).exists() and not staged_maps(lab.gateway).exists()
        assert flows(lab).way == 0
    fresh = lab.encrypt("fresh", RULES[1])
    with pytest.raises(GatewayError, match=r"203\.0\.113\.1 of the pool .* --previous"):
        update_rules(lab.gateway, swap_of(lab, fresh))
    words = ["update-rules", lab.site, "--maps", rules.maps, "--provider", lab.theirs.address]
    words += ["--rules", rules.maps.with_suffix(".json"), "--firewall", "firewall"]
    for more, message in (
        ([], "name its --backup-firewall"),
        (["--backup-firewall", "firewall_backup", "--nat", "nat"], "leave --nat and --lb"),
        (["--backup-firewall", "firewall_backup", "--lb", "lb"], "leave --nat and --lb out"),
    ):
        done = CliRunner().invoke(app, [str(word) for word in (*words, *more)])
        assert done.exit_code == 1 and message in done.output
    done = CliRunner().invoke(
        app, [str(word) for word in (*words, "--backup-firewall", "firewall_backup")]
    )
    assert done.exit_code == 0, done.output
    assert "in use for new flows; 0 keep the rules before" in done.output
    assert flows(lab).way == 1


def test_a_key_waits_for_old_flows(lab: Lab, tmp_path: Path) -> None:
    """As what they have at a NAT is encrypted by maps that are gone from the description."""
    fresh = tmp_path / "fresh.key"
    fresh.touch(0o600)
    fresh.write_text("a5" * 32, encoding="ascii")
    key = Key(file=fresh, epoch=2)

    def change() -> None:
        there = lab.theirs.address
        made = make_rotation(lab.gateway, key, drain_s=0, provider=there, nats=["nat"])
        rotate(lab.gateway, made)

    assert lab.pass_through(packet(0)) is not None
    update_rules(lab.gateway, swap_of(lab, encrypt(lab, 1)))
    with pytest.raises(GatewayError, match="1 flows have the rules before the latest"):
        change()
    wait_until(lambda: flows(lab).left == 0)
    change()
    got = lab.pass_through(packet(1))
    assert got is not None and lab.cable.seen[-1][59] == 2


def test_a_daemon_that_is_restarted_goes_on_with_the_new_rules(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has forgotten which flows were old."""
    update_rules(lab.gateway, swap_of(lab, encrypt(lab, 1)))
    lab.kill_ours()
    with kept(lab, monkeypatch):
        assert flows(lab).way == 1
        lab.host.send(packet(0))
        got = lab.pass_through(packet(1))
        assert got is not None and int(read(got)[4]) == 1


def test_prometheus_gets_how_many_flows_are_left(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept(lab, monkeypatch) as (keeper, _):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(GatewayCollector(keeper))

        def told() -> tuple[float, float]:
            found = [registry.get_sample_value(f"embark_flows{of}") for of in ("", "_left")]
            return found[0] or 0, found[1] or 0

        with Answering(lab), Traffic(lab, packet) as sender:
            wait_until(lambda: told()[0] >= 8 and told()[1] == 0)
            update_rules(lab.gateway, swap_of(lab, encrypt(lab, 1)))
            goal = sender.sent + 8 * SHORT
            wait_until(lambda: sender.sent > goal)
            wait_until(lambda: told()[0] > told()[1] >= 8)
        wait_until(lambda: told() == (0, 0))
