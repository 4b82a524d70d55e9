# SPDX-License-Identifier: BSD-3-Clause
"""The hardware description: servers, and the switch between them and the world.

A YAML file (section 3.2.2 of the dissertation)::

    servers:
      s1:
        cores: 16               # all of them; the dataplane takes one
        ghz: 2.6
        nic: 10Gbps             # each way
        agent: 10.0.0.1:10520   # of its agent; 127.0.0.1:10520 by default
        device: eth1            # its interface to the switch
        socket: /run/s1.sock    # the Unix socket that is one instead, in a simulated lab
        port: 11                # of the switch, at the other end
        ip: 192.168.77.1        # that its tunnels end at
        mac: "02:e2:00:00:00:01"
    switch:
      driver: openflow          # or simulated; software in a simulated lab
      bridge: br0               # of Open vSwitch
      rundir: /var/run/openvswitch  # where its sockets are, or software's
      table: 2048               # entries of its flow table
      actions: [acl]            # what it can do for NFs
      tagged: false             # whether frames from outside may carry a VLAN tag of their own;
                                # then servers divide all traffic, as there is room for two tags
      ports:                    # the policy's ports, and the switch's that they stand for
        in0: 1
        customers: [2, 4-8]
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from bess_plugins.sources import SourceError, read_document, read_source, validate
from e2ctl.rate_text import Rate

__all__ = ["Hardware", "HardwareError", "Server", "Switch", "load", "loads"]

_MAX_PORT = 65_279  # above are OpenFlow 1.0's reserved numbers
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_CONFIG = ConfigDict(extra="forbid", frozen=True)


class HardwareError(SourceError):
    """A hardware description is wrong."""


def _numbers(entry: object) -> Iterable[int]:
    if type(entry) is int:
        return (entry,)
    found = re.fullmatch(r"(\d+)-(\d+)", entry) if isinstance(entry, str) else None
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f"{entry!r} is not a switch port; expected a number or a range like 4-8")
    return range(int(found[1]), int(found[2]) + 1)


def _port_list(value: object) -> object:
    """Numbers of switch ports: one, a range, or a list of both."""
    entries = value if isinstance(value, list) else [value]
    ports = tuple(number for entry in entries for number in _numbers(entry))
    for number in ports:
        if not 1 <= number <= _MAX_PORT:
            raise ValueError(f"switch port {number} is not among 1 to {_MAX_PORT}")
    if len(set(ports)) != len(ports) or not ports:
        raise ValueError(f"{value!r} names a switch port twice, or none")
    return ports


def _mac(value: object) -> object:
    if not isinstance(value, str) or _MAC.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a MAC address; expected one like 02:e2:00:00:00:01")
    return value


def _ip(value: object) -> object:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address") from None


_PORT = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\d+-\d+$"}]}
PortList = Annotated[
    tuple[int, ...],
    BeforeValidator(_port_list),
    WithJsonSchema({"anyOf": [*_PORT["anyOf"], {"type": "array", "items": _PORT}]}),
]
Mac = Annotated[str, BeforeValidator(_mac)]
Ip = Annotated[str, BeforeValidator(_ip)]


class Server(BaseModel):
    """A server: what it has, and how it is reached."""

    model_config = _CONFIG

    cores: int = Field(ge=2, le=4096)
    ghz: float = Field(gt=0)
    nic: Rate = Field(gt=0)
    agent: str = "127.0.0.1:10520"
    device: str = Field(default="eth1", pattern=r"^[^\s/]{1,15}$")
    socket: str | None = Field(default=None, max_length=107)
    port: int = Field(ge=1, le=_MAX_PORT)
    ip: Ip
    mac: Mac

    @property
    def nf_cores(self) -> int:
        """Cores that NFs may have; one is the dataplane's."""
        return self.cores - 1


class Switch(BaseModel):
    """The switch that joins servers and external ports."""

    model_config = _CONFIG

    driver: Literal["openflow", "software", "simulated"] = "simulated"
    bridge: str = "br0"
    rundir: str = "/var/run/openvswitch"
    table: int = Field(default=2048, ge=1)
    actions: tuple[Literal["acl"], ...] = ()
    tagged: bool = False
    ports: dict[str, PortList]


class Hardware(BaseModel):
    """A cluster."""

    model_config = _CONFIG

    servers: dict[str, Server] = Field(min_length=1)
    switch: Switch

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        taken: dict[int, str] = {}
        uses = [(f"port {name}", ports) for name, ports in self.switch.ports.items()]
        uses += [(f"server {name}", (server.port,)) for name, server in self.servers.items()]
        for name, ports in uses:
            for number in ports:
                if number in taken:
                    raise ValueError(f"{name} and {taken[number]} share switch port {number}")
                taken[number] = name
        for what in ("ip", "mac", "agent"):
            seen: dict[str, str] = {}
            for name, server in self.servers.items():
                value = getattr(server, what)
                if value in seen:
                    raise ValueError(f"servers {seen[value]} and {name} share the {what} {value}")
                seen[value] = name
        if len({ipaddress.ip_address(server.ip).version for server in self.servers.values()}) > 1:
            raise ValueError("tunnels lead from IPv4 to IPv4 or from IPv6 to IPv6; the servers mix")
        return self

    def without(self, names: Collection[str]) -> Hardware:
        """The cluster without some of its servers."""
        left = {name: server for name, server in self.servers.items() if name not in names}
        return self.model_copy(update={"servers": left})

    @property
    def slowest_ghz(self) -> float:
        """What an instance can count on, wherever it is placed."""
        return min(server.ghz for server in self.servers.values())


def loads(text: str, file: str = "<hardware>") -> Hardware:
    """Parse a hardware description; the first error is raised as `HardwareError`."""
    document: Any = read_document(text, file, "a mapping with servers and switch", HardwareError)
    return validate(Hardware, document, file, HardwareError)


def load(path: Path) -> Hardware:
    """Read a hardware description from a file."""
    return loads(read_source(path, HardwareError), str(path))
