# SPDX-License-Identifier: BSD-3-Clause
"""Numbers as arrays of bess_plugins._crypto, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bess_plugins._crypto import PrefixMap

KEY = bytes(range(16))
SEED = bytes(range(100, 116))
FLOW = bytes(range(200, 216))
MAPPED = 0xFFFF << 32  # ::ffff:0:0


def rows(items: Iterable[bytes], size: int = 16) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(items), np.uint8).reshape(-1, size)


def blocks(numbers: Iterable[int]) -> NDArray[np.uint8]:
    return rows(number.to_bytes(16, "big") for number in numbers)


def encrypt(made: PrefixMap, values: Sequence[int], seeds: Sequence[bytes]) -> list[int]:
    """Values as numbers, whatever the domain."""
    if made.domain_bits <= 64:
        return [int(n) for n in made.encrypt_values(np.array(values, np.uint64), rows(seeds))]
    encrypted = made.encrypt_values(blocks(values), rows(seeds))
    return [int.from_bytes(bytes(row), "big") for row in encrypted]
