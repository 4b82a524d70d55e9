# SPDX-License-Identifier: BSD-3-Clause
"""EspDecrypt's sequence numbers: replays, the window, and extended ones."""

from __future__ import annotations

import random
from pathlib import Path

from esp_support import Sa, drops, esp, push, udp
from harness import Engine

WINDOW = 4096


def accepted(engine: Engine, sa: Sa, *numbers: int) -> list[bool]:
    return [bool(push(engine, sa.seal(udp(), number))) for number in numbers]


def test_replayed_packets_and_the_window(tmp_path: Path) -> None:
    sa = Sa()
    engine = esp("EspDecrypt", tmp_path, sa)
    assert accepted(engine, sa, 0, 1, 1, 3, 2, 3, 2) == [
        False,
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert accepted(engine, sa, 3 + WINDOW, 3, 4, 5) == [True, False, True, True]
    assert accepted(engine, sa, 2**32 - 1, 2**32 - WINDOW - 1, 2**32 - WINDOW) == [
        True,
        False,
        True,
    ]
    assert drops(engine) == {"replayed": 6}


def test_a_receiver_without_protection_takes_all(tmp_path: Path) -> None:
    sa = Sa(flags=("no-anti-replay",))
    engine = esp("EspDecrypt", tmp_path, sa)
    assert all(accepted(engine, sa, 5, 5, 1, 0, 2**32 - 1))


def test_extended_numbers_are_found_from_half_of_them(tmp_path: Path) -> None:
    """Jumps below 2^32, over the end of the lower half and back within the window."""
    sa = Sa(flags=("esn",))
    engine = esp("EspDecrypt", tmp_path, sa)
    half = 2**32
    steps = [1, half - 2, half + 5, half - 1, half, half + 1, half + 5 + half - WINDOW]
    steps += [2 * half + 100, 2 * half + 100 - (WINDOW - 1), 3 * half - 4000, 3 * half + 50]
    steps += [3 * half - 1]
    assert all(accepted(engine, sa, *steps))
    assert accepted(engine, sa, *steps[-2:]) == [False, False]
    assert drops(engine) == {"replayed": 2}
    # Too old for the window, or too far ahead: taken for another number, so not authentic.
    assert accepted(engine, sa, 3 * half + 50 - WINDOW, 5 * half) == [False, False]
    assert drops(engine) == {"replayed": 2, "bad tag": 2}


def test_extended_numbers_like_the_rfc(tmp_path: Path) -> None:
    """Appendix A2.2 of RFC 4303 itself, over random walks."""

    def infer(top: int, sent: int) -> int:
        high, low = divmod(top, 2**32)
        if low >= WINDOW - 1:
            return sent + 2**32 * (high if sent >= low - WINDOW + 1 else high + 1)
        if high == 0:
            return sent
        return sent + 2**32 * (high - 1 if sent >= (low - WINDOW + 1) % 2**32 else high)

    draw = random.Random(3)
    sa = Sa(flags=("esn",))
    engine = esp("EspDecrypt", tmp_path, sa)
    top, seen = 1, {1}
    assert accepted(engine, sa, 1) == [True]
    for _ in range(300):
        step = draw.choice([3, WINDOW, WINDOW + 2, 2**20, 2**31, 2**32 - WINDOW, 2**32, 2**32 + 9])
        number = max(1, top + draw.choice([1, -1]) * draw.randrange(step + 1))
        right = infer(top, number % 2**32) == number and number > top - WINDOW
        fresh = right and number not in seen
        assert accepted(engine, sa, number) == [fresh]
        if fresh:
            top, seen = max(top, number), seen | {number}
