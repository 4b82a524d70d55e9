# SPDX-License-Identifier: BSD-3-Clause
"""`make sanitize`: AddressSanitizer and UndefinedBehaviorSanitizer over C++ tests and RPC fuzz, and
ThreadSanitizer over the C++ tests of what threads share.

The fuzz runs in a process of its own, into which the sanitizers' runtime is loaded first and whose
`bess_plugins._engine` is the one built here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from cpp_build import (
    ROOT,
    SANITIZE,
    build_engine,
    build_tests,
    build_thread_tests,
    compile_core,
    missing_tool,
)

FUZZ = ROOT / "tests" / "property" / "test_rpc_fuzz.py"


def fuzz(extension: Path) -> int:
    """Run the fuzz in this process, over the extension given."""
    import pytest

    name = "bess_plugins._engine"
    spec = importlib.util.spec_from_file_location(name, extension)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(pytest.main(["-q", "-p", "no:cacheprovider", str(FUZZ)]))


def runtime(name: str) -> str:
    """Where the compiler keeps a library."""
    found = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def main() -> int:
    if sys.argv[1:2] == ["fuzz"]:
        return fuzz(Path(sys.argv[2]))
    if reason := missing_tool():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    out = ROOT / "build" / "sanitize"
    status = subprocess.run([str(build_thread_tests(out / "threads"))], check=False).returncode
    if status:
        return status
    core = compile_core(out, SANITIZE)
    status = subprocess.run([str(build_tests(core, out, SANITIZE))], check=False).returncode
    if status:
        return status
    environment = {
        **os.environ,
        # Python is linked against neither; exceptions are only seen with both there from the start.
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so.6')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter never frees all
        "CI": "1",  # the same examples each time
    }
    command = [sys.executable, __file__, "fuzz", str(build_engine(core, out, SANITIZE))]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
