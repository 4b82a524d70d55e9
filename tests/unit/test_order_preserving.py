# SPDX-License-Identifier: BSD-3-Clause
"""The baselines that the benchmarks compare PrefixMatch with are what they claim to be."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise
from statistics import mean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_preserving import CODE_BITS, Bclo, Coins, Mope, Node, block_cipher, hypergeometric

KEY = bytes(range(16))
KEYS = st.binary(min_size=16, max_size=16)
VALUES = st.integers(0, 2**128 - 1)


@st.composite
def domains_and_pairs(draw: st.DrawFn) -> tuple[int, int, int]:
    """A domain and two of its values, often next to each other."""
    bits = draw(st.sampled_from([8, 16, 32, 128]))
    values = st.integers(0, 2**bits - 1)
    low = draw(values)
    high = draw(st.one_of(st.just(min(low + 1, 2**bits - 1)), values))
    return bits, min(low, high), max(low, high)


@given(KEYS, domains_and_pairs())
def test_bclo_preserves_order_and_decrypts(key: bytes, drawn: tuple[int, int, int]) -> None:
    bits, low, high = drawn
    scheme, again = Bclo(key, bits), Bclo(key, bits)
    codes = scheme.encrypt(low), scheme.encrypt(high)
    assert (low < high) == (codes[0] < codes[1])
    assert 0 <= codes[0] <= codes[1] < scheme.range
    assert codes == (again.encrypt(low), again.encrypt(high))
    assert (again.decrypt(codes[0]), again.decrypt(codes[1])) == (low, high)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_bclo_of_a_whole_domain(bits: int) -> None:
    """Every code is that of one value, or of none and says so."""
    scheme = Bclo(KEY, bits)
    codes = [scheme.encrypt(value) for value in range(scheme.domain)]
    assert codes == sorted(set(codes))
    found = dict(zip(codes, range(scheme.domain), strict=True))
    for code in range(scheme.range):
        if code in found:
            assert scheme.decrypt(code) == found[code]
        else:
            with pytest.raises(ValueError, match="no value"):
                scheme.decrypt(code)


def test_bclo_depends_on_its_key() -> None:
    other = bytes(reversed(KEY))
    assert Bclo(KEY, 128).encrypt(2**100) != Bclo(other, 128).encrypt(2**100)


def test_bclo_refuses_what_is_outside() -> None:
    scheme = Bclo(KEY, 16)
    for value in (-1, 2**16):
        with pytest.raises(ValueError, match=r"must be within 0\.\.65535"):
            scheme.encrypt(value)
    for code in (-1, scheme.range):
        with pytest.raises(ValueError, match="must be within"):
            scheme.decrypt(code)


# Small ones by inversion, the last two by a normal variate; half of an odd population, and not.
@pytest.mark.parametrize(
    ("marked", "population", "drawn"),
    [
        (3, 10, 5),
        (9, 10, 5),
        (40, 321, 161),
        (1, 2**100, 2**99),
        (1000, 2**90 + 1, 2**89 + 1),
        (20, 60, 10),
        (2**16, 2**19, 2**18),
        (2**120, 2**123, 2**122),
    ],
)
def test_hypergeometric_moments(marked: int, population: int, drawn: int) -> None:
    count = 1000
    cipher = block_cipher(KEY, 1)
    samples = [
        hypergeometric(marked, population, drawn, Coins(cipher, i.to_bytes(16, "big")))
        for i in range(count)
    ]
    assert min(samples) >= max(0, drawn + marked - population)
    assert max(samples) <= min(marked, drawn)
    expected = Fraction(marked * drawn, population)
    variance = expected * (population - marked) * (population - drawn) / population
    deviation = math.sqrt(variance / (population - 1))
    scaled = [float(x - expected) / deviation for x in samples]
    assert abs(mean(scaled)) < 5 / math.sqrt(count)
    assert abs(pvariance(scaled) - 1) < 5 * math.sqrt(2 / count)


@given(st.integers(1, 2**130), st.binary(min_size=16, max_size=16))
def test_coins_below(bound: int, seed: bytes) -> None:
    cipher = block_cipher(KEY, 1)
    coins = Coins(cipher, seed)
    first, second = coins.below(bound), coins.below(bound)
    assert 0 <= first < bound and 0 <= second < bound
    assert Coins(cipher, seed).below(bound) == first
    assert Coins(cipher, seed).bits(128) != coins.bits(128)


def height(node: Node | None) -> int:
    return 0 if node is None else 1 + max(height(node.left), height(node.right))


def check(scheme: Mope, values: set[int]) -> None:
    """The server has these values, with codes in their order."""
    codes = [scheme.server.codes[scheme.encrypt(value)] for value in sorted(values)]
    assert len(scheme.server.codes) == len(values)
    assert all(a < b for a, b in pairwise(codes))
    assert all(0 < code < 2**CODE_BITS for code in codes)


@given(KEYS, st.lists(VALUES), st.lists(VALUES))
def test_mope_keeps_order(key: bytes, stored: list[int], added: list[int]) -> None:
    scheme = Mope(key, stored)
    check(scheme, set(stored))
    for value in added:
        code = scheme.encode(value)
        rounds = scheme.rounds
        assert scheme.encode(value) == code
        assert scheme.rounds == rounds  # the server knows it
        assert scheme.decrypt(scheme.encrypt(value)) == value
    check(scheme, {*stored, *added})


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_mope_rebalances(order: str) -> None:
    values = list(range(0, 3000, 3))
    if order == "descending":
        values.reverse()
    elif order == "random":
        random.Random(1).shuffle(values)
    scheme = Mope(KEY)
    for value in values:
        scheme.encode(value)
    check(scheme, set(values))
    assert height(scheme.server.root) <= math.log(len(values), 1 / 0.7) + 3
    if order != "random":
        assert scheme.server.rebalanced > 0


def test_mope_asks_for_each_level() -> None:
    scheme = Mope(KEY, range(1, 2**10))  # a tree without gaps: ten levels
    scheme.encode(0)
    assert scheme.rounds == 10
