# SPDX-License-Identifier: BSD-3-Clause
"""Packets and a pipeline between two ports, for tests of ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scapy.all import IP, TCP, UDP, Ether, Raw

from harness import new_engine

__all__ = ["Pipe", "make_packets"]


def make_packets(count: int = 100) -> list[Any]:
    """TCP and UDP packets of growing length, 1.000001 s apart."""
    packets = []
    for i in range(count):
        l4 = TCP(sport=1000 + i) if i % 2 else UDP(sport=1000 + i)
        packet = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / l4 / Raw(bytes([i % 256]) * i)
        packet = Ether(packet.build())
        packet.time = 1_600_000_000 + i + i * 1e-6
        packets.append(packet)
    return packets


class Pipe:
    """One engine with a worker that moves packets from one port to another."""

    def __init__(self) -> None:
        self.engine = new_engine()

    def port(self, name: str, driver: str, args: dict[str, Any], queues: tuple[int, int]) -> None:
        self.engine.create_port(name, driver, *queues, 1024, 1024, args)

    def start(
        self, source: str, sink: str, between: Sequence[tuple[str, dict[str, Any]]] = ()
    ) -> None:
        self.engine.create_module("in", "PortInc", {"port": source})
        self.engine.create_module("out", "PortOut", {"port": sink})
        last = "in"
        for i, (mclass, args) in enumerate(between):
            self.engine.create_module(f"m{i}", mclass, args)
            self.engine.connect(last, 0, f"m{i}", 0)
            last = f"m{i}"
        self.engine.connect(last, 0, "out", 0)
        self.engine.add_worker(0, -1)
        self.engine.resume_all()

    def stats(self, name: str, direction: str = "inc") -> dict[str, int]:
        stats: dict[str, int] = self.engine.port_stats(name)[direction]
        return stats

    def stop(self) -> None:
        self.engine.pause_all()
        self.engine.reset_modules()
