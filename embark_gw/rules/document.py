# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules, as a provider gets them: sets of encrypted prefixes, and rules that name them.

The document tells no more than PrefixMatch does (dissertation, 4.2.2): which sets overlap, and
which rules use them. Sets stand in the order of their random prefixes, and rules of one action
beside each other in random order.
"""

from __future__ import annotations

import json
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bess_plugins.sources import Location, read_source
from embark_gw.rules.model import Action, RulesError

__all__ = [
    "ADDRESS_FIELDS",
    "FIELDS",
    "PORT_FIELDS",
    "EncryptedRule",
    "EncryptedRules",
    "FieldName",
    "PoolAddress",
    "Sets",
    "check_model",
    "read_document",
]

FieldName = Literal["src", "dst", "sport", "dport"]
ADDRESS_FIELDS: tuple[FieldName, ...] = ("src", "dst")
PORT_FIELDS: tuple[FieldName, ...] = ("sport", "dport")
FIELDS: tuple[FieldName, ...] = (*ADDRESS_FIELDS, *PORT_FIELDS)
B = TypeVar("B", bound=BaseModel)


def _prefix(text: str) -> str:
    IPv6Network(text)
    return text


def _ascending(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] > pair[1]:
        raise ValueError(f"{pair[0]} to {pair[1]} ends before it begins")
    return pair


def _address(text: str) -> str:
    ip_address(text)
    return text


Port = Annotated[int, Field(ge=0, le=65535)]
Number = Annotated[int, Field(ge=0, le=255)]
Index = Annotated[int, Field(ge=0)]
Prefix = Annotated[str, AfterValidator(_prefix), Field(description="An IPv6 prefix.")]
Ports = Annotated[
    tuple[Port, Port], AfterValidator(_ascending), Field(description="From the first to the last.")
]
Protocols = Annotated[
    tuple[Number, Number],
    AfterValidator(_ascending),
    Field(description="From the first to the last."),
]
Address = Annotated[str, AfterValidator(_address)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sets(_Model):
    """For each field of packets, its sets; a field is in a set that has one of its parts."""

    src: list[list[Prefix]] = Field(default=[], description="Of the source address.")
    dst: list[list[Prefix]] = Field(default=[], description="Of the destination address.")
    sport: list[list[Ports]] = Field(default=[], description="Of the source port.")
    dport: list[list[Ports]] = Field(default=[], description="Of the destination port.")


class EncryptedRule(_Model):
    """What becomes of packets whose fields are in these sets; what isn't there may be anything."""

    action: Action
    src: Index | None = Field(None, description="Which set of `sets.src`.")
    dst: Index | None = Field(None, description="Which set of `sets.dst`.")
    sport: Index | None = Field(None, description="Which set of `sets.sport`.")
    dport: Index | None = Field(None, description="Which set of `sets.dport`.")
    protocols: list[Protocols] | None = Field(
        None, description="Protocol numbers behind IPv6's extension headers."
    )
    text: str | None = Field(None, description="The rule in clear, with --model c.")
    line: int | None = Field(None, description="Where the rule was written, with --model c.")


class PoolAddress(_Model):
    """An address that the provider writes."""

    encrypted: Address
    nat: bool = Field(description="Whether it is a NAT's, which writes a port as well.")
    address: Address | None = Field(None, description="The address in clear, with --model c.")


class EncryptedRules(_Model):
    """Encrypted rules of a site; the first one that matches decides."""

    format: Literal["bess-e2 encrypted rules"] = "bess-e2 encrypted rules"
    version: Literal[1] = 1
    default: Action = Field(description="What becomes of packets that no rule matches.")
    sets: Sets
    rules: list[EncryptedRule]
    pool: list[PoolAddress] = []

    @model_validator(mode="after")
    def _sets_are_there(self) -> EncryptedRules:
        for number, rule in enumerate(self.rules):
            for name in FIELDS:
                index, count = getattr(rule, name), len(getattr(self.sets, name))
                if index is not None and index >= count:
                    raise ValueError(f"rules[{number}].{name} is {index} of {count} sets")
        return self

    def text(self) -> str:
        """As a file has it: a rule, a set, an address on each line."""
        whole = self.model_dump(mode="json", exclude_none=True)
        sets = [f"{json.dumps(name)}: {_lines(items)}" for name, items in whole["sets"].items()]
        parts = [
            f'"{name}": {json.dumps(whole[name])}' for name in ("format", "version", "default")
        ]
        parts.append('"sets": {\n' + ",\n".join(sets) + "\n}")
        parts += [f'"{name}": {_lines(whole[name])}' for name in ("rules", "pool")]
        return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(items: list[Any]) -> str:
    if not items:
        return "[]"
    return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]"


def check_model(model: type[B], text: str, file: str) -> B:
    """A JSON text as a model; `RulesError` says where it isn't one."""
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise RulesError(Location(file, error.lineno, error.colno), error.msg) from None
    except RecursionError:
        raise RulesError(Location(file, 1, 1), "this is nested too deeply") from None
    try:
        return model.model_validate(plain)
    except ValidationError as failed:
        first = failed.errors()[0]
        path = ".".join(str(step) for step in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise RulesError(Location(file, 1, 1), f"{path}: {message}" if path else message) from None


def read_document(path: Path) -> EncryptedRules:
    """Encrypted rules from a file."""
    return check_model(EncryptedRules, read_source(path, RulesError), str(path))
