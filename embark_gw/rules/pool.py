# SPDX-License-Identifier: BSD-3-Clause
"""Addresses that a provider writes itself, as PrefixMatchEncrypt's `pool` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from embark_gw.rules import ranges

__all__ = ["MAX_ADDRESSES", "Pool", "PoolEntry", "read_pool"]

MAX_ADDRESSES = 65536


class PoolEntry(NamedTuple):
    """An address as a number of 128 bits, and whether whoever writes it writes a port too."""

    number: int
    nat: bool


Pool = Sequence[PoolEntry]


def read_pool(texts: Iterable[str]) -> list[PoolEntry]:
    """Addresses or prefixes, those of a NAT with `:nat` behind; `ValueError` for anything else."""
    pool: list[PoolEntry] = []
    known: set[int] = set()
    for text in texts:
        nat = text.endswith(":nat")
        try:
            network = ranges.read_network(text.removesuffix(":nat"), strict=True)
        except ValueError as error:
            raise ValueError(f"{error}; of a NAT 192.0.2.0/28:nat") from None
        if len(pool) + network.num_addresses > MAX_ADDRESSES:
            raise ValueError(f"'{text}': a pool has at most {MAX_ADDRESSES} addresses")
        first, last = ranges.of_network(network)
        for number in range(first, last + 1):
            if number in known:
                raise ValueError(f"'{text}': {ranges.address_text(number)} is given twice")
            known.add(number)
            pool.append(PoolEntry(number, nat))
    return pool
