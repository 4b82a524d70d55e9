# SPDX-License-Identifier: BSD-3-Clause
"""What nftables compares fields with: values, prefixes, ranges, lists and sets, in its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embark_gw.rules import ranges
from embark_gw.rules.model import RefusedError
from embark_gw.rules.ranges import Ranges

__all__ = ["Values"]

Pair = tuple[int, int]


class Values:
    """The right sides of comparisons, in a table with these named sets."""

    def __init__(self, sets: Mapping[str, Any]) -> None:
        self._sets = sets

    def chosen(
        self, operator: Any, right: Any, whole: Ranges, read: Callable[[Any], Pair]
    ) -> Ranges:
        """The values of a field for which a comparison holds."""
        items = list(self._elements(right))
        found = ranges.intersect(ranges.join(map(read, items)), whole)
        if operator in ("==", "in"):
            return found
        if operator == "!=":
            return ranges.subtract(whole, found)
        first, last = whole[0][0], whole[-1][1]
        if operator not in ("<", "<=", ">", ">=") or len(items) != 1 or whole[1:]:
            raise RefusedError(f"operator '{operator}' can't be taken here")
        low, high = read(items[0])
        low, high = (
            (first, high if operator == "<=" else low - 1)
            if operator[0] == "<"
            else (
                low if operator == ">=" else high + 1,
                last,
            )
        )
        return ranges.intersect(((low, high),), whole) if low <= high else ()

    def _elements(self, right: Any) -> Iterator[Any]:
        if isinstance(right, str) and right.startswith("@"):
            yield from self._named(right[1:])
        elif isinstance(right, dict) and isinstance(right.get("set"), list):
            for item in right["set"]:
                yield from self._elements(item)
        elif isinstance(right, dict) and isinstance(right.get("set"), str | int | dict):
            yield from self._elements(right["set"])
        elif isinstance(right, dict) and isinstance(right.get("elem"), dict):
            if {"timeout", "expires"} & right["elem"].keys():
                raise RefusedError("elements with a timeout come and go")
            yield from self._elements(right["elem"].get("val"))
        else:
            yield right

    def _named(self, name: str) -> Iterator[Any]:
        named = self._sets.get(name)
        if named is None:
            raise RefusedError(f"there is no set {name}")
        flags = named.get("flags", [])
        flags = [flags] if isinstance(flags, str) else flags
        if isinstance(flags, list) and {"timeout", "dynamic"} & {str(flag) for flag in flags}:
            raise RefusedError(f"elements of set {name} come and go")
        if not isinstance(named.get("type"), str):
            raise RefusedError(f"set {name} has more than one field")
        elements = named.get("elem", [])
        for item in elements if isinstance(elements, list) else [elements]:
            yield from self._elements(item)

    def address(self, value: Any, version: int) -> Pair:
        """Addresses as numbers of 128 bits."""
        if isinstance(value, dict) and isinstance(value.get("prefix"), dict):
            inner = value["prefix"]
            text = f"{inner.get('addr')}/{inner.get('len')}"
        elif isinstance(value, dict) and isinstance(value.get("range"), list):
            return self._range(value["range"], lambda item: self.address(item, version))
        elif isinstance(value, str):
            text = value
        else:
            raise RefusedError(f"'{value}' is no address")
        network = ranges.read_network(text)
        if network.version != version:
            raise ValueError(f"'{text}' is no address of IPv{version}")
        return ranges.of_network(network)

    def number(self, value: Any, most: int, named: Callable[[str], int]) -> Pair:
        """Ports or protocols; names only where `named` knows them."""
        if isinstance(value, dict) and isinstance(value.get("range"), list):
            return self._range(value["range"], lambda item: self.number(item, most, named))
        if isinstance(value, str):
            value = named(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedError(f"'{value}' is no number or range")
        if not 0 <= value <= most:
            raise ValueError(f"{value} is not within 0 to {most}")
        return value, value

    @staticmethod
    def _range(items: list[Any], read: Callable[[Any], Pair]) -> Pair:
        if len(items) != 2:
            raise ValueError("a range has two ends")
        first, last = read(items[0])[0], read(items[1])[1]
        if first > last:
            raise ValueError("a range ends before it begins")
        return first, last
