# SPDX-License-Identifier: BSD-3-Clause
"""Addresses of the pool in a MetadataMatch's configuration, under another key."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from embark_gw.middleboxes import readdressed, without_addresses

OLD, NEW, OTHER = "2001:db8::1", "2001:db8:ffff::7", "2001:db8::2"


def digits(address: str) -> str:
    return ip_address(address).packed.hex()


def config(own: str) -> dict[str, Any]:
    """As a module tells it: terms and sets that have the pool's address, and others near it."""
    alone = {"min_bin": digits(own), "max_bin": digits(own)}
    around = {"min_bin": digits(OLD), "max_bin": digits(OTHER)}
    return {
        "default_gate": 3,
        "sets": [
            {"name": "src0", "field": "ip6.src", "ranges": [alone, around]},
            {"name": "dport0", "field": "l4.dport", "ranges": [{"min": 80, "max": 90}]},
        ],
        "rules": [
            {
                "gate": 1,
                "priority": 2,
                "terms": [
                    {"field": "ip6.dst", "value_bin": digits(own), "mask_bin": "ff" * 16},
                    {"field": "ip6.src", "value_bin": digits(OTHER)},
                    {"field": "ip.version", "value": 6},
                    {"field": "ip6.src", "set": "src0"},
                ],
            }
        ],
    }


def test_addresses_that_stand_alone_are_the_new_ones() -> None:
    assert readdressed(config(OLD), {OLD: NEW}) == config(NEW)


def test_what_has_none_of_them_stays() -> None:
    assert readdressed(config(OLD), {NEW: OLD}) == config(OLD)
    without_sets = {"default_gate": 0, "rules": []}
    assert readdressed(without_sets, {OLD: NEW}) == without_sets


def test_old_addresses_are_kept_beside_the_new_ones_and_forgotten() -> None:
    both = readdressed(config(OLD), {OLD: NEW}, keep_old=True)
    old, new = config(OLD), config(NEW)
    assert both["rules"] == old["rules"] + new["rules"]
    alone, around = old["sets"][0]["ranges"]
    assert both["sets"][0]["ranges"] == [alone, new["sets"][0]["ranges"][0], around]
    assert both["sets"][1] == old["sets"][1]
    assert without_addresses(both, {OLD: NEW}) == new
    assert without_addresses(new, {OLD: NEW}) == new
    assert readdressed(config(OLD), {NEW: OLD}, keep_old=True) == config(OLD)
    without_sets = {"default_gate": 0, "rules": []}
    assert without_addresses(without_sets, {OLD: NEW}) == without_sets
