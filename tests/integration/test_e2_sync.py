# SPDX-License-Identifier: BSD-3-Clause
"""From what a daemon runs to a server's plan: how much is asked of it, and what failures leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.client import Batch, Client
from cluster_support import EXAMPLES, OFFICE
from e2ctl import sync, transitions
from e2ctl.controller.store import Inputs
from e2ctl.found import Found, is_done, read
from e2ctl.plan import Running
from e2ctl.server_plan import ServerPlan
from e2ctl.sync import Command, SyncError

HELD = "ids.0"


@pytest.fixture
def plans(tmp_path: Path) -> tuple[ServerPlan, ServerPlan]:
    """What the server of an instance has before and after a split, here without an interface."""
    policy = tmp_path / "office.e2"
    policy.write_text(OFFICE, encoding="utf-8")
    inputs = Inputs.read(policy, EXAMPLES / "nfs.yaml", EXAMPLES / "rack.yaml", Running())
    plan = inputs.plan()
    cut = transitions.middle(plan.instance(HELD).span)
    running, _ = transitions.split(plan.running, HELD, cut, "s3")
    server = plan.layout.servers[HELD]
    both = plan, replace(inputs, running=running).plan()
    before, after = (_without_interface(one.servers[server], tmp_path) for one in both)
    return before, after


def _without_interface(plan: ServerPlan, folder: Path) -> ServerPlan:
    args = {"path": str(folder / "nic.sock")}
    nic = replace(plan.devices[0], driver="UnixSocketPort", args=args)
    return replace(plan, devices=(nic, *plan.devices[1:]))


def run(client: Client, plan: ServerPlan, known: Found | None = None) -> Found:
    known = sync.prepare(client, plan, known)
    known = sync.commit(client, plan, known)
    return sync.finish(client, plan, known)


class Watched:
    """What a client is asked to carry out."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[str]] = []
        self.before: Callable[[], None] = lambda: None
        self._run = client.run
        monkeypatch.setattr(client, "run", self.run)
        monkeypatch.setattr(client, "call", self.refuse)

    def run(self, batch: Batch | None = None, generation: int | None = None) -> Any:
        before, self.before = self.before, lambda: None
        before()
        self.batches.append([] if batch is None else [method for method, _ in batch.calls])
        return self._run(batch, generation)

    @staticmethod
    def refuse(method: str, *_: object) -> None:
        raise AssertionError(f"{method} went alone")


def all_run(client: Client) -> bool:
    return all(worker["running"] for worker in client.list_workers())


def test_each_step_is_one_batch(
    client: Client, plans: tuple[ServerPlan, ServerPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = plans
    known = run(client, before)
    assert is_done(known, before)
    with monkeypatch.context() as patch:
        watched = Watched(client, patch)
        known = sync.prepare(client, after, known)
        known = sync.commit(client, after, known)
    prepared, committed = watched.batches
    assert prepared.count("PauseAll") == committed.count("PauseAll") == 1
    assert committed.count("ModuleCommand") == 1  # ranges of the one that passes flows on
    assert is_done(sync.finish(client, after, known), after)
    assert all_run(client)


def test_what_has_not_changed_is_not_told_again(
    client: Client, plans: tuple[ServerPlan, ServerPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = run(client, plans[0])
    watched = Watched(client, monkeypatch)
    for step in (sync.prepare, sync.commit, sync.finish):
        assert step(client, plans[0], known) == known
    assert watched.batches == [[], [], []]  # is it as it was?
    # Whoever comes new knows of no ranges and entries.
    fresh = sync.commit(client, plans[0], None)
    assert is_done(fresh, plans[0])
    in_place = len(known.told)
    assert watched.batches[3:] == [[], ["PauseAll", *["ModuleCommand"] * in_place, "ResumeAll"]]


def test_somebody_elses_change_is_seen_in_time(
    client: Client, plans: tuple[ServerPlan, ServerPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = plans
    known = run(client, before)
    (lost,) = [link for link in before.links if link.source == "nic_in"]
    with Client(client.address) as other, monkeypatch.context() as patch:
        watched = Watched(client, patch)
        watched.before = lambda: other.disconnect(lost.source, lost.ogate)
        known = sync.prepare(client, after, known)
    assert len(watched.batches) == 2
    assert lost in known.links
    known = sync.finish(client, after, sync.commit(client, after, known))
    assert is_done(read(client), after) is False  # who reads alone knows of no ranges
    assert is_done(read(client, known), after)


def test_a_module_that_is_refused_leaves_nothing(
    client: Client, plans: tuple[ServerPlan, ServerPlan]
) -> None:
    before, after = plans
    known = run(client, before)
    broken = replace(after.modules[-1], name="broken", args={"nothing": 1}, mclass="Queue")
    refused = replace(before.modules[0], name="refused", mclass="PortInc", args={"port": "none"})
    for module, message in ((broken, "module broken: .*no such field"), (refused, "none")):
        with pytest.raises(SyncError, match=message):
            sync.prepare(client, replace(after, modules=(*after.modules, module)), known)
        assert is_done(read(client, known), before)
        assert all_run(client)


def test_what_fails_in_the_pause_lets_workers_run_on(
    client: Client, plans: tuple[ServerPlan, ServerPlan]
) -> None:
    before, after = plans
    known = sync.prepare(client, after, run(client, before))
    command = Command("nic_out", "nothing", "EmptyArg", {})
    with pytest.raises(SyncError, match="module nic_out: ModuleCommand: 'PortOut' does not supp"):
        sync.commit(client, after, known, [command])
    assert all_run(client)
    assert is_done(run(client, before), before)


def test_commands_come_before_ranges(
    client: Client, plans: tuple[ServerPlan, ServerPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = plans
    known = run(client, before)
    hold = next(module for module in before.modules if module.name.startswith(f"hold:{HELD}"))
    command = Command(hold.name, "get_status", "FlowSteerCommandGetStatusArg", {})
    watched = Watched(client, monkeypatch)
    known = sync.commit(client, before, known, [command])
    # It may have changed them, so they are told anew.
    assert watched.batches == [["PauseAll", "ModuleCommand", "ModuleCommand", "ResumeAll"]]
    assert is_done(known, before)


def test_entries_of_a_plan_that_came_to_nothing_go(
    client: Client, plans: tuple[ServerPlan, ServerPlan]
) -> None:
    before, _ = plans
    known = run(client, before)
    modules = [
        replace(m, args={**m.args, "edges": {**m.args["edges"], 4000: 4000}})
        if m.mclass == "TunnelDecap"
        else m
        for m in before.modules
    ]
    known = sync.prepare(client, replace(before, modules=tuple(modules)), known)

    def entries() -> set[int]:
        stats = client.run_module_command("decap", "get_stats", "TunnelDecapCommandGetStatsArg")
        return {edge["vni"] for edge in stats["edges"]}

    assert 4000 in entries() and not is_done(known, before)
    assert is_done(sync.finish(client, before, known), before)
    assert 4000 not in entries()
