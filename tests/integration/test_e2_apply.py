# SPDX-License-Identifier: BSD-3-Clause
"""Plans carried out by real agents and daemons: all or nothing, again, and after crashes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from bess_plugins.client import Client
from cluster_support import (
    OFFICE,
    SLEEPER,
    SMALL,
    Cluster,
    cluster,
    daemons,
    drive,
    in_step,
    modules,
    needs_root,
    no_time,
    pids_in,
    until,
    wanted,
)
from e2ctl.controller.agents import AgentError, Agents, module_command
from e2ctl.controller.apply import ApplyError, apply, recover
from e2ctl.controller.store import SqliteStore, State, StoreError
from e2ctl.controller.switches import SimulatedSwitch
from harness import wait_until

pytestmark = needs_root


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    held = SqliteStore(tmp_path / "controller.db")
    yield held
    held.close()


def test_apply_again_change_and_take_away(running: Cluster, store: SqliteStore) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        first = await apply(running.inputs(OFFICE), store, agents, switch)
        assert modules(running) == wanted(first)
        assert switch.rules == first.switch
        updates = switch.updates
        again = await apply(running.inputs(OFFICE, first.running), store, agents, switch)
        assert str(again) == str(first)
        assert switch.updates == updates
        small = await apply(running.inputs(SMALL, again.running), store, agents, switch)
        assert modules(running) == wanted(small)
        assert small.layout.servers["monitor.0"] == first.layout.servers["monitor.0"]
        assert small.running.entries["monitor.0"] == first.running.entries["monitor.0"]
        states = await agents.states()
        assert all(not isinstance(s, AgentError) and s.in_step for s in states.values())

    drive(running, work)


def test_a_server_that_cannot_prepare_changes_nothing(running: Cluster, store: SqliteStore) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        first = await apply(running.inputs(SMALL), store, agents, switch)
        before = modules(running)
        broken = OFFICE.replace("nf cache : WebCache", "nf cache : Broken")
        inputs = running.inputs(broken, first.running)
        text = inputs.nfs + "\nBroken: {module: IDS, args: {signatures: ['']}, scaling: servers}\n"
        with pytest.raises(ApplyError, match=r"nothing changed: agent of s\d: module cache\.0"):
            await apply(replace(inputs, nfs=text), store, agents, switch)
        assert modules(running) == before
        assert switch.rules == first.switch
        current = store.read().current
        assert store.read().stage == "done"
        assert current is not None and str(current.plan()) == str(first)

    drive(running, work)


def test_a_switch_that_refuses_leads_all_back(tmp_path: Path, store: SqliteStore) -> None:
    with cluster(tmp_path) as made:

        async def work(agents: Agents, _: SimulatedSwitch) -> None:
            switch = SimulatedSwitch(12, sleep=no_time)
            first = await apply(made.inputs(SMALL), store, agents, switch)
            with pytest.raises(ApplyError, match="what ran before runs on: 15 entries"):
                await apply(made.inputs(OFFICE, first.running), store, agents, switch)
            assert modules(made) == wanted(first)
            assert switch.rules == first.switch

        drive(made, work)


def test_a_lost_daemon_is_back_with_its_plan_within_a_second(
    running: Cluster, store: SqliteStore
) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        plan = await apply(running.inputs(OFFICE), store, agents, switch)
        told = asyncio.create_task(first_notice(agents))
        await asyncio.sleep(0.2)
        (lost,) = daemons(running.folder / "d-s1.sock")
        os.kill(lost, signal.SIGKILL)
        start = time.monotonic()
        assert await asyncio.wait_for(told, 10) == "daemon down"
        assert time.monotonic() - start < 1.0
        await until(lambda: in_step(agents, "s1", restarts=1))
        assert modules(running) == wanted(plan)

    drive(running, work)


async def first_notice(agents: Agents, server: str = "s1") -> str:
    async for notice in agents[server].watch():
        return str(notice.kind)
    raise AssertionError("the agent went away")


@pytest.mark.parametrize("stage", ["preparing", "committing"])
def test_what_a_killed_controller_left_is_finished_or_taken_back(
    running: Cluster, store: SqliteStore, stage: Literal["preparing", "committing"]
) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        first = await apply(running.inputs(SMALL), store, agents, switch)
        following = running.inputs(OFFICE, first.running)
        target = following.plan()
        await agents.step("Prepare", target.servers)
        if stage == "committing":  # killed when only one server had done so
            await agents["s1"].step("Commit", target.servers["s1"])
        current = store.read().current
        store.write(
            State(current, following, "preparing" if stage == "preparing" else "committing")
        )
        plan = await recover(store, agents, switch)
        expected = first if stage == "preparing" else target
        assert plan is not None and str(plan) == str(expected)
        assert modules(running) == wanted(expected)
        assert switch.rules == expected.switch
        assert store.read().stage == "done"

    drive(running, work)


def test_a_change_concerns_the_servers_that_it_changes_and_those_astray(
    running: Cluster, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        plan = await apply(running.inputs(SMALL), store, agents, switch)
        steps: dict[str, list[str]] = {"s1": [], "s2": []}
        for server, taken in steps.items():
            monkeypatch.setattr(agents[server], "step", noted(agents[server].step, taken))
        again = running.inputs(SMALL, plan.running)
        await apply(again, store, agents, switch)
        assert steps == {"s1": [], "s2": []}
        with Client(f"unix:{running.folder}/d-s2.sock") as client:
            client.destroy_module("nic_out")
        await apply(again, store, agents, switch)
        assert steps == {"s1": [], "s2": ["Prepare", "Commit", "Finish"]}
        assert modules(running) == wanted(plan)

    drive(running, work)


def noted(
    step: Callable[..., Awaitable[float]], names: list[str]
) -> Callable[..., Awaitable[float]]:
    async def note(name: str, *args: object) -> float:
        names.append(name)
        return await step(name, *args)

    return note


def test_an_agent_knows_no_ranges_after_a_commit_that_failed(
    running: Cluster, store: SqliteStore
) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        plan = await apply(running.inputs(OFFICE), store, agents, switch)
        here = plan.servers["s1"]
        command = module_command("nic_out", "nothing", "EmptyArg")
        with pytest.raises(AgentError, match="agent of s1: module nic_out: ModuleCommand: "):
            await agents["s1"].step("Commit", here, [command])
        assert not await agents["s1"].has(here)
        await apply(running.inputs(OFFICE, plan.running), store, agents, switch)
        assert await agents["s1"].has(here)

    drive(running, work)


def test_a_program_that_ends_is_started_again(running: Cluster, store: SqliteStore) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        native = await apply(running.inputs(SMALL), store, agents, switch)
        inputs = running.inputs(SMALL.replace("NetworkMonitor", "Sleeper"), native.running)
        inputs = replace(inputs, nfs=inputs.nfs + SLEEPER)
        plan = await apply(inputs, store, agents, switch)
        server = plan.layout.servers["monitor.0"]
        space = f"e2-{server}-monitor.0"
        (lost,) = pids_in(space)
        told = asyncio.create_task(first_notice(agents, server))
        await asyncio.sleep(0.2)
        os.kill(lost, signal.SIGKILL)
        assert await asyncio.wait_for(told, 10) == "nf down"

        async def back() -> bool:
            return bool(pids_in(space)) and lost not in pids_in(space)

        await until(back)
        await until(lambda: in_step(agents, server, restarts=0))
        again = await apply(running.inputs(SMALL, plan.running), store, agents, switch)
        assert modules(running) == wanted(again)
        assert not pids_in(space)

    drive(running, work)


def test_a_program_that_did_not_start_again_is_started_by_the_next_change(
    running: Cluster, store: SqliteStore
) -> None:
    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        inputs = running.inputs(SMALL.replace("NetworkMonitor", "Sleeper"))
        inputs = replace(inputs, nfs=inputs.nfs + SLEEPER)
        plan = await apply(inputs, store, agents, switch)
        server = plan.layout.servers["monitor.0"]
        running.agents[server]._programs.forget("monitor.0")
        assert not await agents[server].has(plan.servers[server])
        await apply(replace(inputs, running=plan.running), store, agents, switch)
        assert await agents[server].has(plan.servers[server])
        assert pids_in(f"e2-{server}-monitor.0")

    drive(running, work)


def test_events_are_printed_as_they_happen(running: Cluster) -> None:
    words = ["events", "--hardware", str(running.path), "--count", "3", "--json"]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "e2ctl.cli", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as events:
        wait_until(lambda: all(agent.watchers for agent in running.agents.values()), 20)
        (lost,) = daemons(running.folder / "d-s2.sock")
        os.kill(lost, signal.SIGKILL)
        assert events.stdout is not None
        lines = [json.loads(events.stdout.readline()) for _ in range(2)]
        assert [(line["server"], line["kind"]) for line in lines] == [
            ("s2", "daemon down"),
            ("s2", "daemon up"),
        ]
        running.agents.pop("s1").stop()
        assert json.loads(events.stdout.readline())["kind"] == "agent down"
        assert events.wait(10) == 0


def test_agents_that_are_not_there_are_named(running: Cluster, store: SqliteStore) -> None:
    running.agents.pop("s2").stop()

    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        with pytest.raises(ApplyError, match=r"agent of s2: .*start it with `e2ctl agent`"):
            await apply(running.inputs(SMALL), store, agents, switch)
        assert switch.updates == 0

    drive(running, work)


def test_agents_refuse_plans_for_others_and_of_other_versions(running: Cluster) -> None:
    async def work(agents: Agents, _: SimulatedSwitch) -> None:
        plan = running.inputs(SMALL).plan()
        with pytest.raises(AgentError, match="the plan is for s2, and this is s1"):
            await agents["s1"].step("Prepare", plan.servers["s2"])

    drive(running, work)


def test_one_controller_at_a_time(tmp_path: Path) -> None:
    one, other = SqliteStore(tmp_path / "c.db"), SqliteStore(tmp_path / "c.db")
    refused = pytest.raises(StoreError, match="another controller is at work")
    with one.only_one(), refused, other.only_one():
        pass
    with other.only_one():
        pass
