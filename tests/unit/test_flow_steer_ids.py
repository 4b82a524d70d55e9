# SPDX-License-Identifier: BSD-3-Clause
"""FlowSteer where flow ids come from VLAN tags that a switch wrote (`id_attr`)."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from harness import Engine, EngineError, new_engine, wait_until
from twins.flow_steer_twin import Tuple5, flow_id, vlan_id

MS = 1_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
HALF, END = 1 << 31, 1 << 32
STEP = 1 << 20  # between two ids
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
WHOLE = [{"start": 0, "end": END, "gate": 1}]
HALVES = [{"start": 0, "end": HALF, "gate": 1}, {"start": HALF, "end": END, "gate": 2}]


def steer(ranges: list[dict[str, int]] = HALVES, size: int = 2, **args: Any) -> Engine:
    """A FlowSteer behind a SetMetadata that copies the tags of frames."""
    engine = new_engine()
    attrs = [{"name": "tag", "size": size, "offset": 14}]
    engine.create_module("set", "SetMetadata", {"attrs": attrs})
    engine.create_module("m", "FlowSteer", {"ranges": ranges, "id_attr": "tag", **args})
    engine.connect("set", 0, "m", 0)
    engine.run_packets("set", [bytes(60)], 0, START)  # exceptions begin now
    return engine


def udp(number: int) -> Tuple5:
    return Tuple5("10.0.0.1", "10.0.0.2", 1000 + number, 53, 17)


def frame(flow: Tuple5, tci: int) -> bytes:
    ip = IP if "." in flow.src else IPv6
    l4 = UDP(sport=flow.sport, dport=flow.dport)
    untagged = bytes(ETHER / ip(src=flow.src, dst=flow.dst) / l4)
    return untagged[:12] + b"\x81\0" + tci.to_bytes(2, "big") + untagged[12:]


def sent(engine: Engine) -> dict[int, int]:
    """Packets by gate."""
    gates = engine.module_command("m", "get_status", {})["gates"]
    return {entry["gate"]: entry["packets"] for entry in gates}


def gate(engine: Engine, flow: Tuple5, tci: int, ms: int = 0, first: str = "set") -> int:
    """The gate of one packet at a time."""
    before = sent(engine)
    engine.run_packets(first, [frame(flow, tci)], 0, START + ms * MS)
    (found,) = [g for g, packets in sent(engine).items() if packets != before.get(g, 0)]
    return found


def flows(engine: Engine) -> dict[int, tuple[int | None, int, bool]]:
    """Id, gate and whether it is an exception, by the flow's number."""
    found = engine.module_command("m", "get_flows", {"limit": 1000})["flows"]
    return {
        entry["flow"]["sport"] - 1000: (entry.get("id"), entry["gate"], entry["exception"])
        for entry in found
    }


def update(engine: Engine, **args: Any) -> None:
    engine.module_command("m", "update", args)


def exception(number: int, to: int) -> dict[str, Any]:
    return {"flow": udp(number)._asdict(), "gate": to}


def test_ids_are_the_tags_lower_bits() -> None:
    tags = [0, 1, 0x7FF, 0x800, 0xFFF, 0x1000, 0xE000, 0xF7FF, 0xF800, 0xFFFF, 0x1234]
    engine = steer()
    gates = [gate(engine, udp(n), tci) for n, tci in enumerate(tags)]
    assert gates == [1 + (tci >> 11 & 1) for tci in tags]
    assert flows(engine) == {
        n: ((tci & 0xFFF) << 20, gates[n], False) for n, tci in enumerate(tags)
    }
    assert {n: number for n, (number, _, _) in flows(engine).items()} == {
        n: vlan_id(tci) for n, tci in enumerate(tags)
    }


def test_every_id_is_in_its_range() -> None:
    """Ranges one id wide, at both ends and in the middle, of either IP version."""
    edges = [0, STEP, HALF, HALF + STEP, END - STEP, END]
    ranges = [
        {"start": start, "end": end, "gate": n} for n, (start, end) in enumerate(pairwise(edges))
    ]
    engine = steer(ranges)
    for n, vid in enumerate([0, 1, 0x7FF, 0x800, 0x801, 0xFFE, 0xFFF]):
        expected = next(r["gate"] for r in ranges if r["start"] <= vid * STEP < r["end"])
        assert gate(engine, udp(n), vid) == expected
        assert gate(engine, Tuple5("2001:db8::1", "::2", n, 53, 17), vid) == expected


def test_a_flow_keeps_the_id_of_its_first_packet() -> None:
    engine = steer(timeout_ms=1000)
    assert gate(engine, udp(0), 5) == 1
    assert [gate(engine, udp(0), tci, ms=500) for tci in (0xFFF, 0, 0xFFF)] == [1] * 3
    assert flows(engine) == {0: (5 * STEP, 1, False)}
    update(engine, ranges=[{**HALVES[0], "gate": 3}, HALVES[1]])
    assert gate(engine, udp(0), 0xFFF, ms=1000) == 3
    assert gate(engine, udp(0), 0xFFE, ms=2000) == 2  # it had ended
    assert flows(engine) == {0: (0xFFE * STEP, 2, False)}


def test_the_first_packet_counts_within_a_batch_too() -> None:
    engine = steer()
    tags = [0xFFF, 3, 0x900, 7]
    engine.run_packets("set", [frame(udp(n % 2), tci) for n, tci in enumerate(tags)], 0, START)
    assert flows(engine) == {0: (0xFFF * STEP, 2, False), 1: (3 * STEP, 1, False)}
    assert sent(engine) == {1: 2, 2: 2}


@pytest.mark.parametrize(("cut", "moved"), [(20 * STEP, 20), (20 * STEP - 5, 20), (0, 0)])
def test_a_split_moves_only_new_flows_from_the_cut_on(cut: int, moved: int) -> None:
    engine = steer(WHOLE, timeout_ms=1000)
    for n in range(40):
        assert gate(engine, udp(n), n) == 1
    args = {"gate": 1, "new_gate": 2, "cut": cut}
    assert engine.module_command("m", "split", args) == {"split": 1, "exceptions": 40 - moved}
    assert flows(engine) == {n: (n * STEP, 1, n >= moved) for n in range(40)}
    assert [gate(engine, udp(n), n, ms=500) for n in range(40)] == [1] * 40
    assert [gate(engine, udp(100 + n), n, ms=500) for n in range(40)] == [
        1 + (n >= moved) for n in range(40)
    ]
    assert [gate(engine, udp(n), n, ms=1500) for n in range(40)] == [
        1 + (n >= moved) for n in range(40)
    ]


def test_both_directions_have_the_id_of_whichever_came_first() -> None:
    engine = steer(symmetric=True)
    pairs = [udp(0), Tuple5("2001:db8::1", "2001:db8::2", 1001, 53, 17)]
    for flow in pairs:
        assert gate(engine, flow.reverse(), 0xE802) == 2
        assert gate(engine, flow, 1) == 2
        assert gate(engine, flow.reverse(), 1) == 2
    found = engine.module_command("m", "get_flows", {})["flows"]
    assert [entry["id"] for entry in found] == [0x802 * STEP] * 2
    args = {"gate": 2, "new_gate": 3, "cut": 0x802 * STEP}
    assert engine.module_command("m", "split", args)["exceptions"] == 2
    assert gate(engine, pairs[0], 0x802) == 2
    assert gate(engine, udp(5).reverse(), 0x802) == 3


def test_a_full_table_goes_by_the_tag_of_each_packet() -> None:
    engine = steer(max_flows=2)
    for n in range(2):
        assert gate(engine, udp(n), 0) == 1
    assert [gate(engine, udp(2), tci) for tci in (0x800, 0, 0xFFFF)] == [2, 1, 2]
    assert engine.module_command("m", "get_status", {})["untracked_packets"] == 3


class TestExceptionsBeforeTheirFlows:
    def test_the_first_packet_brings_the_id(self) -> None:
        engine = steer()
        update(engine, add_exceptions=[exception(0, 7)])
        assert flows(engine) == {0: (None, 7, True)}
        found = engine.module_command("m", "get_status", {})
        assert (found["flows"], found["exceptions"]) == (1, 1)
        assert gate(engine, udp(0), 0x900) == 7
        assert gate(engine, udp(0), 5) == 7
        assert flows(engine) == {0: (0x900 * STEP, 7, True)}
        update(engine, remove_exceptions=[udp(0)._asdict()])
        assert flows(engine) == {0: (0x900 * STEP, 2, False)}

    def test_an_id_of_zero_is_one_too(self) -> None:
        engine = steer()
        update(engine, add_exceptions=[exception(0, 7)])
        assert gate(engine, udp(0), 0xF000) == 7
        assert flows(engine) == {0: (0, 7, True)}

    @pytest.mark.parametrize("cut", [0, 1, HALF - 1])
    def test_splits_and_ranges_leave_them_alone(self, cut: int) -> None:
        engine = steer()
        update(engine, add_exceptions=[exception(0, 2)])
        args = {"gate": 1, "new_gate": 2, "cut": cut}
        assert engine.module_command("m", "split", args)["exceptions"] == 0
        assert flows(engine) == {0: (None, 2, True)}
        update(engine, ranges=[{"start": 0, "end": END, "gate": 5}])
        assert flows(engine) == {0: (None, 2, True)}
        assert gate(engine, udp(0), 9) == 2
        args = {"gate": 5, "new_gate": 6, "cut": 9 * STEP}
        assert engine.module_command("m", "split", args)["exceptions"] == 0
        assert flows(engine) == {0: (9 * STEP, 2, True)}

    def test_removed_before_the_first_packet_they_are_forgotten(self) -> None:
        engine = steer()
        update(engine, add_exceptions=[exception(n, 7) for n in range(3)])
        update(engine, remove_exceptions=[udp(0)._asdict(), udp(2)._asdict()])
        assert flows(engine) == {1: (None, 7, True)}
        assert gate(engine, udp(0), 0x801) == 2
        with pytest.raises(EngineError, match="is no exception, or it has ended"):
            update(engine, remove_exceptions=[udp(2)._asdict()])

    def test_another_gate_before_the_first_packet(self) -> None:
        engine = steer()
        update(engine, add_exceptions=[exception(0, 7)])
        update(engine, add_exceptions=[exception(0, 8)])
        assert flows(engine) == {0: (None, 8, True)}
        update(engine, remove_exceptions=[udp(0)._asdict()], add_exceptions=[exception(0, 9)])
        assert flows(engine) == {0: (None, 9, True)}
        assert gate(engine, udp(0), 3) == 9

    def test_they_end_as_flows_do(self) -> None:
        engine = steer(timeout_ms=1000)
        gate(engine, udp(5), 0)
        update(engine, add_exceptions=[exception(0, 7)])
        assert gate(engine, udp(0), 0x800, ms=1000) == 2

    def test_removals_make_room_in_a_full_table(self) -> None:
        engine = steer(max_flows=4)
        update(engine, add_exceptions=[exception(n, 7) for n in range(4)])
        swap = {
            "remove_exceptions": [udp(n)._asdict() for n in range(2)],
            "add_exceptions": [exception(0, 8), exception(8, 8)],
        }
        full = {**swap, "add_exceptions": [*swap["add_exceptions"], exception(9, 8)]}
        with pytest.raises(EngineError, match=r"has 3 flows that are new, .* has room for 2"):
            update(engine, **full)
        update(engine, **swap)
        assert flows(engine) == {n: (None, 7 if n in (2, 3) else 8, True) for n in (0, 2, 3, 8)}


def test_flows_that_are_active_keep_their_id_as_exceptions() -> None:
    engine = steer()
    gate(engine, udp(0), 0x800)
    update(engine, add_exceptions=[exception(0, 7)])
    assert flows(engine) == {0: (0x800 * STEP, 7, True)}
    update(engine, remove_exceptions=[udp(0)._asdict()])
    assert flows(engine) == {0: (0x800 * STEP, 2, False)}


def test_an_attribute_that_nobody_writes_is_zero() -> None:
    engine = new_engine()
    engine.create_module("m", "FlowSteer", {"ranges": HALVES, "id_attr": "tag"})
    assert gate(engine, udp(0), 0xFFF, first="m") == 1
    assert flows(engine) == {0: (0, 1, False)}


@pytest.mark.parametrize(("id_attr", "size"), [("other", 2), ("tag", 1), ("tag", 4)])
def test_workers_need_an_attribute_of_that_name_and_size(id_attr: str, size: int) -> None:
    engine = steer(size=size, id_attr=id_attr)
    engine.add_worker(0, min(os.sched_getaffinity(0)))
    engine.create_module("source", "Source", {})
    engine.connect("source", 0, "set", 0)
    with pytest.raises(EngineError, match=r"reads attribute '\w+' \(2 bytes\), which no module"):
        engine.resume_all()


def test_without_the_argument_tags_mean_nothing() -> None:
    engine = steer(id_attr="")
    for n in range(20):
        assert gate(engine, udp(n), 0xFFF) == 1 + (flow_id(udp(n)) >> 31)
    update(engine, add_exceptions=[exception(30, 7)])
    assert flows(engine)[30] == (flow_id(udp(30)), 7, True)


def test_tags_beside_a_worker() -> None:
    engine = steer()
    template = frame(udp(0), 0)
    fields = [
        {"offset": 14, "size": 2, "min": 0, "max": 0xFFFF},
        {"offset": 30, "size": 4, "min": 0x0A000000, "max": 0x0A00FFFF},
    ]
    engine.create_module("source", "Source", {})
    engine.create_module("rewrite", "Rewrite", {"templates": [template]})
    engine.create_module("vary", "RandomUpdate", {"fields": fields})
    for before, after in [("source", "rewrite"), ("rewrite", "vary"), ("vary", "set")]:
        engine.connect(before, 0, after, 0)
    for number in (1, 2):
        engine.create_module(f"sink{number}", "Sink", {})
        engine.connect("m", number, f"sink{number}", 0)
    engine.add_worker(0, min(os.sched_getaffinity(0)))
    engine.resume_all()
    wait_until(lambda: engine.module_command("m", "get_status", {})["flows"] > 10_000)
    engine.pause_all()
    found = engine.module_command("m", "get_flows", {"limit": 100_000})["flows"]
    assert all(entry["gate"] == 1 + (entry["id"] >> 31) for entry in found)
    assert len({entry["id"] for entry in found}) > 3000
    assert all(entry["id"] % STEP == 0 for entry in found)
