# SPDX-License-Identifier: BSD-3-Clause
"""Modules in a row, and the metadata that goes into and comes out of them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from scapy.all import RawPcapReader

from bess_plugins.bessd.trial import BessdEngine
from harness import new_engine

__all__ = ["Chain", "constants", "prefixes", "reveal", "run_chain", "run_counted"]

Chain = list[tuple[str, dict[str, Any]]]


def prefixes(packet: bytes) -> list[bytes]:
    return [packet[:n] for n in range(len(packet) + 1)]


def run_chain(tmp_path: Path, chain: Chain, packets: list[bytes]) -> list[bytes]:
    """What comes out of gate 0 of the last module of a chain."""
    return run_counted(tmp_path, chain, packets)[0]


def run_counted(
    tmp_path: Path, chain: Chain, packets: list[bytes]
) -> tuple[list[bytes], dict[str, int]]:
    """The same, and what the chain dropped by reason."""
    engine = new_engine()
    if isinstance(engine, BessdEngine):  # which has no port that writes captures
        names = [f"m{n}" for n in range(len(chain))]
        for name, (mclass, args) in zip(names, chain, strict=True):
            engine.create_module(name, mclass, args)
        for name, after in pairwise(names):
            engine.connect(name, 0, after, 0)
        found = engine.run_chain(names[0], packets, names[-1])
        reasons: Counter[str] = Counter()
        for name in names:
            reasons.update(engine.module_info(name).get("drops", {}))
        return found, dict(+reasons)
    path = tmp_path / "out.pcap"
    engine.create_port("out", "PCAPPort", 0, 1, 0, 1024, {"write_path": str(path)})
    names = []
    for mclass, args in [*chain, ("PortOut", {"port": "out"})]:
        names.append(f"m{len(names)}")
        engine.create_module(names[-1], mclass, args)
    for name, after in pairwise(names):
        engine.connect(name, 0, after, 0)
    engine.run_packets(names[0], packets)
    drops: Counter[str] = Counter()
    for name in names:
        drops.update(engine.module_info(name)["drops"])
    engine.reset_modules()
    engine.destroy_port("out")
    # Not as packets, which scapy would put together anew.
    with RawPcapReader(str(path)) as reader:
        return [data for data, _ in reader], dict(+drops)


def constants(**values: bytes) -> tuple[str, dict[str, Any]]:
    attrs = [{"name": k, "size": len(v), "value_bin": v} for k, v in values.items()]
    return ("SetMetadata", {"attrs": attrs})


def reveal(**sizes: int) -> tuple[str, dict[str, Any]]:
    """Puts attributes in front of the packet."""
    fields = [{"size": size, "attribute": name} for name, size in sizes.items()]
    return ("GenericEncap", {"fields": fields})
