# SPDX-License-Identifier: BSD-3-Clause
"""EncryptPrefixes and EncryptValue of ext/crypto once more, in plain Python over another AES."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import xor

from Crypto.Cipher import AES

Range = tuple[int, int]
ROOM_BITS, USUAL_PREFIX_BITS, MAX_PREFIX_BITS = 2, 16, 31


class Random:
    """AES in counter mode; all numbers are little-endian."""

    def __init__(self, seed: bytes) -> None:
        self.aes = AES.new(seed, AES.MODE_ECB)
        self.counter = 0
        self.numbers: list[int] = []

    def next(self) -> int:
        if not self.numbers:
            block = self.aes.encrypt(self.counter.to_bytes(16, "little"))
            self.counter += 1
            self.numbers = [int.from_bytes(block[at : at + 8], "little") for at in (8, 0)]
        return self.numbers.pop()

    def below(self, bound: int) -> int:
        while (number := self.next()) < 2**64 % bound:
            pass
        return number % bound


def usable(domain_bits: int, prefix_bits: int) -> range:
    """Prefixes of addresses don't begin with 00, fe or ff."""
    if domain_bits < 128 or prefix_bits < 8:
        return range(2**prefix_bits)
    return range(1 << (prefix_bits - 8), 0xFE << (prefix_bits - 8))


class _Free:
    """What can be drawn and isn't taken, by its place."""

    def __init__(self, drawable: range, taken: list[int]) -> None:
        self.drawable = drawable
        self.taken = taken

    def __getitem__(self, place: int) -> int:
        value = self.drawable[place]
        for prefix in self.taken:
            if prefix <= value:
                value += 1
        return value


class PrefixMap:
    """What bess_plugins._crypto.PrefixMap does; values and encryptions are numbers."""

    def __init__(
        self,
        ranges: Sequence[Range],
        domain_bits: int,
        key: bytes,
        seed: bytes,
        prefix_bits: int = 0,
        ids: Sequence[int] | None = None,
        kept: Mapping[int, int] | None = None,
    ) -> None:
        random = Random(seed)
        kept = kept or {}
        if ids is None:
            ids = [random.next() << 64 | random.next() for _ in ranges]
        switched: dict[int, set[int]] = defaultdict(set)
        for rule, (first, last) in enumerate(ranges):
            switched[first] ^= {rule}
            switched[last + 1] ^= {rule}
        starts = sorted({0, *(at for at in switched if at >> domain_bits == 0)})
        self.domain_bits = domain_bits
        self.ends = [start - 1 for start in starts[1:]] + [2**domain_bits - 1]
        active: set[int] = set()
        self.sets: list[frozenset[int]] = []
        for start in starts:
            active ^= switched[start]
            self.sets.append(frozenset(active))
        different = list(dict.fromkeys(self.sets))
        # Sets are the same where their ids add up to the same, as parts of one set of values do.
        name_of = {m: reduce(xor, (ids[rule] for rule in m), 0) for m in different}
        names = {*name_of.values()}
        needed = next(n for n in range(64) if len(usable(domain_bits, n)) >= len(names))
        usual = USUAL_PREFIX_BITS if domain_bits >= 64 else 1
        self.prefix_bits = prefix_bits or min(
            max(needed + ROOM_BITS, usual), domain_bits, MAX_PREFIX_BITS
        )
        fresh = [name for name in dict.fromkeys(name_of.values()) if name not in kept]
        used = {kept[name] for name in name_of.values() if name in kept}
        drawable = usable(domain_bits, self.prefix_bits)
        whole = {prefix for prefix in kept.values() if prefix in drawable}
        taken = sorted(whole if len(whole) + len(fresh) <= len(drawable) else used & whole)
        free = _Free(drawable, taken)
        moved: dict[int, int] = {}
        self.set_prefixes = {name: kept[name] for name in name_of.values() if name in kept}
        for i, name in enumerate(fresh):
            place = i + random.below(len(drawable) - len(taken) - i)
            self.set_prefixes[name] = free[moved.get(place, place)]
            moved[place] = moved.get(i, i)
        self.prefix_of = {members: self.set_prefixes[name] for members, name in name_of.items()}
        self.rules = [
            sorted({prefix for members, prefix in self.prefix_of.items() if rule in members})
            for rule in range(len(ranges))
        ]
        self.aes = AES.new(key, AES.MODE_ECB)

    def encrypt(self, value: int, flow_seed: bytes) -> int:
        suffix_bits = self.domain_bits - self.prefix_bits
        prefix = self.prefix_of[self.sets[bisect_left(self.ends, value)]]
        block = int.from_bytes(flow_seed, "big") ^ value
        suffix = int.from_bytes(self.aes.encrypt(block.to_bytes(16, "big")), "big")
        return prefix << suffix_bits | suffix & ((1 << suffix_bits) - 1)
