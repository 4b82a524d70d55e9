# SPDX-License-Identifier: BSD-3-Clause
"""A checkout of omec-project/bess, made ready to run, and ways to run parts of it."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "BESS_HOME",
    "CONF",
    "ROOT_FOLDER",
    "TESTS",
    "launch",
    "needs_bess",
    "prepare",
    "scripts",
]

BESS_HOME = os.environ.get("BESS_HOME", "")
needs_bess = pytest.mark.skipif(
    not BESS_HOME, reason="BESS_HOME is not set: it names a checkout of omec-project/bess"
)
ROOT_FOLDER = Path("bessctl")
CONF = ROOT_FOLDER / "conf"
TESTS = ROOT_FOLDER / "module_tests"
_PARTS = ("bessctl", "pybess", "protobuf")
_LAUNCHER = Path(__file__).with_name("launch.py")


def prepare(target: Path) -> Path:
    """Copy what is Python of the checkout, with its protocol code, which its build would make."""
    # Copied, since it finds its parts by its own real path.
    for part in _PARTS:
        shutil.copytree(Path(BESS_HOME) / part, target / part)
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    source, out = target / "protobuf", target / "pybess" / "builtin_pb"
    well_known = Path(protoc.__file__).parent / "_proto"
    protos = [str(path) for path in source.rglob("*.proto") if "tests" not in path.parts]
    to = [f"--python_out={out}", f"--grpc_python_out={out}"]
    status = protoc.main(["protoc", f"-I{source}", f"-I{well_known}", *to, *protos])
    assert status == 0
    for folder in (out, out / "ports", target / "pybess" / "plugin_pb"):
        (folder / "ports").mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    return target


def scripts(folder: Path, pattern: str) -> list[str]:
    """Paths below ROOT_FOLDER of the checkout; none without one."""
    home = Path(BESS_HOME)
    found = (home / folder).rglob(pattern) if BESS_HOME else ()
    return sorted(str(path.relative_to(home / ROOT_FOLDER)) for path in found)


def launch(
    mode: str, tree: Path, address: str, *arguments: str, quick_s: float = 0, patience_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the launcher; when it takes longer than `patience_s`, as Ctrl-C would end it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    env.setdefault("BESS_CORES", "1")  # how many cores the scripts take that ask

    if quick_s:
        env["QUICK"] = str(quick_s)
    command = [sys.executable, "-P", str(_LAUNCHER), mode, str(tree), address, *arguments]
    process = subprocess.Popen(
        command,
        cwd=tree / TESTS,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        return subprocess.CompletedProcess(command, -signal.SIGINT, output)
    return subprocess.CompletedProcess(command, process.returncode, output)
