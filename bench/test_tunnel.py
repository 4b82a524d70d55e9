# SPDX-License-Identifier: BSD-3-Clause
"""How fast the tunnel between servers is, under the rules of test_dataplane.py."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from test_dataplane import Report, stack, test_line

from lines import Line, chain

__all__ = ["stack"]  # a fixture

measure_line = test_line
del test_line  # pytest would run its lines here too

ADDRESSES = {
    "IPv4": {"src_ip": "192.0.2.1", "dst_ip": "192.0.2.2"},
    "IPv6": {"src_ip": "2001:db8::1", "dst_ip": "2001:db8::2"},
}
MACS = {"src_mac": "02:00:00:00:00:01", "dst_mac": "02:00:00:00:00:02"}


def tunnel(family: str, attributes: int, checksum: bool = True, decap: bool = True) -> Line:
    """60-byte packets into a tunnel, with attributes of 4 bytes, and out again."""
    names = [f"a{n}" for n in range(attributes)]
    attrs = [{"name": name, "size": 4, "value_int": n} for n, name in enumerate(names)]
    options = [{"attr_name": name, "size": 4, "type": n} for n, name in enumerate(names)]
    common: dict[str, Any] = {"options": options, "zero_checksum": not checksum}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("SetMetadata", {"attrs": attrs}),
        ("TunnelEncap", {**ADDRESSES[family], **MACS, "vni": 77, **common}),
    ]
    if decap:
        steps.append(("TunnelDecap", {"edges": {77: 0}, **common}))
    what = "encap->decap" if decap else "encap"
    how = "" if checksum else ", no checksum"
    return Line(f"tunnel {what}, {family}, {attributes} attributes{how}", chain(1, *steps))


LINES = [
    *(
        tunnel(family, n, decap=decap)
        for decap in (False, True)
        for family in ADDRESSES
        for n in (1, 4)
    ),
    *(tunnel(family, 1, checksum=False) for family in ADDRESSES),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_tunnel(line: Line, stack: ExitStack, benchmark: BenchmarkFixture, report: Report) -> None:
    measure_line(line, None, stack, benchmark, report)
