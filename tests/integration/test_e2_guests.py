# SPDX-License-Identifier: BSD-3-Clause
"""An instance that is being drained runs on another's core, in real daemons, and gets one back."""

from __future__ import annotations

from pathlib import Path

from bess_plugins.client import Client
from cluster_support import Cluster, cluster, drive, needs_root
from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import SqliteStore
from e2ctl.controller.switches import SimulatedSwitch

pytestmark = needs_root

CHAIN = """
nf fw : StatefulFirewall
nf monitor : NetworkMonitor
port subscribers, internet
pipeline p { subscribers -> fw; fw -> monitor -> internet; }
"""
TWO = CHAIN.replace("NetworkMonitor", "StatefulFirewall")


def cores(made: Cluster) -> dict[str, int]:
    """The worker of each instance."""
    with Client(f"unix:{made.folder}/d-s1.sock") as client:
        counted = client.counters()
        workers = {worker["wid"] for worker in client.list_workers()}
    tasks = {task.module: task.wid for task in counted.tasks}
    assert set(tasks.values()) <= workers
    assert len(workers) == len(set(tasks.values()))
    found = {name.removeprefix("queue:"): wid for name, wid in tasks.items() if "queue:" in name}
    assert tasks["nic_in"] not in found.values()
    return found


def test_cores_are_given_away_and_given_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db")

    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        await apply(made.inputs(CHAIN), store, agents, switch)
        scaler = Scaler(store, agents, switch)
        assert await scaler.split("fw.0") == "fw.1"
        await scaler.push("fw.0")
        alone = cores(made)
        assert len(set(alone.values())) == 3

        await scaler.drain("fw.1")
        await scaler.share("fw.1", "monitor.0")
        shared = cores(made)
        assert shared == {**alone, "fw.1": alone["monitor.0"]}
        current = store.read().current
        assert current is not None
        assert "fw.1" in str(current.plan()) and "on the core of monitor.0" in str(current.plan())

        await scaler.resume("fw.1")
        again = cores(made)
        assert len(set(again.values())) == 3
        await scaler.push("fw.1")

        await scaler.drain("fw.1")
        await scaler.share("fw.1", "fw.0")
        await scaler.push("fw.1")  # it has no flow: it goes
        assert cores(made) == {name: again[name] for name in ("fw.0", "monitor.0")}

    with cluster(tmp_path, 1) as made, store.only_one():
        drive(made, work)


def test_a_guest_gets_the_core_of_a_host_that_goes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db")

    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        await apply(made.inputs(TWO), store, agents, switch)
        scaler = Scaler(store, agents, switch)
        await scaler.split("fw.0")
        await scaler.push("fw.0")
        await scaler.split("monitor.0")
        await scaler.push("monitor.0")
        await scaler.drain("fw.1")
        await scaler.share("fw.1", "monitor.1")
        shared = cores(made)
        assert shared["fw.1"] == shared["monitor.1"]
        await scaler.drain("monitor.1")
        await scaler.push("monitor.1")
        left = cores(made)
        assert left == {name: wid for name, wid in shared.items() if name != "monitor.1"}
        await scaler.push("fw.1")
        assert set(cores(made)) == {"fw.0", "monitor.0"}

    with cluster(tmp_path, 1, cores=6) as made, store.only_one():
        drive(made, work)
