# SPDX-License-Identifier: BSD-3-Clause
"""A capture through a middlebox, in clear and between a site's two gateways."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from embark_support import MAC_ARGS, Site, restored
from scapy.all import RawPcapReader

from harness import Engine, new_engine
from twins.embark_parts_twin import Parts, RefusedError, parse
from twins.nat_twin import Endpoint, ends

DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[2] / "shared" / "data"))
MOST_PACKETS = 1000
NAT4, NAT6 = "203.0.113.9", "2001:db8:5::9"
POOL = ((NAT4, True), (NAT6, True))
RETURNS = {"name": "site", "max_flows": 16384}


def captures() -> list[Any]:
    """Every capture, or a reason to skip."""
    found = sorted((DATA / "traces").glob("**/*.pcap*"))
    reason = f"no captures in {DATA / 'traces'}; set E2_DATA to the folder with the captures"
    if not found:
        return [pytest.param(Path(), marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.name) for path in found]


@dataclass(frozen=True)
class Seen:
    """A packet of a capture that gateways take: whole, IP, and not of the link."""

    frame: bytes
    parts: Parts
    ends: tuple[Endpoint, Endpoint] | None
    flow: tuple[object, ...]  # the same for both directions of a connection

    @property
    def ipv6(self) -> bool:
        return self.parts.ipv6


def packets_of(path: Path) -> Iterator[Seen]:
    with RawPcapReader(str(path)) as reader:
        frames = [data for data, _ in islice(reader, MOST_PACKETS) if len(data) <= 1750]
    for frame in frames:
        try:
            parts = parse(frame)
        except RefusedError:
            continue
        if parts.kind == "link":
            continue
        pair = ends(parts)
        flow = (parts.protocol, *sorted(pair)) if pair else (parts.protocol, *parts.addresses)
        yield Seen(frame, parts, pair, flow)


class Gateways:
    """Both gateways in one engine, beside which modules of a provider may be made."""

    def __init__(self, site: Site, returns: dict[str, Any] | None = None) -> None:
        self.site = site
        self.engine: Engine = new_engine()
        [(mclass, args)] = site.encrypts()
        self.engine.create_module(
            "encrypt", mclass, args | ({"returns": returns} if returns else {})
        )
        [(mclass, args)] = site.decrypts()
        named = {"return_table": returns["name"]} if returns else {}
        self.engine.create_module("decrypt", mclass, args | named)

    def pool(self) -> dict[str, str]:
        """Encryptions of the pool's addresses, as the provider is told."""
        answer = self.engine.module_command("encrypt", "get_pool", {})
        return {one["address"]: one["encrypted"] for one in answer["addresses"]}

    def encrypt(self, frame: bytes) -> bytes:
        (out,) = self.engine.run_packets("encrypt", [frame])[0]
        return out

    def decrypt(self, frame: bytes) -> bytes:
        (out,) = self.engine.run_packets("decrypt", [frame])[0]
        return out

    def drops(self, module: str) -> dict[str, int]:
        return {k: v for k, v in self.engine.module_info(module)["drops"].items() if v}


class Nats:
    """One NAT of both families in clear, and one for each family between gateways, as nobody but
    the gateway can tell them apart."""

    def __init__(self, site: Site) -> None:
        self.clear: Engine = new_engine()
        addresses = [{"ext_addr": NAT4}, {"ext_addr": NAT6}]
        self.clear.create_module("nat", "NAT", {"ext_addrs": addresses, "encrypted_ports": True})
        self.gateways = Gateways(site, RETURNS)
        pool = self.gateways.pool()
        for name, address in (("nat4", NAT4), ("nat6", NAT6)):
            args = {"ext_addrs": [{"ext_addr": pool[address]}], "encrypted_ports": True}
            self.gateways.engine.create_module(name, "NAT", args)

    def run(self, frame: bytes, ipv6: bool, reverse: bool) -> tuple[bytes | None, bytes | None]:
        """What comes out in clear, as gateways leave packets, and out of the second gateway."""
        return self.in_clear(frame, reverse), self.between(frame, ipv6, reverse)

    def in_clear(self, frame: bytes, reverse: bool) -> bytes | None:
        gate, out_gate = (1, 0) if reverse else (0, 1)
        clear = self.clear.run_packets("nat", [frame], gate).get(out_gate, [])
        return restored(clear[0]) if clear else None

    def between(self, frame: bytes, ipv6: bool, reverse: bool) -> bytes | None:
        through = self.translated(self.gateways.encrypt(frame), ipv6, reverse)
        return None if through is None else self.gateways.decrypt(through)

    def translated(self, encrypted: bytes, ipv6: bool, reverse: bool) -> bytes | None:
        """By the NAT that encrypted packets of the family meet."""
        gate, out_gate = (1, 0) if reverse else (0, 1)
        name = "nat6" if ipv6 else "nat4"
        through = self.gateways.engine.run_packets(name, [encrypted], gate).get(out_gate, [])
        return through[0] if through else None


def first_flows(packets: list[Seen]) -> list[Seen]:
    """Without flows whose internal endpoint has talked to another one before: a NAT that cannot
    see that they share an endpoint gives them ports of their own."""
    owner: dict[tuple[object, ...], tuple[object, ...]] = {}
    internal: dict[tuple[object, ...], Endpoint] = {}
    kept = []
    for seen in packets:
        if seen.ends is not None:
            end = internal.setdefault(seen.flow, seen.ends[0])
            if owner.setdefault((seen.parts.protocol, end), seen.flow) != seen.flow:
                continue
        kept.append(seen)
    return kept


__all__ = [
    "MAC_ARGS",
    "NAT4",
    "NAT6",
    "POOL",
    "Gateways",
    "Nats",
    "Seen",
    "captures",
    "first_flows",
    "packets_of",
]
