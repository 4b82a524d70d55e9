# SPDX-License-Identifier: BSD-3-Clause
"""Agents with real daemons on this machine, each at one end of a cable that leads nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from e2ctl import hardware as hardwares
from e2ctl.agent.dataplane import Dataplane
from e2ctl.agent.server import AgentServer
from e2ctl.controller.store import Inputs
from e2ctl.hardware import Hardware
from e2ctl.plan import Running

EXAMPLES = Path(__file__).parents[1] / "examples"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
)


class Cluster:
    """Agents by server, and the hardware description that names them."""

    def __init__(self, folder: Path, servers: int, table: int = 2048) -> None:
        self.folder = folder
        self.path = folder / "hardware.yaml"
        lines = [
            f"  s{i}: {{cores: 4, ghz: 2.6, nic: 10Gbps, agent: 'unix:{folder}/a{i}.sock', "
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
def cluster(folder: Path, servers: int = 2, table: int = 2048) -> Iterator[Cluster]:
    """Agents of some servers, and their cables, until the end."""
    with ExitStack() as stack:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        stack.callback(_restore_runtime, runtime)
        made = Cluster(folder, servers, table)
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
