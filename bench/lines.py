# SPDX-License-Identifier: BSD-3-Clause
"""The graphs to measure, as data; their arguments are those of BESS, so that a bessd takes them.

A number after Rewrite is how many different packets it writes in turn. Where that is too few,
RandomUpdate picks one of 4,096 values of a field for each packet; a line shows what that costs.
"""

from __future__ import annotations

import gzip
import os
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from graphs import EngineGraph, Graph
from packets import DPORT, DST_IP, PORTS, PROTO, SPORT, SRC_IP, flows, route_of, udp_packet

DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[2] / "shared" / "data"))
ROUTEVIEWS = DATA / "routes" / "routeviews_v4_20140513.tsv.gz"
ROUTES = 1000
RULES = 1000
MANY = 4096
LOW_PORT = 10000
NET = {"offset": 31, "num_bytes": 2}  # x and y of the destination 10.x.y.1

Build = Callable[[Graph], None]
Step = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Line:
    name: str
    build: Build
    ours_only: bool = False


def ours(build: Build, stack: ExitStack) -> EngineGraph:
    """The graph in an engine that goes with the stack."""
    graph = EngineGraph()
    stack.callback(graph.close)
    build(graph)
    return graph


def chain(count: int, *steps: Step) -> Build:
    """Source, then Rewrite with `count` templates unless 0, then the steps in a row, then Sink."""

    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        modules = [head, *(graph.add(mclass, **args) for mclass, args in steps)]
        graph.join(*modules)
        graph.sinks(modules[-1])

    return build


def timed(*classes: str) -> Build:
    """Modules of these classes between Timestamp and Measure."""
    exact = {"latency_ns_max": 1_000_000, "latency_ns_resolution": 1}
    between: list[Step] = [(mclass, {}) for mclass in classes]
    return chain(0, ("Timestamp", {}), *between, ("Measure", exact))


def sender(graph: Graph, count: int, varied: dict[str, int], low: int = 0) -> str:
    """A module that sends `count` different packets; many differ in one field, from `low` on."""
    if count < MANY:
        return graph.source(flows(count))
    head = graph.source(flows(1))
    field = {"offset": varied["offset"], "size": varied["num_bytes"]}
    update = graph.add("RandomUpdate", fields=[field | {"min": low, "max": low + count - 1}])
    graph.join(head, update)
    return update


def many_flows(graph: Graph) -> None:
    graph.sinks(sender(graph, MANY, SPORT, low=LOW_PORT))


def fan(count: int, mclass: str, args: dict[str, Any], gates: Sequence[int]) -> Build:
    """Different packets, then one module with a sink at each of its gates."""

    def build(graph: Graph) -> None:
        head = sender(graph, count, SPORT, low=LOW_PORT)
        module = graph.add(mclass, **args)
        graph.join(head, module)
        graph.sinks(module, gates)

    return build


def replicate(graph: Graph) -> None:
    fan(1, "Replicate", {"gates": [0, 1]}, [0, 1])(graph)
    graph.copies = 2


def number_value(number: int) -> dict[str, bytes]:
    return {"value_bin": number.to_bytes(2, "big")}


def matched(graph: Graph, count: int, where: str) -> tuple[str, dict[str, Any]]:
    """The module to match behind, and where the port is: in the packet or in an attribute."""
    head = sender(graph, count, DPORT)
    if where == "packet":
        return head, DPORT
    port: dict[str, Any] = {"name": "port", "size": 2}
    port |= {"offset": DPORT["offset"]} if where == "copy" else number_value(PORTS[0])
    attribute = graph.add("SetMetadata", attrs=[port])
    graph.join(head, attribute)
    return attribute, {"attr_name": "port", "num_bytes": 2}


def exact_match(count: int, where: str = "packet") -> Build:
    def build(graph: Graph) -> None:
        head, field = matched(graph, count, where)
        match = graph.add("ExactMatch", fields=[field])
        graph.join(head, match)
        graph.sinks(match, FOUR)
        for number, port in enumerate(range(MANY) if count == MANY else PORTS):
            graph.command(match, "add", gate=number % 4, fields=[number_value(port)])

    return build


def wildcard_one_mask(count: int, where: str = "packet") -> Build:
    def build(graph: Graph) -> None:
        head, field = matched(graph, count, where)
        match = graph.add("WildcardMatch", fields=[field])
        graph.join(head, match)
        graph.sinks(match, FOUR)
        for gate, port in enumerate(PORTS):
            rule = {"values": [number_value(port)], "masks": [{"value_bin": b"\xff\xff"}]}
            graph.command(match, "add", gate=gate, priority=gate, **rule)

    return build


def wildcard_four_masks(count: int) -> Build:
    """Source prefixes of four lengths, so each rule has a mask of its own; each packet hits one."""

    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        match = graph.add("WildcardMatch", fields=[SRC_IP, DST_IP, DPORT])
        graph.join(head, match)
        graph.sinks(match, FOUR)
        for gate, port in enumerate(PORTS):
            mask = b"\xff" * (4 - gate) + bytes(gate)
            source = bytes(a & b for a, b in zip(b"\x0a\0\0\1", mask, strict=True))
            values = [{"value_bin": source}, {"value_bin": b"\x0a\0\0\0"}, number_value(port)]
            masks = [{"value_bin": m} for m in (mask, b"\xff\0\0\0", b"\xff\xff")]
            graph.command(match, "add", gate=gate, priority=gate, values=values, masks=masks)

    return build


def eight_masks() -> list[tuple[int, int, int, int]]:
    """1,000 rules: source and its mask, destination and its mask.

    Sources are of eight prefix lengths; the destinations are different networks of 4 routes each,
    so that 4,000 of 4,096 flows match one rule, and the others none.
    """
    rules = []
    for number in range(RULES):
        mask = 0xFFFFFFFF << number % 8 & 0xFFFFFFFF
        destination = int.from_bytes(route_of(4 * number), "big")
        rules.append((0x0A000001 & mask, mask, destination, 0xFFFFFC00))
    return rules


def wildcard_eight_masks(graph: Graph) -> None:
    head = sender(graph, MANY, NET)
    match = graph.add("WildcardMatch", fields=[SRC_IP, DST_IP])
    graph.join(head, match)
    graph.sinks(match, FOUR)
    graph.command(match, "set_default_gate", gate=0)
    for number, (src, src_mask, dst, dst_mask) in enumerate(eight_masks()):
        values, masks = (
            [{"value_bin": part.to_bytes(4, "big")} for part in parts]
            for parts in ((src, dst), (src_mask, dst_mask))
        )
        graph.command(match, "add", gate=number % 4, priority=number, values=values, masks=masks)


def vxlan(decap: bool) -> Build:
    attrs = [
        {"name": "tun_ip_src", "size": 4, "value_bin": b"\xc0\xa8\0\1"},
        {"name": "tun_ip_dst", "size": 4, "value_bin": b"\xc0\xa8\0\2"},
        {"name": "tun_id", "size": 4, "value_int": 77},
        {"name": "ether_src", "size": 6, "value_bin": b"\2\0\0\0\0\1"},
        {"name": "ether_dst", "size": 6, "value_bin": b"\2\0\0\0\0\2"},
    ]
    steps: list[Step] = [
        ("SetMetadata", {"attrs": attrs}),
        ("VXLANEncap", {"dstport": 4789}),
        ("IPEncap", {}),
        ("EtherEncap", {}),
    ]
    return chain(1, *steps, *([("VXLANDecap", {})] if decap else []))


def generic_encap(by_attribute: bool) -> Build:
    decap: Step = ("GenericDecap", {"bytes": 14})
    if not by_attribute:
        values = [bytes(6), b"\1" * 6, b"\x08\0"]
        fields = [{"size": len(v), "value": {"value_bin": v}} for v in values]
        return chain(1, ("GenericEncap", {"fields": fields}), decap)
    sizes = {"first": 6, "second": 8}
    attrs = [{"name": n, "size": s, "value_bin": b"\1" * s} for n, s in sizes.items()]
    columns = [{"size": s, "attribute": n} for n, s in sizes.items()]
    return chain(1, ("SetMetadata", {"attrs": attrs}), ("GenericEncap", {"fields": columns}), decap)


def eight_queues(sources: int, shares: Sequence[int]) -> Build:
    """Sources and a weighted_fair class over the queues take turns."""

    def build(graph: Graph) -> None:
        graph.add_tc("root", "round_robin", wid=0)
        graph.add_tc("fair", "weighted_fair", resource="packet", parent="root")
        spread = graph.add("RoundRobin", gates=list(range(len(shares))), mode="batch")
        for _ in range(sources):
            source = graph.source()
            graph.join(source, spread)
            graph.attach(source, "root")
        for gate, share in enumerate(shares):
            queue = graph.add("Queue", size=1024)
            graph.connect(spread, queue, ogate=gate)
            graph.sinks(queue)
            graph.attach(queue, "fair", share=share)

    return build


def ip_lookup(count: int) -> Build:
    """1,000 routes, or as many as there are flows."""

    def build(graph: Graph) -> None:
        head = sender(graph, count, NET)
        routes = max(ROUTES, count)
        lookup = graph.add("IPLookup", max_rules=routes)
        graph.join(head, lookup)
        graph.sinks(lookup, FOUR)
        for number in range(routes):
            prefix = socket.inet_ntoa(route_of(number))
            graph.command(lookup, "add", prefix=prefix, prefix_len=24, gate=number % 4)

    return build


def routeviews(graph: Graph) -> None:
    if not ROUTEVIEWS.exists():
        pytest.skip(f"no route table at {ROUTEVIEWS}; E2_DATA says where the data is")
    with gzip.open(ROUTEVIEWS, "rt") as table:
        routes = [line.split()[0].split("/") for line in table if line[0].isdigit()]
    chosen = random.Random(2014).sample(routes, 32)
    templates = [
        udp_packet(socket.inet_aton(prefix), 5000 + i, PORTS[i % 4])
        for i, (prefix, _) in enumerate(chosen)
    ]
    head = graph.source(templates)
    lookup = graph.add("IPLookup", max_rules=1 << 20, max_tbl8s=1 << 16)
    graph.join(head, lookup)
    graph.sinks(lookup, FOUR)
    for number, (prefix, length) in enumerate(routes):
        graph.command(lookup, "add", prefix=prefix, prefix_len=int(length), gate=number % 4)


def bpf(graph: Graph) -> None:
    head = graph.source(flows(32, ports=(80, 81)))
    filters = [{"priority": 0, "filter": "udp dst port 80", "gate": 1}]
    module = graph.add("BPF", filters=filters)
    graph.join(head, module)
    graph.sinks(module, range(2))


FIVE_FIELDS = [SRC_IP, DST_IP, PROTO, SPORT, DPORT]
FOUR = [0, 1, 2, 3]
WORD = {"offset": 26, "size": 4}
BY_PORTS = {"gates": FOUR, "mode": "l4"}
BY_FIELDS = {"gates": FOUR, "fields": FIVE_FIELDS}
NAT = {"ext_addrs": [{"ext_addr": "192.168.1.1"}]}

LINES = [
    Line("Source->Sink", chain(0)),
    *(Line(f"Bypass x{n}", chain(0, *[("Bypass", {})] * n)) for n in (1, 4, 8)),
    *(Line(f"Merge x{n}", chain(0, *[("Merge", {})] * n)) for n in (1, 4, 8)),
    *(Line(f"Rewrite({n})", chain(n)) for n in (1, 32)),
    *(
        line
        for n in (1, 32)
        for line in (
            Line(f"Rewrite({n})->HashLB(l4,4)", fan(n, "HashLB", BY_PORTS, FOUR)),
            Line(f"Rewrite({n})->HashLB(5 fields,4)", fan(n, "HashLB", BY_FIELDS, FOUR)),
            Line(f"Rewrite({n})->ExactMatch(dport,4)", exact_match(n)),
            Line(f"Rewrite({n})->WildcardMatch(1 mask)", wildcard_one_mask(n)),
            Line(f"Rewrite({n})->WildcardMatch(4 masks)", wildcard_four_masks(n)),
            Line(f"Rewrite({n})->SetMetadata->ExactMatch(attr)", exact_match(n, "copy")),
            Line(f"Rewrite({n})->SetMetadata->WildcardMatch(attr)", wildcard_one_mask(n, "copy")),
            Line(f"Rewrite({n})->IPLookup(1000)", ip_lookup(n)),
            Line(f"Rewrite({n})->NAT", fan(n, "NAT", NAT, [1])),
        )
    ),
    Line("Rewrite(1)->SetMetadata(const)->ExactMatch(attr)", exact_match(1, "const")),
    # Half a million calls would take a daemon minutes.
    Line("Rewrite(32)->IPLookup(RouteViews)", routeviews, ours_only=True),
    Line("4096 flows: Rewrite(1)->RandomUpdate", many_flows),
    Line("4096 flows->HashLB(l4,4)", fan(MANY, "HashLB", BY_PORTS, FOUR)),
    Line("4096 flows->HashLB(5 fields,4)", fan(MANY, "HashLB", BY_FIELDS, FOUR)),
    Line("4096 flows->ExactMatch(dport,4096)", exact_match(MANY)),
    Line("4096 flows->IPLookup(4096)", ip_lookup(MANY)),
    Line("4096 flows->NAT", fan(MANY, "NAT", NAT, [1])),
    Line("4096 flows->WildcardMatch(1000 rules, 8 masks)", wildcard_eight_masks),
    Line("Rewrite(1)->VXLAN encap", vxlan(decap=False)),
    Line("Rewrite(1)->VXLAN encap->decap", vxlan(decap=True)),
    Line("Rewrite(1)->GenericEncap(const)->Decap", generic_encap(by_attribute=False)),
    Line("Rewrite(1)->GenericEncap(attr)->Decap", generic_encap(by_attribute=True)),
    Line("Queue", chain(0, ("Queue", {}))),
    Line("8 queues, weighted_fair equal", eight_queues(1, [1] * 8)),
    Line("8 queues, weighted_fair 1..8", eight_queues(2, range(1, 9))),
    Line("Rewrite(1)->Update", chain(1, ("Update", {"fields": [WORD | {"value": 7}]}))),
    Line(
        "Rewrite(1)->RandomUpdate",
        chain(1, ("RandomUpdate", {"fields": [WORD | {"min": 1, "max": 1000}]})),
    ),
    *(
        Line(f"Rewrite(1)->{mclass}", chain(1, (mclass, {})))
        for mclass in ("MACSwap", "IPSwap", "UpdateTTL", "IPChecksum", "L4Checksum", "Timestamp")
    ),
    Line("Rewrite(1)->VLANPush->VLANPop", chain(1, ("VLANPush", {"tci": 5}), ("VLANPop", {}))),
    Line("Rewrite(1)->Timestamp->Measure", chain(1, ("Timestamp", {}), ("Measure", {}))),
    *(
        Line(
            f"Rewrite(1)->RoundRobin({mode})",
            fan(1, "RoundRobin", {"gates": FOUR, "mode": mode}, FOUR),
        )
        for mode in ("packet", "batch")
    ),
    Line("Rewrite(1)->Replicate(2)", replicate),
    Line(
        "Rewrite(32)->Split(dport)",
        fan(32, "Split", {"size": 1, "offset": 37}, [port & 255 for port in PORTS]),
    ),
    Line("Rewrite(32)->BPF", bpf),
]
