# SPDX-License-Identifier: BSD-3-Clause
"""Processes that this one has started, or that were there before it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import weakref
from pathlib import Path

__all__ = ["Process", "started", "stat_of"]


def stat_of(pid: int) -> tuple[str, int] | None:
    """State of a process (a letter, see proc(5)), and when it started, in clock ticks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()
    return words[0], int(words[19])


def started(pid: int) -> int:
    """When a process started, in clock ticks: numbers are used again, so it is half of its name."""
    found = stat_of(pid)
    return found[1] if found else 0


class Process:
    """A process, by a handle that stays with it when its number is used again.

    ``child`` is given where this process is its parent, which has to take note of its end.
    """

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._handle = os.pidfd_open(pid)
        self._close = weakref.finalize(self, os.close, self._handle)
        self.started = started(pid)

    @classmethod
    def found(cls, pid: int) -> Process | None:
        """The process with a number, if there is one."""
        try:
            process = cls(pid)
        except OSError:
            return None
        return process if process.running else None

    @property
    def running(self) -> bool:
        """Whether it hasn't ended."""
        if self._child is not None and self._child.poll() is not None:
            return False
        return not self._wait(0)

    @property
    def command(self) -> list[str]:
        """The words that it was started with."""
        try:
            text = Path(f"/proc/{self.pid}/cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.split("\0")

    def end(self, patience_s: float) -> None:
        """Have it end, by force where it takes too long."""
        for number, seconds in ((signal.SIGTERM, patience_s), (signal.SIGKILL, None)):
            if self.running:
                signal.pidfd_send_signal(self._handle, number)
                self._wait(seconds)
        if self._child is not None:
            self._child.wait()
        self._close()

    def kill(self) -> None:
        """Have it end at once."""
        self.end(0)

    def _wait(self, seconds: float | None) -> bool:
        """Whether it has ended after that time."""
        watch = select.poll()
        watch.register(self._handle, select.POLLIN)
        return bool(watch.poll(None if seconds is None else seconds * 1000))
