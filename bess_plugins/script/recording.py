# SPDX-License-Identifier: BSD-3-Clause
"""What a script builds, found by running it against a recorder instead of a daemon.

No daemon is asked, and no port, file or module is opened: the recorder takes the calls that a
daemon would get, checks what a daemon would check, and notes what came from where in the script.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from bess_plugins.client import Client
from bess_plugins.daemon.service import ControlService
from bess_plugins.script.api import Bess, ConfError, Module, Port
from bess_plugins.script.recorder import RecordingEngine, RecordingService
from bess_plugins.script.records import (
    EdgeRecord,
    ModuleRecord,
    PortRecord,
    TaskRecord,
    TcRecord,
    WorkerRecord,
)
from bess_plugins.script.runner import execute, read_source
from bess_plugins.script.source_map import Places

__all__ = ["Recorder", "Recording", "record_script"]


@dataclass(frozen=True)
class Recording:
    """What a script leaves behind, in the order in which it came to be.

    ``bound`` are the modules that the script's variable of the same name stands for at its end.
    """

    path: str = ""
    modules: tuple[ModuleRecord, ...] = ()
    ports: tuple[PortRecord, ...] = ()
    edges: tuple[EdgeRecord, ...] = ()
    tcs: tuple[TcRecord, ...] = ()
    tasks: tuple[TaskRecord, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()
    bound: frozenset[str] = frozenset()
    variables: Mapping[str, str] = field(default_factory=dict)


def record_script(
    path: Path | str,
    source: str | None = None,
    variables: Mapping[str, str] | None = None,
    names: Mapping[str, Any] | None = None,
) -> Recording:
    """Run a script, or ``source`` in its place, against a recorder; raises ``ScriptError``.

    ``variables`` take precedence over the environment for ``$NAME``; ``names`` are names that the
    script finds besides those that ``bessrun`` gives it. What it prints is dropped.
    """
    with redirect_stdout(StringIO()):
        return Recorder(path, source, variables).run(names)


class Recorder:
    """Runs a script once. While it runs, tells where it is and what it has built."""

    def __init__(
        self,
        path: Path | str,
        source: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.source = read_source(self.path) if source is None else source
        self.variables = dict(variables or {})
        self._places = Places(self.path, self.source)
        self._engine = RecordingEngine(self._places.current)
        self._bess = _RecordingBess(_RecordingClient(RecordingService(self._engine)), self._engine)

    def run(self, names: Mapping[str, Any] | None = None) -> Recording:
        """Run the script; raises ``ScriptError``."""
        space = execute(self.path, self.source, self._bess, self.variables, names or {})
        bound = frozenset(
            name
            for name, value in space.items()
            if isinstance(value, Module) and value.name == name
        )
        engine = self._engine
        return Recording(
            path=self.path,
            modules=tuple(engine.made_modules.values()),
            ports=tuple(engine.made_ports.values()),
            edges=self.edges(),
            tcs=tuple(engine.made_tcs.values()),
            tasks=tuple(engine.attached.values()),
            workers=tuple(engine.made_workers.values()),
            bound=bound,
            variables=self.variables,
        )

    def place(self) -> tuple[int, int]:
        """Line and column of the script that is running, from 1; 0 is unknown."""
        return self._places.current()

    def modules(self) -> tuple[ModuleRecord, ...]:
        """Modules so far."""
        return tuple(self._engine.made_modules.values())

    def edges(self) -> tuple[EdgeRecord, ...]:
        """Connections so far."""
        return self._engine.connections()

    def module(self, name: str) -> Module:
        """A module as the script would use it."""
        module = object.__new__(self._bess.names[self._engine.made_modules[name].mclass])
        if not isinstance(module, Module):
            raise ConfError(f"the script took the name of {name}'s class for something else")
        module.name, module.ogate, module.igate = name, None, None
        return module


class _RecordingClient(Client):
    """Calls a service in this process that records."""

    def __init__(self, service: RecordingService) -> None:
        self.address = "a recording"
        self._service: ControlService = service

    def close(self) -> None:
        """There is no connection."""

    def _send(self, method: str, request: Message) -> Any:
        if method not in RecordingService.ANSWERED:
            raise ConfError(
                f"{method} asks a running daemon; a pipeline that depends on the answer can't be "
                "compiled, so leave that call to another script"
            )
        return self._service.call(method, request)


class _RecordedPort(Port):
    """A port; dialects of BESS give some drivers positional arguments."""

    def __init__(self, *given: Any, name: str = "", **arg: Any) -> None:
        super().__init__(name=name, **arg)
        if given and isinstance(self.bess, _RecordingBess):
            self.bess.engine.made_ports[self.name].arg["positional"] = list(given)


class _RecordingBess(Bess):
    port_type = _RecordedPort

    def __init__(self, client: Client, engine: RecordingEngine) -> None:
        super().__init__(client)
        self.engine = engine
