# SPDX-License-Identifier: BSD-3-Clause
"""FlowSteer against its twin: no sequence of packets, splits, ends and updates breaks a flow."""

from __future__ import annotations

import ipaddress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import EngineError, new_engine
from twins.flow_steer_twin import (
    END,
    MS,
    TCP,
    Affinity,
    Range,
    RefusedError,
    SteerTwin,
    Tuple5,
    flow_id,
    vlan_id,
)

SETTINGS = settings(max_examples=200, deadline=None)
TIMEOUT_MS, LINGER_MS = 1000, 100
# No clock of a machine goes that far: the time of the last packet is always the later one.
START = 1 << 61
TAG = {"name": "tag", "size": 2, "offset": 14}  # of frames with a VLAN tag
NO_IP = bytes(12) + b"\x08\x06" + bytes(46)

FIELDS = [{"name": name} for name in Tuple5._fields]
NETWORKS = {"ipv4_mask": "255.255.255.0", "ipv6_mask": "ffff:ffff::"}
AFFINITIES = [
    Affinity(),
    Affinity(symmetric=True),
    Affinity(tuple(FIELDS)),
    Affinity(({"name": "src"} | NETWORKS,)),
    Affinity(tuple({"name": name} | NETWORKS for name in ("src", "dst")), symmetric=True),
    Affinity(({"name": "dst"}, {"name": "dport", "mask": 0xFFFE}, {"name": "proto"})),
    Affinity(({"name": "sport"}, {"name": "dport"}), symmetric=True),
]
FLOWS = [
    Tuple5(src, dst, 1000 + n, port, proto)
    for src, dst in (
        ("10.0.0.1", "10.0.1.2"),
        ("10.0.1.2", "10.0.0.77"),
        ("10.0.0.9", "10.0.0.9"),
        ("2001:db8::1", "2001:db9::2"),
        ("2001:db9::2", "2001:db8::1"),
        ("::1", "::1"),
    )
    for n, (port, proto) in enumerate([(80, 6), (81, 6), (1000, 17), (1002, 6)])
]
# Of the outer VLAN tag; frames without have the first bytes of IP there.
TCIS = [0, 1, 0x0FFF, 0xFFFF, 0xE800, 0x07FF, 0x0801, 0x3123]


def frame(flow: Tuple5, tcp_flags: int, vlans: int, tci: int, number: int) -> bytes:
    """A packet of a flow that ends in its number, so that it can be told apart."""
    ports = flow.sport.to_bytes(2, "big") + flow.dport.to_bytes(2, "big")
    if flow.proto == TCP:
        l4 = ports + bytes(8) + bytes([0x50, tcp_flags]) + bytes(6)
    else:
        l4 = ports + (10).to_bytes(2, "big") + bytes(2)
    l4 += number.to_bytes(2, "big")
    src, dst = (ipaddress.ip_address(end) for end in (flow.src, flow.dst))
    if src.version == 4:
        kind = b"\x08\x00"
        ip = b"\x45\0" + (20 + len(l4)).to_bytes(2, "big") + bytes(4) + bytes([64, flow.proto])
        ip += bytes(2)
    else:
        kind = b"\x86\xdd"
        ip = b"\x60\0\0\0" + len(l4).to_bytes(2, "big") + bytes([flow.proto, 64])
    tags = (b"\x81\0" + tci.to_bytes(2, "big") + b"\x88\xa8\0\7")[: 4 * vlans]
    return bytes(12) + tags + kind + ip + src.packed + dst.packed + l4


def as_args(ranges: list[Range]) -> list[dict[str, int]]:
    return [{"start": start, "end": end, "gate": gate} for start, end, gate in ranges]


def as_flow(flow: Tuple5) -> dict[str, Any]:
    return flow._asdict()


@st.composite
def partitions(draw: st.DrawFn) -> list[Range]:
    """Ranges that cover everything, in any order."""
    ids = st.sampled_from(sorted([*map(flow_id, FLOWS), *map(vlan_id, TCIS[1:])]))
    borders = draw(st.sets(st.one_of(ids, st.integers(1, END - 1)), max_size=5))
    edges = [0, *sorted(borders), END]
    ranges = [(start, end, draw(st.integers(0, 5))) for start, end in pairwise(edges)]
    return draw(st.permutations(ranges))


@st.composite
def broken(draw: st.DrawFn) -> list[Range]:
    """Ranges with a gap or an overlap, or that end early or begin late."""
    ranges = draw(partitions())
    at = draw(st.integers(0, len(ranges) - 1))
    start, end, gate = ranges[at]
    by = draw(st.integers(1, 1000))
    worse = [(start, end - by, gate), (start + by, end, gate)]
    if start >= by:
        worse.append((start - by, end, gate))
    worse.append((start, end + by, gate))
    ranges[at] = draw(st.sampled_from(worse))
    return ranges


class Steered:
    """The module and its twin, which are asked the same."""

    def __init__(
        self, affinity: Affinity, ranges: list[Range], ids_from_tags: bool = False
    ) -> None:
        self.engine = new_engine()
        args = {
            "affinity": [dict(f) for f in affinity.fields],
            "symmetric": affinity.symmetric,
            "ranges": as_args(ranges),
            "timeout_ms": TIMEOUT_MS,
            "linger_ms": LINGER_MS,
            "max_flows": 64,
            "other_gate": 60,
            "id_attr": "tag" if ids_from_tags else "",
        }
        self.engine.create_module("m", "FlowSteer", args)
        if ids_from_tags:
            self.engine.create_module("tag", "SetMetadata", {"attrs": [TAG]})
            self.engine.connect("tag", 0, "m", 0)
        self.twin = SteerTwin(affinity, ranges, TIMEOUT_MS, LINGER_MS, ids_from_tags)
        self.at(0)

    def at(self, ns: int) -> None:
        """Lets time pass."""
        self.twin.now += ns
        out = self.engine.run_packets("m", [NO_IP], 0, START + self.twin.now)
        assert out == {60: [NO_IP]}

    def send(self, packets: list[tuple[Tuple5, int, int, int]]) -> None:
        frames = [frame(*packet, number) for number, packet in enumerate(packets)]
        expected = [
            self.twin.packet(flow, tcp_flags, int.from_bytes(sent[14:16], "big"))
            for (flow, tcp_flags, _, _), sent in zip(packets, frames, strict=True)
        ]
        if self.twin.ids_from_tags:  # only what the first module emits is collected
            self.engine.run_packets("tag", frames, 0, START + self.twin.now)
            return  # check() compares packets by gate
        found = [-1] * len(packets)
        out = self.engine.run_packets("m", frames, 0, START + self.twin.now)
        for gate, arrived in out.items():
            for packet in arrived:
                found[int.from_bytes(packet[-2:], "big")] = gate
        assert found == expected

    def command(self, name: str, args: dict[str, Any], refused: bool) -> dict[str, Any]:
        if not refused:
            return self.engine.module_command("m", name, args)
        with pytest.raises(EngineError) as error:
            self.engine.module_command("m", name, args)
        assert len(error.value.message) > 20
        return {}

    def update(
        self, ranges: list[Range], add: list[tuple[Tuple5, int]], remove: list[Tuple5]
    ) -> None:
        try:
            self.twin.update(ranges, add, remove)
            refused = False
        except RefusedError:
            refused = True
        args = {
            "ranges": as_args(ranges),
            "add_exceptions": [{"flow": as_flow(flow), "gate": gate} for flow, gate in add],
            "remove_exceptions": [as_flow(flow) for flow in remove],
        }
        self.command("update", args, refused)

    def split(self, gate: int, new_gate: int, cut: int, threshold: int, last: int) -> None:
        args = {"gate": gate, "new_gate": new_gate, "cut": cut, "threshold": threshold, "end": last}
        try:
            exceptions = self.twin.split(gate, new_gate, cut, threshold, last)
        except RefusedError:
            self.command("split", args, refused=True)
            return
        answer = self.command("split", args, refused=False)
        assert answer == {"split": len(self.twin.splits), "exceptions": exceptions}

    def check(self) -> None:
        found = self.engine.module_command("m", "get_status", {})
        expected = self.twin.status()
        gates = {g["gate"]: (g["packets"], g["flows"], g["exceptions"]) for g in found["gates"]}
        gates.pop(60, None)
        assert gates == expected["gates"]
        assert [(r["start"], r["end"], r["gate"]) for r in found["ranges"]] == expected["ranges"]
        assert {s["split"]: s["exceptions"] for s in found["splits"]} == expected["splits"]
        assert found["flows"] == len(self.twin.flows)
        assert found["exceptions"] == sum(f.exception for f in self.twin.flows.values())
        assert found["untracked_packets"] == 0
        told = [e["values"]["split"] for e in self.engine.events()["events"]]
        assert sorted(told) == sorted(expected["told"])  # type: ignore[type-var]
        flows = self.engine.module_command("m", "get_flows", {"limit": 1000})
        assert flows["total"] == len(self.twin.flows)
        listed = {
            Tuple5(**entry["flow"]): (entry["gate"], entry["exception"], entry.get("id"))
            for entry in flows["flows"]
        }
        assert listed == {
            key: (flow.gate, flow.exception, flow.id) for key, flow in self.twin.flows.items()
        }


PACKETS = st.lists(
    st.tuples(
        st.sampled_from([*FLOWS, *(flow.reverse() for flow in FLOWS)]),
        st.sampled_from([0x10, 0x10, 0x10, 0x10, 0x02, 0x11, 0x14, 0x13, 0x00]),
        st.integers(0, 2),
        st.sampled_from(TCIS),
    ),
    max_size=40,
)
TIMES = st.one_of(
    st.sampled_from([m * MS + by for m in (TIMEOUT_MS, LINGER_MS) for by in (-1, 0, 1)]),
    st.integers(0, 600 * MS),
)


@SETTINGS
@given(st.data())
def test_flows_stay_where_they_began(data: st.DataObject) -> None:
    steered = Steered(
        data.draw(st.sampled_from(AFFINITIES)), data.draw(partitions()), data.draw(st.booleans())
    )
    steps = ["send", "send", "send", "time", "time", "split", "split", "update", "bad update"]
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=25)):
        if step == "send":
            steered.send(data.draw(PACKETS))
        elif step == "time":
            steered.at(data.draw(TIMES))
        elif step == "split":
            start, end, gate = data.draw(st.sampled_from(steered.twin.ranges))
            ids = (flow.id for flow in steered.twin.flows.values() if flow.id is not None)
            inside = [i for i in ids if start <= i < end]
            cuts = [start, start, end - 1, end % END, (start + end) // 2, *inside]
            steered.split(
                data.draw(st.sampled_from([gate, gate, gate, 5])),
                data.draw(st.integers(0, 5)),
                data.draw(st.sampled_from(cuts)),
                data.draw(st.integers(0, 3)),
                data.draw(st.sampled_from([0, 0, end, *cuts])),
            )
        else:
            ranges = st.one_of(st.just([]), partitions()) if step == "update" else broken()
            flows = st.sampled_from(FLOWS)
            exceptions = [k for k, flow in steered.twin.flows.items() if flow.exception]
            known = st.sampled_from(exceptions) if exceptions else flows
            steered.update(
                data.draw(st.one_of(st.just([]), ranges))
                if step == "update"
                else data.draw(ranges),
                data.draw(st.lists(st.tuples(flows, st.integers(0, 5)), max_size=3)),
                data.draw(st.lists(st.one_of(known, known, flows), max_size=2)),
            )
        steered.check()


@SETTINGS
@given(partitions(), st.lists(st.integers(0, END - 1), max_size=20))
def test_ranges_partition_the_ids(ranges: list[Range], ids: list[int]) -> None:
    steered = Steered(Affinity(), ranges)
    steered.check()
    kept = steered.twin.ranges
    assert [start for start, _, _ in kept] == [0, *(end for _, end, _ in kept[:-1])]
    assert kept[-1][1] == END
    for number in ids:
        (gate,) = (gate for start, end, gate in ranges if start <= number < end)
        assert any(start <= number < end and g == gate for start, end, g in kept)
