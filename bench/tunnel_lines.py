# SPDX-License-Identifier: BSD-3-Clause
"""Lines over the tunnel between servers, which bessd has not."""

from __future__ import annotations

from typing import Any

from lines import Line, chain

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
    name = f"tunnel {what}, {family}, {attributes} attributes{how}"
    return Line(name, chain(1, *steps), ours_only=True)


TUNNEL_LINES = [
    *(
        tunnel(family, n, decap=decap)
        for decap in (False, True)
        for family in ADDRESSES
        for n in (1, 4)
    ),
    *(tunnel(family, 1, checksum=False) for family in ADDRESSES),
]
