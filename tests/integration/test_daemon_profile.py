# SPDX-License-Identifier: BSD-3-Clause
"""A controller asks a daemon what its modules cost."""

from __future__ import annotations

from bess_plugins.client import Client
from daemon_support import CORE
from harness import wait_until


def test_any_module_tells_what_it_costs(client: Client) -> None:
    client.add_worker(0, CORE)
    client.create_module("Source", "src")
    client.create_module("Queue", "queue")
    client.create_module("Sink", "dst")
    client.connect("src", "queue")
    client.connect("queue", "dst")
    client.resume()
    for name in ("src", "queue", "dst"):
        client.run_module_command(name, "e2_profile", "ModuleProfileArg", {"enable": True})

    def stats(name: str) -> dict[str, int]:
        return client.run_module_command(name, "e2_stats", "ModuleStatsArg")

    wait_until(lambda: stats("dst")["packets"] > 1_000)
    client.run_module_command("src", "e2_profile", "ModuleProfileArg", {"enable": False})
    source, queue, sink = stats("src"), stats("queue"), stats("dst")
    assert source["task_packets"] == queue["packets"] > 0
    assert queue["task_packets"] == sink["packets"]
    assert min(source["task_cycles"], queue["cycles"], queue["task_cycles"]) > 0
    assert stats("dst") == sink  # off again
    client.pause()
