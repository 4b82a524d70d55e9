# SPDX-License-Identifier: BSD-3-Clause
"""Rates in the files that an operator writes, such as 2.5Gbps."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

__all__ = ["Rate", "parse_rate"]

_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)bps")


def parse_rate(text: str) -> float:
    """Turn a rate such as ``2.5Gbps`` into bits per second."""
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"'{text}' is not a rate; expected a number and bps, kbps, Mbps or Gbps")
    return float(found[1]) * _SCALE[found[2]]


def _rate(value: object) -> object:
    return parse_rate(value) if isinstance(value, str) else value


# bit/s, written as a number or as text with a unit.
Rate = Annotated[
    float,
    BeforeValidator(_rate),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": _RATE.pattern}]}),
]
