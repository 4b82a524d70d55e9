# SPDX-License-Identifier: BSD-3-Clause
"""What a lab needs of the machine: commands, network namespaces, and processes in them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from e2ctl._processes import started, stat_of

__all__ = [
    "LabError",
    "Process",
    "Service",
    "check_machine",
    "daemons_of",
    "end",
    "namespaces",
    "pids_in",
    "read_pid_files",
    "run",
    "start",
    "wait_for",
]

# Debian's packages of the programs.
_PACKAGES = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "ovs-ofctl": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovsdb-tool": "openvswitch-switch",
}
_DAEMON = "bess_plugins.daemon.cli"
_COMMAND_S = 30.0
_POLL_S = 0.02
# How long processes have to end by themselves, and then to vanish when killed.
_SIGNALS = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0))


class LabError(Exception):
    """A lab can't be as wanted; the message says what was tried and what came of it."""


def check_machine(programs: Iterable[str] = _PACKAGES) -> None:
    """Root and the programs must be there."""
    if os.geteuid() != 0:
        raise LabError("labs are made of network namespaces, which takes root")
    missing = sorted({_PACKAGES[name] for name in programs if shutil.which(name) is None})
    if missing:
        raise LabError(f"programs are missing; run `apt-get install {' '.join(missing)}`")


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; a `LabError` says which failed, and what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_S,
            check=False,
        )
    except FileNotFoundError:
        raise LabError(f"`{shlex.join(words)}`: no such program") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{shlex.join(words)}`: no end after {_COMMAND_S:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise LabError(f"`{shlex.join(words)}`: {said}")
    return done.stdout


def wait_for(condition: Callable[[], bool], what: str, seconds: float = _COMMAND_S) -> None:
    """Come back when a condition holds; after so many seconds it is an error."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not after {seconds:.0f} s")
        time.sleep(_POLL_S)


def namespaces(prefix: str) -> list[str]:
    """The machine's namespaces with names that start so."""
    names = (line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip())
    return sorted(name for name in names if name.startswith(prefix))


def pids_in(namespace: str) -> set[int]:
    """Processes in a namespace; none where it is only half made, or gone meanwhile."""
    try:
        return {int(pid) for pid in run("ip", "netns", "pids", namespace).split()} - {os.getpid()}
    except LabError:
        return set()


@dataclass(frozen=True)
class Process:
    """A process of a lab. Numbers are used again, so ``started`` (clock ticks) is half its name."""

    name: str
    pid: int
    started: int

    @property
    def running(self) -> bool:
        """Whether it hasn't ended."""
        found = stat_of(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.started


class Service:
    """A process that this one has started: in a namespace, with a log and a pid file."""

    def __init__(self, process: Process, log: Path, child: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.log = log
        self.child = child

    def ready(self, condition: Callable[[], bool]) -> None:
        """Wait until it does what it is for; its end is an error."""
        wait_for(lambda: self.child.poll() is not None or condition(), f"{self.process.name} runs")
        if self.child.returncode is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            said = " ".join(tail) or "nothing"
            code = self.child.returncode
            raise LabError(f"{self.process.name} ended with exit code {code} and said: {said}")


def start(
    name: str,
    namespace: str | None,
    command: Sequence[str | Path],
    folder: Path,
    env: Mapping[str, str] | None = None,
) -> Service:
    """Start a program, in a namespace or none of its own; log and pid file go into the folder."""
    log = folder / f"{name}.log"
    inside = () if namespace is None else ("ip", "netns", "exec", namespace)
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*inside, *map(str, command)],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(_write_pid(folder, name, child.pid), log, child)


def _write_pid(folder: Path, name: str, pid: int) -> Process:
    process = Process(name, pid, started(pid))
    text = f"{process.pid} {process.started}\n"
    (folder / f"{name}.pid").write_text(text, encoding="utf-8")
    return process


@contextmanager
def as_process(folder: Path, name: str) -> Iterator[None]:
    """Have a pid file of this process in a folder for as long as the context lasts."""
    process = _write_pid(folder, name, os.getpid())
    try:
        yield
    finally:
        if process in read_pid_files(folder):
            (folder / f"{name}.pid").unlink(missing_ok=True)


def read_pid_files(folder: Path) -> list[Process]:
    """The processes that pid files in a folder name; files cut short by a crash name none."""
    found = []
    for path in sorted(folder.glob("*.pid")):
        words = path.read_text(encoding="utf-8", errors="replace").split()
        if len(words) == 2 and all(word.isdecimal() for word in words):
            found.append(Process(path.stem, int(words[0]), int(words[1])))
    return found


def daemons_of(folder: Path) -> set[int]:
    """Daemons with their socket in a folder; those of agents have no pid file there."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            words = path.read_bytes().decode(errors="replace").split("\0")
            sockets = (f"--unix-socket={folder}/", f"{folder}/")
            if _DAEMON in words and any(word.startswith(sockets) for word in words):
                found.add(int(path.parent.name))
    return found


def end(find: Callable[[], set[int]]) -> None:
    """End processes: those that ``find`` finds, until it finds none. They may start others."""
    left = find()
    for number, seconds in _SIGNALS:
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while left and time.monotonic() < deadline:
            for pid in left - told:
                _signal(pid, number)
            told |= left
            time.sleep(_POLL_S)
            left = find()
    if left:
        raise LabError(f"processes {', '.join(map(str, sorted(left)))} don't end, even when killed")


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)
