# SPDX-License-Identifier: BSD-3-Clause
"""What scripts see: the ``bess`` object, modules and ports."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from google.protobuf.message import Message

from bess_plugins.client import BessError, Client, PortStats, TcStats
from bess_plugins.script.record import Record, to_record

__all__ = ["Bess", "ConfError", "ConnectError", "Module", "Port", "Record"]

HookDirection = Literal["in", "out"]


class ConfError(Exception):
    """The script asks for something that makes no sense."""


class ConnectError(ConfError):
    """Two things cannot be connected."""


def _plain(value: Any) -> Any:
    """Replace modules and ports by their names."""
    if isinstance(value, (Module, Port)):
        return value.name
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class Module:
    """A module of the daemon, optionally bound to gates.

    ``m1 + m2`` connects, ``m * 3`` selects an output gate and ``2 * m`` an
    input gate. Commands of the class are methods that take keywords.
    """

    bess: ClassVar[Bess]
    mclass: ClassVar[str]

    def __init__(self, *, name: str = "", **arg: Any) -> None:
        if "bess" not in type(self).__dict__:
            raise ConfError("use a module class, such as Source, rather than Module")
        self.name = self.bess.client.create_module(self.mclass, name, **_plain(arg))
        self.ogate: int | None = None
        self.igate: int | None = None

    def __str__(self) -> str:
        return f"{self.name}::{self.mclass}"

    __repr__ = __str__

    def __getattr__(self, command: str) -> Callable[..., Record]:
        if command.startswith("_") or command == "name":
            raise AttributeError(command)
        commands = self.bess.commands(self.mclass)
        if command not in commands:
            known = ", ".join(sorted(commands)) or "none"
            raise AttributeError(f"{self.mclass} has no command {command!r}; it has: {known}")
        arg_type = commands[command]

        def run(**arg: Any) -> Record:
            return self.bess.run_module_command(self.name, command, arg_type, arg)

        return run

    def __mul__(self, ogate: int) -> Module:
        return self._bind("ogate", ogate)

    def __rmul__(self, igate: int) -> Module:
        return self._bind("igate", igate)

    def _bind(self, side: str, gate: int) -> Module:
        what = "output" if side == "ogate" else "input"
        if not isinstance(gate, int) or isinstance(gate, bool) or gate < 0:
            raise ConnectError(f"{what} gate of {self.name} must be an integer, not {gate!r}")
        if getattr(self, side) is not None:
            raise ConnectError(f"{what} gate of {self.name} is given twice")
        bound = copy.copy(self)
        setattr(bound, side, gate)
        return bound

    def __add__(self, following: Module) -> Module:
        if not isinstance(following, Module):
            raise ConnectError(f"cannot connect {self.name} to {following!r}, which is no module")
        return self.connect(following, self.ogate or 0, following.igate or 0)

    def __radd__(self, preceding: object) -> Module:
        raise ConnectError(f"cannot connect {preceding!r}, which is no module, to {self.name}")

    def connect(self, next_mod: Module, ogate: int = 0, igate: int = 0) -> Module:
        """Connect to another module and return that."""
        self.bess.connect_modules(self.name, next_mod.name, ogate, igate)
        following = copy.copy(next_mod)
        following.igate = None
        return following

    def attach_task(
        self,
        parent: str = "",
        wid: int = -1,
        module_taskid: int = 0,
        priority: int | None = None,
        share: int | None = None,
    ) -> None:
        """Put a task below a traffic class, or directly on a worker."""
        self.bess.attach_task(self.name, parent, wid, module_taskid, priority, share)


class Port:
    """A port of the daemon."""

    bess: ClassVar[Bess]
    driver: ClassVar[str]

    def __init__(self, *, name: str = "", **arg: Any) -> None:
        if "bess" not in type(self).__dict__:
            raise ConfError("use a port driver, such as PCAPPort, rather than Port")
        created = self.bess.client.create_port(self.driver, name, **_plain(arg))
        self.name = created.name
        self.mac_addr = created.mac_addr

    def __str__(self) -> str:
        return f"{self.name}/{self.driver}"

    __repr__ = __str__

    def get_port_stats(self) -> PortStats:
        """Totals of the port."""
        return self.bess.client.port_stats(self.name)

    def get_link_status(self) -> Record:
        """State of the link."""
        return Record(self.bess.client.link_status(self.name))

    def get_port_config(self) -> Record:
        """Settings of the port."""
        return Record(self.bess.client.port_conf(self.name))

    def set_port_config(self, **conf: Any) -> None:
        """Change settings: ``mac_addr``, ``mtu``, ``admin_up``."""
        self.bess.client.set_port_conf(self.name, **conf)


class Bess:
    """The daemon. Calls without a method here are those of the client."""

    Error = BessError
    port_type: ClassVar[type[Port]] = Port

    def __init__(self, client: Client) -> None:
        self.client = client
        self.names: dict[str, Any] = {}  # the script's, where classes are found
        self._commands: dict[str, dict[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("client", "close", "call"):
            raise AttributeError(f"bess has no attribute {name!r}")
        try:
            return getattr(self.client, name)
        except AttributeError:
            raise AttributeError(f"bess has no attribute {name!r}") from None

    def creators(self) -> dict[str, type[Module] | type[Port]]:
        """A class for each module class and port driver."""
        space: dict[str, type[Module] | type[Port]] = {}
        for name in self.client.list_mclasses():
            space[name] = type(name, (Module,), {"bess": self, "mclass": name})
        for name in self.client.list_drivers():
            space[name] = type(name, (self.port_type,), {"bess": self, "driver": name})
        return space

    def commands(self, mclass: str) -> dict[str, str]:
        """Commands of a class and the types of their arguments."""
        if mclass not in self._commands:
            info = self.client.mclass_info(mclass)
            self._commands[mclass] = dict(zip(info["cmds"], info["cmd_args"], strict=True))
        return self._commands[mclass]

    # Daemon and workers.

    def get_version(self) -> str:
        """Version of the daemon."""
        return self.client.version()

    def pause_all(self) -> None:
        """Pause all workers."""
        self.client.pause()

    def resume_all(self) -> None:
        """Resume all workers."""
        self.client.resume()

    def pause_worker(self, wid: int) -> None:
        """Pause a worker."""
        self.client.pause(wid)

    def resume_worker(self, wid: int) -> None:
        """Resume a worker."""
        self.client.resume(wid)

    def add_worker(self, wid: int, core: int, scheduler: str | None = None) -> None:
        """Start a worker on a CPU."""
        self.client.add_worker(wid, core, scheduler or "")

    def import_plugin(self, path: str) -> None:
        """Load a plugin; its classes are names of the script from here on."""
        self.client.import_plugin(path)
        for name, kind in self.creators().items():
            self.names.setdefault(name, kind)

    # Modules.

    def create_module(
        self, mclass: str, name: str | None = None, arg: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a module."""
        return Record(name=self.client.create_module(mclass, name or "", **_plain(arg or {})))

    def connect_modules(
        self, m1: str | Module, m2: str | Module, ogate: int = 0, igate: int = 0
    ) -> None:
        """Connect two modules, given by name or as such."""
        self.client.connect(_plain(m1), _plain(m2), ogate, igate)

    def disconnect_modules(self, name: str | Module, ogate: int = 0) -> None:
        """Cut an output gate."""
        self.client.disconnect(_plain(name), ogate)

    def get_module_info(self, name: str | Module) -> Record:
        """Gates and metadata of a module."""
        info: Record = to_record(self.client.module_info(_plain(name)))
        return info

    def get_mclass_info(self, name: str) -> Record:
        """Help and commands of a class."""
        return Record(self.client.mclass_info(name))

    def run_module_command(
        self, name: str | Module, cmd: str, arg_type: str, arg: Mapping[str, Any]
    ) -> Record:
        """Run a command of a module."""
        result: Record = to_record(
            self.client.run_module_command(_plain(name), cmd, arg_type, _plain(arg))
        )
        return result

    # Ports.

    def create_port(
        self, driver: str, name: str | None = None, arg: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a port."""
        created = self.client.create_port(driver, name or "", **_plain(arg or {}))
        return Record(name=created.name, mac_addr=created.mac_addr)

    def get_port_stats(self, name: str | Port) -> PortStats:
        """Totals of a port."""
        return self.client.port_stats(_plain(name))

    def get_link_status(self, name: str | Port) -> Record:
        """State of a link."""
        return Record(self.client.link_status(_plain(name)))

    # Traffic classes.

    def add_tc(
        self,
        name: str,
        policy: str,
        wid: int = -1,
        parent: str = "",
        resource: str | None = None,
        priority: int | None = None,
        share: int | None = None,
        limit: Mapping[str, int] | None = None,
        max_burst: Mapping[str, int] | None = None,
    ) -> None:
        """Create a node of the scheduler tree."""
        self.client.add_tc(
            name,
            policy,
            parent=parent,
            wid=wid,
            resource=resource or "",
            priority=priority,
            share=share,
            limit=limit,
            max_burst=max_burst,
        )

    def attach_task(
        self,
        module_name: str | Module,
        parent: str = "",
        wid: int = -1,
        module_taskid: int = 0,
        priority: int | None = None,
        share: int | None = None,
    ) -> None:
        """Put a task of a module below a traffic class, or directly on a worker."""
        self.client.attach_task(
            _plain(module_name), parent, wid, module_taskid, priority=priority, share=share
        )

    attach_module = attach_task

    def get_tc_stats(self, name: str) -> TcStats:
        """Usage of a traffic class."""
        return self.client.tc_stats(name)

    # Gate hooks.

    def track_gate(
        self,
        enable: bool,
        name: str,
        m: str | Module,
        bits: bool = False,
        direction: HookDirection = "out",
        gate: int = -1,
    ) -> str:
        """Count what passes a gate."""
        return self._hook("Track", enable, name, m, direction, gate, bits=bits)

    def tcpdump_gate(
        self,
        enable: bool,
        name: str,
        m: str | Module,
        direction: HookDirection = "out",
        gate: int = 0,
        fifo: str | None = None,
    ) -> str:
        """Copy what passes a gate to a named pipe that is being read, as pcap."""
        return self._hook("TcpDump", enable, name, m, direction, gate, fifo=fifo or "")

    def pcapng_gate(
        self,
        enable: bool,
        name: str,
        m: str | Module,
        direction: HookDirection = "out",
        gate: int = 0,
        fifo: str | None = None,
    ) -> str:
        """Copy what passes a gate, and its metadata, to a named pipe, as pcapng."""
        return self._hook("PcapNg", enable, name, m, direction, gate, fifo=fifo or "")

    def configure_resume_hook(
        self, name: str, arg: Message | None = None, enable: bool = True
    ) -> None:
        """Install or remove what runs before workers resume."""
        self.client.configure_resume_hook(name, enable, arg)

    def _hook(
        self,
        kind: str,
        enable: bool,
        name: str,
        module: str | Module,
        direction: HookDirection,
        gate: int,
        **arg: Any,
    ) -> str:
        if direction not in ("in", "out"):
            raise ConfError("direction must be 'in' or 'out'")
        return self.client.configure_gate_hook(
            kind,
            _plain(module),
            direction="igate" if direction == "in" else "ogate",
            gate=gate,
            hook_name=name,
            enable=enable,
            **arg,
        )
