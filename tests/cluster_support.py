# SPDX-License-Identifier: BSD-3-Clause
"""Agents with real daemons on this machine, each at one end of a cable that leads nowhere."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bess_plugins.client import Client
from e2ctl import hardware as hardwares
from e2ctl.agent.dataplane import Dataplane
from e2ctl.agent.server import AgentServer
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.store import Inputs
from e2ctl.controller.switches import SimulatedSwitch
from e2ctl.hardware import Hardware
from e2ctl.plan import Plan, Running

EXAMPLES = Path(__file__).parents[1] / "examples"
OFFICE = (EXAMPLES / "central_office.e2").read_text(encoding="utf-8")
SMALL = """
nf monitor : NetworkMonitor
port subscribers, internet
pipeline p { subscribers -> monitor @ 1Gbps; monitor -> internet; }
"""
SLEEPER = """
Sleeper:
  kind: legacy
  program: {devices: [left, right], run: [sleep, "1000"]}
  outputs: [1]
"""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
)


class Cluster:
    """Agents by server, and the hardware description that names them."""

    def __init__(self, folder: Path, servers: int, table: int = 2048, cores: int = 4) -> None:
        self.folder = folder
        self.path = folder / "hardware.yaml"
        lines = [
            f"  s{i}: {{cores: {cores}, ghz: 2.6, nic: 10Gbps, agent: 'unix:{folder}/a{i}.sock', "
            f"device: e2t{i}, port: {10 + i}, ip: 192.168.77.{i}, mac: '02:e2:00:00:00:0{i}'}}"
            for i in range(1, servers + 1)
        ]
        self.path.write_text(
            "\n".join(
                [
                    "servers:",
                    *lines,
                    f"switch: {{actions: [acl], table: {table}, "
                    "ports: {subscribers: 1, internet: 2}}",
                ]
            ),
            encoding="utf-8",
        )
        self.hardware: Hardware = hardwares.load(self.path)
        self.agents: dict[str, AgentServer] = {}

    def start(self, server: str) -> AgentServer:
        """An agent, with a daemon of its own."""
        runtime = self.folder / f"run-{server}"
        runtime.mkdir(exist_ok=True, mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        dataplane = Dataplane(f"unix:{self.folder}/d-{server}.sock", own=True)
        agent = AgentServer(server, dataplane, self.hardware.servers[server].agent)
        self.agents[server] = agent
        agent.start()
        return agent

    def inputs(self, policy: str, running: Running | None = None) -> Inputs:
        """What `e2ctl apply` would read; ``policy`` is text."""
        path = self.folder / "policy.e2"
        path.write_text(policy, encoding="utf-8")
        return Inputs.read(path, EXAMPLES / "nfs.yaml", self.path, running or Running())


@contextmanager
def cluster(folder: Path, servers: int = 2, table: int = 2048, cores: int = 4) -> Iterator[Cluster]:
    """Agents of some servers, and their cables, until the end."""
    with ExitStack() as stack:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        stack.callback(_restore_runtime, runtime)
        made = Cluster(folder, servers, table, cores)
        for number in range(1, servers + 1):
            ends = [f"e2t{number}", f"e2p{number}"]
            subprocess.run(["ip", "link", "del", ends[0]], check=False, capture_output=True)
            subprocess.run(
                ["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True
            )
            stack.callback(subprocess.run, ["ip", "link", "del", ends[0]], check=False)
            for end in ends:
                subprocess.run(["ip", "link", "set", end, "up"], check=True)
        for server in made.hardware.servers:
            stack.callback(_stop, made, server)
            made.start(server)
        yield made


def _stop(made: Cluster, server: str) -> None:
    if server in made.agents:
        made.agents[server].stop()


def _restore_runtime(value: str | None) -> None:
    if value is None:
        os.environ.pop("XDG_RUNTIME_DIR", None)
    else:
        os.environ["XDG_RUNTIME_DIR"] = value


async def no_time(seconds: float) -> None:
    """Updates of the simulated switch take none."""


def drive(made: Cluster, work: Callable[[Agents, SimulatedSwitch], Awaitable[None]]) -> None:
    """Run a coroutine as a controller."""

    async def main() -> None:
        async with Agents(made.hardware) as agents:
            await work(agents, SimulatedSwitch(made.hardware.switch.table, sleep=no_time))

    asyncio.run(main())


def modules(made: Cluster) -> dict[str, set[str]]:
    """What daemons run, by server."""
    found = {}
    for server in made.hardware.servers:
        with Client(f"unix:{made.folder}/d-{server}.sock") as client:
            found[server] = {module["name"] for module in client.list_modules()}
    return found


def wanted(plan: Plan) -> dict[str, set[str]]:
    """What a plan says that they run."""
    return {
        server: {module.name for module in target.modules}
        for server, target in plan.servers.items()
    }


async def in_step(agents: Agents, server: str, restarts: int) -> bool:
    """Whether a server has its plan, and its daemon was lost so often."""
    state = (await agents.states())[server]
    return not isinstance(state, AgentError) and state.restarts == restarts and state.in_step


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def daemons(socket: Path) -> list[int]:
    """Processes of the daemon at a socket."""
    found = subprocess.run(
        ["pgrep", "-f", f"unix-socket={socket}"], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def pids_in(space: str) -> list[int]:
    """Processes in a network namespace."""
    found = subprocess.run(
        ["ip", "netns", "pids", space], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def agent_of(command: int) -> int | None:
    """The agent proper of an `e2ctl agent`: a fork, so it has the words of its parent."""
    words = Path(f"/proc/{command}/cmdline").read_bytes()
    for pid in Path(f"/proc/{command}/task/{command}/children").read_text().split():
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == words:
                return int(pid)
    return None
