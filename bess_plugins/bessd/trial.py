# SPDX-License-Identifier: BSD-3-Clause
"""What the embedded engine can do with modules, done by a bessd that has the plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from bess_plugins._engine import EngineError
from bess_plugins.bessd.loading import PROBE
from bess_plugins.client import BessError, Client

__all__ = ["BessdEngine"]

_TRIAL = "trial"
_COLLECTED_GATES = 64  # the embedded engine looks at as many
_OWN = "get_drops"  # a command that only modules of the plugin have


def _error(error: BessError) -> EngineError:
    """The error that the embedded engine would raise."""
    raised = EngineError(error.errmsg)
    raised.code = error.code
    raised.message = error.errmsg
    return raised


class BessdEngine:
    """The methods of `Engine` that tests of modules need. Begins by removing all that the daemon
    has: there is one such engine at a time."""

    def __init__(self, address: str) -> None:
        self.client = Client(address)
        self._commands: dict[str, dict[str, str]] = {}
        self.anew()

    def anew(self) -> Self:
        """The same as a new engine would be."""
        self.client.reset_all()
        self._classes: dict[str, str] = {}
        self._target: tuple[str, int] | None = None
        self._ends: list[tuple[str, int]] = []
        self._events: list[dict[str, Any]] = []
        return self

    def close(self) -> None:
        self.client.reset_all()
        self.client.close()

    def _command_types(self, mclass: str) -> dict[str, str]:
        if mclass not in self._commands:
            info = self.client.mclass_info(mclass)
            self._commands[mclass] = dict(zip(info["cmds"], info["cmd_args"], strict=True))
        return self._commands[mclass]

    def _is_ours(self, mclass: str) -> bool:
        return _OWN in self._command_types(mclass)

    def own_classes(self) -> list[str]:
        """The classes of plugins of ours that the daemon has."""
        return [name for name in sorted(self.client.list_mclasses()) if self._is_ours(name)]

    def create_module(self, name: str, mclass: str, args: Mapping[str, Any]) -> None:
        try:
            self.client.create_module(mclass, name, **args)
        except BessError as error:
            raise _error(error) from None
        self._classes[name] = mclass

    def destroy_module(self, name: str) -> None:
        self.client.destroy_module(name)
        del self._classes[name]
        if self._target is not None and self._target[0] == name:
            self._target = None

    def connect(self, m1: str, ogate: int, m2: str, igate: int) -> None:
        # Hooks count by worker, and a trial has none.
        self.client.connect(m1, m2, ogate, igate, skip_default_hooks=True)

    def command_type(self, name: str, cmd: str) -> str:
        """The message that a command takes."""
        return self._command_types(self._classes[name]).get(cmd, "EmptyArg")

    def module_command(self, name: str, cmd: str, args: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.client.run_module_command(name, cmd, self.command_type(name, cmd), args)
        except BessError as error:
            raise _error(error) from None

    def module_info(self, name: str) -> dict[str, Any]:
        info = self.client.module_info(name)
        if self._is_ours(self._classes[name]):
            info["drops"] = self.module_command(name, _OWN, {})["drops"]
        return info

    def events(self) -> dict[str, Any]:
        """All events since the beginning, oldest first by module."""
        for name, mclass in self._classes.items():
            if not self._is_ours(mclass):
                continue
            told = self.module_command(name, "get_events", {})["events"]
            self._events += [{"module": name, **event} for event in told]
        return {"last": len(self._events), "events": list(self._events)}

    def _aim(self, name: str, in_gate: int) -> None:
        """Lead from the Trial to the module, and from open ends of bessd's own modules back."""
        if self._target != (name, in_gate):
            if _TRIAL in self._classes:
                self.client.destroy_module(_TRIAL)
                self._ends.clear()
            self.client.create_module(PROBE, _TRIAL)
            self._classes[_TRIAL] = PROBE
            self.connect(_TRIAL, 0, name, in_gate)
            self._target = (name, in_gate)
        for end, mclass in self._classes.items():
            if self._is_ours(mclass) or self.client.module_info(end).get("ogates"):
                continue
            with suppress(BessError):  # it has no such gate
                self.connect(end, 0, _TRIAL, len(self._ends))
                self._ends.append((end, 0))

    def run_chain(self, name: str, packets: Sequence[bytes], last: str) -> list[bytes]:
        """What leaves gate 0 of the module `last`."""
        return self._run(name, packets).get((last, 0), [])

    def run_packets(
        self, name: str, packets: Sequence[bytes], in_gate: int = 0, now_ns: int = 0
    ) -> dict[int, list[bytes]]:
        out = self._run(name, packets, in_gate, now_ns)
        return {
            gate: found
            for (module, gate), found in sorted(out.items())
            if module == name and gate < _COLLECTED_GATES
        }

    def _run(
        self, name: str, packets: Sequence[bytes], in_gate: int = 0, now_ns: int = 0
    ) -> dict[tuple[str, int], list[bytes]]:
        running = [w["wid"] for w in self.client.list_workers() if w["running"]]
        self.client.pause()
        try:
            self._aim(name, in_gate)
            values = {"packets": list(packets), "now_ns": now_ns}
            answer = self.client.run_module_command(_TRIAL, "run", "TrialCommandRunArg", values)
        except BessError as error:
            raise _error(error) from None
        finally:
            for wid in running:
                self.client.resume(wid)
        out: dict[tuple[str, int], list[bytes]] = {}
        for packet in answer.get("packets", ()):
            place = packet["module"], packet["gate"]
            if not packet["module"]:
                place = self._ends[packet["gate"]]
            out.setdefault(place, []).append(packet["data"])
        return out

    def add_worker(self, wid: int, core: int) -> None:
        self.client.add_worker(wid, core)

    def update_tc_parent(self, tc: Mapping[str, Any]) -> None:
        self.client.attach_task(
            tc["leaf_module_name"], wid=tc["wid"], task_id=tc["leaf_module_taskid"]
        )

    def scheduling_violations(self) -> list[dict[str, Any]]:
        found = self.client.check_scheduling_constraints()
        return [*found["violations"], *found["modules"]]

    def pause_all(self) -> None:
        self.client.pause()

    def resume_all(self) -> None:
        self.client.check_scheduling_constraints()  # as BESS's client does
        self.client.resume()

    def resume_worker(self, wid: int) -> None:
        self.client.check_scheduling_constraints()
        self.client.resume(wid)

    def reset_modules(self) -> None:
        self.client.reset_modules()
        self._classes.clear()
        self._ends.clear()
        self._target = None
