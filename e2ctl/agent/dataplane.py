# SPDX-License-Identifier: BSD-3-Clause
"""The daemon that an agent looks after: started, watched, and started again with its plan."""

from __future__ import annotations

import logging
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from bess_plugins.client import BessError, Client, DaemonUnavailableError
from e2ctl._processes import Process

__all__ = ["Dataplane", "DataplaneError", "free_port"]

log = logging.getLogger(__name__)

_START_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.02
_CREDENTIALS = struct.Struct("=3i")  # pid, uid, gid; see unix(7)


class DataplaneError(Exception):
    """There is no daemon to work with; the message says why."""


def free_port() -> int:
    """A loopback port for the daemon; several may run beside each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listener(path: Path) -> Process | None:
    """The process that listens at a Unix socket, if one does."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            pid = _CREDENTIALS.unpack(
                probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )[0]
        except OSError:
            return None
    if (process := Process.found(pid)) is None:
        return None
    if f"--unix-socket={path}" not in process.command:
        raise DataplaneError(
            f"process {pid} listens at {path}, which no agent has started; "
            "give --attach if it is a daemon, or another --daemon"
        )
    return process


class Dataplane:
    """The daemon at an address; ``own``: this object starts it at a Unix socket, and ends it.

    It outlives an agent that is killed, and the next one takes it over as it is.
    """

    def __init__(self, address: str, *, own: bool) -> None:
        self.address = address
        self.client = Client(address, timeout=10.0)
        self.restarts = 0
        self.version = ""  # of the daemon that answered last
        self._own = own
        self._process: Process | None = None

    @property
    def path(self) -> Path | None:
        """Its Unix socket, if it has one."""
        found = self.address.removeprefix("unix:")
        return Path(found) if found != self.address else None

    def start(self) -> bool:
        """Have a daemon that answers; whether it is a new one."""
        if not self._own:
            self._wait()
            return False
        assert self.path is not None
        if self._process is None:
            self._process = _listener(self.path)
        if self._process is not None:
            if self.answers():
                log.info("the daemon at %s runs on", self.address)
                return False
            self._process.kill()
        self._process = self._begin(self.path)
        try:
            self._wait()
        except DataplaneError:
            self.close()
            raise
        return True

    @staticmethod
    def _begin(path: Path) -> Process:
        command = [sys.executable, "-P", "-m", "bess_plugins.daemon.cli", "--foreground"]
        with path.with_suffix(".log").open("ab") as output:
            child = subprocess.Popen(
                [*command, f"--unix-socket={path}", f"--port={free_port()}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it outlives an agent that is killed
            )
        return Process(child.pid, child)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while not self.answers():
            if self._process is not None and not self._process.running:
                raise DataplaneError(f"the daemon for {self.address} ended; see its log")
            if time.monotonic() > deadline:
                raise DataplaneError(f"no daemon answers at {self.address}")
            time.sleep(_POLL_S)

    def answers(self) -> bool:
        """Whether the daemon does."""
        if self._process is not None and not self._process.running:
            return False
        try:
            self.version = self.client.version()
        except DaemonUnavailableError:
            # gRPC waits ever longer between tries to connect.
            self.client.close()
            self.client = Client(self.address, timeout=10.0)
            return False
        except BessError:
            return False
        return True

    def restart(self) -> None:
        """Have a daemon again after one was lost."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self.restarts += 1
        self.start()

    def close(self) -> None:
        """End the daemon if it is our own."""
        self.client.close()
        if self._process is not None:
            self._process.end(_STOP_S)
            self._process = None
