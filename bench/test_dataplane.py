# SPDX-License-Identifier: BSD-3-Clause
"""How fast the engine is: one worker on one core, in memory, 60-byte packets.

A line is a graph that runs for a while; its figure is the packets its tasks forwarded per second,
the median of several intervals after a warm-up. E2_BENCH_SECONDS sets the interval. Nothing here
fails because it is slow: it fails where a graph loses packets, which would flatter it.
"""

from __future__ import annotations

import gzip
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anchors import BESSD_MPPS
from bess_plugins._engine import Engine

SECONDS = float(os.environ.get("E2_BENCH_SECONDS", "0.2"))
ROUNDS = 5
PORTS = (1000, 1001, 1002, 1003)
ROUTES = 1000
RULES = 1000
DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[2] / "shared" / "data"))
ROUTEVIEWS = DATA / "routes" / "routeviews_v4_20140513.tsv.gz"

SRC_IP = {"offset": 26, "num_bytes": 4}
DST_IP = {"offset": 30, "num_bytes": 4}
PROTO = {"offset": 23, "num_bytes": 1}
SPORT = {"offset": 34, "num_bytes": 2}
DPORT = {"offset": 36, "num_bytes": 2}

Report = Callable[[str, dict[str, float]], None]


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(dst: bytes, sport: int, dport: int) -> bytes:
    """60 bytes of UDP over IPv4; the UDP checksum is left out."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, 17, 0, b"\x0a\0\0\1", dst)
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    ethernet = bytes.fromhex("0200000000020200000000010800")
    return ethernet + ip + struct.pack(">HHHH", sport, dport, 26, 0) + bytes(18)


def route_of(number: int) -> bytes:
    """The network 10.x.y.0/24 of a route of the 1,000-route table."""
    return bytes([10, number >> 8, number & 255, 0])


def flows(count: int, ports: Sequence[int] = PORTS) -> list[bytes]:
    """Packets of different flows, over all `ports` and all parts of the route table."""
    return [
        udp_packet(route_of(i * 31)[:3] + b"\1", 5000 + i, ports[i % len(ports)])
        for i in range(count)
    ]


class Graph:
    """A graph under construction on a fresh engine."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.classes = self.engine.module_classes()
        self.engine.add_worker(0, max(os.sched_getaffinity(0)))
        self.counted: list[str] = []
        self.modules: list[tuple[str, str]] = []

    def add(self, mclass: str, **args: Any) -> str:
        if mclass not in self.classes:
            pytest.skip(f"the engine has no module {mclass}")
        name = f"{mclass.lower()}{len(self.modules)}"
        self.engine.create_module(name, mclass, args)
        self.modules.append((name, mclass))
        return name

    def command(self, module: str, command: str, **args: Any) -> None:
        self.engine.module_command(module, command, args)

    def join(self, *modules: str) -> None:
        for before, after in pairwise(modules):
            self.engine.connect(before, 0, after, 0)

    def source(self, templates: Sequence[bytes] = ()) -> str:
        """A source whose packets are counted, and a Rewrite behind it where there are templates."""
        source = self.add("Source", pkt_size=60)
        self.counted.append(source)
        if not templates:
            return source
        rewrite = self.add("Rewrite", templates=list(templates))
        self.join(source, rewrite)
        return rewrite

    def sinks(self, module: str, gates: Sequence[int]) -> None:
        for gate in gates:
            self.engine.connect(module, gate, self.add("Sink"), 0)

    def attach(self, module: str, parent: str, **place: int) -> None:
        self.engine.update_tc_parent(
            {"leaf_module_name": module, "leaf_module_taskid": 0, "parent": parent, **place}
        )

    def usage(self) -> list[dict[str, float]]:
        return [self.engine.tc_stats(f"!leaf_{module}:0") for module in self.counted]

    def cycles(self) -> int:
        leaves = [tc["name"] for tc in self.engine.tcs() if tc["policy"] == "leaf"]
        return sum(self.engine.tc_stats(leaf)["cycles"] for leaf in leaves)

    def lost(self) -> dict[str, dict[str, int]]:
        """Drops by module and reason, but for queues: a full one drops by design."""
        drops = {
            name: self.engine.module_info(name)["drops"]
            for name, mclass in self.modules
            if mclass != "Queue"
        }
        counts = {
            name: {reason: count for reason, count in reasons.items() if count}
            for name, reasons in drops.items()
        }
        return {name: reasons for name, reasons in counts.items() if reasons}


Build = Callable[[Graph], None]


@dataclass(frozen=True)
class Line:
    name: str
    build: Build


def source_to_sink(*classes: str) -> Build:
    """The modules of these classes in a row, without arguments, between Source and Sink."""

    def build(graph: Graph) -> None:
        source = graph.source()
        graph.join(source, *(graph.add(mclass) for mclass in classes), graph.add("Sink"))

    return build


def chain(count: int, *steps: tuple[str, dict[str, Any]]) -> Build:
    """Rewrite with `count` templates, then the steps in a row, then Sink."""

    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        graph.join(head, *(graph.add(mclass, **args) for mclass, args in steps), graph.add("Sink"))

    return build


def fan(count: int, mclass: str, args: dict[str, Any], gates: Sequence[int]) -> Build:
    """Rewrite with `count` templates, then one module with a sink at each of its gates."""

    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        module = graph.add(mclass, **args)
        graph.join(head, module)
        graph.sinks(module, gates)

    return build


def port_value(port: int) -> dict[str, bytes]:
    return {"value_bin": port.to_bytes(2, "big")}


def exact_match(count: int, by_attribute: bool) -> Build:
    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        field: dict[str, Any] = DPORT
        if by_attribute:
            copy = graph.add("SetMetadata", attrs=[{"name": "port", "size": 2, "offset": 36}])
            graph.join(head, copy)
            head, field = copy, {"attr_name": "port", "num_bytes": 2}
        match = graph.add("ExactMatch", fields=[field])
        graph.join(head, match)
        graph.sinks(match, range(len(PORTS)))
        for gate, port in enumerate(PORTS):
            graph.command(match, "add", gate=gate, fields=[port_value(port)])

    return build


def wildcard_one_mask(count: int) -> Build:
    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        match = graph.add("WildcardMatch", fields=[DPORT])
        graph.join(head, match)
        graph.sinks(match, range(len(PORTS)))
        for gate, port in enumerate(PORTS):
            rule = {"values": [port_value(port)], "masks": [{"value_bin": b"\xff\xff"}]}
            graph.command(match, "add", gate=gate, priority=gate, **rule)

    return build


def wildcard_four_masks(count: int) -> Build:
    """Source prefixes of four lengths, so each rule has a mask of its own; each packet hits one."""

    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        match = graph.add("WildcardMatch", fields=[SRC_IP, DST_IP, DPORT])
        graph.join(head, match)
        graph.sinks(match, range(len(PORTS)))
        for gate, port in enumerate(PORTS):
            mask = b"\xff" * (4 - gate) + bytes(gate)
            source = bytes(a & b for a, b in zip(b"\x0a\0\0\1", mask, strict=True))
            values = [{"value_bin": source}, {"value_bin": b"\x0a\0\0\0"}, port_value(port)]
            masks = [{"value_bin": m} for m in (mask, b"\xff\0\0\0", b"\xff\xff")]
            graph.command(match, "add", gate=gate, priority=gate, values=values, masks=masks)

    return build


def vxlan(decap: bool) -> Build:
    attrs = [
        {"name": "tun_ip_src", "size": 4, "value_bin": b"\xc0\xa8\0\1"},
        {"name": "tun_ip_dst", "size": 4, "value_bin": b"\xc0\xa8\0\2"},
        {"name": "tun_id", "size": 4, "value_int": 77},
        {"name": "ether_src", "size": 6, "value_bin": b"\2\0\0\0\0\1"},
        {"name": "ether_dst", "size": 6, "value_bin": b"\2\0\0\0\0\2"},
    ]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("SetMetadata", {"attrs": attrs}),
        ("VXLANEncap", {"dstport": 4789}),
        ("IPEncap", {}),
        ("EtherEncap", {}),
    ]
    return chain(1, *steps, *([("VXLANDecap", {})] if decap else []))


def generic_encap(by_attribute: bool) -> Build:
    decap: tuple[str, dict[str, Any]] = ("GenericDecap", {"bytes": 14})
    if not by_attribute:
        values = [bytes(6), b"\1" * 6, b"\x08\0"]
        fields = [{"size": len(v), "value": {"value_bin": v}} for v in values]
        return chain(1, ("GenericEncap", {"fields": fields}), decap)
    sizes = {"first": 6, "second": 8}
    attrs = [{"name": n, "size": s, "value_bin": b"\1" * s} for n, s in sizes.items()]
    columns = [{"size": s, "attribute": n} for n, s in sizes.items()]
    return chain(1, ("SetMetadata", {"attrs": attrs}), ("GenericEncap", {"fields": columns}), decap)


def queue_round_trip(graph: Graph) -> None:
    queue = graph.add("Queue", size=1024)
    graph.join(graph.source(), queue, graph.add("Sink"))
    graph.counted = [queue]


def eight_queues(sources: int, shares: Sequence[int]) -> Build:
    """Sources and a weighted_fair class over the queues take turns; what leaves them counts."""

    def build(graph: Graph) -> None:
        graph.engine.add_tc({"name": "root", "policy": "round_robin", "wid": 0})
        tree = {"name": "fair", "policy": "weighted_fair", "resource": "packet", "parent": "root"}
        graph.engine.add_tc(tree)
        spread = graph.add("RoundRobin", gates=list(range(len(shares))), mode="batch")
        merge = graph.add("Merge")
        graph.join(merge, spread)
        for gate in range(sources):
            source = graph.source()
            graph.engine.connect(source, 0, merge, gate)
            graph.attach(source, "root")
        graph.counted = []
        for gate, share in enumerate(shares):
            queue = graph.add("Queue", size=1024)
            graph.engine.connect(spread, gate, queue, 0)
            graph.join(queue, graph.add("Sink"))
            graph.attach(queue, "fair", share=share)
            graph.counted.append(queue)

    return build


def ip_lookup(count: int) -> Build:
    def build(graph: Graph) -> None:
        head = graph.source(flows(count))
        lookup = graph.add("IPLookup", max_rules=ROUTES)
        graph.join(head, lookup)
        graph.sinks(lookup, range(4))
        for number in range(ROUTES):
            prefix = socket.inet_ntoa(route_of(number))
            graph.command(lookup, "add", prefix=prefix, prefix_len=24, gate=number % 4)

    return build


def routeviews(graph: Graph) -> None:
    if not ROUTEVIEWS.exists():
        pytest.skip(f"no route table at {ROUTEVIEWS}; E2_DATA says where the data is")
    with gzip.open(ROUTEVIEWS, "rt") as table:
        routes = [line.split()[0].split("/") for line in table if line[0].isdigit()]
    chosen = random.Random(2014).sample(routes, 32)
    packets = [
        udp_packet(socket.inet_aton(prefix), 5000 + i, PORTS[i % 4])
        for i, (prefix, _) in enumerate(chosen)
    ]
    head = graph.source(packets)
    lookup = graph.add("IPLookup", max_rules=1 << 20, max_tbl8s=1 << 16)
    graph.join(head, lookup)
    graph.sinks(lookup, range(4))
    for number, (prefix, length) in enumerate(routes):
        graph.command(lookup, "add", prefix=prefix, prefix_len=int(length), gate=number % 4)


def bpf(graph: Graph) -> None:
    head = graph.source(flows(32, ports=(80, 81)))
    filters = [{"priority": 0, "filter": "udp dst port 80", "gate": 1}]
    module = graph.add("BPF", filters=filters)
    graph.join(head, module)
    graph.sinks(module, range(2))


def acl(rules: int) -> Build:
    """The last rule holds for every packet; the others test the source too."""
    misses = [{"src_ip": f"172.{i}.0.0/16", "drop": True} for i in range(rules - 1)]
    return chain(1, ("ACL", {"rules": [*misses, {"src_ip": "10.0.0.0/8"}]}))


def l2_forward(graph: Graph) -> None:
    """Frames to 17 addresses, all with one gate."""
    macs = [f"02:00:00:00:00:{n:02x}" for n in range(17)]
    frames = [bytes.fromhex(macs[i % 17].replace(":", "")) + p[6:] for i, p in enumerate(flows(32))]
    table = graph.add("L2Forward")
    graph.join(graph.source(frames), table, graph.add("Sink"))
    graph.command(table, "add", entries=[{"addr": mac, "gate": 0} for mac in macs])


def drr(flow_count: int) -> Build:
    def build(graph: Graph) -> None:
        queue = graph.add("DRR")
        graph.join(graph.source(flows(flow_count)), queue, graph.add("Sink"))
        graph.counted = [queue]

    return build


NAT_RANGES = {
    "int_range": {"start": "10.0.0.0", "end": "10.255.255.255"},
    "ext_range": {"start": "11.0.0.0", "end": "11.255.255.255"},
}
FIVE_FIELDS = [SRC_IP, DST_IP, PROTO, SPORT, DPORT]
FOUR = [0, 1, 2, 3]
WORD = {"offset": 26, "size": 4}

LINES = [
    Line("Source->Sink", source_to_sink()),
    *(Line(f"Bypass x{n}", source_to_sink(*["Bypass"] * n)) for n in (1, 4, 8)),
    *(Line(f"Merge x{n}", source_to_sink(*["Merge"] * n)) for n in (1, 4, 8)),
    *(Line(f"Rewrite({n})", chain(n)) for n in (1, 32)),
    *(
        line
        for n in (1, 32)
        for line in (
            Line(
                f"Rewrite({n})->HashLB(l4,4)",
                fan(n, "HashLB", {"gates": FOUR, "mode": "l4"}, FOUR),
            ),
            Line(
                f"Rewrite({n})->HashLB(5 fields,4)",
                fan(n, "HashLB", {"gates": FOUR, "fields": FIVE_FIELDS}, FOUR),
            ),
            Line(f"Rewrite({n})->ExactMatch(dport,4)", exact_match(n, by_attribute=False)),
            Line(f"Rewrite({n})->WildcardMatch(1 mask)", wildcard_one_mask(n)),
            Line(f"Rewrite({n})->WildcardMatch(4 masks)", wildcard_four_masks(n)),
            Line(f"Rewrite({n})->SetMetadata->ExactMatch(attr)", exact_match(n, by_attribute=True)),
            Line(f"Rewrite({n})->IPLookup(1000)", ip_lookup(n)),
        )
    ),
    Line("Rewrite(32)->IPLookup(RouteViews)", routeviews),
    Line("Rewrite(1)->VXLAN encap", vxlan(decap=False)),
    Line("Rewrite(1)->VXLAN encap->decap", vxlan(decap=True)),
    Line("Rewrite(1)->GenericEncap(const)->Decap", generic_encap(by_attribute=False)),
    Line("Rewrite(1)->GenericEncap(attr)->Decap", generic_encap(by_attribute=True)),
    Line("Queue", queue_round_trip),
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
    Line("Rewrite(1)->Replicate(2)", fan(1, "Replicate", {"gates": [0, 1]}, [0, 1])),
    Line(
        "Rewrite(32)->Split(dport)",
        fan(32, "Split", {"size": 1, "offset": 37}, [port & 255 for port in PORTS]),
    ),
    Line("Rewrite(32)->BPF", bpf),
    *(Line(f"Rewrite(1)->ACL({n})", acl(n)) for n in (10, 100)),
    Line("Rewrite(32)->L2Forward(17)", l2_forward),
    Line("Rewrite(1)->StaticNAT", fan(1, "StaticNAT", {"pairs": [NAT_RANGES]}, [1])),
    Line("Rewrite(1)->UrlFilter", chain(1, ("UrlFilter", {}))),
    *(Line(f"Rewrite({n})->DRR", drr(n)) for n in (1, 32)),
]


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.engine.pause_all()
    graph.engine.reset_modules()


def run_rounds(
    benchmark: BenchmarkFixture,
    measured: Callable[[], None],
    setup: Callable[[], None] | None = None,
) -> None:
    pedantic: Any = benchmark.pedantic
    pedantic(measured, setup=setup, rounds=ROUNDS, iterations=1)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_line(line: Line, graph: Graph, benchmark: BenchmarkFixture, report: Report) -> None:
    line.build(graph)
    mpps: list[float] = []
    cycles: list[float] = []

    def interval() -> None:
        cycles_before, before = graph.cycles(), graph.usage()
        time.sleep(SECONDS)
        cycles_after, after = graph.cycles(), graph.usage()
        packets = [b["packets"] - a["packets"] for a, b in zip(before, after, strict=True)]
        spans = [b["timestamp"] - a["timestamp"] for a, b in zip(before, after, strict=True)]
        mpps.append(sum(p / s for p, s in zip(packets, spans, strict=True)) / 1e6)
        cycles.append((cycles_after - cycles_before) / max(1, sum(packets)))

    graph.engine.resume_all()
    time.sleep(SECONDS / 2)
    run_rounds(benchmark, interval)
    graph.engine.pause_all()
    assert mpps and min(mpps) > 0, "no packets were forwarded"
    assert graph.lost() == {}
    figures = {"mpps": median(mpps), "cycles_per_packet": median(cycles)}
    if line.name in BESSD_MPPS:
        figures["bessd_mpps"] = BESSD_MPPS[line.name]
        figures["ratio"] = figures["mpps"] / figures["bessd_mpps"]
    benchmark.extra_info.update(figures)
    report(line.name, figures)


def exact_rule(number: int) -> dict[str, Any]:
    return {"gate": number % 4, "fields": [{"value_bin": number.to_bytes(4, "big")}]}


def wildcard_rule(number: int) -> dict[str, Any]:
    """Prefixes of eight lengths."""
    mask = 0xFFFFFFFF << number % 8 & 0xFFFFFFFF
    value = number << 8 & mask
    return {
        "gate": number % 4,
        "priority": number,
        "values": [{"value_bin": value.to_bytes(4, "big")}],
        "masks": [{"value_bin": mask.to_bytes(4, "big")}],
    }


@pytest.mark.parametrize("running", [False, True], ids=["idle", "worker running"])
@pytest.mark.parametrize("how", ["add", "set_runtime_config"])
@pytest.mark.parametrize(
    ("mclass", "rule"),
    [("ExactMatch", exact_rule), ("WildcardMatch", wildcard_rule)],
    ids=["ExactMatch", "WildcardMatch"],
)
def test_adding_rules(
    mclass: str,
    rule: Callable[[int], dict[str, Any]],
    how: str,
    running: bool,
    graph: Graph,
    benchmark: BenchmarkFixture,
    report: Report,
) -> None:
    """1,000 rules one after another with add, or all of them in one set_runtime_config."""
    head = graph.source(flows(1))
    match = graph.add(mclass, fields=[DST_IP])
    graph.join(head, match)
    graph.sinks(match, range(4))
    rules = [rule(number) for number in range(RULES)]
    times: list[float] = []

    def add_all() -> None:
        started = time.perf_counter()
        if how == "add":
            for args in rules:
                graph.command(match, "add", **args)
        else:
            graph.command(match, "set_runtime_config", default_gate=0, rules=rules)
        times.append(time.perf_counter() - started)

    def clear() -> None:
        graph.command(match, "clear")

    if running:
        graph.engine.resume_all()
    run_rounds(benchmark, add_all, setup=clear)
    stored = graph.engine.module_command(match, "get_runtime_config", {})["rules"]
    assert len(stored) == RULES
    figures = {"us_per_rule": median(times) * 1e6 / RULES}
    benchmark.extra_info.update(figures)
    state = "running" if running else "idle"
    report(f"{mclass}: {RULES:,} rules, {how}, {state}", figures)
