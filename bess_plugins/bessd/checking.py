# SPDX-License-Identifier: BSD-3-Clause
"""Runs packets through each module of a loaded plugin, and through the same module of the embedded
engine, and compares what comes out."""

from __future__ import annotations

import secrets
import socket
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bess_plugins._crypto import PrefixMap, write_prefix_maps
from bess_plugins._engine import Engine, EngineError
from bess_plugins.bessd.loading import PROBE
from bess_plugins.bessd.trial import BessdEngine
from bess_plugins.client import BessError
from bess_plugins.private_files import create_private

__all__ = ["Outcome", "cases", "check_modules"]

_PACKETS = 200  # several batches of either size, and a rest


@dataclass(frozen=True)
class Outcome:
    module: str
    ok: bool
    detail: str


_Step = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class _Case:
    """A module's arguments, and what the embedded engine does before and after it; or, where no
    packets can be compared, a row of modules that gives back what it takes."""

    args: dict[str, Any] = field(default_factory=dict)
    before: _Step | None = None
    after: _Step | None = None
    there_and_back: tuple[_Step, ...] = ()


_MACS = {"src_mac": "02:00:00:00:00:01", "dst_mac": "02:00:00:00:00:02"}
_TUNNEL = {**_MACS, "src_ip": "192.0.2.1", "dst_ip": "192.0.2.2", "vni": 7}
_HALF, _END = 1 << 31, 1 << 32
_SERVICE = {
    "address": "10.1.0.1",
    "port": 53,
    "protocol": 17,
    "backends": [{"address": f"192.0.2.{number}"} for number in range(1, 6)],
}
_CASES = {
    # No task runs in a trial: what Delay has no room for is dropped, and the rest stays.
    "Delay": _Case({"delay_us": 1, "size": 64}),
    "FlowSteer": _Case(
        {
            "ranges": [
                {"start": 0, "end": _HALF, "gate": 0},
                {"start": _HALF, "end": _END, "gate": 3},
            ]
        }
    ),
    "IDS": _Case({"signatures": ["\0" * 50]}),
    "L4LB": _Case({"services": [_SERVICE]}),
    "LoadMonitor": _Case({"high_delay_ns": 1_000_000}),
    "MetadataMatch": _Case({"default_gate": 2}),
    "NeighborResponder": _Case({"ip": "2001:db8::/64", "mac_addr": _MACS["src_mac"]}),
    "NetworkMonitor": _Case(),
    "PathMtu": _Case({"mtu": 100, "mtu6": 1280}),
    "StatefulFirewall": _Case(),
    "TrafficNormalizer": _Case(),
    "TunnelDecap": _Case({"edges": {7: 2}}, before=("TunnelEncap", _TUNNEL)),
    "TunnelEncap": _Case(_TUNNEL),
    "WebCache": _Case(),
}


def cases(folder: Path) -> dict[str, _Case]:
    """By module, for all that no BESS has; keys and the like are written into the folder."""
    return _CASES | _esp_cases(folder) | _embark_cases(folder)


def _esp_cases(folder: Path) -> dict[str, _Case]:
    """As with Embark's modules: sealed here and opened there, and the other way round."""
    sas = folder / "sas"
    create_private(sas, f"0x1001 {secrets.token_hex(20)} 192.0.2.1 192.0.2.2\n")
    tunnel = {"sa_file": str(sas)}
    return {
        "EspDecrypt": _Case(tunnel, before=("EspEncrypt", tunnel)),
        "EspEncrypt": _Case(tunnel, after=("EspDecrypt", tunnel)),
    }


def _embark_cases(folder: Path) -> dict[str, _Case]:
    """No two encryptions are alike: one host opens what the other has sealed."""
    key, maps = folder / "site.key", folder / "maps"
    create_private(key, secrets.token_hex(32))
    address = PrefixMap([(0xFFFF0A000000, 0xFFFF0A00FFFF)], 128, bytes(16))
    port = PrefixMap([(0, 1023)], 16, bytes(16))
    write_prefix_maps(maps, address, address, port, port)
    site, ring = {"key": {"file": str(key)}}, {"keys": [{"file": str(key)}]}
    sealed = {"sealed_payload": True}
    encrypt, decrypt = {**site, **_MACS, "maps_file": str(maps)}, {**ring, **_MACS}
    row = (
        ("PayloadSeal", site),
        ("PrefixMatchEncrypt", {**encrypt, **sealed}),
        ("PrefixMatchDecrypt", {**decrypt, **sealed}),
        ("PayloadOpen", ring),
    )
    return {
        "PrefixMatchEncrypt": _Case(encrypt, after=("PrefixMatchDecrypt", decrypt)),
        "PrefixMatchDecrypt": _Case(decrypt, before=("PrefixMatchEncrypt", encrypt)),
        "PayloadSeal": _Case(there_and_back=row),
        "PayloadOpen": _Case(there_and_back=row),
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


def _embedded(step: _Step | None, packets: Sequence[bytes]) -> list[bytes]:
    """What leaves gate 0 of a module here."""
    if step is None:
        return list(packets)
    engine = Engine(pool_packets=1024)
    engine.create_module("step", step[0], dict(step[1]))
    return engine.run_packets("step", list(packets)).get(0, [])


def _run(engine: Engine | BessdEngine, mclass: str, case: _Case) -> dict[str, Any]:
    """What comes out by gate, and how many packets were dropped for each reason."""
    name = f"check_{mclass}"
    engine.create_module(name, mclass, dict(case.args))
    out = engine.run_packets(name, _embedded(case.before, _packets()))
    if case.after is not None:
        out = {gate: _embedded(case.after, packets) for gate, packets in out.items()}
    drops = engine.module_info(name)["drops"]
    return {"out": out, "drops": {reason: count for reason, count in drops.items() if count}}


def _run_row(daemon: BessdEngine, row: Sequence[_Step]) -> dict[str, Any]:
    names = [f"check_{mclass}" for mclass, _ in row]
    for name, (mclass, args) in zip(names, row, strict=True):
        daemon.create_module(name, mclass, args)
    for first, second in pairwise(names):
        daemon.connect(first, 0, second, 0)
    return {"out": {0: daemon.run_chain(names[0], _packets(), names[-1])}, "drops": {}}


def _compare(mclass: str, case: _Case, daemon: BessdEngine) -> Outcome:
    try:
        if case.there_and_back:
            expected = {"out": {0: [p for p in _packets() if p[12:14] == b"\x08\x00"]}, "drops": {}}
            found = _run_row(daemon, case.there_and_back)
        else:
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
        with tempfile.TemporaryDirectory() as folder:
            known_cases = cases(Path(folder))
            for name in names:
                outcomes.append(_compare(name, known_cases.get(name, _Case()), daemon))
                daemon.reset_modules()
        return outcomes
    finally:
        daemon.close()
