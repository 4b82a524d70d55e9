# SPDX-License-Identifier: BSD-3-Clause
"""Affinity: which packets an instance must see together.

An NF's description names the parts of the 5-tuple that tell its traffic aggregates apart (section
3.2.2 of the dissertation). Packets that agree in them form a flow; a hash of them is the flow id,
a number below `FLOW_IDS` that the dataplane's FlowSteer computes, and each instance has a range of
flow ids.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["FIVE_TUPLE", "FLOW_IDS", "WHOLE", "Affinity", "parse"]

FLOW_IDS = 1 << 32
FIVE_TUPLE = ("ip.src", "ip.dst", "ip.proto", "l4.sport", "l4.dport")

# Bits of each part of a key; IPv6 addresses have masks of their own.
_BITS = {
    "ip.src": 32,
    "ip6.src": 128,
    "ip.dst": 32,
    "ip6.dst": 128,
    "ip.proto": 8,
    "l4.sport": 16,
    "l4.dport": 16,
}
_TWINS = {"ip.src": "ip6.src", "ip.dst": "ip6.dst"}
_OPPOSITE = {"ip.src": "ip.dst", "ip6.src": "ip6.dst", "l4.sport": "l4.dport"}
_STEER_NAMES = {"ip.proto": "proto", "l4.sport": "sport", "l4.dport": "dport"}
_ENTRY = re.compile(r"([\w.]+)(?:/(\d+))?")


@dataclass(frozen=True)
class Affinity:
    """Masks of the parts of the 5-tuple that count; ``symmetric``: both directions are one flow."""

    masks: tuple[tuple[str, int], ...]
    symmetric: bool = False

    def keeps_together(self, other: Affinity) -> bool:
        """Whether packets that are one flow of ``other`` are always one flow of this, too.

        So it is if this looks at nothing that ``other`` doesn't look at: traffic that is grouped by
        source address also keeps 5-tuples together.
        """
        theirs = dict(other.masks)
        coarser = all(mask & ~theirs.get(name, 0) == 0 for name, mask in self.masks)
        one_way = not self.symmetric and bool(self.fields - {"ip.proto"})
        return coarser and not (other.symmetric and one_way)

    @property
    def fields(self) -> frozenset[str]:
        """Names of the header fields that count, those of IPv6 included."""
        return frozenset(name for name, _ in self.masks)

    def steer_args(self) -> dict[str, Any]:
        """Arguments of a FlowSteer."""
        return {"affinity": self._steer_fields, "symmetric": self.symmetric}

    @cached_property
    def _steer_fields(self) -> list[dict[str, Any]]:
        masks = dict(self.masks)
        fields: list[dict[str, Any]] = []
        for name, full in (("ip.src", "src"), ("ip.dst", "dst")):
            v4, v6 = masks.get(name, 0), masks.get(_TWINS[name], 0)
            if v4 or v6:
                fields.append(
                    {
                        "name": full,
                        "ipv4_mask": str(ipaddress.IPv4Address(v4)),
                        "ipv6_mask": str(ipaddress.IPv6Address(v6)),
                    }
                )
        for name, steer in _STEER_NAMES.items():
            if masks.get(name):
                fields.append({"name": steer, "mask": masks[name]})
        return fields

    def __str__(self) -> str:
        parts = []
        for name, mask in self.masks:
            full = (1 << _BITS[name]) - 1
            twin = next((v4 for v4, v6 in _TWINS.items() if v6 == name), None)
            if twin and mask == full and dict(self.masks).get(twin) == (1 << _BITS[twin]) - 1:
                continue
            parts.append(name if mask == full else f"{name}&{mask:#x}")
        return ", ".join(parts) + (" (both directions)" if self.symmetric else "")


def _entry_masks(entry: object) -> dict[str, int]:
    """Masks of one entry: ``ip.src``, ``ip.src/24`` or ``{l4.dport: 0xff00}``."""
    if isinstance(entry, Mapping) and len(entry) == 1:
        (name, mask) = next(iter(entry.items()))
        if name in _BITS and type(mask) is int and 0 < mask < 1 << _BITS[name]:
            return {name: mask}
        raise ValueError(
            f"affinity: {dict(entry)!r} is not a mask; expected a field of the 5-tuple and a "
            f"number that fits it, such as {{l4.dport: 0xff00}}"
        )
    found = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
    if found is None or found[1] not in _BITS:
        raise ValueError(
            f"affinity: {entry!r} is not a part of the 5-tuple; expected {', '.join(FIVE_TUPLE)}, "
            f"or one with a prefix length such as ip.src/24"
        )
    name, bits = found[1], _BITS[found[1]]
    full = (1 << bits) - 1
    if found[2] is None:
        twin = _TWINS.get(name)
        return {name: full} | ({twin: (1 << _BITS[twin]) - 1} if twin else {})
    length = int(found[2])
    if not 0 < length <= bits:
        raise ValueError(f"affinity: '{entry}' has a prefix length beyond 1 to {bits}")
    return {name: full >> bits - length << bits - length}


def parse(entries: object, symmetric: bool = False) -> Affinity:
    """Read the affinity of an NF description; what is wrong is a ValueError."""
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError("affinity: expected a list of parts of the 5-tuple")
    masks: dict[str, int] = {}
    for entry in entries:
        for name, mask in _entry_masks(entry).items():
            masks[name] = masks.get(name, 0) | mask
    if symmetric:
        for one, other in _OPPOSITE.items():
            if masks.get(one) != masks.get(other):
                raise ValueError(
                    f"affinity: both directions can be one flow only if {one} and {other} count "
                    f"alike; name both, or leave 'symmetric' out"
                )
    return Affinity(tuple((name, masks[name]) for name in _BITS if name in masks), symmetric)


# What tells flows apart where an NF has no wish: packets of a connection stay in order.
WHOLE = parse(FIVE_TUPLE)
