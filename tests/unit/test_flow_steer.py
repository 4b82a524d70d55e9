# SPDX-License-Identifier: BSD-3-Clause
"""FlowSteer: what is refused, a full table, fragments, ends of connections, and its events."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from bess_plugins.client import Client
from bess_plugins.daemon.server import Server, make_engine
from harness import Engine, EngineError, new_engine, wait_until
from twins.flow_steer_twin import Tuple5, flow_id

MS = 1_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
HALF, END = 1 << 31, 1 << 32
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
HALVES = [{"start": 0, "end": HALF, "gate": 1}, {"start": HALF, "end": END, "gate": 2}]
WHOLE = [{"start": 0, "end": END, "gate": 1}]


def steer(ranges: list[dict[str, int]] = HALVES, **args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", "FlowSteer", {"ranges": ranges, **args})
    return engine


def udp(number: int) -> Tuple5:
    return Tuple5("10.0.0.1", "10.0.0.2", 1000 + number, 53, 17)


def frame(flow: Tuple5, **tcp: Any) -> bytes:
    l4 = TCP if flow.proto == 6 else UDP
    ip = IP if "." in flow.src else IPv6
    ports = {"sport": flow.sport, "dport": flow.dport}
    return bytes(ETHER / ip(src=flow.src, dst=flow.dst) / l4(**ports, **tcp))


def gate(engine: Engine, packet: Packet | bytes | Tuple5, ms: int = 0) -> int:
    """The gate of one packet at a time; -1 where it is dropped."""
    if isinstance(packet, Tuple5):
        packet = frame(packet)
    out = engine.run_packets("m", [bytes(packet)], 0, START + ms * MS)
    return next(iter(out), -1)


def status(engine: Engine) -> dict[str, Any]:
    found = engine.module_command("m", "get_status", {})
    found["gates"] = {entry.pop("gate"): entry for entry in found["gates"]}
    return found


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def ranges_of(*borders: int) -> list[dict[str, int]]:
    pairs = pairwise(borders)
    return [{"start": a, "end": b, "gate": n} for n, (a, b) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([], r"FlowSteer\.ranges: has 0 ranges; must have 1 to 4096"),
        (ranges_of(5, END), r"nothing covers \[0, 5\) before FlowSteer\.ranges\[0\] \[5, 4294967"),
        (ranges_of(0, END - 1), r"nothing covers \[4294967295, 4294967296\) behind .*ranges\[0\]"),
        (
            [{"start": 9, "end": END, "gate": 0}, {"start": 0, "end": 7, "gate": 1}],
            r"ranges\[1\] \[0, 7\) and FlowSteer\.ranges\[0\] \[9, 4294967296\) leave a gap",
        ),
        (
            [{"start": 0, "end": 9, "gate": 0}, {"start": 7, "end": END, "gate": 1}],
            r"ranges\[0\] \[0, 9\) and FlowSteer\.ranges\[1\] \[7, 4294967296\) overlap",
        ),
        ([*HALVES, HALVES[0]], r"ranges\[2\] \[0, 2147483648\) overlap"),
        (ranges_of(0, 0, END), r"ranges\[0\]: is \[0, 0\); start must be below end"),
        (ranges_of(0, END + 1), r"end at most 4294967296"),
        (ranges_of(0, 9, 4, END), r"ranges\[1\]: is \[9, 4\)"),
        ([{"start": 0, "end": END, "gate": 8193}], r"ranges\[0\]\.gate: not a gate"),
    ],
)
def test_ranges_that_are_no_partition(ranges: list[dict[str, int]], message: str) -> None:
    with pytest.raises(EngineError, match=message) as error:
        steer(ranges)
    assert error.value.code == errno.EINVAL


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_flows": (1 << 21) + 1}, r"FlowSteer\.max_flows is 2097153; must be between 1 and"),
        ({"timeout_ms": 1 << 60}, r"FlowSteer\.timeout_ms is 1152921504606846976; must be"),
        ({"linger_ms": 1 << 60}, r"FlowSteer\.linger_ms"),
        ({"other_gate": 9000}, r"FlowSteer\.other_gate: not a gate"),
        ({"affinity": [{"name": "port"}]}, r"affinity\[0\]\.name: is 'port'; must be src, dst,"),
        ({"affinity": [{"name": "src"}] * 2}, r"affinity\[1\]\.name: is 'src', as is that of"),
        ({"affinity": [{"name": "src", "mask": 1}]}, r"'src' has an ipv4_mask and an ipv6_mask"),
        ({"affinity": [{"name": "proto", "mask": 256}]}, r"proto|at most 255"),
        ({"affinity": [{"name": "dport", "ipv4_mask": "1.1.1.1"}]}, r"'dport' has a mask"),
        ({"affinity": [{"name": "dst", "ipv4_mask": "ff::"}]}, r"must be an IPv4 mask such as"),
        ({"affinity": [{"name": "dst", "ipv6_mask": "1.1.1.1"}]}, r"must be an IPv6 mask such"),
        ({"affinity": [{"name": "src"}], "symmetric": True}, r"must have src and dst with equal"),
        (
            {
                "affinity": [{"name": "sport"}, {"name": "dport", "mask": 3}],
                "symmetric": True,
            },
            r"must have sport and dport with equal masks, or neither",
        ),
    ],
)
def test_arguments_that_mean_nothing(args: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        steer(**args)


FLOW = udp(0)._asdict()


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("update", {}, r"update: has nothing to change"),
        ("update", {"ranges": ranges_of(0, 5)}, r"nothing covers \[5, 4294967296\) behind update"),
        (
            "update",
            {"ranges": WHOLE, "remove_exceptions": [FLOW]},
            r"remove_exceptions\[0\]: that flow is no exception",
        ),
        (
            "update",
            {"ranges": WHOLE, "add_exceptions": [{"flow": FLOW, "gate": 9000}]},
            r"add_exceptions\[0\]\.gate: not a gate",
        ),
        (
            "update",
            {"add_exceptions": [{"flow": FLOW, "gate": 1}, {"flow": FLOW, "gate": 2}]},
            r"add_exceptions\[1\]\.flow: is the same flow as that of add_exceptions\[0\]",
        ),
        (
            "update",
            {"remove_exceptions": [udp(7)._asdict()] * 2},
            r"remove_exceptions\[1\]: is the same flow as one before it",
        ),
        (
            "update",
            {"add_exceptions": [{"flow": udp(n)._asdict(), "gate": 1} for n in range(5, 30)]},
            r"has 2\d flows that are new, and the table has room for 1\d \(max_flows is 16\)",
        ),
        ("update", {"remove_exceptions": [{**FLOW, "src": "x"}]}, r"\.src: is 'x'; must be an IP"),
        ("update", {"remove_exceptions": [{**FLOW, "src": ""}]}, r"\.src: is missing; must be"),
        ("update", {"remove_exceptions": [{**FLOW, "dst": "::1"}]}, r"must be of one kind"),
        ("update", {"remove_exceptions": [{**FLOW, "sport": 65536}]}, r"\.sport: is 65536; must"),
        ("split", {"gate": 3, "new_gate": 4, "cut": 5}, r"split: gate 3 has no range"),
        ("split", {"gate": 9000, "new_gate": 4, "cut": 5}, r"split: gate: not a gate"),
        ("split", {"gate": 1, "new_gate": 9000, "cut": 5}, r"split: new_gate: not a gate"),
        ("split", {"gate": 1, "new_gate": 1, "cut": 5}, r"new_gate is 1, as gate is; must be"),
        ("split", {"gate": 1, "new_gate": 3, "cut": HALF}, r"cut 2147483648 is outside of the"),
        ("split", {"gate": 2, "new_gate": 3, "cut": END}, r"cut 4294967296 is outside of the"),
        (
            "split",
            {"gate": 1, "new_gate": 3, "cut": 9, "end": 9},
            r"end 9 must be above cut, 9, and",
        ),
        ("split", {"gate": 1, "new_gate": 3, "cut": 9, "end": END}, r"at most 2147483648, the end"),
        ("get_flows", {"gate": 9000}, r"get_flows: gate: not a gate"),
        ("get_flows", {"start": 9, "end": 9}, r"get_flows: start 9 must be below end, 9, and"),
        ("get_flows", {"end": END + 1}, r"end, 4294967297, and that at most 4294967296"),
    ],
)
def test_commands_that_are_refused_change_nothing(
    command: str, args: dict[str, Any], message: str
) -> None:
    engine = steer(max_flows=16)
    gates = [gate(engine, udp(n)) for n in range(4)]
    exception = {"flow": udp(7)._asdict(), "gate": 5}
    engine.module_command("m", "update", {"add_exceptions": [exception]})
    before = status(engine), engine.module_command("m", "get_flows", {})
    with pytest.raises(EngineError, match=message):
        engine.module_command("m", command, args)
    assert (status(engine), engine.module_command("m", "get_flows", {})) == before
    assert [gate(engine, udp(n)) for n in range(4)] == gates
    assert gate(engine, udp(7)) == 5


def test_a_part_in_the_middle_is_split_off() -> None:
    engine = steer(WHOLE)
    flows = sorted((udp(n) for n in range(8)), key=flow_id)
    old, fresh = flows[::2], flows[1::2]
    for flow in old:
        gate(engine, flow)
    args = {"gate": 1, "new_gate": 2, "cut": flow_id(flows[2]), "end": flow_id(flows[5])}
    assert engine.module_command("m", "split", args) == {"split": 1, "exceptions": 2}
    (split,) = status(engine)["splits"]
    assert (split["cut"], split["end"]) == (args["cut"], args["end"])
    assert [gate(engine, flow) for flow in old] == [1] * 4
    assert [gate(engine, flow) for flow in fresh] == [1, 2, 1, 1]
    part = {"start": args["cut"], "end": args["end"]}
    found = engine.module_command("m", "get_flows", part)
    assert {entry["id"] for entry in found["flows"]} == {flow_id(flow) for flow in flows[2:5]}
    assert engine.module_command("m", "get_flows", {**part, "gate": 1})["total"] == 2


def test_too_many_splits_at_a_time() -> None:
    engine = steer(WHOLE)
    flows = sorted((udp(n) for n in range(66)), key=flow_id, reverse=True)
    for flow in flows:
        gate(engine, flow)
    for number, flow in enumerate(flows[:64]):
        args = {"gate": 1, "new_gate": 10 + number % 2, "cut": flow_id(flow)}
        assert engine.module_command("m", "split", args)["exceptions"] == 1
    before = status(engine)
    args = {"gate": 1, "new_gate": 9, "cut": flow_id(flows[64])}
    with pytest.raises(EngineError, match="64 earlier splits still have exceptions"):
        engine.module_command("m", "split", args)
    assert status(engine) == before
    engine.module_command("m", "update", {"remove_exceptions": [flows[5]._asdict()]})
    assert engine.module_command("m", "split", args) == {"split": 65, "exceptions": 1}


def test_ids_are_those_of_the_flow_hash() -> None:
    engine = steer(WHOLE)
    flows = [udp(1), Tuple5("2001:db8::1", "::2", 1, 65535, 6), Tuple5("1.2.3.4", "::", 0, 0, 0)]
    for flow in flows[:2]:
        assert gate(engine, flow) == 1
    found = engine.module_command("m", "get_flows", {"gate": 1})
    assert {Tuple5(**e["flow"]): e["id"] for e in found["flows"]} == {
        flow: flow_id(flow) for flow in flows[:2]
    }
    assert engine.module_command("m", "get_flows", {"limit": 1})["total"] == 2
    assert engine.module_command("m", "get_flows", {"gate": 2})["total"] == 0


def test_what_is_no_flow() -> None:
    packets = [ETHER / ARP(), bytes(5), bytes(ETHER / IP(src="10.0.0.1"))[:30], b""]
    engine = steer()
    assert [gate(engine, packet) for packet in packets] == [-1] * 4
    assert drops(engine) == {"no flow": 4}
    engine = steer(other_gate=7)
    assert [gate(engine, packet) for packet in packets] == [7] * 4
    assert status(engine)["flows"] == 0
    engine = steer([{"start": 0, "end": END, "gate": 8192}], other_gate=8192)
    assert [gate(engine, packet) for packet in [*packets, udp(1)]] == [-1] * 5
    assert drops(engine) == {"no flow": 4, "gate 8192": 1}
    assert status(engine)["gates"][8192] == {"packets": 1, "flows": 1, "exceptions": 0}


def test_a_datagram_in_fragments_stays_together() -> None:
    engine = steer(ranges_of(*range(0, END, END // 32), END))
    whole = gate(engine, udp(3))
    ip = IP(src="10.0.0.1", dst="10.0.0.2", proto=17)
    first = ETHER / Dot1Q(vlan=5) / ip.copy() / UDP(sport=1003, dport=53)
    first[IP].flags, first[IP].frag = "MF", 0
    rest = ETHER / ip.copy() / (b"x" * 40)
    rest[IP].frag = 1
    other = ETHER / ip / (b"y" * 3)  # UDP cut short has no ports either
    assert len({gate(engine, packet) for packet in (first, rest, other)}) == 1
    assert status(engine)["flows"] == 2
    assert gate(engine, ETHER / Dot1Q() / Dot1Q() / Ether(frame(udp(3))).payload) == whole
    assert status(engine)["flows"] == 2


def test_both_directions_are_one_flow_where_symmetric() -> None:
    engine = steer(ranges_of(*range(0, END, END // 32), END), symmetric=True)
    flows = [Tuple5(f"10.0.{n}.9", "10.0.7.7", 80 + n, 88, 6) for n in range(16)]
    flows += [Tuple5(f"2001:db8::{n}", "2001:db8::7", 80 + n, 88, 6) for n in range(16)]
    flows += [Tuple5("::7", "::7", 80 + n, 88, 6) for n in range(16)]
    gates = [gate(engine, flow) for flow in flows]
    assert [gate(engine, flow.reverse()) for flow in flows] == gates
    assert len(set(gates)) > 8
    assert status(engine)["flows"] == len(flows)
    ping = IP(src="10.0.0.2", dst="10.0.0.1") / ICMP()
    pong = IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=0)
    assert gate(engine, ETHER / ping) == gate(engine, ETHER / pong)


def test_a_full_table_is_counted_and_loses_the_guarantee() -> None:
    engine = steer(WHOLE, max_flows=4, timeout_ms=1000)
    for n in range(10):
        assert gate(engine, udp(n), ms=n) == 1
    assert status(engine)["flows"] == 4
    assert status(engine)["untracked_packets"] == 6
    engine.module_command("m", "split", {"gate": 1, "new_gate": 2, "cut": 0})
    assert [gate(engine, udp(n), ms=20) for n in range(10)] == [1] * 4 + [2] * 6
    # Places are given back as flows end, whether or not anybody asks for them.
    assert [gate(engine, udp(n), ms=1020 + n) for n in range(10)] == [2] * 10
    found = status(engine)
    assert found["flows"] == 4 and found["untracked_packets"] == 18 and found["splits"] == []
    assert "4 flows, 18 packets untracked" in engine.module_info("m")["desc"]


@pytest.mark.parametrize(
    ("symmetric", "sent", "lives_on"),
    [
        (False, ["A"], True),
        (False, ["FA"], False),
        (False, ["RA"], False),
        (False, ["FA", "A"], False),
        (False, ["FA", "S"], True),
        (True, ["FA"], True),
        (True, ["FA", "FA"], True),
        (True, ["FA", "<FA"], False),
        (True, ["FA", "<FA", "A"], False),
        (True, ["FA", "<FA", "S"], True),
        (True, ["FA", "<FA", "S", "FA"], True),
        (True, ["<R"], False),
    ],
)
def test_ends_of_connections(symmetric: bool, sent: list[str], lives_on: bool) -> None:
    engine = steer(WHOLE, symmetric=symmetric, timeout_ms=1000, linger_ms=10)
    flow = Tuple5("10.0.0.1", "10.0.0.2", 1, 2, 6)
    gate(engine, frame(flow, flags="S"))
    for text in sent:
        towards = flow.reverse() if text[0] == "<" else flow
        gate(engine, frame(towards, flags=text.lstrip("<")))
    engine.module_command("m", "split", {"gate": 1, "new_gate": 2, "cut": 0})
    assert gate(engine, frame(flow, flags="A"), ms=9) == 1  # it lingers, and lingers anew
    assert gate(engine, frame(flow, flags="A"), ms=18) == 1
    assert gate(engine, frame(flow, flags="A"), ms=28) == (1 if lives_on else 2)
    assert gate(engine, frame(flow, flags="A"), ms=1028) == 2


def test_the_end_of_one_connection_is_not_the_end_of_many() -> None:
    engine = steer(WHOLE, affinity=[{"name": "src"}], timeout_ms=1000, linger_ms=10)
    flow = Tuple5("10.0.0.1", "10.0.0.2", 1, 2, 6)
    gate(engine, frame(flow, flags="R"))
    engine.module_command("m", "split", {"gate": 1, "new_gate": 2, "cut": 0})
    assert gate(engine, udp(5), ms=999) == 1


def test_few_exceptions_are_told_by_packets_and_in_silence() -> None:
    engine = steer(WHOLE, timeout_ms=1000)
    for n in range(10):
        gate(engine, udp(n), ms=100 * n)
    args = {"gate": 1, "new_gate": 2, "cut": 0, "threshold": 5}
    assert engine.module_command("m", "split", args) == {"split": 1, "exceptions": 10}
    assert gate(engine, ETHER / ARP(), ms=1400) == -1
    assert engine.events()["events"] == []
    assert gate(engine, ETHER / ARP(), ms=1500) == -1
    (event,) = engine.events()["events"]
    assert event["module"] == "m" and event["kind"] == "few_exceptions"
    assert event["values"] == {"split": 1, "gate": 1, "new_gate": 2, "cut": 0, "exceptions": 4}
    status(engine)
    gate(engine, ETHER / ARP(), ms=5000)
    assert len(engine.events()["events"]) == 1
    args = {"gate": 2, "new_gate": 3, "cut": HALF}
    assert engine.module_command("m", "split", args) == {"split": 2, "exceptions": 0}
    assert engine.events()["events"][-1]["values"]["exceptions"] == 0


def test_silence_is_noticed_by_whoever_asks() -> None:
    engine = steer(WHOLE, timeout_ms=50)
    engine.run_packets("m", [frame(udp(1))])
    engine.module_command("m", "split", {"gate": 1, "new_gate": 2, "cut": 0})
    wait_until(lambda: status(engine)["flows"] == 0)
    assert [event["kind"] for event in engine.events()["events"]] == ["few_exceptions"]


def test_commands_beside_a_worker(tmp_path: Path) -> None:
    """Splits to and fro while packets flow: the daemon's subscriber hears of each once."""
    fields = [{"offset": 26, "size": 4, "min": 0x0A000000, "max": 0x0A0001FF}]
    with Server(make_engine(4096), port=0) as server, Client(server.address) as client:
        client.add_worker(0, min(os.sched_getaffinity(0)))
        client.create_module("Source", "source")
        client.create_module("Rewrite", "rewrite", templates=[frame(udp(1))])
        client.create_module("RandomUpdate", "vary", fields=fields)
        client.create_module("FlowSteer", "m", ranges=WHOLE, timeout_ms=20)
        client.connect("source", "rewrite")
        client.connect("rewrite", "vary")
        client.connect("vary", "m")
        for number in (1, 2):
            client.create_module("Sink", f"sink{number}")
            client.connect("m", f"sink{number}", ogate=number)
        client.resume()

        def ask(command: str, kind: str, **args: Any) -> dict[str, Any]:
            return client.run_module_command("m", command, f"FlowSteerCommand{kind}Arg", args)

        wait_until(lambda: ask("get_status", "GetStatus")["flows"] == 512)
        with client.events(modules=["m"]) as events:
            made = 0
            for old, new in [(1, 2), (2, 1)] * 5:
                answer = ask("split", "Split", gate=old, new_gate=new, cut=0)
                made += 1
                assert answer["split"] == made
                found = ask("get_status", "GetStatus")
                assert found["flows"] <= 512 and found["untracked_packets"] == 0
            client.pause()
            wait_until(lambda: ask("get_status", "GetStatus")["flows"] == 0)
            told = {next(events)["values"]["split"] for _ in range(made)}
            assert told == set(range(1, made + 1))
