# SPDX-License-Identifier: BSD-3-Clause
"""Keeps an agent running: a parent that does nothing else, and so has nothing to die of.

The child is a fork, so that another is there at once. Daemon and programs outlive an agent that is
killed; as orphans they become the parent's, which takes note of their end.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time

from bess_plugins.interrupt import Ending

__all__ = ["Child", "supervise"]

log = logging.getLogger(__name__)

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCHED = (*ENDING, signal.SIGCHLD)
_EARLY_S = 5.0
_SHORTEST_S = 0.1
_LONGEST_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


class Child:
    """What the agent proper is to its parent."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._ending = Ending(*ENDING)

    def serves(self) -> None:
        """From now on it is started again when it fails."""
        os.write(self._parent, b".")

    def wait(self) -> None:
        """Come back when it is asked to end."""
        self._ending.wait()


def supervise() -> Child:
    """Fork. Returns in each child in turn.

    The parent passes on what asks it to end, and exits as the child does: when that ends by itself,
    or fails before any has served. Nothing may have started threads before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    parent, told, served, asked, early = os.getpid(), os.pipe(), False, False, 0
    os.set_blocking(told[0], False)
    while True:
        begin = time.monotonic()
        pid = os.fork()
        if pid == 0:
            # When the parent is killed, the next one takes over what runs here.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            child = Child(told[1])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            return child
        if asked:  # it only takes away what its predecessor left
            os.kill(pid, signal.SIGTERM)
        status, asked_now = _watch(pid)
        asked = asked or asked_now
        served = served or _was_told(told[0])
        number = -status if status < 0 else 0
        if asked or status == 0 or number in ENDING or (number == 0 and not served):
            raise SystemExit(status if number == 0 else 128 + number)
        early = early + 1 if time.monotonic() - begin < _EARLY_S else 0
        pause = min(_SHORTEST_S * 2 ** (early - 1), _LONGEST_S) if early else 0.0
        how = f"was killed by {signal.Signals(number).name}" if number else f"ended with {status}"
        log.error("the agent %s; starting it again in %.1f s", how, pause)
        asked = _pause(pause)


def _was_told(by: int) -> bool:
    try:
        return bool(os.read(by, 1))
    except BlockingIOError:
        return False


def _watch(pid: int) -> tuple[int, bool]:
    """How a child ended: its exit code or minus a signal, and whether it was asked to."""
    asked = False
    while True:
        number = signal.sigwaitinfo(_WATCHED).si_signo
        if number in ENDING:
            asked = True
            os.kill(pid, signal.SIGTERM)
        elif (status := _reap(pid)) is not None:
            return status, asked


def _reap(child: int) -> int | None:
    """Take note of all that has ended; how the child has, if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = os.waitstatus_to_exitcode(status)


def _pause(seconds: float) -> bool:
    """Wait; whether this process was asked to end meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        found = signal.sigtimedwait(_WATCHED, left)
        if found is not None and found.si_signo in ENDING:
            return True
        _reap(0)
    return False
