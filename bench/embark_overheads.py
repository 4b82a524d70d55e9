# SPDX-License-Identifier: BSD-3-Clause
"""What encryption adds to packets and to rules: bytes by what they are for, and rules by set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bess_plugins._crypto import SiteKeys
from embark_gateway import MODES, Site, graph_of, steps_of
from embark_gw.rules.encrypt import encrypt
from embark_gw.rules.formats import Format, read_rules
from embark_memory import Traffic, through

__all__ = ["bandwidth", "rule_files", "rules_of"]

# Of docs/embark.md: what an option has but for its text, and what IPv4 and IPv6 have there.
OPTION_HEAD_BYTES, TEXT4_BYTES, TEXT6_BYTES = 26, 22, 46
HEADER_BYTES = 20  # by which IPv6's is longer than IPv4's
NETS = {"HOME_NET": "10.0.0.0/8", "EXTERNAL_NET": "any"}


def bandwidth(site: Site, maps: Path, traffic: Traffic) -> dict[str, Any]:
    """Mean bytes that a frame of the trace grows by, and what they are."""
    graph = graph_of(site, maps, MODES[-1])
    plain = steps_of(graph_of(site, maps, MODES[1]), "encrypt")
    kinds = (
        ("headers", plain),
        ("headers and payload", steps_of(graph, "seal", "encrypt")),
        ("with tunnel", steps_of(graph, "seal", "encrypt", "tunnel_out")),
    )
    count = len(traffic.frames)
    before = sum(map(len, traffic.frames))
    grown = {
        name: (sum(map(len, through(traffic.frames, steps))) - before) / count
        for name, steps in kinds
    }
    ipv4 = sum(_is_ipv4(frame) for frame in traffic.frames) / count
    parts = {
        "IPv6 header instead of IPv4's": HEADER_BYTES * ipv4,
        "option: version, epoch, nonce, tag": float(OPTION_HEAD_BYTES),
        "option: the original fields": TEXT4_BYTES * ipv4 + TEXT6_BYTES * (1 - ipv4),
    }
    # Tags, options and extension headers move into the option; padding of short frames goes.
    parts["uncommon headers, padding"] = grown["headers"] - sum(parts.values())
    parts["seal of the payload"] = grown["headers and payload"] - grown["headers"]
    parts["tunnel"] = grown["with tunnel"] - grown["headers and payload"]
    mean = traffic.mean_bytes
    return {
        "packets": count,
        "mean_bytes": mean,
        "ipv4_share": ipv4,
        "parts_bytes": parts,
        "headers_percent": 100 * grown["headers"] / mean,
        "payload_percent": 100 * grown["headers and payload"] / mean,
        "tunnel_percent": 100 * grown["with tunnel"] / mean,
        "address_percent": 100 * parts["IPv6 header instead of IPv4's"] / mean,
    }


def _is_ipv4(frame: bytes) -> bool:
    while frame[12:14] in (b"\x81\x00", b"\x88\xa8"):
        frame = frame[:12] + frame[16:]
    return frame[12:14] == b"\x08\x00"


def rule_files(data: Path) -> Iterator[tuple[Path, Format]]:
    """All rule sets that there are, with what they are written in."""
    for path in sorted((data / "rules").iterdir()):
        if path.name.startswith("classbench") and path.suffix != ".trace":
            yield path, Format.CLASSBENCH_5TUPLE
        elif path.suffix == ".rules":
            yield path, Format.SNORT
        elif path.suffix == ".txt":
            yield path, Format.LIST


def rules_of(path: Path, kind: Format, keys: SiteKeys) -> dict[str, Any]:
    """How a rule set grows, for a firewall that has sets and for one of a prefix per field."""
    started = time.thread_time()
    rule_set = read_rules([path], kind, "", NETS if kind is Format.SNORT else None)
    made = encrypt(rule_set, keys)
    report = made.report
    return {
        "rules": report.rules,
        "refused": len(rule_set.refused),
        "encrypted": report.encrypted,
        "plain": report.expanded,
        "map_bytes": sum(field.nbytes for field in report.fields.values()),
        "cpu_s": time.thread_time() - started,
    }
