# SPDX-License-Identifier: BSD-3-Clause
"""Labs in tests: who can have one, and traffic through the interfaces of its hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.captures import count_packets
from bess_plugins.client import Client, PortStats
from daemon_support import CORE
from harness import wait_until

__all__ = ["EXAMPLES", "Traffic", "lab_file", "needs_lab"]

EXAMPLES = Path(__file__).parents[1] / "examples"
_PROGRAMS = ("ip", "ethtool", "ovs-vswitchd", "ovsdb-server")

needs_lab = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, _PROGRAMS),
    reason="needs root, and Debian's openvswitch-switch, iproute2 and ethtool",
)


def lab_file(folder: Path, letter: str = "t", *, agents: bool = False) -> Path:
    """A description of a lab with the examples' rack; its name is this process's."""
    path = folder / "lab.yaml"
    name = f"{letter}{os.getpid() % 10**7}"
    path.write_text(
        f"name: {name}\nhardware: {EXAMPLES / 'rack.yaml'}\nagents: {str(agents).lower()}\n",
        encoding="utf-8",
    )
    return path


class Traffic:
    """What a host of a lab sends and receives by its daemon, which has to have nothing else."""

    def __init__(self, client: Client) -> None:
        self.client = client
        if not client.list_workers():
            client.add_worker(0, CORE)
        self._ports = {port["name"] for port in client.list_ports()}

    def replay(self, capture: Path, port: str, rate: int = 2000, *, timed: bool = False) -> int:
        """Send a capture out of an interface; how many packets that were.

        The switch takes them from a socket whose buffer holds some 100 full frames and runs when a
        core is free: ``rate``, in packets per second, is what it keeps up with on a busy machine.
        With ``timed``, packets keep the times of the capture, within that rate.
        """
        count, name, pace = count_packets(capture), f"replay_{port}", f"pace_{port}"
        refused = self.counts(port).out.dropped
        with self._between(name, port, name, dev=str(capture), original_timing=timed):
            limit = {"packet": rate}
            if pace in {tc["name"] for tc in self.client.list_tcs()}:
                self.client.update_tc_params(pace, resource="packet", limit=limit)
            else:
                self.client.add_tc(pace, "rate_limit", wid=0, resource="packet", limit=limit)
            self.client.attach_task(f"{name}_in", pace)
            self.client.resume()
            wait_until(lambda: self._seen(name) >= count, 60 + count / rate)
        assert self.counts(port).out.dropped == refused
        return count

    @contextmanager
    def record(self, port: str, path: Path) -> Iterator[None]:
        """Write what an interface receives into a capture, which is whole at the end."""
        name = f"record_{port}"
        with self._between(port, name, name, write_path=str(path)):
            self.client.resume()
            yield

    def counts(self, port: str) -> PortStats:
        """Totals of an interface, from when it was used first."""
        self._open(port)
        return self.client.port_stats(port)

    def _seen(self, name: str) -> int:
        found = self.client.port_stats(name).inc
        return found.packets + found.dropped

    def _open(self, port: str) -> None:
        if port not in self._ports:
            self.client.create_port("AFPacketPort", port, ifname=port, promiscuous=True)
            self._ports.add(port)

    @contextmanager
    def _between(self, source: str, sink: str, capture: str, **arg: Any) -> Iterator[None]:
        """Packets move from one port to another, as soon as workers resume; one is a capture's."""
        self._open(source if capture == sink else sink)
        self.client.pause()
        self.client.create_port("PCAPPort", capture, **arg)
        self.client.create_module("PortInc", f"{capture}_in", port=source)
        self.client.create_module("PortOut", f"{capture}_out", port=sink)
        self.client.connect(f"{capture}_in", f"{capture}_out")
        try:
            yield
        finally:
            self.client.pause()
            for end in ("in", "out"):
                self.client.destroy_module(f"{capture}_{end}")
            self.client.destroy_port(capture)
            self.client.resume()
