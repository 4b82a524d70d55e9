# SPDX-License-Identifier: BSD-3-Clause
"""Modules that make packets or look at time: Timestamp, Measure, Dump, FlowGen and NoOP."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.all import rdpcap
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from harness import Engine, EngineError, new_engine, run, wait_until

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TOO_SHORT = "packet too short"
MARKER = struct.pack("=I", 0x54C5BE55)


def ipv4(l4: Any, vlans: int = 0, **fields: Any) -> bytes:
    packet = Ether(**MACS)
    for n in range(vlans):
        packet /= Dot1Q(vlan=n + 1)
    return bytes(packet / IP(src="10.0.0.1", dst="10.0.0.2", **fields) / l4 / b"payload")


def ipv6(l4: Any) -> bytes:
    return bytes(Ether(**MACS) / IPv6(src="2001:db8::1", dst="2001:db8::2") / l4 / b"payload")


def prefixes(packet: bytes) -> list[bytes]:
    return [packet[:n] for n in range(len(packet) + 1)]


class TestTimestampAndMeasure:
    def test_stamp_in_the_packet_grows_it(self) -> None:
        packets = prefixes(bytes(60))
        before = time.monotonic_ns()
        result = run("Timestamp", {"offset": 20}, packets)
        after = time.monotonic_ns()
        assert result.drops == {TOO_SHORT: 20}
        assert [len(p) for p in result.out[0]] == [max(32, n) for n in range(20, 61)]
        for packet in result.out[0]:
            assert packet[:24] == bytes(20) + MARKER
            assert before <= struct.unpack_from("=Q", packet, 24)[0] <= after
            assert packet[32:] == bytes(len(packet) - 32)

    def test_full_buffer(self) -> None:
        result = run("Timestamp", {"offset": 2036}, [bytes(2048), bytes(2036), bytes(2035)])
        assert [len(p) for p in result.out[0]] == [2048, 2048]
        engine = Engine(pool_packets=64, buffer_bytes=512)
        engine.create_module("m", "Timestamp", {"offset": 505})
        engine.run_packets("m", [bytes(510)])
        assert engine.module_info("m")["drops"]["no tailroom"] == 1

    def test_stamp_as_attribute_leaves_bytes_alone(self) -> None:
        packets = prefixes(bytes(30))
        assert run("Timestamp", {}, packets).out[0] == packets

    def test_measures_what_was_stamped(self) -> None:
        ages_ns = [1_000, 200_000, 5_000_000, 90_000_000, 200_000_000]
        now = time.monotonic_ns()
        stamped = [bytes(16) + MARKER + struct.pack("=Q", now - age) + b"end" for age in ages_ns]
        future = bytes(16) + MARKER + struct.pack("=Q", now + 10**12)
        bare = [future, *prefixes(bytes(40))]
        summary = [("get_summary", {"latency_percentiles": [0, 60, 100], "clear": True})]
        summary += [("get_summary", {})]
        result = run("Measure", {"offset": 16}, [*stamped, *bare], after=summary)
        assert result.out[0] == [*stamped, *bare]
        first, second = result.command_results
        packets = len(stamped) + len(bare)
        assert first["packets"] == packets
        assert first["bits"] == (sum(map(len, stamped)) + packets * 24) * 8
        assert abs(first["timestamp"] - time.time()) < 60
        latency = first["latency"]
        assert latency["count"] == 5 and latency["above_range"] >= 1
        assert latency["resolution_ns"] == 100
        low, middle, high = latency["percentile_values_ns"]
        assert low == latency["min_ns"] >= 1_000 - 100
        assert middle >= 5_000_000 - 100
        assert high == latency["max_ns"] == 100_000_000
        assert latency["avg_ns"] == latency["total_ns"] // 5
        assert second["packets"] == 0 and second["latency"]["count"] == 0

    def test_jitter_of_every_packet(self) -> None:
        now = time.monotonic_ns()
        stamped = [MARKER + struct.pack("=Q", now - age) for age in (10**6, 3 * 10**6, 2 * 10**6)]
        packets = [bytes(4) + stamp for stamp in stamped]
        args = {"offset": 4, "jitter_sample_prob": 1.0, "latency_ns_resolution": 1000}
        result = run("Measure", args, packets, after=[("get_summary", {})])
        jitter = result.command_results[0]["jitter"]
        assert jitter["count"] == 2  # all packets of a batch are measured at one time
        assert (jitter["min_ns"], jitter["max_ns"]) == (1_000_000, 2_000_000)

    def test_pair_in_a_graph(self) -> None:
        engine = new_engine()
        engine.create_module("stamp", "Timestamp", {})
        engine.create_module("wait", "Bypass", {"cycles_per_batch": 100_000})
        engine.create_module("measure", "Measure", {})
        engine.create_module("sink", "Sink", {})
        engine.connect("stamp", 0, "wait", 0)
        engine.connect("wait", 0, "measure", 0)
        engine.connect("measure", 0, "sink", 0)
        engine.run_packets("stamp", [bytes(60)] * 64)
        summary = engine.module_command("measure", "get_summary", {})
        assert summary["packets"] == summary["latency"]["count"] == 64
        assert summary["latency"]["min_ns"] >= 5_000  # 100000 cycles, below 20 GHz
        engine.module_command("measure", "clear", {})
        assert engine.module_command("measure", "get_summary", {})["packets"] == 0

    @pytest.mark.parametrize(
        ("args", "code"),
        [
            ({"offset": 2037}, 22),
            ({"jitter_sample_prob": -0.5}, 22),
            ({"jitter_sample_prob": 1.5}, 22),
            ({"latency_ns_max": 10**9, "latency_ns_resolution": 1}, 7),
        ],
    )
    def test_bad_arguments(self, args: dict[str, Any], code: int) -> None:
        with pytest.raises(EngineError) as error:
            run("Measure", args, [])
        assert error.value.code == code

    @pytest.mark.parametrize("percentiles", [[50, 10], [-1], [101], ["x"]])
    def test_bad_percentiles(self, percentiles: list[Any]) -> None:
        command = ("get_summary", {"latency_percentiles": percentiles})
        with pytest.raises(EngineError, match="latency_percentiles"):
            run("Measure", {}, [], [command])


class TestDump:
    def test_prints_the_first_packet_and_forwards_all(self, capfd: pytest.CaptureFixture) -> None:
        packets = [b"look at me, world", *prefixes(bytes(50))]
        engine = new_engine()
        engine.create_module("m", "Dump", {"interval": 1000})
        assert engine.run_packets("m", packets)[0] == packets
        engine.destroy_module("m")  # prints what it still holds
        text = capfd.readouterr().out
        assert text.count("m: packet dump") == 1
        assert "length 17" in text
        assert "0000: 6c 6f 6f 6b 20 61 74 20 6d 65 2c 20 77 6f 72 6c  |look at me, worl|" in text
        assert "0010: 64 " in text

    @pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
    def test_bad_interval(self, interval: float) -> None:
        with pytest.raises(EngineError, match="'interval'"):
            run("Dump", {}, [], [("set_interval", {"interval": interval})])
        if interval != 0:
            with pytest.raises(EngineError, match="'interval'"):
                run("Dump", {"interval": interval}, [])


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = new_engine()
    yield made
    made.pause_all()
    made.reset_modules()


def generate(engine: Engine, path: Path, args: dict[str, Any], packets: int) -> list[Any]:
    """At least that many packets of a FlowGen, in order."""
    engine.create_port("out", "PCAPPort", 0, 1, 0, 1024, {"write_path": str(path)})
    engine.create_module("gen", "FlowGen", args)
    engine.create_module("write", "PortOut", {"port": "out"})
    engine.connect("gen", 0, "write", 0)
    engine.add_worker(0, -1)
    engine.resume_all()
    wait_until(lambda: engine.port_stats("out")["out"]["packets"] >= packets)
    engine.pause_all()
    engine.reset_modules()
    engine.destroy_port("out")
    return [Ether(bytes(packet)) for packet in rdpcap(str(path))]


class TestFlowGen:
    def test_tcp_flows_start_and_end(self, engine: Engine, tmp_path: Path) -> None:
        template = ipv4(TCP(sport=100, dport=200))
        args = {
            "template": template,
            "pps": 20_000.0,
            "flow_rate": 4000.0,
            "flow_duration": 0.01,
            "ip_src_range": 50,
            "port_dst_range": 1000,
        }
        packets = generate(engine, tmp_path / "out.pcap", args, 600)
        flows: dict[tuple[Any, ...], list[Any]] = {}
        for packet in packets:
            ip, tcp = packet[IP], packet[TCP]
            assert bytes(packet) == with_checksums(bytes(packet))
            assert ip.src.startswith("10.0.0.") and 1 <= int(ip.src.split(".")[3]) <= 50
            assert ip.dst == "10.0.0.2" and tcp.sport == 100 and 200 <= tcp.dport < 1200
            flows.setdefault((ip.src, tcp.dport), []).append(packet)
        assert len(flows) > 80
        for flow in flows.values():
            assert flow[0][TCP].flags.S and flow[0][TCP].seq == 12345
        whole = [f for f in flows.values() if f[-1][TCP].flags.F and len(f) in (5, 6)]
        assert len(whole) > 40
        for flow in whole:
            assert [len(p) for p in flow[1:-1]] == [len(template)] * (len(flow) - 2)
            assert len(flow[0]) == len(flow[-1]) == 60
            expected = [12345] + [12346 + 7 * n for n in range(len(flow) - 1)]
            assert [p[TCP].seq for p in flow] == expected

    def test_udp_keeps_the_template(self, engine: Engine, tmp_path: Path) -> None:
        template = ipv4(UDP(sport=100, dport=200), 1)
        args = {
            "template": template,
            "pps": 50_000.0,
            "flow_rate": 5000.0,
            "flow_duration": 1.0,
            "arrival": "exponential",
            "duration": "pareto",
            "quick_rampup": True,
        }
        packets = generate(engine, tmp_path / "out.pcap", args, 500)
        assert {len(packet) for packet in packets} == {len(template)}
        assert all(bytes(p) == with_checksums(bytes(p)) for p in packets)
        assert all(100 <= p[UDP].sport < 20100 and 200 <= p[UDP].dport < 20200 for p in packets)
        assert len({p[UDP].sport for p in packets}) > 100

    def test_update_and_burst(self, engine: Engine) -> None:
        engine.create_module("gen", "FlowGen", {"template": ipv4(UDP())})
        engine.module_command("gen", "update", {"pps": 5.0, "flow_rate": 5.0})
        engine.module_command("gen", "set_burst", {"burst": 1})
        with pytest.raises(EngineError, match="'burst'"):
            engine.module_command("gen", "set_burst", {"burst": 33})
        with pytest.raises(EngineError, match="'flow_rate'"):
            engine.module_command("gen", "update", {"flow_rate": 6.0})
        with pytest.raises(EngineError, match="'template'"):
            engine.module_command("gen", "update", {"template": ipv4(TCP())})

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"template": b""}, "'template' must be specified"),
            ({"template": b"\x80" * 1537}, "'template'"),
            ({"template": ipv6(UDP())}, "IPv4"),
            ({"template": ipv4(ICMP())}, "TCP or UDP"),
            ({"template": ipv4(UDP())[:-1]}, "lengths"),
            ({"template": ipv4(TCP(dataofs=3))}, "lengths"),
            ({"template": ipv4(TCP(), flags="MF")}, "unfragmented"),
            ({"pps": -1.0}, "'pps'"),
            ({"pps": float("nan")}, "'pps'"),
            ({"flow_duration": float("inf")}, "'flow_duration'"),
            ({"pps": 1.0, "flow_rate": 2.0}, "'flow_rate'"),
            ({"pps": 1e9, "flow_rate": 1e9}, "1048576"),
            ({"arrival": "often"}, "'arrival'"),
            ({"duration": "long"}, "'duration'"),
            ({"port_src_range": 65536}, "'port_src_range'"),
        ],
    )
    def test_bad_arguments(self, args: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            new_engine().create_module("m", "FlowGen", {"template": ipv4(UDP()), **args})


def with_checksums(packet: bytes) -> bytes:
    """The packet with the checksums that scapy puts into it."""
    frame = Ether(packet)
    for layer in (IP, TCP, UDP):
        if layer in frame:
            del frame[layer].chksum
    return bytes(frame)


def test_no_op_runs(engine: Engine) -> None:
    engine.create_module("idle", "NoOP", {})
    engine.add_worker(0, -1)
    engine.resume_all()
    time.sleep(0.01)
    engine.pause_all()
    info = engine.module_classes()["NoOP"]
    assert (info["igates"], info["ogates"]) == (0, 0)
