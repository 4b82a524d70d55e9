# SPDX-License-Identifier: BSD-3-Clause
"""The daemon that an agent looks after: started, watched, and started again with its plan."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bess_plugins.client import BessError, Client, DaemonUnavailableError

__all__ = ["Dataplane", "DataplaneError"]

log = logging.getLogger(__name__)

_START_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.02


class DataplaneError(Exception):
    """There is no daemon to work with; the message says why."""


def _free_port() -> int:
    """A loopback port for the daemon; several may run beside each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Dataplane:
    """The daemon at an address; ``own``: it is this object's child at a Unix socket."""

    def __init__(self, address: str, *, own: bool) -> None:
        self.address = address
        self.client = Client(address, timeout=10.0)
        self.restarts = 0
        self._own = own
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have a daemon that answers."""
        if self._own and (self._process is None or self._process.poll() is not None):
            path = Path(self.address.removeprefix("unix:"))
            log_file = path.with_suffix(".log")
            command = [sys.executable, "-P", "-m", "bess_plugins.daemon.cli", "--foreground"]
            with log_file.open("ab") as output:
                self._process = subprocess.Popen(
                    [*command, f"--unix-socket={path}", f"--port={_free_port()}"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        deadline = time.monotonic() + _START_S
        while not self.answers():
            if self._process is not None and self._process.poll() is not None:
                raise DataplaneError(f"the daemon for {self.address} ended; see its log")
            if time.monotonic() > deadline:
                raise DataplaneError(f"no daemon answers at {self.address}")
            time.sleep(_POLL_S)

    def answers(self) -> bool:
        """Whether the daemon does."""
        if self._process is not None and self._process.poll() is not None:
            return False
        try:
            self.client.version()
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
            self._process.wait()
        self.restarts += 1
        self.start()

    def close(self) -> None:
        """End the daemon if it is our own."""
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
