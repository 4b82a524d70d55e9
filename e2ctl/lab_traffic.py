# SPDX-License-Identifier: BSD-3-Clause
"""Traffic through the interfaces of a lab's world."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bess_plugins.captures import count_packets
from e2ctl._lab_system import LabError, wait_for

if TYPE_CHECKING:
    from bess_plugins.client import Client, PortStats

__all__ = ["Traffic"]

_QUIET_S = 0.5
_MOST_S = 60.0  # that a replay may take longer than its rate says


class Traffic:
    """What the world sends and receives by its daemon, which has to have nothing else."""

    def __init__(self, client: Client) -> None:
        self.client = client
        if not client.list_workers():
            client.add_worker(0, min(os.sched_getaffinity(0)))
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
            longest = _MOST_S + count / rate
            wait_for(lambda: self._seen(name) >= count, f"{capture} is sent", longest)
        if self.counts(port).out.dropped != refused:
            raise LabError(f"{port} refused packets; send fewer per second")
        return count

    @contextmanager
    def record(self, port: str, path: Path) -> Iterator[None]:
        """Write what an interface receives into a capture, which is whole at the end."""
        name = f"record_{port}"
        with self._between(port, name, name, write_path=str(path)):
            self.client.resume()
            yield

    @contextmanager
    def counting(self, port: str) -> Iterator[None]:
        """Take what an interface receives, for `counts` to count."""
        self._open(port)
        name = f"count_{port}"
        self.client.pause()
        self.client.create_module("PortInc", name, port=port)
        self.client.create_module("Sink", f"{name}_end")
        self.client.connect(name, f"{name}_end")
        self.client.resume()
        try:
            yield
        finally:
            self.client.pause()
            self.client.destroy_module(name)
            self.client.destroy_module(f"{name}_end")
            self.client.resume()

    def counts(self, port: str) -> PortStats:
        """Totals of an interface, from when it was used first."""
        self._open(port)
        return self.client.port_stats(port)

    def settled(self, port: str) -> int:
        """Packets that an interface has received, once no more come."""
        last = -1
        while (count := self.counts(port).inc.packets) != last:
            last = count
            time.sleep(_QUIET_S)
        return count

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
