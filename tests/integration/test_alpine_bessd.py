# SPDX-License-Identifier: BSD-3-Clause
"""Alpine on a real bessd, where it does other than e2d."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bessd_support
from alpine.calibration import calibrate
from alpine.emit import emit
from alpine.frontend import load
from alpine.plan import Plan, TcNode, TcTask
from bess_plugins.client import Client
from bess_plugins.script import run_script
from harness import wait_until

pytestmark = [
    pytest.mark.skipif(not bessd_support.ADDRESS, reason="BESSD_ADDRESS names no bessd"),
    pytest.mark.skipif(
        not {0, 1} <= os.sched_getaffinity(0), reason="a script's two workers get cores 0 and 1"
    ),
]

SCRIPT = """\
one::Source() -> Sink()
two::Source() -> Sink()
bess.disconnect_modules('two', 0)
two -> Sink()
"""


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(bessd_support.ADDRESS) as connected:
        connected.reset_all()
        yield connected
        connected.reset_all()


@pytest.mark.parametrize("polling", [False, True])
def test_workers_after_a_connection_was_taken_apart(
    client: Client, tmp_path: Path, polling: bool
) -> None:
    """bessd has started worker 0 by then, and refuses to add it."""
    path = tmp_path / "test.bess"
    path.write_text(SCRIPT, encoding="utf-8")
    first = TcNode("first", "weighted_fair", "cycle", ((1, TcTask("one", "")),))
    plan = Plan((), (first, TcTask("two", "")), polling=polling)
    path.write_text(emit(load(path), plan), encoding="utf-8")
    run_script(path, client)
    assert [worker["wid"] for worker in client.list_workers()] == [0, 1]
    leaves = {tc["leaf_module_name"]: tc["wid"] for tc in client.list_tcs()}
    assert (leaves["one"], leaves["two"]) == (0, 1)
    for name in ("one", "two"):
        wait_until(lambda name=name: client.module_info(name)["ogates"][0]["pkts"] > 1000)


class Watching(Client):
    """Keeps what a queue says before it goes."""

    queues: tuple[dict[str, Any], ...] = ()

    def reset_all(self) -> None:
        for module in self.list_modules():
            if module["mclass"] == "Queue":
                name, kind = str(module["name"]), "QueueCommandGetStatusArg"
                self.queues += (self.run_module_command(name, "get_status", kind),)
        super().reset_all()


def test_calibration_drops_no_packets_of_whole_batches(client: Client) -> None:
    """Half of them would be lost if the queue gave 32 at a time, like e2d's, and not 64."""
    with Watching(client.address) as watching:
        calibrate(watching, 0, cycles=False)
    (status,) = watching.queues
    assert status["enqueued"] > 1_000_000
    assert status["dropped"] < status["enqueued"] / 2  # while it fills up
