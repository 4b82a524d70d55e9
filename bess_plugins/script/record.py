# SPDX-License-Identifier: BSD-3-Clause
"""Dicts whose items scripts read as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Record(dict[str, Any]):
    """A dict whose items are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no field named {name!r}") from None


def to_record(value: Any) -> Any:
    """The value with a Record for each mapping in it."""
    if isinstance(value, Mapping):
        return Record((key, to_record(item)) for key, item in value.items())
    if isinstance(value, list):
        return [to_record(item) for item in value]
    return value
