# SPDX-License-Identifier: BSD-3-Clause
"""Runs the C++ unit tests, so that one command runs all tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cpp_build import build_tests, compile_core, missing_tool

REASON = missing_tool()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_cpp_units(tmp_path: Path) -> None:
    program = build_tests(compile_core(tmp_path), tmp_path)
    result = subprocess.run(
        [str(program)], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failed" in result.stdout
