# SPDX-License-Identifier: BSD-3-Clause
"""EncryptPrefixes and EncryptValue of ext/crypto once more, in plain Python over another AES."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

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


class PrefixMap:
    """What bess_plugins._crypto.PrefixMap does; values and encryptions are numbers."""

    def __init__(
        self,
        ranges: Sequence[Range],
        domain_bits: int,
        key: bytes,
        seed: bytes,
        prefix_bits: int = 0,
    ) -> None:
        random = Random(seed)
        for _ in ranges:  # their numbers, which tell sets apart there and aren't needed here
            random.next()
            random.next()
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
        needed = (len(different) - 1).bit_length()
        usual = USUAL_PREFIX_BITS if domain_bits >= 64 else 1
        self.prefix_bits = prefix_bits or min(
            max(needed + ROOM_BITS, usual), domain_bits, MAX_PREFIX_BITS
        )
        moved: dict[int, int] = {}
        self.prefix_of: dict[frozenset[int], int] = {}
        for i, members in enumerate(different):
            place = i + random.below((1 << self.prefix_bits) - i)
            self.prefix_of[members] = moved.get(place, place)
            moved[place] = moved.get(i, i)
        self.rules = [
            sorted(prefix for members, prefix in self.prefix_of.items() if rule in members)
            for rule in range(len(ranges))
        ]
        self.aes = AES.new(key, AES.MODE_ECB)

    def encrypt(self, value: int, flow_seed: bytes) -> int:
        suffix_bits = self.domain_bits - self.prefix_bits
        prefix = self.prefix_of[self.sets[bisect_left(self.ends, value)]]
        block = int.from_bytes(flow_seed, "big") ^ value
        suffix = int.from_bytes(self.aes.encrypt(block.to_bytes(16, "big")), "big")
        return prefix << suffix_bits | suffix & ((1 << suffix_bits) - 1)
