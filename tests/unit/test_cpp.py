# SPDX-License-Identifier: BSD-3-Clause
"""Runs the C++ unit tests, so that one command runs all tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bess_plugins import _engine
from cpp_build import build_tests, compile_core, missing_tool

REASON = missing_tool()
ISA_LEVELS = ["portable", "aesni", "avx2", "avx512"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if REASON is not None:
        pytest.skip(REASON)
    out = tmp_path_factory.mktemp("cpp")
    return build_tests(compile_core(out), out)


def run(program: Path, *args: str, isa: str = "") -> str:
    result = subprocess.run(
        [str(program), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "E2_ISA": isa},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failed" in result.stdout
    return result.stdout


def test_cpp_units(program: Path) -> None:
    run(program)


@pytest.mark.parametrize("isa", ISA_LEVELS[: ISA_LEVELS.index(_engine.ISA)])
def test_kernels_of_lesser_cpus(program: Path, isa: str) -> None:
    files = "--source-file=*test_kernels*,*test_embark_crypto*"
    assert f"kernels: {isa}" in run(program, files, "--success", isa=isa)
