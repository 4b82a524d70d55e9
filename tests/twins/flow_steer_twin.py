# SPDX-License-Identifier: BSD-3-Clause
"""FlowSteer once more, as a dict of flows."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from twins import headers_twin

MS = 1_000_000
FIN, SYN, RST = 1, 2, 4
END = 1 << 32
TCP = 6
ALL = {"sport": 0xFFFF, "dport": 0xFFFF, "proto": 0xFF}


class Tuple5(NamedTuple):
    src: str
    dst: str
    sport: int
    dport: int
    proto: int

    def reverse(self) -> Tuple5:
        return Tuple5(self.dst, self.src, self.dport, self.sport, self.proto)


class Affinity(NamedTuple):
    """`fields` are FlowSteerField messages."""

    fields: tuple[Mapping[str, object], ...] = ()
    symmetric: bool = False

    def key(self, flow: Tuple5) -> tuple[Tuple5, bool]:
        """What is left of a flow, and whether its ends changed places."""
        wanted = {str(f["name"]): f for f in self.fields}
        if not self.fields:
            wanted = {name: {} for name in Tuple5._fields}
        kept: dict[str, str | int] = {}
        for end in ("src", "dst"):
            address = ipaddress.ip_address(getattr(flow, end))
            mask = 0
            if end in wanted:
                every = "255.255.255.255" if address.version == 4 else "ffff:" * 7 + "ffff"
                text = str(wanted[end].get(f"ipv{address.version}_mask") or every)
                mask = int(ipaddress.ip_address(text))
            kept[end] = str(type(address)(int(address) & mask))
        for name, every_bit in ALL.items():
            mask = int(str(wanted[name].get("mask") or every_bit)) if name in wanted else 0
            kept[name] = getattr(flow, name) & mask
        key = Tuple5(**kept)  # type: ignore[arg-type]
        if not self.symmetric:
            return key, False
        first = (ipaddress.ip_address(key.src), key.sport)
        swap = first > (ipaddress.ip_address(key.dst), key.dport)
        return (Tuple5(key.dst, key.src, key.dport, key.sport, key.proto), True) if swap else (
            key, False,
        )  # fmt: skip

    @property
    def one_connection(self) -> bool:
        names = {str(f["name"]) for f in self.fields}
        masked = any(len(f) > 1 for f in self.fields)
        return not self.fields or (names == set(Tuple5._fields) and not masked)


def flow_id(key: Tuple5) -> int:
    version = ipaddress.ip_address(key.src).version
    row = headers_twin.Row(
        ip_version=version,
        ip_proto=key.proto,
        src=ipaddress.ip_address(key.src).packed.ljust(16, b"\0"),
        dst=ipaddress.ip_address(key.dst).packed.ljust(16, b"\0"),
        sport=key.sport,
        dport=key.dport,
    )
    return headers_twin.flow_hash(row) >> 32


def vlan_id(tci: int) -> int:
    """The flow id that 16 bits of a VLAN tag stand for."""
    return tci % 4096 * (END // 4096)


class RefusedError(Exception):
    """The command has to fail, and to change nothing."""


@dataclass
class Flow:
    gate: int
    used: int
    id: int | None  # None: not known before the first packet
    exception: bool = False
    split: int = 0
    closing: bool = False
    ends: set[bool] = field(default_factory=set)


@dataclass
class Split:
    threshold: int
    told: bool = False


Range = tuple[int, int, int]


def merged(ranges: Sequence[Range]) -> list[Range]:
    result: list[Range] = []
    for start, end, gate in sorted(ranges):
        if result and result[-1][2] == gate:
            result[-1] = (result[-1][0], end, gate)
        else:
            result.append((start, end, gate))
    return result


def whole(ranges: Sequence[Range]) -> bool:
    """Whether each id is in one range; by their borders alone."""
    if not ranges or any(not 0 <= start < end <= END for start, end, _ in ranges):
        return False
    borders = {border for start, end, _ in ranges for border in (start, end)} | {0}
    return all(sum(s <= b < e for s, e, _ in ranges) == (b != END) for b in borders)


class SteerTwin:
    def __init__(
        self,
        affinity: Affinity,
        ranges: Sequence[Range],
        timeout_ms: int,
        linger_ms: int,
        ids_from_tags: bool = False,
    ) -> None:
        self.affinity = affinity
        self.ids_from_tags = ids_from_tags
        self.ranges = merged(ranges)
        self.timeout, self.linger = timeout_ms * MS, linger_ms * MS
        self.flows: dict[Tuple5, Flow] = {}
        self.splits: dict[int, Split] = {}
        self.packets: dict[int, int] = {}
        self.now = 0

    def range_gate(self, number: int) -> int:
        return next(gate for start, end, gate in self.ranges if start <= number < end)

    def expire(self) -> None:
        for key, flow in list(self.flows.items()):
            if self.now - flow.used >= (self.linger if flow.closing else self.timeout):
                del self.flows[key]

    def left(self, split: int) -> int:
        return sum(flow.split == split for flow in self.flows.values())

    def tell(self) -> None:
        """To be called where a split's exceptions may have become few."""
        for number, split in self.splits.items():
            split.told |= self.left(number) < split.threshold

    def packet(self, packet: Tuple5, tcp_flags: int, tci: int = 0) -> int:
        self.expire()
        self.tell()
        key, reverse = self.affinity.key(packet)
        number = vlan_id(tci) if self.ids_from_tags else flow_id(key)
        flow = self.flows.setdefault(key, Flow(self.range_gate(number), self.now, number))
        flow.used = self.now
        if flow.id is None:
            flow.id = number
        if packet.proto == TCP and self.affinity.one_connection:
            if tcp_flags & SYN:
                flow.closing, flow.ends = False, set()
            if tcp_flags & FIN:
                flow.ends.add(reverse)
                flow.closing |= len(flow.ends) == 1 + self.affinity.symmetric
            flow.closing |= bool(tcp_flags & RST)
        self.packets[flow.gate] = self.packets.get(flow.gate, 0) + 1
        return flow.gate

    def free_from_splits(self, flow: Flow) -> None:
        flow.exception, flow.split = False, 0

    def update(
        self,
        ranges: Sequence[Range],
        add: Sequence[tuple[Tuple5, int]],
        remove: Sequence[Tuple5],
    ) -> None:
        self.expire()
        removed = [self.affinity.key(flow)[0] for flow in remove]
        added = [self.affinity.key(flow)[0] for flow, _ in add]
        if (
            not (ranges or add or remove)
            or (ranges and not whole(ranges))
            or len(set(removed)) < len(removed)
            or len(set(added)) < len(added)
            or any(k not in self.flows or not self.flows[k].exception for k in removed)
        ):
            self.tell()
            raise RefusedError
        for key in removed:
            number = self.flows[key].id
            if number is None:
                del self.flows[key]
            else:
                self.free_from_splits(self.flows[key])
                self.flows[key].gate = self.range_gate(number)
        if ranges:
            self.ranges = merged(ranges)
            for flow in self.flows.values():
                if flow.id is None:
                    continue
                if not flow.exception:
                    flow.gate = self.range_gate(flow.id)
                elif flow.split and flow.gate == self.range_gate(flow.id):
                    self.free_from_splits(flow)
        for key, (_, gate) in zip(added, add, strict=True):
            new_id = None if self.ids_from_tags else flow_id(key)
            flow = self.flows.setdefault(key, Flow(gate, self.now, new_id))
            flow.gate, flow.used, flow.exception, flow.split = gate, self.now, True, 0
        self.tell()

    def split(self, gate: int, new_gate: int, cut: int, threshold: int, end: int = 0) -> int:
        self.expire()
        hit = [r for r in self.ranges if r[0] <= cut < r[1] and r[2] == gate]
        if not hit or gate == new_gate:
            raise RefusedError
        start, last, _ = hit[0]
        end = end or last
        if not cut < end <= last:
            raise RefusedError
        number = len(self.splits) + 1
        for flow in self.flows.values():
            if flow.id is None or not cut <= flow.id < end:
                continue
            if not flow.exception:
                flow.exception, flow.split = True, number
            elif flow.split and flow.gate == new_gate:
                self.free_from_splits(flow)
        parts = [(start, cut, gate)] if start < cut else []
        rest = [r for r in self.ranges if r != hit[0]]
        parts += [(end, last, gate)] if end < last else []
        self.ranges = merged([*rest, *parts, (cut, end, new_gate)])
        self.splits[number] = Split(max(1, threshold))
        self.tell()
        return self.left(number)

    def status(self) -> dict[str, object]:
        self.expire()
        self.tell()
        gates = {gate for _, _, gate in self.ranges} | set(self.packets)
        gates |= {flow.gate for flow in self.flows.values()}

        def count(gate: int, exception: bool = False) -> int:
            flows = [flow for flow in self.flows.values() if flow.gate == gate]
            return sum(flow.exception or not exception for flow in flows)

        return {
            "gates": {g: (self.packets.get(g, 0), count(g), count(g, True)) for g in gates},
            "ranges": self.ranges,
            "splits": {n: self.left(n) for n in self.splits if self.left(n)},
            "told": {n for n, split in self.splits.items() if split.told},
        }
