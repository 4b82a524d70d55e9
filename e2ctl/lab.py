# SPDX-License-Identifier: BSD-3-Clause
"""A cluster on one machine, of network namespaces, an Open vSwitch and daemons.

::

    NAME-world                NAME-sw                       NAME-s1, NAME-s2, ...
    e2d, traffic              ovsdb-server, ovs-vswitchd    e2d, agent
    subscribers ------------- p1, p2 (bridge br0) p11 ----- eth1
    internet ----------------'                    p12 ----- eth1

A YAML file says which::

    name: co                # up to 8 letters and digits
    hardware: rack.yaml     # what there is, from this file's folder
    mtu: 9000               # of all cables
    agents: true            # whether servers run agents, which run their daemons

All else is in the hardware description, but for where agents and Open vSwitch listen; a controller
finds that in hardware.yaml in the lab's state folder, /run/e2-lab/NAME. There are also pid files
(none for a daemon that its agent has started), sockets, logs, and lab.json, which says what was
made. Interfaces of the world are named after the policy's ports: ``subscribers``, or
``subscribers.3`` for switch port 3 of several.

A simulated lab, which takes no root, has Unix sockets for cables and a process for the switch
(`e2ctl._lab_simulated`); its folder is in $XDG_RUNTIME_DIR.

Nothing here needs a lab to be whole: `down` ends what the pid files name and what runs in
namespaces called NAME-..., and removes those, whatever has crashed before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from e2ctl._lab_blueprint import NAME, Blueprint, LabFile, LabFileError, draw, load, loads
from e2ctl._lab_builder import (
    Builder,
    agent_socket,
    check_schema,
    daemon_socket,
    ovs_folder,
    read_state,
)
from e2ctl._lab_simulated import REPLACES, SimulatedBuilder, simulated
from e2ctl._lab_system import (
    LabError,
    Service,
    as_process,
    check_machine,
    daemons_of,
    end,
    namespaces,
    pids_in,
    read_pid_files,
    run,
)
from e2ctl.hardware import Hardware
from e2ctl.openflow import OpenFlowSwitch
from e2ctl.softswitch.driver import SoftwareSwitch

if TYPE_CHECKING:
    from bess_plugins.client import Client

__all__ = [
    "REPLACES",
    "Blueprint",
    "Lab",
    "LabError",
    "LabFile",
    "LabFileError",
    "LabStatus",
    "Member",
    "build",
    "down",
    "draw",
    "enter",
    "folder_of",
    "lab",
    "lab_names",
    "load",
    "loads",
    "namespaces",
    "status",
    "up",
]

_ROOT = Path("/run/e2-lab")


def _own_root() -> Path:
    """Where simulated labs are, which are a user's own."""
    from bess_plugins.daemon.cli import runtime_dir

    return runtime_dir() / "e2-lab"


def folder_of(name: str) -> Path:
    """Where a lab keeps its state."""
    if NAME.fullmatch(name) is None:
        raise LabError(f"'{name}' is no name of a lab; expected up to 8 small letters and digits")
    own = _own_root() / name
    return own if own.exists() else _ROOT / name


class Lab:
    """A lab that is up."""

    def __init__(self, blueprint: Blueprint, services: Sequence[Service]) -> None:
        self.blueprint = blueprint
        self.services = services
        self.name = blueprint.name
        self.folder = folder_of(blueprint.name)
        self._clients: dict[str, Client] = {}
        self._stack = ExitStack()

    def client(self, server: str) -> Client:
        """A client of a server's daemon; it is closed with the lab."""
        from bess_plugins.client import Client

        if server not in self.blueprint.hosts:
            raise LabError(f"'{server}' is none of {', '.join(self.blueprint.hosts)}")
        if server not in self._clients:
            address = f"unix:{daemon_socket(self.folder, server)}"
            self._clients[server] = self._stack.enter_context(Client(address))
        return self._clients[server]

    @property
    def world(self) -> Client:
        """A client of the daemon that stands for the world."""
        return self.client("world")

    @property
    def switch(self) -> OpenFlowSwitch | SoftwareSwitch:
        """The switch."""
        if self.blueprint.simulated:
            return SoftwareSwitch(self.folder)
        return OpenFlowSwitch(ovs_folder(self.folder), self.blueprint.hardware.switch.bridge)

    def down(self) -> None:
        """Take it down."""
        self._clients.clear()
        self._stack.close()
        down(self.name)
        _reap(self.services)


@contextmanager
def lab(path: Path, *, simulated: bool = False) -> Iterator[Lab]:
    """A lab that is up for as long as the context lasts."""
    running = up(path, simulated=simulated)
    try:
        yield running
    finally:
        running.down()


def up(path: Path, *, simulated: bool = False) -> Lab:
    """Make the lab that a file describes; on any failure, nothing of it stays."""
    return build(replace(load(path), simulated=simulated))


def build(blueprint: Blueprint) -> Lab:
    """Make a lab, or nothing."""
    name, own = blueprint.name, blueprint.simulated
    if not own:
        check_machine()
        check_schema()
    taken = f"lab '{name}' is up, or a crash left parts; `e2ctl lab down {name}` takes it down"
    root = _own_root() if own else _ROOT
    folder = root / name
    # A user's own labs may be named like those of root.
    if folder.exists() or (not own and (folder_of(name).exists() or namespaces(blueprint.prefix))):
        raise LabError(taken)
    within = simulated if own else _within
    blueprint = replace(blueprint, hardware=within(blueprint.hardware, folder))
    root.mkdir(mode=0o755, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise LabError(taken) from None
    builder = SimulatedBuilder(blueprint, folder) if own else Builder(blueprint, folder)
    try:
        builder.build()
    except BaseException as error:
        try:
            down(name)
        except LabError as more:
            raise LabError(f"{error}; when taking it down again: {more}") from error
        _reap(builder.services)
        raise
    return Lab(blueprint, builder.services)


def _within(hardware: Hardware, folder: Path) -> Hardware:
    """The hardware as a lab has it: its agents and Open vSwitch have sockets in the folder."""
    servers = {
        name: server.model_copy(update={"agent": f"unix:{agent_socket(folder, name)}"})
        for name, server in hardware.servers.items()
    }
    switch = hardware.switch.model_copy(update={"rundir": str(ovs_folder(folder))})
    return hardware.model_copy(update={"servers": servers, "switch": switch})


def _reap(services: Sequence[Service]) -> None:
    """Take note of the end of processes that this one has started."""
    for service in services:
        service.child.wait()


# What is there.


@dataclass(frozen=True)
class Member:
    """A process of a lab, as it was started and as it is."""

    name: str
    namespace: str
    pid: int
    running: bool


@dataclass(frozen=True)
class LabStatus:
    """How a lab is. One that isn't ``complete`` is being made, or is what a crash left."""

    name: str
    complete: bool
    members: tuple[Member, ...]
    missing: tuple[str, ...]  # namespaces
    simulated: bool = False

    @property
    def well(self) -> bool:
        """Whether all is there and runs."""
        return self.complete and not self.missing and all(m.running for m in self.members)


def lab_names() -> list[str]:
    """Labs that have left a state folder."""
    possible = [_own_root(), *([_ROOT] if os.geteuid() == 0 else [])]  # nobody else may look
    roots = [root for root in possible if root.is_dir()]
    return sorted({p.name for root in roots for p in root.iterdir() if NAME.fullmatch(p.name)})


def status(name: str) -> LabStatus:
    """How a lab is."""
    folder = folder_of(name)
    state = read_state(folder)
    there: list[str] = []
    if not _is_own(folder):
        check_machine(("ip",))
        there = namespaces(f"{name}-")
    where = {process["name"]: process["namespace"] for process in state.get("processes", ())}
    members = tuple(
        Member(process.name, where.get(process.name, ""), process.pid, process.running)
        for process in read_pid_files(folder)
    )
    missing = tuple(space for space in state.get("namespaces", ()) if space not in there)
    return LabStatus(name, bool(state.get("complete")), members, missing, _is_own(folder))


def _is_own(folder: Path) -> bool:
    """Whether a lab is simulated."""
    return folder.parent == _own_root()


@contextmanager
def world_of(name: str) -> Iterator[tuple[Client, tuple[str, ...]]]:
    """The daemon that stands for the world around a lab, and its interfaces."""
    from bess_plugins.client import Client

    cables = read_state(folder_of(name)).get("cables", ())
    world = tuple(c["device"] for c in cables if c["namespace"] == f"{name}-world")
    if not world:
        raise LabError(f"there is no lab '{name}'; make one with `e2ctl lab up`")
    with Client(f"unix:{daemon_socket(folder_of(name), 'world')}") as client:
        yield client, world


def enter(name: str, host: str, command: list[str]) -> None:
    """Become a command in the namespace of a server, of the switch (``sw``) or of the world."""
    if _is_own(folder_of(name)):
        raise LabError(f"lab '{name}' is simulated: its hosts have this machine's network")
    check_machine(("ip",))
    found = {space.partition("-")[2]: space for space in namespaces(f"{name}-")}
    if host not in found:
        raise LabError(f"lab '{name}' has no '{host}'; it has {', '.join(found) or 'nothing'}")
    os.execvp("ip", ["ip", "netns", "exec", found[host], *command])


@contextmanager
def joined(name: str, role: str) -> Iterator[None]:
    """This process is one of a lab's, under the name of a role: it ends when the lab goes down."""
    with as_process(folder_of(name), role):
        yield


def down(name: str) -> bool:
    """Take a lab down, whatever is left of it; say whether there was anything."""
    folder, prefix = folder_of(name), f"{name}-"
    if _is_own(folder):
        _down_own(folder)
        return True
    check_machine(("ip",))
    spaces = namespaces(prefix)
    if not spaces and not folder.exists():
        return False
    started = read_pid_files(folder)

    def left() -> set[int]:
        alive = {process.pid for process in started if process.running}
        return alive.union(*map(pids_in, namespaces(prefix)))

    end(left)
    for space in namespaces(prefix):
        run("ip", "netns", "delete", space)
    if folder.exists():
        shutil.rmtree(folder)
    with suppress(OSError):  # other labs are up
        _ROOT.rmdir()
    return True


def _down_own(folder: Path) -> None:
    """Take down a simulated lab. Agents end their daemons; those of killed ones are looked for."""
    started = read_pid_files(folder)
    end(lambda: {process.pid for process in started if process.running})
    end(lambda: daemons_of(folder))
    shutil.rmtree(folder)
    with suppress(OSError):  # other labs are up
        folder.parent.rmdir()
