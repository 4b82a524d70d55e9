# SPDX-License-Identifier: BSD-3-Clause
"""A trace beside a real Open vSwitch: packets where it says they go, and entries that differ."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.store import Inputs, SqliteStore
from e2ctl.lab import Lab, lab
from e2ctl.lab_traffic import Traffic
from e2ctl.plan import Running
from e2ctl.switch_rules import STEER
from harness import run_program, wait_until
from lab_support import EXAMPLES, lab_file, needs_lab
from tcp_capture import connections, write

pytestmark = needs_lab

WORDS = "tcp and src net 10.0.0.0/8", "--port", "subscribers"
PACKETS = re.compile(r"\[([\d,]+) packets")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with lab(lab_file(folder, "v", agents=True)) as made:

        async def work() -> None:
            policy = EXAMPLES / "central_office.e2"
            description = made.folder / "hardware.yaml"
            inputs = Inputs.read(policy, EXAMPLES / "nfs.yaml", description, Running())
            async with Agents(made.blueprint.hardware) as agents:
                store = SqliteStore(made.folder / "controller.db")
                await apply(inputs, store, agents, made.switch)

        asyncio.run(work())
        yield made


def trace(made: Lab) -> tuple[int, str]:
    command = [sys.executable, "-P", "-m", "e2ctl.cli", "trace", *WORDS, "--lab", made.name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


def counted(text: str, place: str) -> int:
    """Packets that a line of a trace names, the first about a place."""
    line = next(line for line in text.splitlines() if place in line)
    found = PACKETS.search(line)
    assert found is not None, line
    return int(found[1].replace(",", ""))


def test_packets_are_counted_where_they_go(running: Lab, tmp_path: Path) -> None:
    code, before = trace(running)
    assert code == 0, before
    capture = tmp_path / "flows.pcap"
    write(capture, connections(100, 100, 1.0, 0.1))
    traffic = Traffic(running.world)
    traffic.counts("internet")  # so that what leaves finds somebody
    sent = traffic.replay(capture, "subscribers", 500)

    def entered() -> int:
        code, text = trace(running)
        assert code == 0, text
        return counted(text, "hash ") - counted(before, "hash ")

    # Open vSwitch counts within half a second or so.
    wait_until(lambda: entered() >= sent, 30)
    text = trace(running)[1]
    by_instance = [counted(text, f"NF ids.{i}") - counted(before, f"NF ids.{i}") for i in (0, 1)]
    assert min(by_instance) > 0 and sum(by_instance) <= sent


def test_entries_that_differ_are_warned_of(running: Lab) -> None:
    plan_entries = asyncio.run(running.switch.entries())
    target = f"unix:{running.switch.rundir / running.switch.bridge}.mgmt"
    ofctl = ["ovs-ofctl", "--protocols=OpenFlow14"]
    current = SqliteStore(running.folder / "controller.db").read().current
    assert current is not None
    rules = current.plan().switch
    foreign = "table=0,priority=900,in_port=1,tcp,tp_dst=23,actions=drop"
    run_program([*ofctl, "add-flow", target, foreign])
    code, text = trace(running)
    assert code == 3
    assert "entries that the switch has and the plan has not: 1, the first: table=0,prio" in text
    # The same match with another action is no entry of the plan.
    steer = f"table={STEER},reg0=0x800/0x800,reg1=0x1"
    run_program([*ofctl, "mod-flows", target, f"{steer},actions=drop"])
    code, text = trace(running)
    assert code == 3
    lacking = [line for line in text.splitlines() if "the switch lacks the entry" in line]
    assert len(lacking) == 1 and "id=0x800/0x800" in lacking[0]
    asyncio.run(running.switch.replace(rules))
    assert asyncio.run(running.switch.entries()) == plan_entries
    assert trace(running)[0] == 0
