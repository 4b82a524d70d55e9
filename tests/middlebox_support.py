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
from embark_support import MAC_ARGS, Site
from scapy.all import RawPcapReader

from harness import Engine, new_engine
from twins.embark_parts_twin import Parts, RefusedError, parse
from twins.nat_twin import Endpoint, ends

DATA = Path(os.environ.get("E2_DATA", Path(__file__).parents[2] / "shared" / "data"))
MOST_PACKETS = 1000


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


__all__ = ["MAC_ARGS", "Gateways", "Seen", "captures", "packets_of"]
