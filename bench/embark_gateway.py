# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's pipelines as `embark_gw` draws them, in memory.

In place of devices there are packets in memory before `inside`, and a sink or a ring where packets
go to the provider. All else is what a gateway runs: the guard of its MTU, the spreading over
workers, queues, encryption and the tunnel.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from test_crypto import ipv4_prefixes

from bess_plugins._crypto import PrefixMap, write_prefix_maps
from bess_plugins.private_files import create_private
from embark_gw.pipelines import Graph, Link, draw
from embark_gw.site import Gateway, loads
from embark_memory import CORES, Memory, Step, Traffic

__all__ = ["MODES", "Site", "gateway", "graph_of", "source_alone", "steps_of"]

MODES = ("redirection", "headers", "headers and payload")
PORT_RULES = 1_000
NO_KEY = bytes(16)  # suffixes are made by the gateway, which has the site's key
# All that is sent comes from inside: of sources elsewhere nothing is remembered for a NAT.
DESCRIPTION = """\
inside:
  device: inside
  mac: "02:00:00:00:01:01"
  peer: "02:00:00:00:01:02"
  networks: [0.0.0.0/0, "::/0"]
outside: {{device: outside, mac: "02:00:00:00:02:01", peer: "02:00:00:00:02:02"}}
provider:
  device: provider
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  mtu: 1750
  tunnel: {{local: 192.0.2.1, remote: 192.0.2.2, vni: 7}}
key: {{file: {key}, epoch: 1}}
maps: {maps}
pool: {pool}
sealed: {sealed}
workers: {workers}
"""
NAT_POOL = "203.0.113.0/28"


class Site:
    """A site's key and maps in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "site.key"
        create_private(self.key, secrets.token_hex(32) + "\n")

    def maps(self, rules: int) -> Path:
        """Maps of as many prefixes for each address, and of up to a thousand ranges of ports."""
        path = self.folder / f"rules{rules}.maps"
        if not path.exists():
            prefixes = [ipv4_prefixes(random.Random(seed), rules) for seed in (1, 2)]
            src, dst = (PrefixMap(ranges, 128, NO_KEY) for ranges in prefixes)
            draws = random.Random(3)
            firsts = [draws.randrange(1 << 16) for _ in range(min(rules, PORT_RULES))]
            ends = {(first, min(first + draws.randrange(1000), 0xFFFF)) for first in firsts}
            port = PrefixMap(ends, 16, NO_KEY)
            write_prefix_maps(path, src, dst, port, port)
        return path

    def describe(
        self,
        maps: Path,
        *,
        sealed: bool = False,
        workers: int = 1,
        pool: Sequence[tuple[str, bool]] = ((NAT_POOL, True),),
    ) -> Gateway:
        """A gateway with a NAT at the provider, as in the dissertation's figure 4.1a."""
        entries = [f"{{prefix: {prefix}, nat: {str(nat).lower()}}}" for prefix, nat in pool]
        text = DESCRIPTION.format(
            key=self.key,
            maps=maps,
            pool=f"[{', '.join(entries)}]",
            sealed=str(sealed).lower(),
            workers=workers,
        )
        return loads(text)


def graph_of(site: Site, maps: Path, mode: str, workers: int = 1) -> Graph:
    """The pipelines; with redirection packets travel as they are, as with APLOMB."""
    graph = draw(site.describe(maps, sealed=mode == MODES[-1], workers=workers))
    return graph if mode != MODES[0] else _without(graph, {"encrypt", "decrypt"})


def _without(graph: Graph, gone: set[str]) -> Graph:
    after = {link.source: link.target for link in graph.links if link.source in gone}

    def past(link: Link) -> Link:
        while link.target in gone:
            link = replace(link, target=after[link.target])
        return link

    return replace(
        graph,
        modules=tuple(module for module in graph.modules if module.name not in gone),
        links=tuple(past(link) for link in graph.links if link.source not in gone),
    )


def gateway(
    graph: Graph, traffic: Traffic, cores: Sequence[int] = CORES[:1], *, back: bool = False
) -> Memory:
    """A gateway; with ``back``, what goes to the provider comes back from there as it is."""
    run = Memory(cores)
    for port in graph.ports:
        run.engine.create_port(port.name, "MemoryPort", size_out_q=4096)
    for module in graph.modules:
        if module.name == "inside_in":
            run.feed(module.name, traffic)
        elif module.mclass == "PortOut" and not (back and module.name == "provider_send"):
            run.add(module.name, "Sink", {})
        else:
            run.add(module.name, module.mclass, module.args, module.worker)
    for link in graph.links:
        run.engine.connect(link.source, link.ogate, link.target, link.igate)
    run.exits = ["inside_out", "outside_out"] if back else ["provider_out"]
    return run


def source_alone(traffic: Traffic) -> Memory:
    """What sends the packets, with nothing behind it."""
    run = Memory()
    run.engine.connect(run.feed("inside_in", traffic), 0, run.add("end", "Sink", {}), 0)
    run.exits = ["inside_in"]
    return run


def steps_of(graph: Graph, *names: str) -> list[Step]:
    """Some of the modules, in that order."""
    modules = {module.name: module for module in graph.modules}
    return [(modules[name].mclass, dict(modules[name].args)) for name in names]
