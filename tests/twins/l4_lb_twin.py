# SPDX-License-Identifier: BSD-3-Clause
"""L4LB's consistent hashing once more, in plain Python: Maglev's table (NSDI 2016, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from twins.headers_twin import GOLDEN, MASK64, mix

TABLE = 16381
TRIES = 8


@dataclass(frozen=True)
class Backend:
    address: str
    port: int
    weight: int = 1
    protocol: int = 6

    @property
    def hash(self) -> int:
        packed = ip_address(self.address).packed
        rest = self.port | self.protocol << 16 | (4 if len(packed) == 4 else 6) << 24
        padded = packed.ljust(16, b"\0")
        low, high = (int.from_bytes(padded[at : at + 8], "little") for at in (0, 8))
        return mix(low ^ mix(high ^ rest))


def make_table(backends: list[Backend]) -> list[int]:
    """The number of a backend for each place."""
    hashes = [mix(backend.hash) for backend in backends]
    turns = [[value % TABLE, (value >> 32) % (TABLE - 1) + 1, 0] for value in hashes]
    most = max(backend.weight for backend in backends)
    table = [-1] * TABLE
    taken = 0
    while taken < TABLE:
        for number, turn in enumerate(turns):
            turn[2] += backends[number].weight
            if turn[2] < most:
                continue
            turn[2] -= most
            while table[turn[0]] != -1:
                turn[0] = (turn[0] + turn[1]) % TABLE
            table[turn[0]] = number
            taken += 1
            if taken == TABLE:
                break
    return table


def pick(table: list[int], flow_hash: int, away: frozenset[int] = frozenset()) -> int | None:
    """The backend of a connection with that hash; None where all tries find one that is away."""
    for _ in range(TRIES):
        number = table[(flow_hash >> 32) * TABLE >> 32]
        if number not in away:
            return number
        flow_hash = mix((flow_hash + GOLDEN) & MASK64)
    return None
