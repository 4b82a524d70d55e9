# SPDX-License-Identifier: BSD-3-Clause
"""All counters of a running daemon in one call, beside what its other calls say."""

from __future__ import annotations

import pytest

from bess_plugins.client import Client, DaemonUnavailableError
from daemon_support import CORE
from harness import wait_until

SIZE = 60


def build(client: Client) -> None:
    """A source whose packets find a full queue, for nobody empties it."""
    client.add_worker(0, CORE)
    client.create_module("Source", "src", pkt_size=SIZE)
    client.create_module("Queue", "queue", size=64)
    client.create_module("Sink", "sink")
    client.connect("src", "queue")
    client.connect("queue", "sink")
    client.configure_gate_hook("Track", "src", gate=0, bits=True)
    client.add_tc("never", "rate_limit", wid=0, resource="count", limit={"count": 1})
    client.attach_task("src", wid=0)
    client.attach_task("queue", "never")


def test_they_are_those_of_all_other_calls(client: Client) -> None:
    build(client)
    client.resume()
    wait_until(lambda: client.tc_stats("!leaf_src:0").packets > 10_000)
    running = client.counters()
    assert [worker.running for worker in running.workers] == [True]
    client.pause()
    found = client.counters()
    assert found.time_ns > running.time_ns
    modules = {module.name: module for module in found.modules}
    assert {m["name"]: m["mclass"] for m in client.list_modules()} == {
        name: module.mclass for name, module in modules.items()
    }
    (gate,) = modules["src"].ogates
    (told,) = client.module_info("src")["ogates"]
    assert (gate.target, gate.igate, gate.packets, gate.bytes) == (
        "queue",
        0,
        told["pkts"],
        told["bytes"],
    )
    assert gate.bytes == gate.packets * SIZE
    status = client.run_module_command("queue", "get_status", "QueueCommandGetStatusArg")
    queue = modules["queue"]
    assert (queue.waiting, queue.most_waiting) == (status["count"], 64)
    assert dict(queue.drops) == {"queue full": status["dropped"]}
    assert not modules["sink"].HasField("waiting") and not queue.HasField("cycles")
    tasks = {task.module: task for task in found.tasks}
    stats = client.tc_stats("!leaf_src:0")
    source = tasks["src"]
    assert (source.wid, source.packets, source.bytes) == (0, stats.packets, stats.packets * SIZE)
    assert 0 < source.busy_ns < found.time_ns


def test_time_asleep_is_no_task_s(client: Client) -> None:
    """A task that finds nothing to do takes a small part of its worker's time."""
    client.add_worker(0, CORE)
    client.create_module("Queue", "queue")
    client.create_module("Sink", "sink")
    client.connect("queue", "sink")
    client.attach_task("queue", wid=0)
    client.resume()

    def runs() -> int:
        return client.tc_stats("!leaf_queue:0").count

    wait_until(lambda: runs() > 10)  # it has begun to sleep
    before, start = client.counters(), runs()
    wait_until(lambda: runs() > start + 50)
    after = client.counters()
    busy_ns = after.tasks[0].busy_ns - before.tasks[0].busy_ns
    assert busy_ns < (after.time_ns - before.time_ns) / 2


def test_profiled_modules_tell_their_cycles(client: Client) -> None:
    build(client)
    client.run_module_command("src", "e2_profile", "ModuleProfileArg", {"enable": True})
    client.resume()
    wait_until(lambda: client.tc_stats("!leaf_src:0").packets > 10_000)
    client.pause()
    assert {m.name: m.HasField("cycles") for m in client.counters().modules}["src"]


def test_without_a_daemon_there_are_none() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(DaemonUnavailableError):
        client.counters()
