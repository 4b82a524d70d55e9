# SPDX-License-Identifier: BSD-3-Clause
"""Build and run the C++ unit tests (doctest) of the core, optionally under sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ("host", "engine", "ports", "modules", "nf")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def missing_tool() -> str | None:
    """What keeps the C++ tests from being built here, or None."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    probe = subprocess.run(
        ["g++", "-std=c++17", "-fsyntax-only", "-x", "c++", "-"],
        input="#include <doctest/doctest.h>\n",
        text=True,
        capture_output=True,
        check=False,
    )
    return None if probe.returncode == 0 else "doctest is not installed (Debian: doctest-dev)"


def build(out: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile the core and every test in tests/cpp into one program below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    sources = [path for folder in CORE for path in sorted((ROOT / "ext" / folder).glob("*.cc"))]
    sources += sorted((ROOT / "tests" / "cpp").glob("*.cc"))
    common = ["-std=c++17", "-O1", "-g1", f"-I{ROOT / 'ext'}", f"-I{ROOT / 'tests'}", *flags]

    def compile_one(source: Path) -> str:
        target = out / f"{source.parent.name}_{source.stem}.o"
        subprocess.run(["g++", *common, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    main = out / "main.cc"
    main.write_text("#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN\n#include <doctest/doctest.h>\n")
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, [*sources, main]))
    program = out / "core_tests"
    subprocess.run(["g++", *flags, *objects, "-pthread", "-ldl", "-o", str(program)], check=True)
    return program
