# SPDX-License-Identifier: BSD-3-Clause
"""Commands change modules that are no classifiers while a worker runs packets through them."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from harness import new_engine
from live_change_support import BATCH, DPORT, Case, check_whole_states
from match_support import MACS, udp

UPDATE = {"fields": [{"offset": 36, "size": 2, "value": 1003}]}
RANDOM_UPDATE = {"fields": [{"offset": 36, "size": 2, "min": 1001, "max": 1001}]}
SHORT = {"templates": [udp(dport=1002), udp(dport=1003)]}


def frame(dst: int) -> bytes:
    return bytes(Ether(src=MACS["src"], dst=mac(dst)) / Raw(bytes(46)))


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


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


FRAMES = [frame(i) for i in range(BATCH)]
LABELLED = [bytes(Ether(**MACS) / MPLS(label=i, s=1) / IP()) for i in range(BATCH)]
REQUESTS = [bytes(Ether(**MACS) / ARP(pdst="10.0.0.9", psrc=f"10.0.0.{i}")) for i in range(BATCH)]
SOLICITATIONS = [
    bytes(Ether(**MACS) / IPv6(src=f"2001:db8::a{i:x}", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::9"))
    for i in range(BATCH)
]
TUNNELLED = [tunnelled(i) for i in range(BATCH)]


CASES = {
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
}


@pytest.mark.parametrize("name", CASES)
def test_batches_meet_whole_states(name: str) -> None:
    check_whole_states(CASES[name])


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
        ("L4LB", "get_connections"),
        ("L4LB", "get_status"),
        ("L4LB", "replace_connections"),
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
