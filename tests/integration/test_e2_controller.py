# SPDX-License-Identifier: BSD-3-Clause
"""The controller that stays: what breaks is found and put right without anybody's help."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster_support import Cluster, cluster, needs_root
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.notices import Notice
from e2ctl.controller.resident import Controller
from e2ctl.controller.store import SqliteStore, State
from e2ctl.controller.switches import SimulatedSwitch
from e2ctl.plan import Plan

pytestmark = needs_root

CHAIN = """
nf fw : StatefulFirewall
nf monitor : NetworkMonitor
port subscribers, internet
pipeline p { subscribers -> fw @ 1Gbps; fw -> monitor -> internet; }
"""


async def no_time(seconds: float) -> None:
    """Updates of the simulated switch take none."""


class Staying:
    """A controller at work on a cluster."""

    def __init__(self, made: Cluster, store: SqliteStore, agents: Agents) -> None:
        self.made = made
        self.store = store
        self.agents = agents
        self.switch = SimulatedSwitch(made.hardware.switch.table, sleep=no_time)
        self.controller = Controller(store, agents, self.switch, scaling=False, lost_after_s=1.0)
        self.told: list[Notice] = []

    async def apply(self, policy: str) -> Plan:
        async with self.controller.scaler.changing:
            return await apply(self.made.inputs(policy), self.store, self.agents, self.switch)

    def plan(self) -> Plan:
        current = self.store.read().current
        assert current is not None
        return current.plan()

    def kinds(self, server: str = "") -> list[str]:
        return [notice.kind for notice in self.told if notice.server == server]

    async def well(self) -> bool:
        """Whether all servers that are left, and the switch, have the plan."""
        plan = self.plan()
        try:
            has = [await self.agents[name].has(wanted) for name, wanted in plan.servers.items()]
        except AgentError:
            return False
        return all(has) and len(self.switch.rules) == len(plan.switch)


@asynccontextmanager
async def staying(made: Cluster, store: SqliteStore) -> AsyncIterator[Staying]:
    async with Agents(made.hardware) as agents:
        with_it = Staying(made, store, agents)
        stop = asyncio.Event()
        with with_it.controller.notices.heard() as heard:

            async def keep() -> None:
                while True:
                    with_it.told.append(await heard.get())

            keeping = asyncio.create_task(keep())
            running = asyncio.create_task(with_it.controller.run(stop))
            try:
                yield with_it
            finally:
                stop.set()
                await running
                keeping.cancel()


def drive(made: Cluster, folder: Path, work: Callable[[Staying], Awaitable[None]]) -> None:
    async def main() -> None:
        async with staying(made, SqliteStore(folder / "controller.db")) as with_it:
            await work(with_it)

    asyncio.run(main())


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def test_instances_of_a_lost_server_begin_anew_elsewhere(running: Cluster, tmp_path: Path) -> None:
    async def work(it: Staying) -> None:
        plan = await it.apply(CHAIN)
        lost = plan.layout.servers["fw.0"]
        spans = plan.running.spans
        await asyncio.to_thread(running.agents[lost].stop)

        async def moved() -> bool:
            return it.store.read().current.lost == (lost,) and await it.well()

        await until(moved)
        plan = it.plan()
        assert lost not in plan.layout.servers.values()
        assert plan.running.spans == spans
        assert {"server down", "server lost"} <= {*it.kinds(lost)}
        await asyncio.to_thread(running.start, lost)

        async def back() -> bool:
            return not it.store.read().current.lost and await it.well()

        await until(back)
        # Nothing that runs is moved for that.
        assert it.plan().layout.servers == plan.layout.servers
        assert "server back" in it.kinds(lost)

    drive(running, tmp_path, work)


def test_a_server_that_is_back_soon_keeps_its_instances(running: Cluster, tmp_path: Path) -> None:
    async def work(it: Staying) -> None:
        plan = await it.apply(CHAIN)
        server = plan.layout.servers["fw.0"]
        it.controller._lost_after_s = 60.0
        await asyncio.to_thread(running.agents[server].stop)

        async def missed() -> bool:
            return "server down" in it.kinds(server)

        await until(missed)
        await asyncio.sleep(1.0)  # a few looks
        await asyncio.to_thread(running.start, server)
        await until(it.well)
        assert it.plan().layout.servers == plan.layout.servers
        assert "server lost" not in it.kinds(server)

    drive(running, tmp_path, work)


def test_a_cluster_that_is_too_small_now_is_told_once(running: Cluster, tmp_path: Path) -> None:
    async def work(it: Staying) -> None:
        names = [f"m{i}" for i in range(5)]
        nfs = "".join(f"nf {name} : NetworkMonitor\n" for name in names)
        chain = " -> ".join(["subscribers", *names, "internet"])
        plan = await it.apply(f"{nfs}port subscribers, internet\npipeline p {{ {chain}; }}\n")
        lost = plan.layout.servers["m0.0"]
        await asyncio.to_thread(running.agents[lost].stop)

        async def told() -> bool:
            return "trouble" in it.kinds()

        await until(told)
        await asyncio.sleep(1.0)
        (trouble,) = [notice for notice in it.told if notice.kind == "trouble"]
        assert "cores" in trouble.text
        assert it.plan().layout.servers == plan.layout.servers
        await asyncio.to_thread(running.start, lost)
        await until(it.well)

    drive(running, tmp_path, work)


def test_a_switch_without_its_entries_gets_them(running: Cluster, tmp_path: Path) -> None:
    async def work(it: Staying) -> None:
        await it.apply(CHAIN)
        it.switch.rules = ()
        await until(it.well)
        assert "switch refilled" in it.kinds()

    drive(running, tmp_path, work)


def test_what_another_controller_left_is_finished(running: Cluster, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "controller.db")
    inputs = running.inputs(CHAIN)
    store.write(State(None, inputs, "committing"))
    store.close()

    async def work(it: Staying) -> None:
        async def done() -> bool:
            state = it.store.read()
            return state.stage == "done" and state.current is not None and await it.well()

        await until(done)
        assert str(it.plan()) == str(inputs.plan())

    drive(running, tmp_path, work)


def test_a_daemon_that_was_meddled_with_gets_the_plan_again(
    running: Cluster, tmp_path: Path
) -> None:
    async def work(it: Staying) -> None:
        plan = await it.apply(CHAIN)
        server = plan.layout.servers["fw.0"]
        client = running.agents[server]._dataplane.client
        module = next(m.name for m in plan.servers[server].modules if m.role == "nf")
        await asyncio.to_thread(client.pause)
        await asyncio.to_thread(client.destroy_module, module)
        assert not await it.well()
        await until(it.well)
        assert "brought in step" in it.kinds(server)

    drive(running, tmp_path, work)
