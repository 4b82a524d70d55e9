# SPDX-License-Identifier: BSD-3-Clause
"""Flows of IPv4 packets that are given as their fields."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from e2ctl.affinity import FLOW_IDS, Affinity
from e2ctl.igraph import Steering


def key_of(affinity: Affinity, packet: Mapping[str, int]) -> tuple[object, ...]:
    """What is left of a packet under an affinity."""
    masks = dict(affinity.masks)
    src = packet["ip.src"] & masks.get("ip.src", 0), packet.get("l4.sport", 0)
    dst = packet["ip.dst"] & masks.get("ip.dst", 0), packet.get("l4.dport", 0)
    src = src[0], src[1] & masks.get("l4.sport", 0)
    dst = dst[0], dst[1] & masks.get("l4.dport", 0)
    ends = tuple(sorted((src, dst))) if affinity.symmetric else (src, dst)
    return (*ends, packet["ip.proto"] & masks.get("ip.proto", 0))


def flow_id(steering: Steering, packet: Mapping[str, int]) -> int:
    """Any function of the key will do; a switch's is another than the dataplane's."""
    key = (steering.switch_hash, key_of(steering.affinity, packet))
    return zlib.crc32(repr(key).encode()) % FLOW_IDS
