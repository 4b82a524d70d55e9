# SPDX-License-Identifier: BSD-3-Clause
"""What a server is to have, as values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from e2ctl.nfs import Program
from e2ctl.wiring import Link, ModuleSpec

__all__ = [
    "DATAPLANE",
    "FLOW_ID",
    "Device",
    "EdgeTap",
    "ProgramSpec",
    "ServerPlan",
    "digest",
    "dump_plan",
    "empty_plan",
    "load_plan",
]

# How JSON marks what it has no form for: bytes in hexadecimal, and mappings from numbers.
_BYTES, _PAIRS = "bytes", "pairs"

# The worker that runs all but NFs.
DATAPLANE = "dataplane"
# The attribute in which the flow id that the switch computed travels.
FLOW_ID = "flow_id"


@dataclass(frozen=True)
class Device:
    """A port of the dataplane."""

    name: str
    driver: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProgramSpec:
    """A legacy NF: its devices are the kernel's ends of ports of the dataplane."""

    instance: str
    program: Program


@dataclass(frozen=True)
class EdgeTap:
    """An output gate that only packets of one edge of the instance graph pass."""

    source: str
    target: str
    label: str
    module: str
    ogate: int


@dataclass(frozen=True)
class ServerPlan:
    """Everything that a server's daemon and agent are to have.

    ``tasks`` says which worker runs each module that has a task: `DATAPLANE`, or an instance's.
    """

    server: str
    devices: tuple[Device, ...]
    modules: tuple[ModuleSpec, ...]
    links: tuple[Link, ...]
    tasks: Mapping[str, str]
    programs: tuple[ProgramSpec, ...] = ()
    taps: tuple[EdgeTap, ...] = ()

    def __str__(self) -> str:
        lines = [f"port {d.name} {d.driver} {dict(d.args)}" for d in self.devices]
        lines += [f"module {m.name} {m.mclass} {dict(m.args)}" for m in self.modules]
        lines += [f"link {link}" for link in self.links]
        lines += [f"worker of {worker} runs {module}" for module, worker in self.tasks.items()]
        lines += [f"program {p.instance} {p.program.run or 'the kernel'}" for p in self.programs]
        return "".join(f"{self.server}: {line}\n" for line in lines)

    @cached_property
    def _text(self) -> str:
        return json.dumps(self, default=_encode)

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self._text.encode()).hexdigest()[:16]


def empty_plan(server: str) -> ServerPlan:
    """Nothing at all."""
    return ServerPlan(server, (), (), (), {})


def dump_plan(plan: ServerPlan) -> str:
    """A plan as JSON text."""
    return plan._text


_PARTS = {
    kind: tuple(part.name for part in fields(kind))
    for kind in (ServerPlan, Device, ModuleSpec, Link, ProgramSpec, EdgeTap)
}


# What may hold mappings.
_DEEP = frozenset({dict, list, tuple})


def _encode(value: Any) -> Any:
    """What JSON has a form for: plain values as they are, for it does these faster."""
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    if isinstance(value, Program):
        return value.model_dump()
    if (names := _PARTS.get(type(value))) is not None:
        return {name: _paired(getattr(value, name)) for name in names}
    raise TypeError(f"a plan can't hold {value!r}")


def _paired(value: Any) -> Any:
    """With mappings from numbers as pairs, at any depth."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _paired(i) if type(i) in _DEEP else i for key, i in value.items()}
        return {_PAIRS: [[key, _paired(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_paired(item) if type(item) in _DEEP else item for item in value]
    return value


def _decode(found: dict[str, Any]) -> Any:
    if found.keys() == {_BYTES}:
        return bytes.fromhex(found[_BYTES])
    return dict(found[_PAIRS]) if found.keys() == {_PAIRS} else found


_PLAN = TypeAdapter(ServerPlan)


@lru_cache(4)  # a change brings the same one to an agent in each of its steps
def load_plan(text: str) -> ServerPlan:
    """The plan that JSON text holds; a ValueError where it holds none."""
    try:
        plan = _PLAN.validate_python(json.loads(text, object_hook=_decode))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"not a plan for a server: {place}: {first['msg']}") from None
    vars(plan)["_text"] = text  # which need not be made again
    return plan


def digest(plan: ServerPlan) -> str:
    """What tells plans apart."""
    return plan._digest
