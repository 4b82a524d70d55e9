# SPDX-License-Identifier: BSD-3-Clause
"""What an agent that was killed knew, in a file beside its daemon's socket.

The agent that follows needs no controller to take over daemon and programs, and to give a daemon
that is lost its modules back. An agent that ends properly leaves no file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from e2ctl.agent.dataplane import DataplaneError
from e2ctl.agent.programs import ProgramRecord
from e2ctl.server_plan import ServerPlan, dump_plan, load_plan

__all__ = ["Memory", "Remembered"]

log = logging.getLogger(__name__)

_RECORDS = TypeAdapter(dict[str, ProgramRecord])


@dataclass(frozen=True)
class Remembered:
    """The plan that packets are led by, and programs that were started."""

    plan: ServerPlan | None = None
    programs: Mapping[str, ProgramRecord] = field(default_factory=dict)


class Memory:
    """A file that one agent at a time has; a daemon without a Unix socket has none beside it."""

    def __init__(self, socket: Path | None) -> None:
        self._socket = socket
        self._lock: int | None = None
        self._last = Remembered()

    def _path(self, suffix: str) -> Path:
        assert self._socket is not None
        return self._socket.with_name(f"{self._socket.name}.{suffix}")

    def open(self) -> Remembered:
        """Become the one agent of the daemon; what the one before knew."""
        if self._socket is None:
            return self._last
        path = self._path("lock")
        while self._lock is None:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == path.stat().st_ino:  # else just removed by its owner
                    self._lock = lock
            except BlockingIOError:
                raise DataplaneError(
                    f"another agent looks after the daemon at {self._socket}; "
                    "end it, or give another --daemon"
                ) from None
            except FileNotFoundError:
                continue
            finally:
                if self._lock is None:
                    os.close(lock)
        try:
            held = json.loads(self._path("plan").read_text(encoding="utf-8"))
            plan = held["plan"]
            self._last = Remembered(
                None if plan is None else load_plan(plan),
                _RECORDS.validate_python(held["programs"]),
            )
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is of no use: %s", self._path("plan"), error)
        return self._last

    def keep(self, now: Remembered) -> None:
        """Write down what has changed; readers find the old or the new."""
        if self._socket is None or self._lock is None or now == self._last:
            return
        value = {
            "plan": None if now.plan is None else dump_plan(now.plan),
            "programs": _RECORDS.dump_python(dict(now.programs)),
        }
        fresh = self._path("plan.new")
        try:
            # Plans hold arguments of modules, and some of these are keys. An agent that is killed
            # here leaves one file, always of this name: the next one writes over it.
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as to:
                json.dump(value, to)
            fresh.rename(self._path("plan"))
        except OSError as error:
            log.warning("the plan is not remembered: %s", error)
        self._last = now

    def close(self, *, forget: bool) -> None:
        """Let go of it, and leave nothing where all has ended properly."""
        if self._lock is not None:
            if forget:
                self._path("plan").unlink(missing_ok=True)
            self._path("lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
