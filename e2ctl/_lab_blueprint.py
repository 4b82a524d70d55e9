# SPDX-License-Identifier: BSD-3-Clause
"""What a lab is made of, as values: the file that describes it, its namespaces and cables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bess_plugins.sources import SourceError, read_document, read_source, validate
from e2ctl import hardware as hardwares
from e2ctl._lab_system import LabError
from e2ctl.hardware import Hardware, Server

__all__ = ["NAME", "Blueprint", "Cable", "LabFile", "LabFileError", "draw", "load", "loads"]

# No dash: what is before the first one in the name of a namespace is the name of its lab.
NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LONGEST_SERVER = 32
_LONGEST_DEVICE = 15
_SWITCH, _WORLD = "sw", "world"


class LabFileError(SourceError):
    """A description of a lab is wrong."""


class LabFile(BaseModel):
    """A cluster on one machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=f"^{NAME.pattern}$")
    hardware: str = Field(min_length=1, description="Path, from the folder of this file.")
    mtu: int = Field(default=9000, ge=1280, le=65_535)
    agents: bool = Field(default=True, description="Whether servers run agents.")


@dataclass(frozen=True)
class Cable:
    """A pair of interfaces: ``device`` in a namespace, the other end a port of the switch."""

    namespace: str
    device: str
    port: int
    mac: str | None = None
    ip: str | None = None

    @property
    def end(self) -> str:
        """The interface in the switch's namespace."""
        return f"p{self.port}"


@dataclass(frozen=True)
class Blueprint:
    """Everything that a lab is to have."""

    name: str
    hardware: Hardware
    mtu: int
    agents: bool
    cables: tuple[Cable, ...]
    simulated: bool = False

    @property
    def prefix(self) -> str:
        """What names of namespaces start with."""
        return f"{self.name}-"

    @property
    def switch(self) -> str:
        """The switch's namespace."""
        return f"{self.prefix}{_SWITCH}"

    @property
    def world(self) -> str:
        """The namespace that stands for all that is outside."""
        return f"{self.prefix}{_WORLD}"

    def server(self, name: str) -> str:
        """A server's namespace."""
        return f"{self.prefix}{name}"

    @property
    def hosts(self) -> dict[str, str]:
        """Who has a daemon, and in which namespace: servers and the world."""
        return {**{name: self.server(name) for name in self.hardware.servers}, _WORLD: self.world}

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces."""
        return (self.switch, *self.hosts.values())


def loads(text: str, file: str = "<lab>") -> LabFile:
    """Parse a lab's description; the first error is raised as `LabFileError`."""
    document = read_document(text, file, "a mapping with name and hardware", LabFileError)
    return validate(LabFile, document, file, LabFileError)


def load(path: Path) -> Blueprint:
    """Read a lab's description, and the hardware description that it names."""
    lab = loads(read_source(path, LabFileError), str(path))
    return draw(lab, hardwares.load(path.parent / lab.hardware))


def draw(lab: LabFile, hardware: Hardware) -> Blueprint:
    """Lay out a lab; names that Linux can't have are a `LabError`."""
    for name, server in hardware.servers.items():
        if name in (_SWITCH, _WORLD):
            raise LabError(f"server '{name}' would share its namespace with the lab's own")
        _check(f"server '{name}'", name, _LONGEST_SERVER)
        _check(f"the device '{server.device}' of server '{name}'", server.device, _LONGEST_DEVICE)
    _check(f"the bridge '{hardware.switch.bridge}'", hardware.switch.bridge, _LONGEST_DEVICE)
    prefix = f"{lab.name}-"
    cables = (
        *(_cable(f"{prefix}{name}", server) for name, server in hardware.servers.items()),
        *_outside(f"{prefix}{_WORLD}", hardware),
    )
    return Blueprint(lab.name, hardware, lab.mtu, lab.agents, cables)


def _check(what: str, name: str, longest: int) -> None:
    if len(name) > longest or _PART.fullmatch(name) is None:
        raise LabError(
            f"{what}: expected a name of at most {longest} letters, digits and _ . - for a lab"
        )


def _cable(namespace: str, server: Server) -> Cable:
    return Cable(namespace, server.device, server.port, server.mac, server.ip)


def _outside(namespace: str, hardware: Hardware) -> Iterator[Cable]:
    """A cable for each external port of the switch, named after what the policy calls it."""
    named = [
        (name if len(numbers) == 1 else f"{name}.{number}", number)
        for name, numbers in hardware.switch.ports.items()
        for number in numbers
    ]
    uses = Counter(device for device, _ in named)
    for device, number in named:
        _check(f"the world's end '{device}' of switch port {number}", device, _LONGEST_DEVICE)
        if uses[device] > 1:
            raise LabError(f"two external ports would be '{device}' in the world")
        yield Cable(namespace, device, number)
