# SPDX-License-Identifier: BSD-3-Clause
"""NF descriptions: what a type of network function is, exports and needs.

A YAML file maps type names to descriptions::

    IDS:
      module: IDS                 # module class of the dataplane (the type's name by default)
      args: {signatures: [...]}   # its arguments
      kind: native                # or legacy
      attributes:
        safe: {method: port, gates: {true: 0, false: 1}}
        url: {method: metadata, size: 4, values: {"cdn.example": 1}}
      outputs: 2                  # how many output gates, or which: [1]; by default as many as
                                  # the attributes name. Packets come in by gate 0
      mangles: [ip.src]           # header fields that it rewrites
      affinity: [ip.src, ip.dst]  # fields that tell its traffic aggregates apart
      scaling: cores              # none, cores or servers
      capacity: 2.5Gbps           # per core and GHz
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from e2ctl.filters import FIELD_BITS

__all__ = [
    "Attribute",
    "Catalog",
    "Location",
    "NfError",
    "NfType",
    "SourceError",
    "load",
    "loads",
    "read_source",
]

_MAX_GATES = 8192
_METADATA_BYTES = (1, 2, 4, 8)
_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)bps")
_FIELDS = tuple(sorted(FIELD_BITS))


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SourceError(Exception):
    """A file that an operator wrote is wrong at ``where``."""

    def __init__(self, where: Location, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.message = message


class NfError(SourceError):
    """An NF description is wrong."""


def read_source(path: Path, error_type: type[SourceError]) -> str:
    """The text of an operator's file; what keeps it from being read is an `error_type`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_type(Location(str(path), 1, 1), error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text at byte {error.start}"
        raise error_type(Location(str(path), 1, 1), message) from None


def parse_rate(text: str) -> float:
    """Turn a rate such as ``2.5Gbps`` into bits per second."""
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"'{text}' is not a rate; expected a number and bps, kbps, Mbps or Gbps")
    return float(found[1]) * _SCALE[found[2]]


def _key(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text_keys(value: object) -> object:
    """YAML reads keys as booleans and numbers; filters name them as text."""
    if isinstance(value, Mapping):
        return {_key(name): item for name, item in value.items()}
    return value


def _rate(value: object) -> object:
    return parse_rate(value) if isinstance(value, str) else value


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


FieldName = Annotated[str, BeforeValidator(_field_name)]
Numbers = Annotated[dict[str, int], BeforeValidator(_text_keys)]
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
        known = table.get(_key(value))
        if known is not None or self.method == "port":
            return known
        fits = isinstance(value, int) and not isinstance(value, bool)
        return int(value) if fits and 0 <= int(value) < 1 << 8 * self.size else None

    def expected(self) -> str:
        """What values the attribute takes, for messages."""
        if self.method == "port":
            return ", ".join(self.gates)
        return ", ".join([*self.values, f"a number below {1 << 8 * self.size}"])


class NfType(BaseModel):
    """Description of one type of network function."""

    model_config = _CONFIG

    module: str = ""
    args: dict[str, Any] = {}
    kind: Literal["native", "legacy"] = "native"
    attributes: dict[str, Attribute] = {}
    outputs: Annotated[tuple[int, ...], BeforeValidator(_gate_list)] = ()
    mangles: tuple[FieldName, ...] = ()
    affinity: tuple[FieldName, ...] = ()
    scaling: Literal["none", "cores", "servers"] = "none"
    capacity: Annotated[float, BeforeValidator(_rate)] | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> NfType:
        named = {gate for a in self.attributes.values() for gate in a.gates.values()}
        if self.outputs and not named <= set(self.gates):
            missing = max(named - set(self.gates))
            raise ValueError(f"attributes name gate {missing}, which is not among the outputs")
        if self.kind == "legacy":
            for name, attribute in self.attributes.items():
                if attribute.method == "metadata":
                    raise ValueError(f"a legacy NF can't write metadata, as '{name}' asks")
        return self

    @property
    def gates(self) -> Sequence[int]:
        """Its output gates."""
        bound = [gate for a in self.attributes.values() for gate in a.gates.values()]
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


def _locate(node: Any, path: tuple[int | str, ...], file: str) -> Location:
    """Find the deepest part of a path that the document has."""
    line, column = 0, 0
    for step in path:
        marks = getattr(node, "lc", None)
        if marks is None:
            break
        keys = range(len(node)) if isinstance(node, list) else node
        found = next((key for key in keys if key == step or _key(key) == step), None)
        if found is None:
            continue
        mark = marks.data[found]
        line, column = mark[0], mark[1]
        node = node[found]
    return Location(file, line + 1, column + 1)


def _describe(error: Any) -> str:
    name = error["loc"][-1] if error["loc"] else ""
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"'{name}' is not part of an NF description"
    if kind == "missing":
        return f"'{name}' is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{name}: {message[:1].lower()}{message[1:]}, not {error['input']!r}"


def loads(text: str, file: str = "<nfs>") -> Catalog:
    """Parse NF descriptions; the first error is raised as `NfError`."""
    yaml = YAML(typ="rt")
    try:
        document = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(file, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)
        problem = (error.problem or error.context or "not YAML").splitlines()[0]
        raise NfError(where, problem) from None
    except YAMLError as error:
        raise NfError(Location(file, 1, 1), str(error).splitlines()[0]) from None
    if not isinstance(document, Mapping) or not document:
        raise NfError(Location(file, 1, 1), "expected a mapping from NF types to descriptions")
    types = {}
    for name, entry in document.items():
        try:
            types[str(name)] = NfType.model_validate(_plain(entry))
        except ValidationError as failed:
            first = failed.errors()[0]
            where = _locate(document, (name, *first["loc"]), file)
            raise NfError(where, f"{name}: {_describe(first)}") from None
    return Catalog(types)


def _plain(node: Any) -> Any:
    """Strip the loader's own types, so that arguments can be sent on."""
    if node is None:
        return {}
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def load(path: Path) -> Catalog:
    """Read NF descriptions from a file."""
    return loads(read_source(path, NfError), str(path))
