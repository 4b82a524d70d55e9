# SPDX-License-Identifier: BSD-3-Clause
"""What Alpine writes runs on a daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alpine.emit import emit
from alpine.frontend import load
from alpine.plan import NewQueue, Plan, TcNode, TcTask
from bess_plugins.client import Client
from bess_plugins.script import run_script
from daemon_support import CORE
from harness import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "alpine" / "firewall.alpine"
LOOPS = f"""\
bess.add_worker(0, {CORE})
wm::RoundRobin(gates=[0, 1])
PortInc(port=MemoryPort(num_inc_q=2, num_out_q=2)) -> Sink()
Source() -> wm
for gate in range(2):
    wm:gate -> Sink()
"""


on_core_0 = pytest.mark.skipif(
    0 not in os.sched_getaffinity(0),
    reason="a script without workers gets one on core 0, which this process may not use",
)


def served(client: Client, task: str) -> int:
    return sum(
        client.tc_stats(tc["name"]).count
        for tc in client.list_tcs()
        if tc["leaf_module_name"] == task
    )


@on_core_0
def test_the_example_with_queues(client: Client, tmp_path: Path) -> None:
    read = load(EXAMPLE)
    edges = {edge.target: edge for edge in read.graph.edges}
    queues = (NewQueue("q0", edges["ttl"]), NewQueue("q1", edges["counted"]))
    leaves = tuple(
        (share, TcTask(name, "")) for share, name in ((3, "arrive"), (2, "q0"), (1, "q1"))
    )
    path = tmp_path / "firewall.bess"
    root = TcNode("s0", "weighted_fair", "cycle", leaves)
    path.write_text(emit(read, Plan(queues, (root,), polling=False)), encoding="utf-8")
    run_script(path, client)
    for name in ("q0", "q1", "arrive"):
        wait_until(lambda name=name: served(client, name) > 0)  # type: ignore[misc]
    (top,) = [tc for tc in client.list_tcs() if tc["name"] == "s0"]
    assert (top["policy"], top["resource"]) == ("weighted_fair", "cycle")
    assert client.module_info("ttl")["igates"][0]["ogates"][0]["name"] == "q0"
    assert client.module_info("q1")["ogates"][0]["name"] == "counted"


def test_connections_that_are_made_again(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "loops.alpine"
    path.write_text(LOOPS, encoding="utf-8")
    read = load(path)
    edges = {edge.key: edge for edge in read.graph.edges}
    queues = (NewQueue("q0", edges["wm", 1]), NewQueue("q1", edges["source0", 0]))
    leaves = [TcTask(name, "") for name in ("source0", "port_inc0", "q0", "q1")]
    root = TcNode("s0", "round_robin", "", tuple((None, leaf) for leaf in leaves))
    path.write_text(emit(read, Plan(queues, (root,), polling=False)), encoding="utf-8")
    run_script(path, client)
    for leaf in leaves:
        wait_until(lambda name=leaf.module: served(client, name) > 0)  # type: ignore[misc]
    parents = {tc["leaf_module_name"]: tc["parent"] for tc in client.list_tcs()}
    assert parents["port_inc0"] == "port_inc0_tasks" and parents["q0"] == "s0"
    assert client.module_info("wm")["ogates"][1]["name"] == "q0"


@on_core_0
def test_a_task_alone_on_a_worker(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "one.alpine"
    path.write_text("s::Source()\ns -> Sink()\n", encoding="utf-8")
    plan = Plan((), (TcTask("s", ""),), polling=False)
    path.write_text(emit(load(path), plan), encoding="utf-8")
    run_script(path, client)
    wait_until(lambda: served(client, "s") > 0)
