# SPDX-License-Identifier: BSD-3-Clause
"""Affinity as a value."""

from __future__ import annotations

import pytest

from e2ctl.affinity import FIVE_TUPLE, WHOLE, parse


def test_text_and_arguments() -> None:
    found = parse(["ip.src/24", "ip6.src/48", {"l4.dport": 0xFF00}, "ip.proto"])
    assert str(found) == (
        "ip.src&0xffffff00, ip6.src&0xffffffffffff00000000000000000000, ip.proto, l4.dport&0xff00"
    )
    assert found.steer_args() == {
        "affinity": [
            {"name": "src", "ipv4_mask": "255.255.255.0", "ipv6_mask": "ffff:ffff:ffff::"},
            {"name": "proto", "mask": 0xFF},
            {"name": "dport", "mask": 0xFF00},
        ],
        "symmetric": False,
    }
    assert str(parse(["ip.src", "ip.dst"], symmetric=True)) == "ip.src, ip.dst (both directions)"
    assert str(WHOLE) == ", ".join(FIVE_TUPLE)


def test_an_entry_may_add_bits() -> None:
    assert parse(["ip.src/8", "ip.src"]) == parse(["ip.src"])


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ((["ip.src"], False), (FIVE_TUPLE, False), True),
        ((FIVE_TUPLE, False), (["ip.src"], False), False),
        ((["ip.src/24"], False), (["ip.src"], False), True),
        ((["ip.src"], False), (["ip.src/24"], False), False),
        ((["ip.src/24", "ip6.src"], False), (["ip.src/24"], False), False),
        ((["ip.proto"], False), (FIVE_TUPLE, True), True),
        ((["ip.src"], False), (FIVE_TUPLE, True), False),
        ((["ip.src/24"], False), (["ip.src", "ip.dst"], False), True),
        ((FIVE_TUPLE, False), (FIVE_TUPLE, True), False),
        ((FIVE_TUPLE, True), (FIVE_TUPLE, False), True),
        ((["ip.src", "ip.dst"], True), (FIVE_TUPLE, True), True),
    ],
)
def test_keeps_together(
    one: tuple[list[str], bool], other: tuple[list[str], bool], together: bool
) -> None:
    assert parse(*one).keeps_together(parse(*other)) is together
