# SPDX-License-Identifier: BSD-3-Clause
"""NF descriptions: what a type of network function is, exports and needs.

A YAML file maps type names to descriptions::

    IDS:
      module: IDS                 # module class of the dataplane (the type's name by default)
      args: {signatures: [...]}   # its arguments
      instances: [{...}, {...}]   # more arguments for each instance; as many instances at most
      kind: native                # or legacy: a Linux program behind devices of its own
      program:                    # of a legacy NF
        devices: [left, right]    # gate 0, gate 1, ...
        setup: [[ip, link, ...]]  # commands to run first, in its network namespace
        run: [squid, -N]          # what keeps running there; by default the kernel is the NF
        files: {squid.conf: ...}  # texts by name, in the folder where all this runs
      attributes:
        safe: {method: port, gates: {true: 0, false: 1}}
        url: {method: metadata, size: 4, values: {"cdn.example": 1}}
      outputs: 2                  # how many output gates, or which: [1]; by default as many as
                                  # the attributes or ports name
      ports: {inside: 0, outside: 1}  # names of gates, by which policies say where packets come
                                  # in and leave; without them they come in by gate 0
      mangles: [ip.src]           # header fields that it rewrites
      affinity: [ip.src/24, ...]  # parts of the 5-tuple that tell its traffic aggregates apart
      symmetric: true             # both directions of a connection are one aggregate
      scaling: cores              # none, cores or servers
      capacity: 2.5Gbps           # per core and GHz
      cores: 2                    # that a legacy instance takes; a module has one
      switch: acl                 # what a switch must be able to do to take this NF over
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bess_plugins.sources import SourceError, read_models, read_source, text_key
from e2ctl import affinity as affinities
from e2ctl.affinity import Affinity
from e2ctl.filters import FIELD_BITS
from e2ctl.rate_text import Rate

__all__ = ["Attribute", "Catalog", "NfError", "NfType", "Program", "load", "loads"]

_MAX_GATES = 8192
_METADATA_BYTES = (1, 2, 4, 8)
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_FIELDS = tuple(sorted(FIELD_BITS))


class NfError(SourceError):
    """An NF description is wrong."""


def _text_keys(value: object) -> object:
    """YAML reads keys as booleans and numbers; filters name them as text."""
    if isinstance(value, Mapping):
        return {text_key(name): item for name, item in value.items()}
    return value


def _gate_list(value: object) -> tuple[int, ...]:
    """A number of gates, or the gates themselves."""
    if type(value) is int and 0 <= value <= _MAX_GATES:
        return tuple(range(value))
    if isinstance(value, list) and all(
        type(gate) is int and 0 <= gate < _MAX_GATES for gate in value
    ):
        return tuple(sorted(set(value)))
    raise ValueError(
        f"outputs: {value!r} is neither a number of gates, up to {_MAX_GATES}, nor a list of gates "
        f"below that"
    )


def _field_name(value: object) -> object:
    if value not in FIELD_BITS:
        raise ValueError(f"'{value}' is not a header field; expected one of {', '.join(_FIELDS)}")
    return value


def _file_name(value: str) -> str:
    if _FILE.fullmatch(value) is None:
        raise ValueError(
            f"'{value}' is no name of a file; expected letters, digits and _ . -, without a folder"
        )
    return value


def _affinity_entries(value: AffinityEntries) -> AffinityEntries:
    affinities.parse(value)
    return value


FieldName = Annotated[str, BeforeValidator(_field_name)]
Numbers = Annotated[dict[str, int], BeforeValidator(_text_keys)]
AffinityEntries = tuple[str | dict[str, int], ...]
DeviceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,14}$")]
Command = Annotated[tuple[str, ...], Field(min_length=1)]
PortName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
FileName = Annotated[str, AfterValidator(_file_name)]
_CONFIG = ConfigDict(extra="forbid", frozen=True)


class Attribute(BaseModel):
    """How packets carry the value of an attribute.

    With the method ``port``, ``gates`` maps values to output gates. With ``metadata``, packets
    carry a number of ``size`` bytes, and ``values`` gives numbers to values that have names.
    """

    model_config = _CONFIG

    method: Literal["port", "metadata"]
    gates: Numbers = {}
    size: int = 1
    values: Numbers = {"true": 1, "false": 0}

    @model_validator(mode="after")
    def _consistent(self) -> Attribute:
        if self.method == "port":
            if not self.gates:
                raise ValueError("an attribute bound to ports needs 'gates': {true: 0, false: 1}")
            if len(set(self.gates.values())) != len(self.gates):
                raise ValueError("two values of 'gates' share a gate and can't be told apart")
            if min(self.gates.values()) < 0:
                raise ValueError("gates are numbers from 0")
            if "size" in self.model_fields_set or "values" in self.model_fields_set:
                raise ValueError("'size' and 'values' belong to the method 'metadata'")
            return self
        if self.gates:
            raise ValueError("'gates' belongs to the method 'port'")
        if self.size not in _METADATA_BYTES:
            raise ValueError(f"size is {self.size}; must be 1, 2, 4 or 8 bytes")
        for name, number in self.values.items():
            if not 0 <= number < 1 << 8 * self.size:
                raise ValueError(f"value {number} of '{name}' does not fit {self.size} bytes")
        return self

    def encode(self, value: bool | int | str) -> int | None:
        """Number that stands for a value: a gate, or what the metadata holds."""
        table = self.gates if self.method == "port" else self.values
        known = table.get(text_key(value))
        if known is not None or self.method == "port":
            return known
        fits = isinstance(value, int) and not isinstance(value, bool)
        return int(value) if fits and 0 <= int(value) < 1 << 8 * self.size else None

    def expected(self) -> str:
        """What values the attribute takes, for messages."""
        if self.method == "port":
            return ", ".join(self.gates)
        return ", ".join([*self.values, f"a number below {1 << 8 * self.size}"])


class Program(BaseModel):
    """A Linux program as an NF: it has a network namespace with a device per gate, and a folder."""

    model_config = _CONFIG

    devices: tuple[DeviceName, ...] = Field(min_length=1, max_length=8)
    setup: tuple[Command, ...] = ()
    run: Command | None = None
    files: dict[FileName, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Program:
        if len(set(self.devices)) != len(self.devices):
            raise ValueError("devices: two have one name")
        return self


class NfType(BaseModel):
    """Description of one type of network function."""

    model_config = _CONFIG

    module: str = ""
    args: dict[str, Any] = {}
    instances: tuple[dict[str, Any], ...] = ()
    kind: Literal["native", "legacy"] = "native"
    program: Program | None = None
    attributes: dict[str, Attribute] = {}
    ports: dict[PortName, Annotated[int, Field(ge=0, lt=_MAX_GATES)]] = {}
    outputs: Annotated[tuple[int, ...], BeforeValidator(_gate_list)] = ()
    mangles: tuple[FieldName, ...] = ()
    affinity: Annotated[AffinityEntries, AfterValidator(_affinity_entries)] = ()
    symmetric: bool = False
    scaling: Literal["none", "cores", "servers"] = "none"
    capacity: Rate | None = Field(default=None, gt=0)
    cores: int = Field(default=1, ge=1, le=1024)
    switch: Literal["acl"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> NfType:
        attributed = {gate for a in self.attributes.values() for gate in a.gates.values()}
        for what, named in (("attributes", attributed), ("ports", {*self.ports.values()})):
            if self.outputs and not named <= set(self.gates):
                missing = max(named - set(self.gates))
                raise ValueError(f"{what} name gate {missing}, which is not among the outputs")
        self._check_ports()
        if self.symmetric and not self.affinity:
            raise ValueError("'symmetric' says how 'affinity' is meant, which is missing")
        affinity = affinities.parse(self.affinity, self.symmetric)
        both = [field for field in self.mangles if field in affinity.fields]
        if self.symmetric and both and self.scaling != "none":
            raise ValueError(
                f"its affinity can't be met with several instances: answers carry the "
                f"{', '.join(both)} that one of them wrote, which doesn't tell which; expected "
                f"'scaling: none', or an affinity that is not symmetric"
            )
        if self.kind == "legacy":
            self._check_legacy()
        elif self.program is not None:
            raise ValueError("'program' belongs to the kind 'legacy'")
        elif self.cores != 1:
            raise ValueError("a module runs on one core; more 'cores' are for legacy NFs")
        if self.switch == "acl" and not isinstance(self.args.get("rules"), list):
            raise ValueError("'switch: acl' needs args with 'rules' that a switch can take over")
        return self

    def _check_ports(self) -> None:
        if len(set(self.ports.values())) != len(self.ports):
            raise ValueError("two of 'ports' share a gate and can't be told apart")
        for name in self.ports:
            if name in self.attributes:
                raise ValueError(f"'{name}' is a port and an attribute")
        if self.ports and self.scaling != "none":
            raise ValueError(
                "an NF with 'ports' has one instance, as nothing would lead what comes by one port "
                "to the instance that knows it from another; expected 'scaling: none'"
            )

    def _check_legacy(self) -> None:
        for name, attribute in self.attributes.items():
            if attribute.method == "metadata":
                raise ValueError(f"a legacy NF can't write metadata, as '{name}' asks")
        if self.module or self.args or self.instances:
            raise ValueError("'module', 'args' and 'instances' are of native NFs; use 'program'")
        if self.program is None:
            raise ValueError("a legacy NF needs 'program' with its devices")
        last = max(*self.gates, *self.ports.values(), 0)
        if last >= len(self.program.devices):
            raise ValueError(f"gate {last} has no device; 'devices' names one per gate")

    @property
    def grouping(self) -> Affinity:
        """What its packets are told apart by; the whole 5-tuple where it has no wish."""
        return self.aggregates or affinities.WHOLE

    @cached_property
    def aggregates(self) -> Affinity | None:
        """Its wish, if it has one."""
        return affinities.parse(self.affinity, self.symmetric) if self.affinity else None

    @property
    def most_instances(self) -> int | None:
        """How many instances there can be; None: any number."""
        if self.scaling == "none":
            return 1
        return len(self.instances) or None

    def args_of(self, instance: int) -> dict[str, Any]:
        """Arguments of an instance, counted from 0."""
        return {**self.args, **(self.instances[instance] if self.instances else {})}

    @property
    def bindings(self) -> Mapping[str, Attribute]:
        """Its attributes, and one for each port, which is true for what leaves there."""
        ports = {
            name: Attribute(method="port", gates={"true": gate})
            for name, gate in self.ports.items()
        }
        return {**self.attributes, **ports}

    @property
    def gates(self) -> Sequence[int]:
        """Its output gates."""
        bound = [gate for a in self.attributes.values() for gate in a.gates.values()]
        if self.ports and not self.outputs:
            return sorted({*bound, *self.ports.values()})
        return self.outputs or range(max([0, *bound]) + 1)


@dataclass(frozen=True)
class Catalog:
    """All descriptions of a file by type name."""

    types: Mapping[str, NfType]

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def __getitem__(self, name: str) -> NfType:
        return self.types[name]

    def mclass(self, name: str) -> str:
        """Module class of a type."""
        return self.types[name].module or name


def loads(text: str, file: str = "<nfs>") -> Catalog:
    """Parse NF descriptions; the first error is raised as `NfError`."""
    return Catalog(read_models(text, file, NfType, "NF types to descriptions", NfError))


def load(path: Path) -> Catalog:
    """Read NF descriptions from a file."""
    return loads(read_source(path, NfError), str(path))
