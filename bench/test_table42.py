# SPDX-License-Identifier: BSD-3-Clause
"""PrefixMatch beside order-preserving encryption of the same values: the dissertation's table 4.2.

It reports and never judges. BCLO's cost doesn't depend on how many rules there are. mOPE encodes
values that the server doesn't have yet, among one for each rule, and takes them up; what the round
trips would cost on a network is not counted. PrefixMatch gets values in batches, as in the gateway.
It has no decryption, for the header option has the encrypted original: its line in the dissertation
is AES of that, which `bench/test_crypto.py` measures.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from test_crypto import KEY, best_ns, inside, ipv6_prefixes

from anchors import PREFIX_MATCH_KB, TABLE_42_DECRYPT_US, TABLE_42_US
from bess_plugins._crypto import PrefixMap
from order_preserving import Bclo, Mope

Report = Callable[..., None]
Figures = dict[str, float]

RULES = (10_000, 100_000)
PARTS = 8
PART_VALUES = 40
BITS = 128


def best_us(call: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Microseconds of CPU time per item in the fastest part: others' programs are left out."""
    best = float("inf")
    for part in range(PARTS):
        chosen = items[part::PARTS]
        start = time.thread_time()
        for item in chosen:
            call(item)
        best = min(best, (time.thread_time() - start) / len(chosen))
    return best * 1e6


def measure_bclo(values: list[int]) -> Figures:
    scheme = Bclo(KEY, BITS)
    codes = [scheme.encrypt(value) for value in values]
    return {"us": best_us(scheme.encrypt, values), "decrypt_us": best_us(scheme.decrypt, codes)}


def measure_mope(values: list[int], stored: list[int]) -> Figures:
    tracemalloc.start()
    scheme = Mope(KEY, stored)
    kb = tracemalloc.get_traced_memory()[0] / 1e3
    tracemalloc.stop()
    ciphers = [scheme.encrypt(value) for value in values]
    us = best_us(scheme.encode, values)
    return {
        "us": us,
        "round_trips": scheme.rounds / len(values),
        "decrypt_us": best_us(scheme.decrypt, ciphers),
        "kb": kb,
    }


def measure_prefix_match(values: list[int], ranges: list[tuple[int, int]]) -> Figures:
    made = PrefixMap(ranges, BITS, KEY)
    data = b"".join(value.to_bytes(16, "big") for value in values)
    rows = np.frombuffer(data, np.uint8).reshape(len(values), 16)
    seeds = np.random.default_rng(1).integers(0, 256, rows.shape, np.uint8)
    out = np.zeros_like(rows)
    ns = best_ns(lambda: made.encrypt_values(rows, seeds, out), len(values))
    return {"us": ns / 1e3, "kb": made.nbytes / 1e3}


def measure_schemes(rules: int, count: int = PARTS * PART_VALUES) -> dict[str, Figures]:
    """Each scheme over the same values, beside as many rules."""
    draw = random.Random(rules)
    ranges = ipv6_prefixes(draw, rules)
    stored = [first for first, _ in ranges]
    values = inside(draw, ranges)
    new = sorted(set(values) - set(stored))
    chosen = draw.sample(new, count)
    return {
        "BCLO": measure_bclo(chosen),
        "mOPE": measure_mope(chosen, stored),
        "PrefixMatch": measure_prefix_match(values, ranges),
    }


@pytest.mark.parametrize("rules", RULES)
def test_table_42(rules: int, benchmark: BenchmarkFixture, report: Report) -> None:
    pedantic: Any = benchmark.pedantic
    schemes: dict[str, Figures] = pedantic(measure_schemes, args=(rules,), rounds=1)
    for scheme, figures in schemes.items():
        figures["times_prefix_match"] = figures["us"] / schemes["PrefixMatch"]["us"]
        theirs = TABLE_42_US[scheme][rules]
        figures["dissertation_us"] = theirs
        figures["dissertation_times"] = theirs / TABLE_42_US["PrefixMatch"][rules]
        figures["dissertation_decrypt_us"] = TABLE_42_DECRYPT_US[scheme]
        if scheme == "PrefixMatch":
            figures["dissertation_kb"] = PREFIX_MATCH_KB[rules]
        report(f"{scheme}, {rules} rules", figures, "table 4.2: 128-bit values, one encryption")
