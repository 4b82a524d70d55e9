# SPDX-License-Identifier: BSD-3-Clause
"""What encryption costs: PrefixMatch per value and map, AES per packet, for each instruction set.

It reports and never judges. A level runs in a process of its own, in which this file measures.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anchors import CRYPTO_LIMIT_NS, PREFIX_MATCH_KB, PREFIX_MATCH_NS
from bess_plugins._crypto import AesKey, GcmKey, PrefixMap
from measuring import LEVELS, Figures, measured_at

Report = Callable[..., None]

RULES = (0, 100, 1_000, 10_000, 100_000)
VALUES = 8_192  # different ones: a branch predictor learns the searches of a few
SIZES = (64, 512, 1500)
PACKETS = 256
SECONDS = float(os.environ.get("E2_BENCH_SECONDS", "0.2"))
MAPPED = 0xFFFF << 32
KEY = bytes(range(16))


def best_ns(call: Callable[[], Any], items: int) -> float:
    """Nanoseconds per item of the fastest call: what other programs take is left out."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        call()
        best = min(best, time.perf_counter() - start)
    return best / items * 1e9


def ipv4_prefixes(draw: random.Random, count: int) -> list[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    while len(found) < count:
        size = 2 ** draw.choice([0, 4, 8, 8, 8, 10, 12, 16])
        first = MAPPED + draw.randrange(2**32) // size * size
        found.add((first, first + size - 1))
    return list(found)


def ipv6_prefixes(draw: random.Random, count: int) -> list[tuple[int, int]]:
    """Of 2000::/3; a quarter are hosts, which have two ends in one /64."""
    found: set[tuple[int, int]] = set()
    while len(found) < count:
        size = 1 if draw.randrange(4) == 0 else 2 ** draw.randint(64, 96)
        first = (1 << 125) + draw.randrange(2**125) // size * size
        found.add((first, first + size - 1))
    return list(found)


def inside(draw: random.Random, ranges: list[tuple[int, int]]) -> list[int]:
    """Values that ranges hold and ones beside them, whose searches end anywhere in the map."""
    if not ranges:
        ranges = [(MAPPED, MAPPED + 2**32 - 1)]
    chosen = draw.choices(ranges, k=VALUES)
    return [draw.choice([draw.randint(first, last), last + 1]) for first, last in chosen]


def measure_prefix_match() -> Figures:
    figures: Figures = {}
    seeds = np.random.default_rng(1).integers(0, 256, (VALUES, 16), np.uint8)
    out = np.zeros((VALUES, 16), np.uint8)
    for count in RULES:
        draw = random.Random(count)
        ranges = ipv4_prefixes(draw, count)
        made = PrefixMap(ranges, 128, KEY)
        ipv4 = np.array([value & 0xFFFFFFFF for value in inside(draw, ranges)], np.uint32)
        figures[f"IPv4, {count} rules"] = {
            "ns": best_ns(lambda m=made, v=ipv4: m.encrypt_ipv4(v, seeds, out), VALUES),
            "kb": made.nbytes / 1e3,
        }
        ranges = ipv6_prefixes(draw, count)
        made = PrefixMap(ranges, 128, KEY)
        data = b"".join(value.to_bytes(16, "big") for value in inside(draw, ranges))
        ipv6 = np.frombuffer(data, np.uint8).reshape(VALUES, 16)
        figures[f"IPv6, {count} rules"] = {
            "ns": best_ns(lambda m=made, v=ipv6: m.encrypt_values(v, seeds, out), VALUES),
            "kb": made.nbytes / 1e3,
        }
    return figures


def measure_aes() -> Figures:
    figures: Figures = {}
    aes, gcm = AesKey(KEY), GcmKey(KEY)
    nonces = np.random.default_rng(1).integers(0, 256, (PACKETS, 12), np.uint8)
    for size in SIZES:
        packets = np.zeros((PACKETS, size), np.uint8)
        out = np.zeros((PACKETS, size), np.uint8)
        for name, call in (
            ("CTR", lambda p=packets, o=out: aes.ctr(nonces, p, 1, o)),
            ("GCM", lambda p=packets, o=out: gcm.seal(nonces, p, b"", o)),
        ):
            ns = best_ns(call, PACKETS)
            figures[f"{name}, {size} bytes"] = {"ns": ns, "gbps": size * 8 / ns}
    return figures


MEASURED = {"prefix": measure_prefix_match, "aes": measure_aes}


def measured(what: str, level: str, benchmark: BenchmarkFixture) -> Figures:
    figures = measured_at(level, Path(__file__), what, benchmark)
    if level == "avx512":
        for line, row in figures.items():
            row["limit_ns"] = CRYPTO_LIMIT_NS[line]
    return figures


@pytest.mark.parametrize("level", LEVELS)
def test_prefix_match(level: str, benchmark: BenchmarkFixture, report: Report) -> None:
    for line, figures in measured("prefix", level, benchmark).items():
        count = int(line.split()[1])
        if count in PREFIX_MATCH_NS:
            figures["dissertation_ns"] = PREFIX_MATCH_NS[count]
            figures["dissertation_kb"] = PREFIX_MATCH_KB[count]
        report(line, figures, f"PrefixMatch, {level}: a value, a map")


@pytest.mark.parametrize("level", LEVELS)
def test_aes(level: str, benchmark: BenchmarkFixture, report: Report) -> None:
    for line, figures in measured("aes", level, benchmark).items():
        report(line, figures, f"AES-128, {level}: a packet")


if __name__ == "__main__":
    print(json.dumps(MEASURED[sys.argv[1]]()))
