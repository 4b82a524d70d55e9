# SPDX-License-Identifier: BSD-3-Clause
"""NF descriptions and their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2ctl.nfs import NfError, load, loads

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_examples() -> None:
    catalog = load(EXAMPLES / "nfs.yaml")
    assert catalog["IDS"].attributes["safe"].gates == {"true": 0, "false": 1}
    assert list(catalog["IDS"].gates) == [0, 1]
    assert list(catalog["WebCache"].gates) == [0]
    assert list(catalog["NAT"].gates) == [1]
    assert list(catalog["GatewayNAT"].gates) == [0, 1]
    assert list(catalog["TaggingIDS"].gates) == [0, 1]
    assert catalog.mclass("TaggingIDS") == "IDS"
    assert catalog["IDS"].capacity == 1.2e9
    assert catalog["VPN"].args_of(1) == {"sa_file": "/etc/bess-e2/vpn-1.sas"}
    assert catalog["NAT"].args == {"ext_addrs": [{"ext_addr": "203.0.113.1"}]}


def test_encoding() -> None:
    text = 'D: {attributes: {app: {method: metadata, size: 2, values: {"video": 7}}}}'
    app = loads(text)["D"].attributes["app"]
    assert app.encode("video") == 7
    assert app.encode(500) == 500
    assert app.encode("mail") is None
    assert app.encode(1 << 16) is None
    assert app.encode(True) is None


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("A: {modul: X}", "1:5", "'modul' is not known here; expected module, args, "),
        ("A:\n  outputs: many\n", "2:3", "outputs: "),
        ("A:\n  outputs: -1\n", "2:3", "outputs: -1 is neither"),
        ("A:\n  outputs: 8193\n", "2:3", "outputs: 8193 is neither"),
        ("A:\n  outputs: [8192]\n", "2:3", "outputs: [8192] is neither"),
        (
            "A: {outputs: [1], attributes: {s: {method: port, gates: {x: 0}}}}",
            "1:1",
            "attributes name gate 0",
        ),
        ("A:\n  mangles: [ip.src, ip.ttl]\n", "2:21", "'ip.ttl' is not a header field"),
        ("A:\n  capacity: fast\n", "2:3", "'fast' is not a rate"),
        ("A:\n  attributes:\n    s: {method: port}\n", "3:5", "needs 'gates'"),
        ("A:\n  attributes:\n    s: {method: radio}\n", "3:9", "method: "),
        ("A:\n  attributes:\n    s: {method: metadata, size: 3}\n", "3:5", "1, 2, 4 or 8"),
        ("A: {attributes: {s: {method: port, gates: {x: 0, y: 0}}}}", "1:18", "share a gate"),
        ("A:\n  kind: legacy\n  attributes: {s: {method: metadata}}\n", "1:1", "legacy"),
        ("A:\n  kind: legacy\n", "1:1", "a legacy NF needs 'program'"),
        (
            "A:\n  kind: legacy\n  program:\n    devices: [a]\n    files: {../b: x}",
            "5:13",
            "'../b' is no name of a file",
        ),
        ("A: {kind: legacy, program: {devices: [a], files: {b: [1]}}}", "1:51", "string"),
        (
            "A:\n  kind: legacy\n  program: {devices: [left], runs: [squid]}",
            "3:30",
            "'runs' is not known here; expected devices, setup, run",
        ),
        (
            "A:\n  kind: legacy\n  outputs: [1]\n  program: {devices: [left]}",
            "1:1",
            "gate 1 has no device",
        ),
        ("A: {program: {devices: [a]}}", "1:1", "'program' belongs to the kind 'legacy'"),
        ("A: {affinity: [vlan.id]}", "1:5", "'vlan.id' is not a part of the 5-tuple"),
        ("A: {affinity: [ip.src/33]}", "1:5", "'ip.src/33' has a prefix length beyond 1 to 32"),
        ("A: {affinity: [{l4.dport: 0x1ffff}]}", "1:5", "is not a mask"),
        ("A: {affinity: [ip.src], symmetric: true}", "1:1", "ip.src and ip.dst count alike"),
        (
            "A: {affinity: [ip.src, ip.dst], symmetric: true, mangles: [ip.dst], scaling: servers}",
            "1:1",
            "answers carry the ip.dst that one of them wrote",
        ),
        ("A: {symmetric: true}", "1:1", "'affinity' is meant, which is missing"),
        ("A: {cores: 0}", "1:5", "cores: "),
        ("A: {ports: {a: 0, b: 0}}", "1:1", "two of 'ports' share a gate"),
        ("A: {ports: {a: -1}}", "1:13", "greater than or equal to 0"),
        ("A: {ports: {a-b: 0}}", "1:13", "a-b"),
        ("A: {ports: {a: 0}, scaling: cores}", "1:1", "expected 'scaling: none'"),
        (
            "A: {ports: {s: 0}, attributes: {s: {method: metadata}}}",
            "1:1",
            "a port and an attribute",
        ),
        (
            "A: {ports: {a: 1}, outputs: 1, attributes: {}}",
            "1:1",
            "ports name gate 1, which is not",
        ),
        (
            "A: {kind: legacy, ports: {a: 1}, program: {devices: [x]}}",
            "1:1",
            "gate 1 has no device",
        ),
        ("A: {switch: acl}", "1:1", "needs args with 'rules'"),
        ("A: [", "1:5", ""),
        ("", "1:1", "expected a mapping"),
        ("A: 5", "1:1", ""),
    ],
)
def test_errors_say_where(text: str, place: str, message: str) -> None:
    with pytest.raises(NfError) as caught:
        loads(text, "n.yaml")
    assert str(caught.value).startswith(f"n.yaml:{place}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(NfError, match="No such file"):
        load(tmp_path / "none.yaml")
