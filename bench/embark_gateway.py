# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's pipelines as `embark_gw` draws them, in memory: what they carry, on one core or more.

In place of devices there are packets in memory before `inside`, and a sink or a ring where packets
go to the provider. All else is what a gateway runs: the guard of its MTU, the spreading over
workers, queues, encryption and the tunnel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bess_plugins._engine import Engine
from embark_gw.pipelines import Graph, Link, Module, draw
from embark_gw.site import Gateway, loads

__all__ = ["CORES", "Run", "Traffic", "describe", "in_turn", "without_encryption"]

CORES = sorted(os.sched_getaffinity(0), reverse=True)  # the last one first, as other benchmarks
TEMPLATES = 32  # of a Rewrite, and packets of a batch
MOST_FRAMES = 128 * TEMPLATES
LONGEST_FRAME = 1536
WARMUP = 0.25  # of the time that counts
DESCRIPTION = """\
inside:
  {{device: inside, mac: "02:00:00:00:01:01", peer: "02:00:00:00:01:02", networks: [10.0.0.0/8]}}
outside: {{device: outside, mac: "02:00:00:00:02:01", peer: "02:00:00:00:02:02"}}
provider:
  device: provider
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  mtu: 1750
  tunnel: {{local: 192.0.2.1, remote: 192.0.2.2, vni: 7}}
key: {{file: {key}, epoch: 1}}
maps: {maps}
pool: [{{prefix: 203.0.113.0/28, nat: true}}]
sealed: {sealed}
workers: {workers}
"""


@dataclass(frozen=True)
class Traffic:
    """Frames that are sent over and over, all of which a gateway takes."""

    name: str
    frames: Sequence[bytes]

    @property
    def mean_bytes(self) -> float:
        return sum(map(len, self.frames)) / len(self.frames)


def describe(key: Path, maps: Path, *, sealed: bool, workers: int = 1) -> Gateway:
    """A gateway with a NAT at the provider, as in the dissertation's figure 4.1a."""
    return loads(
        DESCRIPTION.format(key=key, maps=maps, sealed=str(sealed).lower(), workers=workers)
    )


def without_encryption(graph: Graph) -> Graph:
    """Redirection only (APLOMB): packets go through the tunnel as they are."""
    gone = {"seal", "encrypt", "decrypt", "open"}
    links = {(link.source, link.ogate): link for link in graph.links}

    def skipped(link: Link) -> Link:
        while link.target in gone:
            link = replace(link, target=links[link.target, 0].target)
        return link

    return replace(
        graph,
        modules=tuple(module for module in graph.modules if module.name not in gone),
        links=tuple(skipped(link) for link in graph.links if link.source not in gone),
    )


class Run:
    """A gateway in an engine, paused until it is measured.

    ``cores`` are where its workers run; with one, that does all. ``returns``: what goes to the
    provider comes back.
    """

    def __init__(
        self,
        graph: Graph,
        traffic: Traffic,
        cores: Sequence[int] = CORES[:1],
        *,
        returns: bool = False,
        stages: int | None = None,
    ) -> None:
        self.traffic = traffic
        self.engine = Engine()
        self.modules: list[str] = []
        self.exit = "side" if returns else "provider_out"
        self.returns = returns
        for number, core in enumerate(cores):
            self.engine.add_worker(number, core)
        self.workers = len(cores)
        self._ports(graph)
        for module in graph.modules:
            self._module(module)
        for link in graph.links:
            self.engine.connect(link.source, link.ogate, link.target, link.igate)

    def _ports(self, graph: Graph) -> None:
        for port in graph.ports:
            self.engine.create_port(port.name, "MemoryPort", size_out_q=4096)

    def _module(self, module: Module) -> None:
        if module.name == "inside_in":
            self._source(module.name)
        elif module.mclass == "PortOut" and not (self.returns and module.name == "provider_send"):
            self._create(module.name, "Sink", {})
        else:
            self._create(module.name, module.mclass, dict(module.args))
            if module.worker is not None:
                self._place(module.name, module.worker % self.workers)

    def _create(self, name: str, mclass: str, args: dict[str, Any]) -> None:
        self.engine.create_module(name, mclass, args)
        self.modules.append(name)

    def _place(self, name: str, worker: int) -> None:
        self.engine.update_tc_parent(
            {"leaf_module_name": name, "leaf_module_taskid": 0, "wid": worker}
        )

    def _source(self, name: str) -> None:
        """Batches of the traffic's packets in turn."""
        frames = list(self.traffic.frames[:MOST_FRAMES])
        frames = frames * -(-TEMPLATES // len(frames))
        parts = [frames[at : at + TEMPLATES] for at in range(0, len(frames), TEMPLATES)]
        self._create("source", "Source", {"pkt_size": 60})
        self._place("source", 0)
        args = {"gates": list(range(len(parts))), "mode": "batch"}
        self._create("spread", "RoundRobin", args)
        self._create(name, "Merge", {})
        self.engine.connect("source", 0, "spread", 0)
        for gate, part in enumerate(parts):
            self._create(f"frames{gate}", "Rewrite", {"templates": part})
            self.engine.connect("spread", gate, f"frames{gate}", 0)
            self.engine.connect(f"frames{gate}", 0, name, gate)

    def passed(self) -> int:
        """Packets that have left."""
        gates = self.engine.module_info(self.exit)["ogates"]
        return sum(int(gate["pkts"]) for gate in gates)

    def sent(self) -> int:
        """Packets that have come from inside."""
        return int(self.engine.module_info("source")["ogates"][0]["pkts"])

    def drops(self) -> dict[str, int]:
        """What was dropped, by module and reason."""
        return {
            f"{name}: {reason}": count
            for name in self.modules
            for reason, count in self.engine.module_info(name)["drops"].items()
            if count
        }

    def close(self) -> None:
        self.engine.pause_all()
        self.engine.reset_modules()
