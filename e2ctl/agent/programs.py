# SPDX-License-Identifier: BSD-3-Clause
"""Legacy NFs: Linux programs in network namespaces, behind TAP devices of the dataplane."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from e2ctl.server_plan import ProgramSpec, ServerPlan

__all__ = ["ProgramError", "Programs"]

_COMMAND_S = 20.0
_STOP_S = 5.0


class ProgramError(Exception):
    """A program can't be started; the message holds what it said."""


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_COMMAND_S, stdin=None
        )
    except FileNotFoundError:
        raise ProgramError(f"'{command[0]}' is not installed") from None
    except subprocess.TimeoutExpired:
        raise ProgramError(f"'{' '.join(command)}' took more than {_COMMAND_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())
        raise ProgramError(f"'{' '.join(command)}' failed: {said or error.returncode}") from None


class Programs:
    """Those of one server. Namespaces are named after server and instance."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._running: dict[str, tuple[ProgramSpec, subprocess.Popen[bytes] | None]] = {}

    def namespace(self, instance: str) -> str:
        """The network namespace of an instance."""
        return f"e2-{self._server}-{instance}"

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
        self._running[spec.instance] = (spec, None)
        with suppress(ProgramError):  # left over from an agent that was killed
            _run(["ip", "netns", "del", space])
        _run(["ip", "netns", "add", space])
        _run(["ip", "-n", space, "link", "set", "lo", "up"])
        for device in spec.program.devices:
            name = devices[f"{spec.instance}:{device}"]["ifname"]
            _run(["ip", "link", "set", name, "netns", space, "name", device])
            _run(["ip", "-n", space, "link", "set", device, "up"])
        inside = ["ip", "netns", "exec", space]
        for command in spec.program.setup:
            _run([*inside, *command])
        if spec.program.run is not None:
            process = subprocess.Popen(
                [*inside, *spec.program.run],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._running[spec.instance] = (spec, process)

    def ended(self) -> list[str]:
        """Instances whose program has ended by itself."""
        return [
            instance
            for instance, (_, process) in self._running.items()
            if process is not None and process.poll() is not None
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
        _, process = self._running.pop(instance)
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with suppress(ProgramError):
            _run(["ip", "netns", "del", self.namespace(instance)])

    def close(self) -> None:
        """End all."""
        for instance in list(self._running):
            self._remove(instance)
