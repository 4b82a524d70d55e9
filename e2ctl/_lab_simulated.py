# SPDX-License-Identifier: BSD-3-Clause
"""A lab without root: processes of one user, joined by Unix sockets and a switch in software."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from bess_plugins.client import Client
from e2ctl._lab_blueprint import Blueprint, Cable
from e2ctl._lab_builder import PYTHON, Builder, agent_socket, daemon_socket
from e2ctl._lab_system import LabError, Service
from e2ctl.agent.dataplane import free_port
from e2ctl.hardware import Hardware
from e2ctl.softswitch.driver import control_socket
from e2ctl.tls import somebody_listens

__all__ = ["REPLACES", "SimulatedBuilder", "simulated"]

# What differs from a lab of namespaces, for whoever looks at one.
REPLACES = (
    "simulated: Unix sockets stand for interfaces and cables, and a process in Python for Open "
    "vSwitch; it hashes flows in its own way and is slow. Hosts share this machine's network. NFs "
    "with a `program` can't run here: that takes root"
)
_LONGEST_PATH = 107


def simulated(hardware: Hardware, folder: Path) -> Hardware:
    """The hardware as a simulated lab in a folder has it."""
    servers = {}
    for name, server in hardware.servers.items():
        socket = str(_socket(folder, name, server.device))
        if len(socket.encode()) > _LONGEST_PATH:
            raise LabError(
                f"{socket} is too long for a Unix socket; set XDG_RUNTIME_DIR to a shorter folder"
            )
        agent = f"unix:{agent_socket(folder, name)}"
        servers[name] = server.model_copy(update={"agent": agent, "socket": socket})
    update = {"driver": "software", "rundir": str(folder)}
    switch = hardware.switch.model_copy(update=update)
    return hardware.model_copy(update={"servers": servers, "switch": switch})


def _socket(folder: Path, host: str, device: str) -> Path:
    """The socket that stands for a host's interface."""
    return folder / f"{host}-{device}.sock"


class SimulatedBuilder(Builder):
    """Makes the parts of a simulated lab."""

    def __init__(self, blueprint: Blueprint, folder: Path) -> None:
        super().__init__(blueprint, folder)
        self.agents = [*blueprint.hardware.servers] if blueprint.agents else []

    def build(self) -> None:
        """Make everything."""
        self.note(complete=False)
        services = {control_socket(self.folder): self.switch()}
        for host in self.plan.hosts:
            if host in self.agents:
                services[agent_socket(self.folder, host)] = self.agent(host)
            else:
                port = f"--port={free_port()}"
                services[daemon_socket(self.folder, host)] = self.daemon(host, None, port)
        for path, service in services.items():
            service.ready(partial(somebody_listens, f"unix:{path}"))
        for host in self.plan.hosts:
            if host not in self.agents:
                self.interfaces(host)
        self.finish()

    def switch(self) -> Service:
        """Start the switch, which waits for the hosts' sockets."""
        config = self.folder / "switch.json"
        ports = {cable.port: str(self.socket(cable)) for cable in self.plan.cables}
        text = {
            "control": str(control_socket(self.folder)),
            "table": self.plan.hardware.switch.table,
            "ports": ports,
        }
        config.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
        return self.start("switch", None, *PYTHON, "e2ctl.softswitch.process", config)

    def socket(self, cable: Cable) -> Path:
        """What a cable's end at its host is."""
        return _socket(self.folder, self.host(cable), cable.device)

    def host(self, cable: Cable) -> str:
        """Whose cable it is."""
        return cable.namespace.removeprefix(self.plan.prefix)

    def interfaces(self, host: str) -> None:
        """What a daemon without an agent has instead of interfaces: ports with their names."""
        with Client(f"unix:{daemon_socket(self.folder, host)}") as client:
            for cable in self.plan.cables:
                if self.host(cable) == host:
                    path = str(self.socket(cable))
                    client.create_port("UnixSocketPort", cable.device, path=path)
