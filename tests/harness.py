# SPDX-License-Identifier: BSD-3-Clause
"""Run packets through one compiled module and look at what comes out of its gates; run `e2d`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import bessd_support
from bess_plugins._engine import Engine, EngineError

__all__ = [
    "E2d",
    "Engine",
    "EngineError",
    "Result",
    "new_e2d",
    "new_engine",
    "real_daemon",
    "run",
    "run_program",
    "wait_until",
]


@dataclass(frozen=True)
class Result:
    """Packets by output gate, drops by reason, and what each command answered."""

    out: dict[int, list[bytes]]
    drops: dict[str, int]
    command_results: list[dict[str, Any]]

    @property
    def forwarded(self) -> int:
        return sum(len(packets) for packets in self.out.values())

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds; fail the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.001)


def run_program(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """What a program prints, which must succeed; its Python finds what this one does."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def new_engine() -> Engine:
    """An engine small enough to make hundreds of; where a test runs against a bessd (conftest.py),
    what stands for one there."""
    if bessd_support.engine is not None:
        return cast(Engine, bessd_support.engine.anew())
    return Engine(pool_packets=1024, buffer_bytes=2048)


def run(
    mclass: str,
    args: Mapping[str, Any],
    packets: Sequence[bytes],
    commands: Sequence[tuple[str, Mapping[str, Any]]] = (),
    in_gate: int = 0,
    after: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Result:
    """Make a module, run `commands`, push `packets` through it, run the commands in `after`.

    Gates that lead nowhere are collected; metadata starts as zeros.
    """
    engine = new_engine()
    engine.create_module("m", mclass, dict(args))
    results = [engine.module_command("m", name, dict(arg)) for name, arg in commands]
    out = engine.run_packets("m", list(packets), in_gate)
    results += [engine.module_command("m", name, dict(arg)) for name, arg in after]
    drops = {k: v for k, v in engine.module_info("m")["drops"].items() if v}
    return Result(out, drops, results)


@dataclass(frozen=True)
class E2d:
    """The command `e2d` with a port and a runtime folder of its own."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid_file(self) -> Path:
        return self.folder / f"e2d-{self.port}.pid"

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        port = f"--port={self.port}"
        return subprocess.run(
            [sys.executable, "-P", "-m", "bess_plugins.daemon.cli", *arguments, port],
            env={**os.environ, "XDG_RUNTIME_DIR": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def kill(self) -> None:
        """End the daemon as a crash would."""
        os.kill(self.pid, signal.SIGKILL)


def free_port() -> int:
    """A port of the loopback address that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_e2d(folder: Path) -> E2d:
    """The command on a free port; nothing runs yet."""
    return E2d(folder, free_port())


@contextmanager
def real_daemon(folder: Path, *arguments: str) -> Iterator[E2d]:
    """A daemon in a process of its own, as users start it."""
    e2d = new_e2d(folder)
    started = e2d("start", *arguments)
    assert started.returncode == 0, started.stderr
    try:
        yield e2d
    finally:
        e2d("stop")
