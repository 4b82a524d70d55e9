# SPDX-License-Identifier: BSD-3-Clause
"""Runs packets through each module of a loaded plugin, and through the same module of the embedded
engine, and compares what comes out."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from bess_plugins._engine import Engine, EngineError
from bess_plugins.bessd.loading import PROBE
from bess_plugins.bessd.trial import BessdEngine
from bess_plugins.client import BessError

__all__ = ["Outcome", "check_modules"]

_PACKETS = 200  # several batches of either size, and a rest


@dataclass(frozen=True)
class Outcome:
    module: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class _Case:
    """Arguments of a module; `tunnel` where it wants Geneve packets."""

    args: dict[str, Any] = field(default_factory=dict)
    tunnel: bool = False


_SERVERS = {
    "src_mac": "02:00:00:00:00:01", "dst_mac": "02:00:00:00:00:02",
    "src_ip": "192.0.2.1", "dst_ip": "192.0.2.2",
}  # fmt: skip
_HALF, _END = 1 << 31, 1 << 32
_CASES = {
    "FlowSteer": _Case(
        {
            "ranges": [
                {"start": 0, "end": _HALF, "gate": 0},
                {"start": _HALF, "end": _END, "gate": 3},
            ]
        }
    ),
    "LoadMonitor": _Case({"high_delay_ns": 1_000_000}),
    "TunnelEncap": _Case({**_SERVERS, "vni": 7}),
    "TunnelDecap": _Case({"edges": {7: 2}}, tunnel=True),
}


def _checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packets() -> list[bytes]:
    """UDP over IPv4 of many flows and lengths; every eighth frame is no IP."""
    made = []
    for number in range(_PACKETS):
        payload = bytes(number % 100)
        udp = struct.pack(">HHHH", 1024 + number, 53, 8 + len(payload), 0)
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), number, 0, 64, 17, 0,
            socket.inet_aton(f"10.0.{number % 7}.1"), socket.inet_aton("10.1.0.1"),
        )  # fmt: skip
        head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
        kind = b"\x08\x06" if number % 8 == 7 else b"\x08\x00"
        made.append(bytes.fromhex("020000000002020000000001") + kind + head + udp + payload)
    return made


def _run(engine: Engine | BessdEngine, mclass: str, case: _Case) -> dict[str, Any]:
    """What comes out by gate, and how many packets were dropped for each reason."""
    packets = _packets()
    if case.tunnel:
        outer = Engine(pool_packets=1024)
        outer.create_module("outer", "TunnelEncap", dict(_CASES["TunnelEncap"].args))
        packets = outer.run_packets("outer", packets)[0]
    name = f"check_{mclass}"
    engine.create_module(name, mclass, dict(case.args))
    out = engine.run_packets(name, packets)
    drops = engine.module_info(name)["drops"]
    return {"out": out, "drops": {reason: count for reason, count in drops.items() if count}}


def _compare(mclass: str, daemon: BessdEngine) -> Outcome:
    case = _CASES.get(mclass, _Case())
    try:
        expected = _run(Engine(pool_packets=1024), mclass, case)
        found = _run(daemon, mclass, case)
    except (EngineError, BessError) as error:
        return Outcome(mclass, False, str(error))
    for what in ("drops", "out"):
        if found[what] != expected[what]:
            return Outcome(mclass, False, f"{what} differ from the embedded engine's")
    counts = {gate: len(packets) for gate, packets in found["out"].items()}
    text = ", ".join(f"{count} by gate {gate}" for gate, count in counts.items())
    dropped = ", ".join(f"{count} dropped ({why})" for why, count in found["drops"].items())
    return Outcome(mclass, True, ", ".join(filter(None, (text, dropped))))


def check_modules(address: str) -> list[Outcome]:
    """One outcome per module of the plugin that the embedded engine has, too."""
    daemon = BessdEngine(address)
    try:
        known = Engine(pool_packets=64).module_classes()
        names = [n for n in daemon.own_classes() if n != PROBE and n in known]
        outcomes = []
        for name in names:
            outcomes.append(_compare(name, daemon))
            daemon.reset_modules()
        return outcomes
    finally:
        daemon.close()
