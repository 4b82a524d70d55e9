# SPDX-License-Identifier: BSD-3-Clause
"""Table 4.3: the same middlebox over the same packets, as IPv4 in clear and encrypted.

The firewall has the rules of one file, which drop the same packets in both; load balancers and
NAT have addresses of the site's pool.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bess_plugins._crypto import SiteKeys, write_prefix_maps
from bess_plugins._engine import Engine
from clear_rules import clear_config
from embark_gateway import Site, steps_of
from embark_gw.pipelines import draw
from embark_gw.provider import metadata_match
from embark_gw.rules.document import FIELDS
from embark_gw.rules.encrypt import encrypt
from embark_gw.rules.formats import Format, read_rules
from embark_memory import Memory, Step, Traffic, through
from embark_traces import to_one_server

__all__ = ["BOXES", "Pair", "pairs"]

BOXES = ("IP firewall", "load balancer L3", "load balancer L4", "NAT")
NAT_ADDRESS, SERVICE = "203.0.113.1", "198.51.100.1"
BACKENDS = tuple(f"198.51.100.{number}" for number in range(2, 6))
POOL = ((f"{NAT_ADDRESS}/32", True), *((f"{one}/32", False) for one in (SERVICE, *BACKENDS)))
FOUR = [0, 1, 2, 3]
TCP, UDP = 6, 17


@dataclass(frozen=True)
class Side:
    """Packets, and the middlebox that gets them."""

    traffic: Traffic
    step: Step
    gates: Sequence[int]

    def memory(self, *, box: bool) -> Memory:
        """With the middlebox, or only what sends the packets."""
        run = Memory()
        head = run.feed("in", self.traffic)
        gates = self.gates if box else (0,)
        if box:
            run.engine.connect(head, 0, run.add("box", *self.step), 0)
        for gate in gates:
            run.engine.connect("box" if box else head, gate, run.add(f"out{gate}", "Sink", {}), 0)
        run.exits = [head]  # a firewall is done with what it drops, too
        return run

    def decisions(self) -> list[int]:
        """What becomes of each packet: how many come out."""
        engine = Engine()
        engine.create_module("box", self.step[0], self.step[1])
        return [
            sum(map(len, engine.run_packets("box", [frame]).values()))
            for frame in self.traffic.frames
        ]


@dataclass(frozen=True)
class Pair:
    """A middlebox over packets in clear and encrypted."""

    name: str
    clear: Side
    encrypted: Side

    def check(self) -> float:
        """The share of packets that pass, which must be the same ones; else `RuntimeError`."""
        clear, encrypted = self.clear.decisions(), self.encrypted.decisions()
        if clear != encrypted:
            wrong = sum(a != b for a, b in zip(clear, encrypted, strict=True))
            raise RuntimeError(f"{self.name}: {wrong} packets are decided otherwise if encrypted")
        return sum(clear) / len(clear)


def pairs(site: Site, traffic: Traffic, rules: Path) -> Iterator[Pair]:
    """All of them, over IPv4 packets of TCP and UDP."""
    rule_set = read_rules([rules], Format.CLASSBENCH_5TUPLE)
    made = encrypt(rule_set, SiteKeys(site.key))
    maps = site.folder / "firewall.maps"
    write_prefix_maps(maps, *(made.maps[name] for name in FIELDS))
    [encrypts] = steps_of(draw(site.describe(maps, pool=POOL)), "encrypt")
    pool = _pool(encrypts)
    toward = to_one_server(traffic, socket.inet_aton(SERVICE))
    hidden, hidden_toward = (
        Traffic(one.name, through(one.frames, [encrypts])) for one in (traffic, toward)
    )

    def pair(name: str, clear: Step, encrypted: Step, gates: Sequence[int]) -> Pair:
        both = (toward, hidden_toward) if name == BOXES[2] else (traffic, hidden)
        return Pair(name, Side(both[0], clear, gates), Side(both[1], encrypted, gates))

    config = metadata_match.config_of(made.document)
    yield pair(BOXES[0], _firewall(clear_config(rule_set)), _firewall(config), [0])
    spread: Step = ("HashLB", {"mode": "l3", "gates": FOUR})
    yield pair(BOXES[1], spread, spread, FOUR)
    balanced = [_balancer(SERVICE, BACKENDS)]
    balanced.append(_balancer(pool[SERVICE], [pool[one] for one in BACKENDS]))
    yield pair(BOXES[2], *balanced, [1])
    yield pair(
        BOXES[3],
        ("NAT", {"ext_addrs": [{"ext_addr": NAT_ADDRESS}]}),
        ("NAT", {"ext_addrs": [{"ext_addr": pool[NAT_ADDRESS]}], "encrypted_ports": True}),
        [1],
    )


def _pool(step: Step) -> dict[str, str]:
    engine = Engine(pool_packets=1024)
    engine.create_module("encrypt", *step)
    answer = engine.module_command("encrypt", "get_pool", {})
    return {one["address"]: one["encrypted"] for one in answer["addresses"]}


def _firewall(config: dict[str, Any]) -> Step:
    return metadata_match.CLASS, config


def _balancer(address: str, backends: Sequence[str]) -> Step:
    listed = [{"address": one} for one in backends]
    services = [
        {"address": address, "protocol": protocol, "backends": listed} for protocol in (TCP, UDP)
    ]
    return "L4LB", {"services": services}
