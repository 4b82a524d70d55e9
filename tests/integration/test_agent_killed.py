# SPDX-License-Identifier: BSD-3-Clause
"""Agents that are killed: what they looked after runs on, and others take it over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.client import Client
from cluster_support import (
    OFFICE,
    SLEEPER,
    SMALL,
    Cluster,
    agent_of,
    cluster,
    daemons,
    drive,
    in_step,
    modules,
    needs_root,
    pids_in,
    until,
    wanted,
)
from e2ctl._processes import stat_of
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.store import Inputs, SqliteStore
from e2ctl.controller.switches import SimulatedSwitch
from e2ctl.plan import Plan
from harness import wait_until

pytestmark = needs_root

SERVER = "s1"


class Command:
    """`e2ctl agent`, as an operator starts it."""

    def __init__(self, made: Cluster, server: str = SERVER, *words: str) -> None:
        self.folder = made.folder
        self.socket = made.folder / f"d-{server}.sock"
        self.log = made.folder / f"agent-{server}.log"
        listen, daemon = made.hardware.servers[server].agent, f"unix:{self.socket}"
        command = [sys.executable, "-P", "-m", "e2ctl.cli", "agent", server]
        begin = self.lines()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, f"--listen={listen}", f"--daemon={daemon}", *words],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: self.said("listens on", begin) or self.process.poll() is not None, 60)

    def lines(self) -> int:
        """How many its log has."""
        return self.log.read_text().count("\n") if self.log.exists() else 0

    def said(self, what: str, begin: int = 0) -> int:
        """In how many lines of its log, from one on, it said so."""
        return sum(what in line for line in self.log.read_text().splitlines()[begin:])

    @property
    def agent(self) -> int:
        """The process that does the work."""
        found = agent_of(self.process.pid)
        assert found is not None
        return found

    def daemons(self) -> list[int]:
        return daemons(self.socket)

    def kill(self) -> float:
        """Kill the agent proper; seconds until another serves."""
        begin, lost, start = self.lines(), self.agent, time.monotonic()
        os.kill(lost, signal.SIGKILL)
        wait_until(lambda: self.said("listens on", begin) > 0, 20)
        took = time.monotonic() - start
        assert self.agent != lost
        return took

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def left(self) -> set[str]:
        """Files of a daemon and its agent that are still there."""
        found = {path.name for path in self.folder.glob(f"{self.socket.name}*")}
        return found | {f"process {pid}" for pid in self.daemons()}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        made.agents.pop(SERVER).stop()
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    held = SqliteStore(tmp_path / "controller.db")
    yield held
    held.close()


@contextmanager
def command(made: Cluster) -> Iterator[Command]:
    started = Command(made)
    try:
        yield started
    finally:
        started.stop()
        for pid in started.daemons():  # that a failed test has left
            os.kill(pid, signal.SIGKILL)


def test_another_agent_takes_over_daemon_and_plan(running: Cluster, store: SqliteStore) -> None:
    with command(running) as started:

        async def work(agents: Agents, switch: SimulatedSwitch) -> None:
            plan = await apply(running.inputs(SMALL), store, agents, switch)
            before = started.daemons()
            for _ in range(2):
                started.kill()
                await until(lambda: in_step(agents, SERVER, restarts=0))
            assert started.daemons() == before
            assert modules(running) == wanted(plan)
            following = await apply(running.inputs(OFFICE, plan.running), store, agents, switch)
            assert modules(running) == wanted(following)
            # One that lost its predecessor knows what a new daemon is to have.
            started.kill()
            (lost,) = started.daemons()
            os.kill(lost, signal.SIGKILL)
            await until(lambda: in_step(agents, SERVER, restarts=1))
            assert modules(running) == wanted(following)
            # Both at once, and nobody there who could tell.
            (lost,) = started.daemons()
            os.kill(started.agent, signal.SIGSTOP)
            os.kill(lost, signal.SIGKILL)
            started.kill()
            await until(lambda: in_step(agents, SERVER, restarts=0))
            assert modules(running) == wanted(following)

        drive(running, work)
        assert started.stop() == 0
        assert started.left() == set()


def test_an_agent_killed_in_the_middle_of_a_step_leads_all_back(
    running: Cluster, store: SqliteStore
) -> None:
    with command(running) as started:

        async def work(agents: Agents, switch: SimulatedSwitch) -> None:
            first = await apply(running.inputs(SMALL), store, agents, switch)
            target = running.inputs(OFFICE, first.running).plan()
            await agents.step("Prepare", target.servers)
            with Client(f"unix:{started.socket}") as client:
                client.pause()  # where a commit begins
                started.kill()
                assert all(worker["running"] for worker in client.list_workers())
            again = await apply(running.inputs(SMALL, first.running), store, agents, switch)
            assert modules(running) == wanted(again)

        drive(running, work)


def sleeper(made: Cluster, native: Plan) -> Inputs:
    inputs = made.inputs(SMALL.replace("NetworkMonitor", "Sleeper"), native.running)
    return replace(inputs, nfs=inputs.nfs + SLEEPER)


def test_programs_are_taken_over_or_started_again(running: Cluster, store: SqliteStore) -> None:
    with command(running) as started:

        async def work(agents: Agents, switch: SimulatedSwitch) -> None:
            native = await apply(running.inputs(SMALL), store, agents, switch)
            plan = await apply(sleeper(running, native), store, agents, switch)
            assert plan.layout.servers["monitor.0"] == SERVER
            space = f"e2-{SERVER}-monitor.0"
            (program,) = pids_in(space)
            started.kill()
            await until(lambda: in_step(agents, SERVER, restarts=0))
            assert pids_in(space) == [program]

            async def another() -> bool:
                found = pids_in(space)
                return bool(found) and program not in found

            os.kill(program, signal.SIGKILL)
            await until(another)
            await until(lambda: in_step(agents, SERVER, restarts=0))
            # One that ends while nobody looks.
            (program,) = pids_in(space)
            agent = started.agent
            os.kill(agent, signal.SIGSTOP)
            os.kill(program, signal.SIGKILL)
            started.kill()
            await until(another)
            await until(lambda: in_step(agents, SERVER, restarts=0))
            again = await apply(running.inputs(SMALL, plan.running), store, agents, switch)
            assert modules(running) == wanted(again)
            assert not pids_in(space)

        drive(running, work)
        assert started.stop() == 0
        assert started.left() == set()


def test_an_agent_ends_with_its_parent_and_the_daemon_runs_on(
    running: Cluster, store: SqliteStore
) -> None:
    with command(running) as started:

        async def work(agents: Agents, switch: SimulatedSwitch) -> None:
            plan = await apply(running.inputs(SMALL), store, agents, switch)
            agent, daemon = started.agent, started.daemons()
            started.process.kill()
            started.process.wait()
            wait_until(lambda: (stat_of(agent) or "Z")[0] in "ZX")
            assert started.daemons() == daemon
            with command(running) as following:
                await until(lambda: in_step(agents, SERVER, restarts=0))
                assert following.daemons() == daemon
                assert modules(running) == wanted(plan)
            assert following.left() == set()

        drive(running, work)


def test_an_agent_that_is_asked_to_end_while_there_is_none_leaves_nothing(
    running: Cluster,
) -> None:
    with command(running) as started:
        for _ in range(4):  # each time it comes back later
            started.kill()
        os.kill(started.agent, signal.SIGKILL)
        wait_until(lambda: started.said("starting it again in 1.6 s") == 1)
        assert started.daemons()
        assert started.stop() == 0
        assert started.left() == set()


def test_failing_to_start_ends_the_command(running: Cluster, tmp_path: Path) -> None:
    def refused(message: str, *words: str, server: str = SERVER) -> None:
        started = Command(running, server, *words)
        assert started.process.wait(30) == 1
        (line,) = (text for text in started.log.read_text().splitlines() if "e2ctl: " in text)
        assert message in line
        started.log.unlink()

    refused("is not on this machine, where keys", "--listen=192.0.2.1:10520")
    refused("s1.key: No such file or directory; `e2ctl pki` makes it", f"--pki={tmp_path}")
    refused("cannot listen on", f"--listen=unix:{tmp_path}/none/a.sock")
    refused("another agent looks after the daemon at", server="s2")
    with subprocess.Popen([sys.executable, "-c", LISTENER, str(tmp_path / "d-s1.sock")]) as other:
        wait_until((tmp_path / "d-s1.sock").exists)
        refused(f"process {other.pid} listens at {tmp_path}/d-s1.sock, which no agent has started")
        assert other.poll() is None
        other.kill()
    (tmp_path / "d-s1.sock").unlink()


LISTENER = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as one:
    one.bind(sys.argv[1] + ".new")
    one.listen()
    import os
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(1000)
"""


def test_a_server_that_cannot_finish_does_not_keep_a_change_from_being_done(
    running: Cluster, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.start(SERVER)

    async def work(agents: Agents, switch: SimulatedSwitch) -> None:
        first = await apply(running.inputs(OFFICE), store, agents, switch)
        step, said = agents[SERVER].step, list[str]()

        async def failing(name: str, *args: Any) -> float:
            if name == "Finish":
                raise AgentError(SERVER, "is not there")
            return await step(name, *args)

        monkeypatch.setattr(agents[SERVER], "step", failing)
        small = await apply(
            running.inputs(SMALL, first.running), store, agents, switch, said.append
        )
        assert said[-1] == f"not all is finished: agent of {SERVER}: is not there"
        current = store.read().current
        assert store.read().stage == "done"
        assert current is not None and str(current.plan()) == str(small)
        assert switch.rules == small.switch
        states = await agents.states()
        assert isinstance(states[SERVER], AgentError) or not states[SERVER].in_step
        monkeypatch.setattr(agents[SERVER], "step", step)
        again = await apply(running.inputs(SMALL, small.running), store, agents, switch)
        assert modules(running) == wanted(again)

    drive(running, work)
