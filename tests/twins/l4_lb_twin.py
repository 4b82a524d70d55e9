# SPDX-License-Identifier: BSD-3-Clause
"""L4LB once more, in plain Python: its consistent hashing by Maglev's table (NSDI 2016, section
3.4), and who has which connection when addresses and clients change."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from twins.headers_twin import GOLDEN, MASK64, mix
from twins.nat_twin import Endpoint, RefusedError

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


@dataclass
class ConnectionsTwin:
    """Services, and backends with the number of theirs, by their own numbers.

    ``flows`` are backends by client and service, ``kept`` are old endpoints of backends with the
    virtual ones of that time.
    """

    services: list[Endpoint]
    backends: list[tuple[Endpoint, int]]
    flows: dict[tuple[Endpoint, Endpoint], int] = field(default_factory=dict)
    kept: dict[Endpoint, Endpoint] = field(default_factory=dict)

    @property
    def addresses(self) -> set[bytes]:
        return {end.address for end in (*self.services, *(end for end, _ in self.backends))}

    def replace(
        self,
        clients: Sequence[tuple[Endpoint, Endpoint]],
        addresses: Sequence[tuple[bytes, bytes]],
        keep_old: bool,
        forgotten: Sequence[bytes],
    ) -> tuple[int, int]:
        """How many connections went over, and how many clients have none; a `RefusedError` changes
        nothing."""
        kept = dict(self.kept)
        for address in forgotten:
            if address not in {end.address for end in kept}:
                raise RefusedError(errno.ENOENT)
            kept = {old: end for old, end in kept.items() if old.address != address}
        moves = dict[bytes, bytes]()
        for old, new in addresses:
            if old not in self.addresses:
                raise RefusedError(errno.ENOENT)
            if old in moves or new in moves.values():
                raise RefusedError(errno.EEXIST)
            moves[old] = new

        def after(end: Endpoint) -> Endpoint:
            return Endpoint(moves.get(end.address, end.address), end.port)

        for end, number in self.backends if keep_old else ():
            if after(end) != end:
                kept[end] = self.services[number]
        services = [after(end) for end in self.services]
        backends = [(after(end), number) for end, number in self.backends]
        ends = {end for end, _ in backends}
        if len({*services}) < len(services) or len(ends) < len(backends) or ends & {*kept}:
            raise RefusedError(errno.EEXIST)
        names = dict(clients)
        if len(names) < len(clients) or len({*names.values()}) < len(clients):
            raise RefusedError(errno.EEXIST)
        flows = dict[tuple[Endpoint, Endpoint], int]()
        for (client, service), number in self.flows.items():
            key = (names[client], after(service)) if client in names else (client, service)
            if key in flows:
                raise RefusedError(errno.EEXIST)
            flows[key] = number
        for (client, service), number in list(flows.items()):
            if service in services and services[backends[number][1]] != service:
                del flows[client, service]
        moved = [client for client, _ in self.flows if client in names]
        self.services, self.backends, self.flows, self.kept = services, backends, flows, kept
        return len(moved), len({*names} - {*moved})

    def answer(self, source: Endpoint) -> Endpoint:
        """What an answer has for its source."""
        virtual = {end: self.services[number] for end, number in self.backends}
        return virtual.get(source, self.kept.get(source, source))
