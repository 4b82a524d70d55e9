# SPDX-License-Identifier: BSD-3-Clause
"""The making of a lab's parts, and lab.json, which says what was made."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from e2ctl._lab_blueprint import Blueprint
from e2ctl._lab_system import LabError, Service, run, start, wait_for
from e2ctl.tls import somebody_listens

__all__ = [
    "HARDWARE",
    "PYTHON",
    "Builder",
    "agent_socket",
    "check_schema",
    "daemon_socket",
    "ovs_folder",
    "read_state",
]

# What the cluster is to a controller.
HARDWARE = "hardware.yaml"
_STATE = "lab.json"
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_PROTOCOLS = "OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15"
_NO_IPV6 = (
    "for set in all default; do "
    "file=/proc/sys/net/ipv6/conf/$set/disable_ipv6; "
    'if [ -e "$file" ]; then echo 1 > "$file"; fi; done'
)
# The installed package, wherever the command is typed.
PYTHON = (sys.executable, "-P", "-m")


def check_schema() -> None:
    """Open vSwitch's database needs its schema, a file of the package."""
    if not _SCHEMA.exists():
        raise LabError(f"no {_SCHEMA}; run `apt-get install --reinstall openvswitch-switch`")


def daemon_socket(folder: Path, host: str) -> Path:
    """Where a host's daemon listens."""
    return folder / f"{host}-e2d.sock"


def agent_socket(folder: Path, server: str) -> Path:
    """Where a server's agent listens."""
    return folder / f"{server}-agent.sock"


def ovs_folder(folder: Path) -> Path:
    """Where Open vSwitch has its sockets and its database."""
    return folder / "ovs"


def read_state(folder: Path) -> dict[str, Any]:
    """What lab.json says; nothing where it is missing or no JSON any more."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


class Builder:
    """Makes the parts of a lab, and writes down what it has made."""

    def __init__(self, blueprint: Blueprint, folder: Path) -> None:
        self.plan = blueprint
        self.folder = folder
        self.services: list[Service] = []
        self.processes: list[dict[str, Any]] = []

    def build(self) -> None:
        """Make everything, in an order in which each part finds what it needs."""
        self.note(complete=False)
        for namespace in self.plan.namespaces:
            run("ip", "netns", "add", namespace)
            run("ip", "netns", "exec", namespace, "sh", "-c", _NO_IPV6)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        agents = [*self.plan.hardware.servers] if self.plan.agents else []
        services = {
            daemon_socket(self.folder, host): self.daemon(host, namespace)
            for host, namespace in self.plan.hosts.items()
            if host not in agents
        }
        self.cables()
        self.open_vswitch()
        services |= {agent_socket(self.folder, name): self.agent(name) for name in agents}
        for path, service in services.items():
            service.ready(partial(somebody_listens, f"unix:{path}"))
        self.finish()

    def finish(self) -> None:
        """Tell controllers what there is."""
        text = json.dumps(self.plan.hardware.model_dump(mode="json", exclude_none=True), indent=2)
        (self.folder / HARDWARE).write_text(f"{text}\n", encoding="utf-8")  # JSON is YAML, too
        self.note(complete=True)

    def note(self, *, complete: bool) -> None:
        """Write lab.json; readers find the old one or the new one."""
        state = {
            "name": self.plan.name,
            "simulated": self.plan.simulated,
            "complete": complete,
            "bridge": self.plan.hardware.switch.bridge,
            "hosts": self.plan.hosts,
            "namespaces": () if self.plan.simulated else self.plan.namespaces,
            "cables": [{**asdict(cable), "end": cable.end} for cable in self.plan.cables],
            "processes": self.processes,
        }
        fresh = self.folder / f"{_STATE}.new"
        fresh.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        fresh.rename(self.folder / _STATE)

    def start(self, name: str, namespace: str | None, *command: str | Path, **env: str) -> Service:
        """Start a program and write down that it was."""
        service = start(name, namespace, command, self.folder, env)
        self.services.append(service)
        words = [str(word) for word in command]
        self.processes.append({**asdict(service.process), "namespace": namespace, "command": words})
        self.note(complete=False)
        return service

    def daemon(self, host: str, namespace: str | None, *more: str) -> Service:
        """Start an e2d. Its pid file is named after its port, so it has a runtime folder."""
        runtime, path = self.folder / f"{host}-run", daemon_socket(self.folder, host)
        runtime.mkdir(mode=0o700)
        module = "bess_plugins.daemon.cli"
        words: list[str | Path] = [*PYTHON, module, "--foreground", "--unix-socket", path, *more]
        return self.start(f"{host}-e2d", namespace, *words, XDG_RUNTIME_DIR=str(runtime))

    def agent(self, server: str) -> Service:
        """Start a server's agent, which starts its daemon."""
        runtime = self.folder / f"{server}-run"
        runtime.mkdir(mode=0o700)
        daemon = f"--daemon=unix:{daemon_socket(self.folder, server)}"
        listen = f"--listen=unix:{agent_socket(self.folder, server)}"
        words = (*PYTHON, "e2ctl.cli", "agent", server, daemon, listen)
        namespace = None if self.plan.simulated else self.plan.server(server)
        return self.start(f"{server}-agent", namespace, *words, XDG_RUNTIME_DIR=str(runtime))

    def cables(self) -> None:
        """Join everybody with the switch."""
        for cable in self.plan.cables:
            mtu = str(self.plan.mtu)
            mac = ("address", cable.mac) if cable.mac else ()
            run(
                "ip", "link", "add", cable.device, "netns", cable.namespace, "mtu", mtu, *mac,
                "type", "veth",
                "peer", "name", cable.end, "netns", self.plan.switch, "mtu", mtu,
            )  # fmt: skip
            # Tunnels end in the dataplane. The kernel gets no network with the address, so that it
            # answers nothing, and no IPv6 one, as it would have to speak IPv6 for that.
            if cable.ip is not None and ip_address(cable.ip).version == 4:
                address = f"{cable.ip}/32"
                run("ip", "-n", cable.namespace, "address", "add", address, "dev", cable.device)
            ends = ((cable.namespace, cable.device), (self.plan.switch, cable.end))
            for namespace, device in ends:
                # Nobody behind a veth would finish a checksum.
                run("ip", "netns", "exec", namespace, "ethtool", "-K", device, "tx", "off")
                run("ip", "-n", namespace, "link", "set", device, "up")

    def open_vswitch(self) -> None:
        """Start Open vSwitch with the datapath that needs no kernel module, and wire the bridge."""
        folder, space = ovs_folder(self.folder), self.plan.switch
        folder.mkdir(mode=0o700)
        variables = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        env = {variable: str(folder) for variable in variables}
        base, path = folder / "conf.db", folder / "db.sock"
        run("ovsdb-tool", "create", base, _SCHEMA, env=env)
        control = f"--unixctl={folder / 'ovsdb-server.ctl'}"
        server = ("ovsdb-server", base, f"--remote=punix:{path}", control)
        self.start("ovsdb-server", space, *server, **env).ready(
            lambda: somebody_listens(f"unix:{path}")
        )
        vsctl = ("ovs-vsctl", f"--db=unix:{path}", "--timeout=30")
        run(*vsctl, "--no-wait", "init", env=env)
        control = f"--unixctl={folder / 'ovs-vswitchd.ctl'}"
        switch = ("ovs-vswitchd", f"unix:{path}", "--disable-system", control)
        service = self.start("ovs-vswitchd", space, *switch, **env)
        service.ready(lambda: somebody_listens(f"unix:{folder}/ovs-vswitchd.ctl"))
        bridge = self.plan.hardware.switch.bridge
        words = ["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"]
        words += ["fail_mode=secure", f"protocols={_PROTOCOLS}"]
        for cable in self.plan.cables:
            words += ["--", "add-port", bridge, cable.end]
            words += ["--", "set", "interface", cable.end, f"ofport_request={cable.port}"]
        run(*vsctl, *words, env=env)
        for cable in self.plan.cables:
            given = run(*vsctl, "get", "interface", cable.end, "ofport", env=env).strip()
            if given != str(cable.port):
                why = run(*vsctl, "get", "interface", cable.end, "error", env=env).strip()
                raise LabError(f"switch port {cable.port} became {given}; Open vSwitch says {why}")
        wait_for((folder / f"{bridge}.mgmt").exists, f"bridge {bridge} takes OpenFlow")
