# SPDX-License-Identifier: BSD-3-Clause
"""More graphs to measure: access lists, switching, translation, fair queueing, packet sizes."""

from __future__ import annotations

from graphs import Graph
from lines import Build, Line, chain, fan
from packets import flows

NAT_RANGES = {
    "int_range": {"start": "10.0.0.0", "end": "10.255.255.255"},
    "ext_range": {"start": "11.0.0.0", "end": "11.255.255.255"},
}


def acl(rules: int) -> Build:
    """The last rule holds for every packet; the others test the source too."""
    misses = [{"src_ip": f"172.{i}.0.0/16", "drop": True} for i in range(rules - 1)]
    return chain(1, ("ACL", {"rules": [*misses, {"src_ip": "10.0.0.0/8"}]}))


def l2_forward(graph: Graph) -> None:
    """Frames to 17 addresses, all with one gate."""
    macs = [f"02:00:00:00:00:{n:02x}" for n in range(17)]
    frames = [bytes.fromhex(macs[i % 17].replace(":", "")) + p[6:] for i, p in enumerate(flows(32))]
    table = graph.add("L2Forward")
    graph.join(graph.source(frames), table)
    graph.sinks(table)
    graph.command(table, "add", entries=[{"addr": mac, "gate": 0} for mac in macs])


STANDARD_LINES = [
    *(Line(f"Rewrite(1)->ACL({n})", acl(n)) for n in (10, 100)),
    Line("Rewrite(32)->L2Forward(17)", l2_forward),
    Line("Rewrite(1)->StaticNAT", fan(1, "StaticNAT", {"pairs": [NAT_RANGES]}, [1])),
    Line("Rewrite(1)->UrlFilter", chain(1, ("UrlFilter", {}))),
    *(Line(f"Rewrite({n})->DRR", chain(n, ("DRR", {}))) for n in (1, 32)),
    Line("Rewrite(1)->PathMtu", chain(1, ("PathMtu", {"mtu": 1396})), ours_only=True),
]
