# SPDX-License-Identifier: BSD-3-Clause
"""Every instruction set that this machine has gives what the vectors and the twins say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bess_plugins._crypto import best_level

LEVELS = ("portable", "aesni", "avx2", "avx512")
TESTS = Path(__file__).resolve().parents[1]
SAME = (
    TESTS / "unit" / "test_aes.py",
    TESTS / "unit" / "test_prefix_match.py",
    f"{TESTS}/unit/test_embark_encrypt.py::test_all_kinds_together_are_the_twins",
    TESTS / "property" / "test_prefix_properties.py",
)


def run(level: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *command],
        env={**os.environ, "E2_ISA": level, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_level(level: str) -> None:
    if LEVELS.index(level) > LEVELS.index(best_level()):
        pytest.skip(f"this CPU has no {level}")
    used = run(level, "-c", "from bess_plugins._crypto import isa; print(isa())")
    assert used.stdout.strip() == level, used.stderr
    tests = run(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, SAME))
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "passed" in tests.stdout and "skipped" not in tests.stdout


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("sse9", "E2_ISA is 'sse9'; must be portable, aesni, avx2 or avx512"),
        ("AVX2", "E2_ISA is 'AVX2'; must be portable, aesni, avx2 or avx512"),
    ],
)
def test_level_that_does_not_exist(level: str, message: str) -> None:
    result = run(level, "-c", "import bess_plugins._crypto")
    assert result.returncode != 0
    assert f"ImportError: {message}" in result.stderr
