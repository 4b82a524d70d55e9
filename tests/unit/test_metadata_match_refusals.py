# SPDX-License-Identifier: BSD-3-Clause
"""Rules and arguments that MetadataMatch refuses, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from harness import run
from match_support import device, raises


def test_many_fields_are_too_many() -> None:
    rules = [
        {"terms": [{"field": f"raw.{8 * n}.8", "value": n}], "priority": n} for n in range(16)
    ]  # and a word for the length
    engine = device(rules=rules[:15])
    with raises("17 words of 8 bytes"):
        engine.module_command("m", "add", {"rules": rules[15:]})
    engine.module_command("m", "delete", {"rules": rules[:1]})
    engine.module_command("m", "add", {"rules": rules[15:]})


@pytest.mark.parametrize(
    ("terms", "part"),
    [
        ([{"field": "tcp.window"}], "known are"),
        ([{"field": "vlan.id", "value": 4096}], "4095"),
        ([{"field": "vlan.id", "value_bin": b"\xff\xff"}], "12 bits"),
        ([{"field": "ip.proto", "value": 3, "mask": 1}], "outside mask"),
        ([{"field": "ip.src", "value": "10.0.0.1"}], "numbers"),
        ([{"field": "ip6.src", "value_bin": b"1234"}], "16 bytes"),
        ([{"field": "ip6.src", "value": 1}], "16 bytes"),
        ([{"field": "raw.1025.4"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.10.17"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.10"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.1.2.3"}], "raw.OFFSET.SIZE"),
        ([{"field": "raw.10.2", "value": 65536}], "65535"),
        ([{"field": "ip.ttl", "range": {"min": 1, "max": 2}}], "can't have a range"),
        ([{"field": "l4.dport", "range": {"min": 2, "max": 1}}], "min must not be above max"),
        ([{"field": "l4.dport", "range": {"min": 2}}], "min must not be above max"),
        ([{"field": "l4.dport", "range": {"max": 65536}}], "65535"),
        ([{"field": "l4.dport", "value": 1, "range": {"max": 2}}], "a range and a value"),
        ([{"field": "l4.dport", "range": {"max": n}} for n in (2, 3)], "overlaps"),
        (
            [{"field": "l4.dport", "value": 1}, {"field": "udp.dport", "range": {"max": 2}}],
            "overlaps",
        ),
        ([{"field": "ip.proto", "value": v} for v in (6, 17)], "contradicts"),
        ([{"field": "tcp.dport", "value": 1}, {"field": "udp.sport", "value": 1}], "contradicts"),
        ([{"field": "ip.src", "value": 1}, {"field": "ip6.tclass", "value": 1}], "contradicts"),
        (
            [{"field": "packet.len", "range": {"max": 9}}, {"field": "raw.8.4", "value": 1}],
            "contradicts",
        ),
    ],
)
def test_bad_terms(terms: list[dict[str, Any]], part: str) -> None:
    with raises(part):
        run("MetadataMatch", {"rules": [{"terms": terms}]}, [])


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ({"rules": [{"gate": 8193}]}, "gate"),
        ({"default_gate": 8193}, "default_gate"),
        ({"meta": {"x": 17}}, "1 to 16"),
        ({"meta": {"x": 0}}, "1 to 16"),
        ({"meta": {f"x{n}": 16 for n in range(7)}}, "no room"),
    ],
)
def test_bad_arguments(args: dict[str, Any], part: str) -> None:
    with raises(part):
        run("MetadataMatch", args, [])


def test_an_attribute_must_be_declared() -> None:
    engine = device(meta={"tag": 2})
    with raises("list it in `meta`"):
        engine.module_command("m", "add", {"rules": [{"terms": [{"field": "meta.other"}]}]})
    with raises("65535"):
        engine.module_command(
            "m", "add", {"rules": [{"terms": [{"field": "meta.tag", "value": 65536}]}]}
        )
    with raises("2 bytes"):
        engine.module_command(
            "m", "add", {"rules": [{"terms": [{"field": "meta.tag", "value_bin": b"123"}]}]}
        )
