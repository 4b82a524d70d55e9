# SPDX-License-Identifier: BSD-3-Clause
"""Real etcd servers in a temporary folder, which can be killed and started again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness import wait_until

__all__ = ["Etcd", "etcds", "needs_etcd"]

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="needs Debian's etcd-server")


class Etcd:
    """One server; ``peers`` are the ports of all of its cluster."""

    def __init__(
        self, folder: Path, ports: Sequence[int], peers: Sequence[int], tls: Sequence[str] = ()
    ) -> None:
        client, peer, health = ports
        scheme = "https" if tls else "http"
        self.address = f"127.0.0.1:{client}"
        self._health = f"http://127.0.0.1:{health}"
        self._log = folder / f"etcd-{peer}.log"
        mine, theirs = f"{scheme}://{self.address}", f"http://127.0.0.1:{peer}"
        self._command = [
            *("etcd", f"--name=n{peer}", f"--data-dir={folder}/etcd-{peer}"),
            *(f"--listen-client-urls={mine}", f"--advertise-client-urls={mine}"),
            *(f"--listen-peer-urls={theirs}", f"--initial-advertise-peer-urls={theirs}"),
            "--initial-cluster=" + ",".join(f"n{port}=http://127.0.0.1:{port}" for port in peers),
            f"--listen-metrics-urls={self._health}",
            *tls,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def serves(self) -> bool:
        """Whether it does, which takes most of its peers."""
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self._health}/health", timeout=2) as answer:
                return bool(json.load(answer)["health"] == "true")
        except OSError:
            return False

    def end(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


@contextmanager
def etcds(folder: Path, count: int = 1, tls: Sequence[str] = ()) -> Iterator[list[Etcd]]:
    """A cluster of so many that serves."""
    with ExitStack() as stack:
        with ExitStack() as held:
            taken = [held.enter_context(socket.socket()) for _ in range(3 * count)]
            for one in taken:
                one.bind(("127.0.0.1", 0))
            ports = [int(one.getsockname()[1]) for one in taken]
        of_each = [ports[first : first + 3] for first in range(0, len(ports), 3)]
        peers = [peer for _, peer, _ in of_each]
        made = [Etcd(folder, own, peers, tls) for own in of_each]
        for one in made:
            stack.callback(one.end)
            one.start()
        wait_until(lambda: all(one.serves() for one in made), 30)
        yield made
