# SPDX-License-Identifier: BSD-3-Clause
"""Files that an operator writes: where something is in them, and YAML read into models.

Every mistake is a `SourceError` that names file, line and column and says what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

__all__ = [
    "Location",
    "SourceError",
    "read_document",
    "read_models",
    "read_source",
    "text_key",
    "validate",
]

M = TypeVar("M", bound=BaseModel)


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


def read_source(path: Path, error_type: type[SourceError]) -> str:
    """The text of an operator's file; what keeps it from being read is an `error_type`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_type(Location(str(path), 1, 1), error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text at byte {error.start}"
        raise error_type(Location(str(path), 1, 1), message) from None


def read_document(text: str, file: str, what: str, error_type: type[SourceError]) -> Any:
    """Parse YAML whose top is a mapping of ``what``; its nodes know their lines."""
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(file, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)
        problem = (error.problem or error.context or "not YAML").splitlines()[0]
        raise error_type(where, problem) from None
    except YAMLError as error:
        raise error_type(Location(file, 1, 1), str(error).splitlines()[0]) from None
    if not isinstance(document, Mapping) or not document:
        raise error_type(Location(file, 1, 1), f"expected {what}")
    return document


def read_models(
    text: str, file: str, model: type[M], what: str, error_type: type[SourceError]
) -> dict[str, M]:
    """Parse a YAML mapping from names to values of one model."""
    document = read_document(text, file, f"a mapping from {what}", error_type)
    return {
        str(name): _validate(model, document, (name,), f"{name}: ", file, error_type)
        for name in document
    }


def validate(model: type[M], document: Any, file: str, error_type: type[SourceError]) -> M:
    """Turn a whole document into a model."""
    return _validate(model, document, (), "", file, error_type)


def _validate(
    model: type[M],
    document: Any,
    path: tuple[Any, ...],
    prefix: str,
    file: str,
    error_type: type[SourceError],
) -> M:
    node = document
    for step in path:
        node = node[step]
    try:
        return model.model_validate(_plain(node))
    except ValidationError as failed:
        first = failed.errors()[0]
        where = _locate(document, (*path, *first["loc"]), file)
        raise error_type(where, prefix + _describe(first, model)) from None


def text_key(value: object) -> str:
    """How filters name a key that YAML may have read as a boolean or a number."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _locate(node: Any, path: tuple[int | str, ...], file: str) -> Location:
    """Find the deepest part of a path that the document has."""
    line, column = 0, 0
    for step in path:
        marks = getattr(node, "lc", None)
        if marks is None:
            break
        keys = range(len(node)) if isinstance(node, list) else node
        found = next((key for key in keys if key == step or text_key(key) == step), None)
        if found is None:
            continue
        mark = marks.data[found]
        line, column = mark[0], mark[1]
        node = node[found]
    return Location(file, line + 1, column + 1)


def _known_names(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """What a mapping at a place of a document may name."""
    whole = model.model_json_schema()
    node = whole
    for step in (*path, None):
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]]
        if step is not None:
            default = node.get("items", node.get("additionalProperties", {}))
            node = node.get("properties", {}).get(step, default)
            node = next((part for part in node.get("anyOf", ()) if "$ref" in part), node)
    return list(node.get("properties", ()))


def _describe(error: Any, model: type[BaseModel]) -> str:
    name = error["loc"][-1] if error["loc"] else ""
    kind = error["type"]
    if kind == "extra_forbidden":
        known = ", ".join(_known_names(model, error["loc"][:-1]))
        return f"'{name}' is not known here; expected {known}"
    if kind == "missing":
        return f"'{name}' is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{name}: {message[:1].lower()}{message[1:]}, not {error['input']!r}"


def _plain(node: Any) -> Any:
    """Strip the loader's own types, so that values can be sent on."""
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
