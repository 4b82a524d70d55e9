# SPDX-License-Identifier: BSD-3-Clause
"""Builds the C++ unit tests (doctest) of the core and, for sanitizers, the extension."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parent.parent
CORE = ("host", "crypto", "engine", "ports", "modules", "nf")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fPIC")
THREADS = ("-fsanitize=thread",)


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


def compile_all(sources: Sequence[Path], out: Path, flags: Sequence[str]) -> list[Path]:
    """Compile each source to an object in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    common = ["-std=c++17", "-O1", "-g1", f"-I{ROOT / 'ext'}", f"-I{ROOT / 'tests'}", *flags]

    def compile_one(source: Path) -> Path:
        target = out / f"{source.parent.name}_{source.stem}.o"
        subprocess.run(["g++", *common, "-c", str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, sources))


def link(objects: Sequence[Path], target: Path, flags: Sequence[str]) -> Path:
    """Link objects to a program or, with -shared, to a library."""
    command = ["g++", *flags, *map(str, objects), "-pthread", "-ldl", "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def compile_core(out: Path, flags: Sequence[str] = ()) -> list[Path]:
    """The objects of the core, of which the tests and the extension are made."""
    sources = [path for folder in CORE for path in sorted((ROOT / "ext" / folder).glob("*.cc"))]
    return compile_all(sources, out, flags)


def link_tests(
    core: Sequence[Path], tests: Sequence[Path], out: Path, flags: Sequence[str]
) -> Path:
    """One program of objects and the sources of tests."""
    out.mkdir(parents=True, exist_ok=True)
    main = out / "main.cc"
    main.write_text("#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN\n#include <doctest/doctest.h>\n")
    return link([*core, *compile_all([*tests, main], out, flags)], out / "core_tests", flags)


def build_tests(core: Sequence[Path], out: Path, flags: Sequence[str] = ()) -> Path:
    """One program of the core and every test in tests/cpp."""
    return link_tests(core, sorted((ROOT / "tests" / "cpp").glob("*.cc")), out, flags)


def build_thread_tests(out: Path) -> Path:
    """What workers and commands share, under ThreadSanitizer."""
    hosts = ("host/bell.cc", "host/live_table.cc", "host/isa.cc")
    files = (*hosts, "engine/traffic_class.cc", "engine/polling.cc")
    used = [ROOT / "ext" / name for name in files]
    names = ("rule_scan", "rule_probe", "rule_index", "rule_index_build", "return_table")
    used += [ROOT / "ext" / "modules" / f"{name}.cc" for name in names]
    shared = ("bell", "live_table", "live_shares", "return_table", "spsc_ring")
    tests = [ROOT / "tests" / "cpp" / f"test_{name}.cc" for name in shared]
    return link_tests(compile_all(used, out, THREADS), tests, out, THREADS)


def build_engine(core: Sequence[Path], out: Path, flags: Sequence[str]) -> Path:
    """The extension `_engine` over objects compiled with -fPIC."""
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    hidden = [*flags, *includes, "-fvisibility=hidden"]
    binding = compile_all([ROOT / "ext" / "bindings" / "engine.cc"], out, hidden)
    name = f"_engine{sysconfig.get_config_var('EXT_SUFFIX')}"
    return link([*core, *binding], out / name, [*flags, "-shared"])
