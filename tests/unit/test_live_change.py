# SPDX-License-Identifier: BSD-3-Clause
"""Commands change a module a thousand times while a worker runs packets through it.

Two commands in turn put the module into two states. The worker sends the same batch over and over,
which leaves by certain gates in one state and by others in the other, as a run without workers
tells. A batch that met anything but one whole state would spoil the sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from harness import Engine, new_engine, run, wait_until
from match_support import DROP, MACS, udp

CHANGES = 1000
BATCH = 32
GATES = 8
FLOWS = tuple(udp(dst=f"10.0.{i}.1", sport=5000 + i, dport=1000 + i % 4) for i in range(BATCH))
DPORT = {"offset": 36, "num_bytes": 2}

Command = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A module in its first state, what changes it to the second, and what changes it back."""

    mclass: str
    args: Mapping[str, Any]
    start: tuple[Command, ...]
    change: Command
    back: Command
    seen_at: int | None = None  # where in the packet a module with one gate leaves its mark
    packets: Sequence[bytes] = FLOWS
    varied: Mapping[str, Any] | None = None  # by which RandomUpdate, from batch to batch


def exact(gate: int, port: int) -> dict[str, Any]:
    return {"gate": gate, "fields": [{"value_bin": port.to_bytes(2, "big")}]}


def exact_config(first_gate: int, others: int) -> dict[str, Any]:
    """Gates for three of the four ports, and rules that no packet matches."""
    rules = [exact(first_gate + i, 1000 + i) for i in range(3)]
    rules += [exact(7, 20000 + i) for i in range(others)]
    return {"default_gate": first_gate + 3, "rules": rules}


def wildcard(gate: int, port: int, mask: int = 0xFFFF, priority: int = 0) -> dict[str, Any]:
    return {
        "gate": gate,
        "priority": priority,
        "values": [{"value_bin": (port & mask).to_bytes(2, "big")}],
        "masks": [{"value_bin": mask.to_bytes(2, "big")}],
    }


def wildcard_config(first_gate: int, others: int) -> dict[str, Any]:
    rules = [wildcard(first_gate + i, 1000 + i, priority=2) for i in range(2)]
    rules += [wildcard(first_gate + 2, 1002, 0xFFFE, priority=1)]
    rules += [wildcard(7, 20000 + i, 0xFFFF - i % 4) for i in range(others)]
    return {"default_gate": first_gate + 3, "rules": rules}


def named_rules(gate: int) -> dict[str, Any]:
    ports = ({"field": "l4.dport", "value": port} for port in (1000, 1001))
    return {"rules": [{"gate": gate + i, "terms": [term]} for i, term in enumerate(ports)]}


def named(gate: int, field: str, value: int, priority: int = 0) -> dict[str, Any]:
    terms = [{"field": field, "value": value}]
    return {"gate": gate, "priority": priority, "terms": terms}


def named_config(first_gate: int, field: str, count: int) -> dict[str, Any]:
    """Gates for two of the four ports, and rules that no packet matches."""
    ports = [1000, 1001, *range(5000, 5000 + count - 2)]
    rules = [named(first_gate + i % 2, field, port) for i, port in enumerate(ports)]
    return {"default_gate": first_gate + 3, "rules": rules}


def route(gate: int, prefix: str, length: int) -> dict[str, Any]:
    return {"gate": gate, "prefix": prefix, "prefix_len": length}


ROUTES = tuple(("add", route(i % 4, f"10.0.{i}.0", 24)) for i in range(16))
EXACT: dict[str, Any] = {"fields": [DPORT]}
FILTERS = {"filters": [{"filter": f"udp dst port {1000 + i}", "gate": 1 + i} for i in range(3)]}
UPDATE = {"fields": [{"offset": 36, "size": 2, "value": 1003}]}
RANDOM_UPDATE = {"fields": [{"offset": 36, "size": 2, "min": 1001, "max": 1001}]}
SHORT = {"templates": [udp(dport=1002), udp(dport=1003)]}


def frame(dst: int) -> bytes:
    return bytes(Ether(src=MACS["src"], dst=mac(dst)) / Raw(bytes(46)))


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def acl(lines: int, drop: bool) -> dict[str, Any]:
    """Rules for single packets, and one for all others."""
    rules = [{"dst_ip": f"10.0.{i}.1/32", "drop": drop} for i in range(lines)]
    return {"rules": [*rules, {"src_port": 5031, "drop": not drop}, {"drop": drop}]}


def entries(first: int, count: int, gate: int) -> dict[str, Any]:
    return {
        "entries": [{"addr": mac(i), "gate": gate + i % 2} for i in range(first, first + count)]
    }


def addresses(first: int, count: int) -> dict[str, Any]:
    return {"addrs": [mac(i) for i in range(first, first + count)]}


def edges(first_gate: int, others: int) -> dict[str, Any]:
    gates = {i: first_gate + i % 3 for i in range(20)}
    return {"edges": {**gates, **{1000 + i: 7 for i in range(others)}}}


def tunnelled(vni: int) -> bytes:
    outer = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=6081)
    return bytes(outer / GENEVE(vni=vni, proto=0x6558) / Raw(frame(1)))


def request(client: int) -> bytes:
    """A SYN that brings the whole request along."""
    text = f"GET / HTTP/1.1\r\nHost: host{client}.example\r\n\r\n"
    ip = IP(src=f"10.0.1.{client}", dst="10.0.0.2")
    return bytes(Ether(**MACS) / ip / TCP(sport=client, dport=80, flags="S") / Raw(text))


def blacklist(hosts: range) -> dict[str, Any]:
    return {"blacklist": [{"host": f"host{i}.example", "path": "/"} for i in hosts]}


FRAMES = [frame(i) for i in range(BATCH)]
LABELLED = [bytes(Ether(**MACS) / MPLS(label=i, s=1) / IP()) for i in range(BATCH)]
REQUESTS = [bytes(Ether(**MACS) / ARP(pdst="10.0.0.9", psrc=f"10.0.0.{i}")) for i in range(BATCH)]
SOLICITATIONS = [
    bytes(Ether(**MACS) / IPv6(src=f"2001:db8::a{i:x}", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::9"))
    for i in range(BATCH)
]
TUNNELLED = [tunnelled(i) for i in range(BATCH)]
HTTP = [request(i) for i in range(BATCH)]
# Connections that the module hasn't seen: it remembers which ones it blocked.
NEW_CLIENTS = {
    "fields": [
        {"offset": 26, "size": 4, "min": 0, "max": 0xFFFFFFFF},
        {"offset": 34, "size": 2, "min": 0, "max": 0xFFFF},
    ]
}

CASES = {
    "ExactMatch config": Case(
        "ExactMatch",
        EXACT,
        (("set_runtime_config", exact_config(0, 0)),),
        ("set_runtime_config", exact_config(4, 100)),
        ("set_runtime_config", exact_config(0, 0)),
    ),
    "ExactMatch rule": Case(
        "ExactMatch",
        EXACT,
        tuple(("add", exact(i % 4, 1001 + i)) for i in range(16)),
        ("add", exact(7, 1000)),  # with which the table is hashed
        ("delete", exact(7, 1000)),
    ),
    "ExactMatch gate": Case(
        "ExactMatch",
        EXACT,
        (("set_default_gate", {"gate": 1}), ("add", exact(2, 1000))),
        ("add", exact(3, 1000)),
        ("add", exact(2, 1000)),
    ),
    "WildcardMatch config": Case(
        "WildcardMatch",
        EXACT,
        (("set_runtime_config", wildcard_config(0, 40)),),
        ("set_runtime_config", wildcard_config(4, 0)),
        ("set_runtime_config", wildcard_config(0, 40)),
    ),
    "WildcardMatch rule": Case(
        "WildcardMatch",
        EXACT,
        tuple(("add", wildcard(i % 4, 1000 + i, priority=i)) for i in range(16)),
        ("add", wildcard(5, 1000, 0xFFFC, 100)),
        ("delete", wildcard(5, 1000, 0xFFFC)),
    ),
    "WildcardMatch clear": Case(
        "WildcardMatch",
        EXACT,
        (("set_default_gate", {"gate": 1}),),
        ("add", wildcard(2, 1000)),
        ("clear", {}),
    ),
    "MetadataMatch": Case(
        "MetadataMatch", {"default_gate": 0}, (), ("add", named_rules(1)), ("clear", {})
    ),
    "MetadataMatch config": Case(  # other words in the key, and tables instead of a scan
        "MetadataMatch",
        {"default_gate": 0},
        (("set_runtime_config", named_config(0, "udp.dport", 2)),),
        ("set_runtime_config", named_config(4, "raw.36.2", 100)),
        ("set_runtime_config", named_config(0, "udp.dport", 2)),
    ),
    "MetadataMatch rule": Case(
        "MetadataMatch",
        named_config(0, "l4.dport", 100),
        (),
        ("add", {"rules": [named(6, "ip.proto", 17, priority=9)]}),
        ("delete", {"rules": [named(0, "ip.proto", 17)]}),
    ),
    "Qos rule": Case(
        "Qos",
        EXACT,
        (("set_default_gate", {"gate": 4}),),
        ("add", {**exact(0, 1000), **dict.fromkeys(("cir", "pir", "cbs", "pbs"), 1 << 40)}),
        ("delete", {"fields": exact(0, 1000)["fields"]}),
    ),
    "IPLookup long": Case(
        "IPLookup",
        {},
        ROUTES,
        ("add", route(5, "10.0.3.0", 30)),
        ("delete", route(5, "10.0.3.0", 30)),
    ),
    "IPLookup short": Case(
        "IPLookup",
        {},
        ROUTES,
        ("add", route(6, "10.0.0.0", 19)),
        ("delete", route(6, "10.0.0.0", 19)),
    ),
    "HashLB gates": Case(
        "HashLB",
        {"gates": [0, 1, 2], "mode": "l4"},
        (),
        ("set_gates", {"gates": [4, 5]}),
        ("set_gates", {"gates": [0, 1, 2]}),
    ),
    "HashLB mode": Case(
        "HashLB",
        {"gates": [0, 1, 2, 3], "mode": "l4"},
        (),
        ("set_mode", {"fields": [DPORT]}),
        ("set_mode", {"mode": "l4"}),
    ),
    "RoundRobin": Case(
        "RoundRobin",
        {"gates": [0, 1, 2, 3], "mode": "packet"},
        (),
        ("set_gates", {"gates": [4, 5]}),
        ("set_gates", {"gates": [0, 1, 2, 3]}),
    ),
    "RandomSplit": Case(
        "RandomSplit",
        {"gates": [0], "drop_rate": 0.0},
        (),
        ("set_gates", {"gates": [1]}),
        ("set_gates", {"gates": [0]}),
    ),
    "RandomSplit rate": Case(
        "RandomSplit",
        {"gates": [0], "drop_rate": 0.0},
        (),
        ("set_droprate", {"drop_rate": 1.0}),
        ("set_droprate", {"drop_rate": 0.0}),
    ),
    "Replicate": Case(
        "Replicate",
        {"gates": [0, 1, 2]},
        (),
        ("set_gates", {"gates": [3, 4]}),
        ("set_gates", {"gates": [0, 1, 2]}),
    ),
    "BPF": Case("BPF", {}, (), ("add", FILTERS), ("delete", FILTERS)),
    "Update": Case("Update", {}, (), ("add", UPDATE), ("clear", {}), 36),
    "RandomUpdate": Case("RandomUpdate", {}, (), ("add", RANDOM_UPDATE), ("clear", {}), 36),
    "Rewrite": Case("Rewrite", {}, (), ("add", SHORT), ("clear", {}), 36),
    "VLANPush": Case(
        "VLANPush",
        {"tci": 1000},
        (),
        ("set_tci", {"tci": 1001}),
        ("set_tci", {"tci": 1000}),
        14,
    ),
    "ACL": Case("ACL", acl(10, True), (), ("clear", {}), ("add", acl(10, True))),
    "ACL first": Case("ACL", {}, (), ("add", acl(20, False)), ("clear", {})),
    "L2Forward": Case(
        "L2Forward",
        {},
        (("set_default_gate", {"gate": 4}),),
        ("add", entries(0, 19, 1)),
        ("delete", addresses(0, 19)),
        packets=FRAMES,
    ),
    "L2Forward populate": Case(
        "L2Forward",
        {},
        (("add", entries(0, 3, 5)),),
        ("populate", {"base": mac(3), "count": 23, "gate_count": 3}),
        ("delete", addresses(3, 23)),
        packets=FRAMES,
    ),
    "ArpResponder": Case(
        "ArpResponder",
        {"ip": "10.0.0.9", "mac_addr": mac(1000)},
        (),
        ("add", {"ip": "10.0.0.9", "mac_addr": mac(1001)}),
        ("add", {"ip": "10.0.0.9", "mac_addr": mac(1000)}),
        26,
        packets=REQUESTS,
    ),
    "NeighborResponder": Case(
        "NeighborResponder",
        {"ip": "2001:db8::/64", "mac_addr": mac(1000)},
        (),
        ("add", {"ip": "2001:db8::9", "mac_addr": mac(1001)}),
        ("delete", {"ip": "2001:db8::9"}),
        10,
        packets=SOLICITATIONS,
    ),
    "MPLSPop": Case(
        "MPLSPop",
        {},
        (("set", {"next_eth_type": 1000}),),
        ("set", {"next_eth_type": 1001}),
        ("set", {"next_eth_type": 1000}),
        12,
        packets=LABELLED,
    ),
    "TunnelDecap": Case(
        "TunnelDecap",
        {"default_gate": 7},
        (("set_edges", edges(0, 0)),),
        ("set_edges", edges(3, 50)),
        ("set_edges", edges(0, 0)),
        packets=TUNNELLED,
    ),
    "TunnelDecap edges": Case(
        "TunnelDecap",
        {"default_gate": 7},
        (),
        ("add_edges", edges(1, 0)),
        ("remove_edges", {"vnis": list(range(20))}),
        packets=TUNNELLED,
    ),
    "UrlFilter": Case(
        "UrlFilter",
        {},
        (("set_runtime_config", blacklist(range(3))),),
        ("set_runtime_config", blacklist(range(12, 32))),
        ("set_runtime_config", blacklist(range(3))),
        packets=HTTP,
        varied=NEW_CLIENTS,
    ),
    "UrlFilter entries": Case(
        "UrlFilter",
        {},
        (),
        ("add", blacklist(range(19))),
        ("clear", {}),
        packets=HTTP,
        varied=NEW_CLIENTS,
    ),
    "gate 8192": Case(
        "ExactMatch",
        EXACT,
        (("set_default_gate", {"gate": 1}),),
        ("set_default_gate", {"gate": DROP}),
        ("set_default_gate", {"gate": 1}),
    ),
}


def marks(offset: int) -> dict[str, Any]:
    """Arguments of an ExactMatch that looks at the 2 bytes where the mark is."""
    return {"fields": [{"offset": offset, "num_bytes": 2}]}


MARKS = tuple(("add", exact(gate, 1000 + gate)) for gate in range(4))


def leaving(case: Case, *changes: Command) -> Counter[str]:
    """Where the packets of one batch leave, without any worker."""
    result = run(case.mclass, case.args, case.packets, (*case.start, *changes))
    if case.seen_at is not None:
        result = run("ExactMatch", marks(case.seen_at), result.out[0], MARKS)
    counts = Counter({str(gate): len(packets) for gate, packets in result.out.items()})
    return +(counts + Counter(result.drops))


def whole_batches(
    seen: Mapping[str, int], one: Mapping[str, int], other: Mapping[str, int], batches: int
) -> tuple[int, int]:
    """How many batches left as `one` and how many as `other`; fails if that doesn't add up."""
    places = sorted({*seen, *one, *other})
    place = next(place for place in places if one.get(place, 0) != other.get(place, 0))
    difference = one.get(place, 0) - other.get(place, 0)
    first, rest = divmod(seen.get(place, 0) - batches * other.get(place, 0), difference)
    assert rest == 0
    for place in places:
        expected = first * one.get(place, 0) + (batches - first) * other.get(place, 0)
        assert seen.get(place, 0) == expected, place
    return first, batches - first


def build(engine: Engine, case: Case) -> str:
    """The graph with the case's module `m`; returns the module that packets leave by."""
    engine.create_module("source", "Source", {})
    engine.create_module("templates", "Rewrite", {"templates": case.packets})
    engine.create_module("m", case.mclass, case.args)
    engine.connect("source", 0, "templates", 0)
    if case.varied is None:
        engine.connect("templates", 0, "m", 0)
    else:
        engine.create_module("varied", "RandomUpdate", case.varied)
        engine.connect("templates", 0, "varied", 0)
        engine.connect("varied", 0, "m", 0)
    for command, args in case.start:
        engine.module_command("m", command, args)
    last = "m"
    if case.seen_at is not None:
        last = "marks"
        engine.create_module(last, "ExactMatch", marks(case.seen_at))
        engine.connect("m", 0, last, 0)
        for command, args in MARKS:
            engine.module_command(last, command, args)
    last_class = case.mclass if last == "m" else "ExactMatch"
    for gate in range(min(GATES, engine.module_classes()[last_class]["ogates"])):
        engine.create_module(f"sink{gate}", "Sink", {})
        engine.connect(last, gate, f"sink{gate}", 0)
    return last


@pytest.mark.parametrize("name", CASES)
def test_batches_meet_whole_states(name: str) -> None:
    case = CASES[name]
    one, other = leaving(case), leaving(case, case.change)
    assert one != other
    engine = new_engine()
    last = build(engine, case)

    def sent() -> dict[str, int]:
        gate: dict[str, int] = engine.module_info("templates")["ogates"][0]
        return gate

    engine.add_worker(0, -1)
    engine.resume_all()
    for change in range(CHANGES):
        command, args = case.back if change % 2 else case.change
        engine.module_command("m", command, args)
        if change % 41 < 2:  # both states get their share however threads are scheduled
            enough = sent()["cnt"] + 2
            wait_until(lambda enough=enough: sent()["cnt"] >= enough)  # type: ignore[misc]
    engine.pause_all()

    info = engine.module_info(last)
    seen = Counter({str(gate["ogate"]): gate["pkts"] for gate in info["ogates"]})
    seen.update(info["drops"])
    batches = sent()["cnt"]
    assert sent()["pkts"] == batches * BATCH
    first, second = whole_batches(+seen, one, other, batches)
    assert first > 0
    assert second > 0


def test_which_commands_pause_workers() -> None:
    """Those listed here, and no others; a module's page says which."""
    pausing = {
        (name, command["name"])
        for name, described in new_engine().module_classes().items()
        for command in described["commands"]
        if not command["thread_safe"]
    }
    assert pausing == {
        ("DRR", "set_max_flow_queue_size"),
        ("DRR", "set_quantum_size"),
        ("Delay", "get_status"),
        ("Delay", "set_delay"),
        ("FlowGen", "update"),
        ("FlowSteer", "get_flows"),
        ("FlowSteer", "split"),
        ("FlowSteer", "update"),
        ("L4LB", "get_status"),
        ("L4LB", "set_draining"),
        ("L4LB", "set_health"),
        ("L4LB", "update"),
        ("NAT", "get_mappings"),
        ("NAT", "replace_mappings"),
        ("NAT", "set_mappings"),
        ("Queue", "set_runtime_config"),
        ("Queue", "set_size"),
        ("WorkerSplit", "reset"),
    }
