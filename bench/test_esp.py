# SPDX-License-Identifier: BSD-3-Clause
"""What the VPN's modules cost: packets sealed and opened by ESP, per packet, as test_embark.py
measures.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from test_embark import LONG, SIZE, Step, difference, figures_of, source

from bess_plugins.private_files import create_private
from measuring import LEVELS, Figures, measured_at

Report = Callable[..., None]


def sa_file(folder: Path, bits: int) -> str:
    path = folder / f"aes{bits}"
    key = secrets.token_hex(bits // 8 + 4)
    create_private(path, f"0x100 {key} 192.0.2.1 192.0.2.2 esn\n")
    return str(path)


def measure() -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        for bits in (128, 256):
            args = {"sa_file": sa_file(Path(name), bits)}
            encrypt: Step = ("EspEncrypt", {**args, "mtu": 9000})
            decrypt: Step = ("EspDecrypt", args)
            for size in (SIZE, LONG):
                start = source(False, size)
                sealed = [*start, encrypt]
                what = f"AES-{bits}, {size} bytes"
                figures[f"seal, {what}"] = figures_of(difference(start, sealed), size)
                ns = difference(sealed, [*sealed, decrypt])
                figures[f"open, {what}"] = figures_of(ns, size)
    return figures


@pytest.mark.parametrize("level", LEVELS)
def test_esp(level: str, benchmark: BenchmarkFixture, report: Report) -> None:
    for line, figures in measured_at(level, Path(__file__), "esp", benchmark).items():
        report(line, figures, f"ESP, {level}: one worker, packets of random flows")


MEASURED = {"esp": measure}

if __name__ == "__main__":
    print(json.dumps(MEASURED[sys.argv[1]]()))
