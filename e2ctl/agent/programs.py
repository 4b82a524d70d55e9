# SPDX-License-Identifier: BSD-3-Clause
"""Legacy NFs: Linux programs in network namespaces, behind TAP devices of the dataplane.

Each has a folder that everybody may read, /run/e2-nf/NAMESPACE, in which its files lie and its
commands run. It goes with the namespace.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2ctl._processes import Process
from e2ctl.server_plan import ProgramSpec, ServerPlan

__all__ = ["ProgramError", "ProgramRecord", "Programs"]

_COMMAND_S = 20.0
_STOP_S = 5.0
_ROOT = Path("/run/e2-nf")


class ProgramError(Exception):
    """A program can't be started; the message holds what it said."""


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
    except FileNotFoundError:
        raise ProgramError(f"'{command[0]}' is not installed") from None
    except subprocess.TimeoutExpired:
        raise ProgramError(f"'{' '.join(command)}' took more than {_COMMAND_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())
        raise ProgramError(f"'{' '.join(command)}' failed: {said or error.returncode}") from None
    return done.stdout


def _clear(space: str) -> None:
    """Remove a network namespace, if there is one, with what runs in it, and its folder."""
    with suppress(ProgramError):
        for pid in _run(["ip", "netns", "pids", space]).split():
            if (process := Process.found(int(pid))) is not None:
                process.kill()
    with suppress(ProgramError):
        _run(["ip", "netns", "del", space])
    shutil.rmtree(_ROOT / space, ignore_errors=True)
    with suppress(OSError):  # others are there
        _ROOT.rmdir()


def _make_folder(space: str, files: Mapping[str, str]) -> Path:
    folder = _ROOT / space
    try:
        for made in (_ROOT, folder):
            made.mkdir(exist_ok=made == _ROOT)
            made.chmod(0o755)  # programs give up root's rights
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProgramError(f"can't write {error.filename}: {error.strerror}") from None
    return folder


@dataclass(frozen=True)
class ProgramRecord:
    """What another agent has to know of an instance to take it over.

    ``devices`` are in its namespace. A process is known by number and start; the kernel needs none.
    """

    devices: tuple[str, ...]
    pid: int | None = None
    started: int = 0


@dataclass
class _Program:
    """An instance that is there, as far as this agent knows; ``whole``: nothing of it is gone."""

    devices: tuple[str, ...]
    process: Process | None = None
    whole: bool = True


class Programs:
    """Those of one server. Namespaces are named after server and instance."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._running: dict[str, _Program] = {}

    def records(self) -> dict[str, ProgramRecord]:
        """What the next agent has to know."""
        return {
            instance: ProgramRecord(
                one.devices,
                *((one.process.pid, one.process.started) if one.process is not None else ()),
            )
            for instance, one in self._running.items()
        }

    def adopt(self, records: Mapping[str, ProgramRecord]) -> None:
        """Take over what an agent has left that was killed; what is not whole has `ended`."""
        for instance, record in records.items():
            process = None if record.pid is None else Process.found(record.pid)
            if process is not None and process.started != record.started:
                process = None  # another has its number
            there = all(self._has(instance, device) for device in record.devices)
            whole = there and (record.pid is None or process is not None)
            self._running[instance] = _Program(record.devices, process, whole)

    def _has(self, instance: str, device: str) -> bool:
        try:
            _run(["ip", "-n", self.namespace(instance), "link", "show", device])
        except ProgramError:
            return False
        return True

    def namespace(self, instance: str) -> str:
        """The network namespace of an instance."""
        return f"e2-{self._server}-{instance}"

    def missing(self, plan: ServerPlan) -> list[str]:
        """Instances of a plan whose program was not started, or has failed to start again."""
        return [one.instance for one in plan.programs if one.instance not in self._running]

    def start(self, plan: ServerPlan) -> None:
        """Start the programs of a plan that don't run; what fails is taken away again."""
        devices = {device.name: device.args for device in plan.devices}
        for spec in plan.programs:
            if spec.instance in self._running:
                continue
            try:
                self._start(spec, devices)
            except BaseException:
                self._remove(spec.instance)
                raise

    def _start(self, spec: ProgramSpec, devices: Mapping[str, Mapping[str, str]]) -> None:
        space = self.namespace(spec.instance)
        program = self._running[spec.instance] = _Program(tuple(spec.program.devices))
        _clear(space)  # left over from an agent that was killed
        folder = _make_folder(space, spec.program.files)
        _run(["ip", "netns", "add", space])
        _run(["ip", "-n", space, "link", "set", "lo", "up"])
        for device in spec.program.devices:
            name = devices[f"{spec.instance}:{device}"]["ifname"]
            _run(["ip", "link", "set", name, "netns", space, "name", device])
            _run(["ip", "-n", space, "link", "set", device, "up"])
        inside = ["ip", "netns", "exec", space]
        for command in spec.program.setup:
            _run([*inside, *command], folder)
        if spec.program.run is not None:
            child = subprocess.Popen(
                [*inside, *spec.program.run],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            program.process = Process(child.pid, child)

    def ended(self) -> list[str]:
        """Instances whose program has ended by itself."""
        return [
            instance
            for instance, one in self._running.items()
            if not one.whole or (one.process is not None and not one.process.running)
        ]

    def forget(self, instance: str) -> None:
        """Take away what is left of an instance, so that it can be started anew."""
        self._remove(instance)

    def keep(self, plan: ServerPlan) -> None:
        """End all programs but those of a plan."""
        wanted = {spec.instance for spec in plan.programs}
        for instance in [name for name in self._running if name not in wanted]:
            self._remove(instance)

    def _remove(self, instance: str) -> None:
        process = self._running.pop(instance).process
        if process is not None:
            process.end(_STOP_S)
        _clear(self.namespace(instance))

    def close(self) -> None:
        """End all."""
        for instance in list(self._running):
            self._remove(instance)
