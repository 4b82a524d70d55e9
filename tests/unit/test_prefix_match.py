# SPDX-License-Identifier: BSD-3-Clause
"""PrefixMatch on chosen maps: deep trees, dense blocks, mapped addresses, limits, statistics.

tests/unit/test_crypto_levels.py runs this file again for each instruction set.
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from bess_plugins._crypto import (
    CryptoError,
    DuplicateRangeError,
    KeyLengthError,
    OutOfDomainError,
    PrefixMap,
    TooManySetsError,
)
from crypto_support import FLOW, KEY, MAPPED, SEED, blocks, encrypt, rows
from twins import prefix_match_twin as twin

LAST = 2**128 - 1
SITE = 0x2001_0DB8 << 96


def prefix_ranges(
    draw: random.Random, count: int, base: int, bits: int, lengths: range
) -> list[twin.Range]:
    """Different prefixes of random length below the upper 128 - `bits` bits of `base`."""
    found: set[twin.Range] = set()
    while len(found) < count:
        size = 2 ** (bits - draw.choice(lengths))
        first = base + draw.randrange(2**bits) // size * size
        found.add((first, first + size - 1))
    return sorted(found, key=lambda _: draw.random())


def probes(draw: random.Random, oracle: twin.PrefixMap, most: int = 4000) -> list[int]:
    """Values at the ends of intervals, beside them and between, the first and the last of all."""
    last = 2**oracle.domain_bits - 1
    ends = draw.sample(oracle.ends, min(len(oracle.ends), most // 4))
    near = {min(max(end + by, 0), last) for end in ends for by in (-1, 0, 1)}
    return [0, last, *near, *(draw.randint(0, last) for _ in ends)]


def check(ranges: list[twin.Range], domain_bits: int, prefix_bits: int = 0) -> PrefixMap:
    """Rules and values are encrypted as the twin does it."""
    draw = random.Random(len(ranges))
    made = PrefixMap(ranges, domain_bits, KEY, prefix_bits=prefix_bits, seed=SEED)
    oracle = twin.PrefixMap(ranges, domain_bits, KEY, SEED, prefix_bits)
    assert made.prefix_bits == oracle.prefix_bits
    assert made.sets == len(oracle.prefix_of)
    assert [rule.tolist() for rule in made.encrypted_rules()] == oracle.rules
    values = probes(draw, oracle)
    seeds = [draw.randbytes(16) for _ in values]
    wanted = [oracle.encrypt(value, seed) for value, seed in zip(values, seeds, strict=True)]
    assert encrypt(made, values, seeds) == wanted
    if domain_bits == 128:
        mapped = [(v, s) for v, s in zip(values, seeds, strict=True) if v >> 32 == 0xFFFF]
        ipv4 = np.array([value & 0xFFFFFFFF for value, _ in mapped], np.uint32)
        short = made.encrypt_ipv4(ipv4, rows(seed for _, seed in mapped))
        assert short.tobytes() == blocks(oracle.encrypt(v, s) for v, s in mapped).tobytes()
    return made


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 40, 41, 400, 4000])
def test_trees_of_every_depth(count: int) -> None:
    draw = random.Random(count)
    made = check(prefix_ranges(draw, count, 0x2 << 124, 124, range(28, 61)), 128)
    assert made.prefix_bits == max(16, (made.sets - 1).bit_length() + 2)


@pytest.mark.parametrize("count", [1, 4, 31, 32, 33, 300, 3000])
def test_many_ends_in_one_64(count: int) -> None:
    """Lists, and from 65 ends on a tree, below one upper half; hosts and ranges in others."""
    draw = random.Random(count)
    dense = prefix_ranges(draw, count, SITE, 64, range(24, 65))
    hosts = prefix_ranges(draw, count, SITE << 1, 96, range(96, 97))
    check([*dense, *hosts, (SITE - 2**70 + 5, SITE + 2**80 + 9)], 128)


@pytest.mark.parametrize("count", [1, 7, 8, 15, 16, 17, 100, 3000])
def test_many_ends_in_one_16_of_ipv4(count: int) -> None:
    """Vectors of ends, and where there are too many, halving first."""
    draw = random.Random(count)
    dense = prefix_ranges(draw, count, 0x0A01 << 16, 16, range(2, 17))
    sparse = prefix_ranges(draw, count, 0, 32, range(8, 33))
    ranges = [*{*dense, *sparse}]
    check(ranges, 32)
    check([(MAPPED + first, MAPPED + last) for first, last in ranges], 128)


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(0, LAST)],
        [(LAST, LAST)],
        [(0, 0)],
        [(0, 0), (LAST, LAST), (2**127, LAST)],
        [(MAPPED, MAPPED + 2**32 - 1)],
        [(MAPPED - 1, MAPPED + 2**32)],
        [(MAPPED + 5, MAPPED + 5)],
        [(MAPPED, MAPPED)],
        [(MAPPED + 2**32 - 1, MAPPED + 2**32 - 1)],
        [(MAPPED - 1, MAPPED - 1), (MAPPED + 7, LAST), (0, MAPPED + 2**31)],
        [(7, MAPPED + 9), (MAPPED + 3, MAPPED + 2**40), (2**64 - 1, 2**64)],
        [(2**64 * 5, 2**64 * 6 - 1), (2**64 * 5 + 1, 2**64 * 5 + 1)],
    ],
)
def test_edges_of_128_bits(ranges: list[twin.Range]) -> None:
    check(ranges, 128)


@pytest.mark.parametrize("domain_bits", [1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128])
def test_every_layout(domain_bits: int) -> None:
    draw = random.Random(domain_bits)
    last = 2**domain_bits - 1
    ranges = {(draw.randint(0, last), draw.randint(0, last)) for _ in range(200)}
    ranges = {(min(pair), max(pair)) for pair in ranges} | {(0, last)}
    check([*ranges], domain_bits, prefix_bits=min(domain_bits, 20))


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 63, 64, 65, 100])
def test_a_batch_is_as_its_values_one_by_one(count: int) -> None:
    draw = random.Random(count)
    for domain_bits in (16, 32, 64, 100, 128):
        made = PrefixMap([(3, 9), (5, 2**15)], domain_bits, KEY, seed=SEED)
        values = [draw.randrange(2**16) for _ in range(count)]
        seeds = [draw.randbytes(16) for _ in values]
        single = [encrypt(made, [v], [s])[0] for v, s in zip(values, seeds, strict=True)]
        assert encrypt(made, values, seeds) == single


def test_as_many_sets_as_the_domain_has_values() -> None:
    """Each value of 16 bits in a set of its own: nothing is left for suffixes."""
    made = PrefixMap([(value, value) for value in range(1, 2**16)], 16, KEY)
    assert (made.sets, made.prefix_bits) == (2**16, 16)
    values = np.arange(2**16, dtype=np.uint64)
    encrypted = made.encrypt_values(values, np.zeros((2**16, 16), np.uint8))
    assert sorted(encrypted.tolist()) == values.tolist()
    assert [int(rule[0]) for rule in made.encrypted_rules()] == encrypted[1:].tolist()


def test_more_sets_than_prefixes() -> None:
    ranges = [(value, value) for value in range(256)]
    message = "257 different sets of ranges need prefixes of 9 bits; these have 8"
    with pytest.raises(TooManySetsError, match=message):
        PrefixMap(ranges, 16, KEY, prefix_bits=8)
    assert PrefixMap(ranges[1:], 16, KEY, prefix_bits=8).sets == 256
    # In 16 bits no ranges make more sets than there are values, but a wider domain has them.
    many = [(value, value) for value in range(2**16)]
    message = "65537 different sets of ranges need prefixes of 17 bits; these have 16"
    with pytest.raises(TooManySetsError, match=message):
        PrefixMap(many, 128, KEY, prefix_bits=16)
    assert PrefixMap(many, 128, KEY).prefix_bits == 19


@pytest.mark.parametrize(
    ("ranges", "domain_bits", "prefix_bits", "error", "message"),
    [
        ([(1, 2), (5, 9), (1, 2)], 16, 0, DuplicateRangeError,
         r"range 2 \(0x1 to 0x2\) is given twice: it is range 0 as well"),
        ([(0, 65536)], 16, 0, OutOfDomainError,
         r"range 0 \(0x0 to 0x10000\) leaves the domain, which ends at 0xffff"),
        ([(0, 2**128)], 128, 0, OutOfDomainError, "range 0 .* leaves 128 bits"),
        ([(-1, 5)], 128, 0, OutOfDomainError, "range 0 .* leaves 128 bits"),
        ([(9, 5)], 16, 0, CryptoError, r"range 0 \(0x9 to 0x5\) ends before it begins"),
        ([], 0, 0, CryptoError, "the domain has 0 bits; must be 1 to 128"),
        ([], 129, 0, CryptoError, "the domain has 129 bits; must be 1 to 128"),
        ([], 16, 17, CryptoError, "prefixes have 17 bits; in a domain of 16 bits at most 16"),
        ([], 128, 32, CryptoError, "prefixes have 32 bits; in a domain of 128 bits at most 31"),
        ([], -1, 0, CryptoError, "a domain of -1 bits"),
    ],
)  # fmt: skip
def test_ranges_that_make_no_map(
    ranges: list[twin.Range],
    domain_bits: int,
    prefix_bits: int,
    error: type[CryptoError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        PrefixMap(ranges, domain_bits, KEY, prefix_bits=prefix_bits)


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(KeyLengthError, match="the key has 15 bytes; must be 16"):
        PrefixMap([], 16, KEY[1:])
    with pytest.raises(KeyLengthError, match="the seed has 17 bytes; must be 16"):
        PrefixMap([], 16, KEY, seed=bytes(17))
    seeds = rows([FLOW, FLOW])
    short, wide = PrefixMap([], 16, KEY), PrefixMap([], 100, KEY)
    with pytest.raises(OutOfDomainError, match="value 1 has more than 16 bits"):
        short.encrypt_values(np.array([65535, 65536], np.uint64), seeds)
    with pytest.raises(OutOfDomainError, match="value 1 has more than 100 bits"):
        wide.encrypt_values(blocks([2**100 - 1, 2**100]), seeds)
    with pytest.raises(OutOfDomainError, match="have 128 bits, the domain 100"):
        wide.encrypt_ipv4(np.zeros(2, np.uint32), seeds)
    with pytest.raises(CryptoError, match="2 seeds for 3 rows"):
        short.encrypt_values(np.zeros(3, np.uint64), seeds)
    with pytest.raises(KeyLengthError, match="a seed has 8 bytes; must be 16"):
        short.encrypt_values(np.zeros(2, np.uint64), np.zeros((2, 8), np.uint8))
    with pytest.raises(CryptoError, match="out has 1 rows; must be 2"):
        short.encrypt_values(np.zeros(2, np.uint64), seeds, np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="dtype mismatch"):
        short.encrypt_values(np.zeros(2, np.int64), seeds)


def test_into_an_array_of_the_caller() -> None:
    made = PrefixMap([(3, 9)], 128, KEY, seed=SEED)
    out = np.zeros((2, 16), np.uint8)
    assert made.encrypt_values(blocks([3, 4]), rows([FLOW, FLOW]), out) is out
    assert out.tobytes() == made.encrypt_values(blocks([3, 4]), rows([FLOW, FLOW])).tobytes()


def test_prefixes_are_random_unless_seeded() -> None:
    ranges = [(value, value) for value in range(10)]

    def rules(seed: bytes | None) -> list[list[int]]:
        made = PrefixMap(ranges, 128, KEY, seed=seed)
        return [rule.tolist() for rule in made.encrypted_rules()]

    assert rules(None) != rules(None)
    assert rules(SEED) == rules(SEED) != rules(KEY)


def test_suffixes_look_random() -> None:
    """Neighbours of one interval in one flow: each bit is set in half of them, bytes are even."""
    count = 2**15
    made = PrefixMap([(SITE, SITE + 2**64)], 128, KEY, seed=SEED)
    seeds = np.tile(np.frombuffer(FLOW, np.uint8), (count, 1))
    encrypted = made.encrypt_values(blocks(range(SITE, SITE + count)), seeds)
    assert len({bytes(row[:2]) for row in encrypted}) == 1
    suffixes = encrypted[:, 2:]
    ones = np.unpackbits(suffixes, axis=1).sum(axis=0)
    assert (np.abs(ones - count / 2) < 6 * (count / 4) ** 0.5).all()
    for column in suffixes.T:
        seen = np.bincount(column, minlength=256)
        chi_square = ((seen - count / 256) ** 2 / (count / 256)).sum()
        assert 255 - 6 * 510**0.5 < chi_square < 255 + 6 * 510**0.5
    numbers = [int.from_bytes(bytes(row), "big") for row in encrypted]
    ascending = sum(a < b for a, b in pairwise(numbers))
    assert abs(ascending - count / 2) < 6 * (count / 12) ** 0.5
    assert len(set(numbers)) == count


def test_collisions_are_as_rare_as_they_should_be() -> None:
    """(4.2): m flows collide about m^2 (2n + 1) / 2^(len + 1) times; 2^prefix_len is its 2n + 1."""
    count, domain_bits, prefix_bits = 2**14, 24, 4
    made = PrefixMap([(0, 99)], domain_bits, KEY, prefix_bits=prefix_bits, seed=SEED)
    seeds = np.random.default_rng(1).integers(0, 256, (count, 16), np.uint8)
    encrypted = made.encrypt_values(np.full(count, 7, np.uint64), seeds)
    collisions = count - len(set(encrypted.tolist()))
    expected = count**2 * 2**prefix_bits / 2 ** (domain_bits + 1)
    assert abs(collisions - expected) < 6 * expected**0.5
    # In 128 bits: a billion flows, 100,000 rules.
    assert (1e9) ** 2 * 2**19 / 2**129 < 1e-14


def test_keys_stay_secret() -> None:
    secret = bytes(range(0x41, 0x51))
    made = PrefixMap([(1, 2)], 16, secret, seed=secret)
    for text in (repr(made), str(made)):
        assert secret.hex() not in text and secret.decode() not in text
    with pytest.raises(TypeError):
        made.__reduce__()


def test_memory_of_a_map() -> None:
    """Per rule at most what the goals leave: 0.7 MB at 10,000 rules."""
    draw = random.Random(1)
    ipv6 = PrefixMap(prefix_ranges(draw, 10_000, 0x2 << 124, 124, range(28, 61)), 128, KEY)
    assert 10_000 * 2 * 12 < ipv6.nbytes < 700_000
    ranges = prefix_ranges(draw, 10_000, MAPPED, 32, range(16, 33))
    assert 2**18 < PrefixMap(ranges, 128, KEY).nbytes < 700_000
