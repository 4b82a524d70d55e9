# SPDX-License-Identifier: BSD-3-Clause
"""Commands change classifiers while a worker runs packets through them."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from live_change_support import BATCH, EXACT, Case, check_whole_states, exact
from match_support import DROP, MACS


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
FILTERS = {"filters": [{"filter": f"udp dst port {1000 + i}", "gate": 1 + i} for i in range(3)]}


def acl(lines: int, drop: bool) -> dict[str, Any]:
    """Rules for single packets, and one for all others."""
    rules = [{"dst_ip": f"10.0.{i}.1/32", "drop": drop} for i in range(lines)]
    return {"rules": [*rules, {"src_port": 5031, "drop": not drop}, {"drop": drop}]}


def request(client: int) -> bytes:
    """A SYN that brings the whole request along."""
    text = f"GET / HTTP/1.1\r\nHost: host{client}.example\r\n\r\n"
    ip = IP(src=f"10.0.1.{client}", dst="10.0.0.2")
    return bytes(Ether(**MACS) / ip / TCP(sport=client, dport=80, flags="S") / Raw(text))


def blacklist(hosts: range) -> dict[str, Any]:
    return {"blacklist": [{"host": f"host{i}.example", "path": "/"} for i in hosts]}


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
    "BPF": Case("BPF", {}, (), ("add", FILTERS), ("delete", FILTERS)),
    "ACL": Case("ACL", acl(10, True), (), ("clear", {}), ("add", acl(10, True))),
    "ACL first": Case("ACL", {}, (), ("add", acl(20, False)), ("clear", {})),
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


@pytest.mark.parametrize("name", CASES)
def test_batches_meet_whole_states(name: str) -> None:
    check_whole_states(CASES[name])
