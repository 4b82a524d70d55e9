# SPDX-License-Identifier: BSD-3-Clause
"""Modules that change bytes in place or make packets: Update, RandomUpdate, Rewrite, MACSwap,
IPSwap, Timestamp, Measure, Dump, FlowGen and NoOP."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.all import rdpcap
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether

from harness import Engine, EngineError, Result, new_engine, run, wait_until

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TOO_SHORT = "packet too short"
MARKER = struct.pack("=I", 0x54C5BE55)


def ipv4(l4: Any, vlans: int = 0, **fields: Any) -> bytes:
    packet = Ether(**MACS)
    for n in range(vlans):
        packet /= Dot1Q(vlan=n + 1)
    return bytes(packet / IP(src="10.0.0.1", dst="10.0.0.2", **fields) / l4 / b"payload")


def ipv6(l4: Any, vlans: int = 0, extension: bool = False) -> bytes:
    packet = Ether(**MACS)
    for n in range(vlans):
        packet /= Dot1Q(vlan=n + 1)
    packet /= IPv6(src="2001:db8::1", dst="2001:db8::2")
    if extension:
        packet /= IPv6ExtHdrDestOpt()
    return bytes(packet / l4 / b"payload")


def prefixes(packet: bytes) -> list[bytes]:
    return [packet[:n] for n in range(len(packet) + 1)]


def conserved(result: Result, packets: list[bytes]) -> bool:
    return result.forwarded + result.dropped == len(packets)


def write_twin(packet: bytes, fields: list[dict[str, int]]) -> bytes | None:
    """The packet with all fields written in order, or None where one doesn't fit."""
    out = bytearray(packet)
    for field in fields:
        end = field["offset"] + field["size"]
        if end > len(out):
            return None
        out[field["offset"] : end] = field["value"].to_bytes(field["size"], "big")
    return bytes(out)


class TestUpdate:
    @pytest.mark.parametrize("size", range(1, 9))
    def test_every_size_at_every_length(self, size: int) -> None:
        fields = [{"offset": 5, "size": size, "value": 2 ** (8 * size) - 2}]
        packets = prefixes(bytes(range(40)))
        result = run("Update", {"fields": fields}, packets)
        twins = [write_twin(packet, fields) for packet in packets]
        assert result.out[0] == [twin for twin in twins if twin is not None]
        assert result.drops == {TOO_SHORT: twins.count(None)}

    def test_later_fields_win_and_add_appends(self) -> None:
        first = {"offset": 0, "size": 4, "value": 0x01020304}
        second = {"offset": 2, "size": 1, "value": 0xFF}
        result = run("Update", {"fields": [first]}, [bytes(8)], [("add", {"fields": [second]})])
        assert result.out[0] == [b"\x01\x02\xff\x04\0\0\0\0"]

    def test_clear(self) -> None:
        field = {"offset": 6, "size": 4, "value": 1}
        result = run("Update", {"fields": [field]}, [b"ab"], [("clear", {})])
        assert result.out[0] == [b"ab"]

    def test_headroom(self) -> None:
        packet = bytes(range(20))
        fields = [{"offset": -2, "size": 4, "value": 0xAABBCCDD}]
        result = run("Update", {"fields": fields}, [packet])
        assert result.out[0] == [b"\xcc\xdd" + packet[2:]]

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ({"offset": 0, "size": 0, "value": 0}, "'size'"),
            ({"offset": 0, "size": 9, "value": 0}, "'size'"),
            ({"offset": 2045, "size": 4, "value": 0}, "'offset'"),
            ({"offset": -129, "size": 4, "value": 0}, "'offset'"),
            ({"offset": 0, "size": 1, "value": 256}, "'value'"),
        ],
    )
    def test_bad_fields(self, field: dict[str, int], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("Update", {"fields": [field]}, [])

    def test_at_most_16_fields_all_or_none(self) -> None:
        field = {"offset": 0, "size": 1, "value": 1}
        engine = new_engine()
        engine.create_module("m", "Update", {"fields": [field] * 16})
        with pytest.raises(EngineError, match="16"):
            engine.module_command("m", "add", {"fields": [field]})
        engine.module_command("m", "clear", {})
        bad = {"offset": 0, "size": 1, "value": 256}
        with pytest.raises(EngineError, match="item 1"):
            engine.module_command("m", "add", {"fields": [field, bad]})
        assert engine.run_packets("m", [b"\0\0"])[0] == [b"\0\0"]


class TestRandomUpdate:
    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_range_is_inclusive_and_covered(self, size: int) -> None:
        fields = [{"offset": 3, "size": size, "min": 10, "max": 13}]
        packets = [bytes(range(16))] * 400
        out = run("RandomUpdate", {"fields": fields}, packets).out[0]
        values = Counter(int.from_bytes(packet[3 : 3 + size], "big") for packet in out)
        assert set(values) == {10, 11, 12, 13}
        assert all(p[:3] + p[3 + size :] == bytes([0, 1, 2, *range(3 + size, 16)]) for p in out)

    def test_full_range_and_cut_bounds(self) -> None:
        fields = [
            {"offset": 0, "size": 4, "min": 0, "max": 2**32 - 1},
            {"offset": 4, "size": 1, "min": 999, "max": 9999},
        ]
        out = run("RandomUpdate", {"fields": fields}, [bytes(8)] * 300).out[0]
        tops = {packet[0] for packet in out}
        assert min(tops) < 16 and max(tops) > 239
        assert {packet[4] for packet in out} == {255}

    def test_every_length(self) -> None:
        packets = prefixes(bytes(20))
        fields = [{"offset": 8, "size": 4, "min": 1, "max": 1}]
        result = run("RandomUpdate", {"fields": fields}, packets)
        assert result.out[0] == [bytes(8) + b"\0\0\0\1" + bytes(n) for n in range(9)]
        assert result.drops == {TOO_SHORT: 12}

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ({"offset": 0, "size": 3, "min": 0, "max": 1}, "'size'"),
            ({"offset": -1, "size": 4, "min": 0, "max": 1}, "'offset'"),
            ({"offset": 2047, "size": 2, "min": 0, "max": 1}, "'offset'"),
            ({"offset": 0, "size": 1, "min": 2, "max": 1}, "'min'"),
        ],
    )
    def test_bad_fields(self, field: dict[str, int], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("RandomUpdate", {"fields": [field]}, [])


class TestRewrite:
    def test_without_templates_packets_pass(self) -> None:
        assert run("Rewrite", {}, [b"abc"]).out[0] == [b"abc"]

    @pytest.mark.parametrize("count", [1, 2, 5, 32])
    def test_round_robin_over_batches(self, count: int) -> None:
        templates = [bytes([0x80 + n]) * (n * 47 + 1) for n in range(count)]
        packets = prefixes(bytes(99))
        out = run("Rewrite", {"templates": templates}, packets).out[0]
        assert out == [templates[n % count] for n in range(len(packets))]

    @pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128, 1535, 1536])
    def test_lengths(self, length: int) -> None:
        template = bytes(n * 7 % 251 for n in range(length))
        assert run("Rewrite", {"templates": [template]}, [b"x" * 60]).out[0] == [template]

    def test_add_and_clear(self) -> None:
        commands = [("clear", {}), ("add", {"templates": [b"\x80b"]}), ("add", {"templates": []})]
        result = run("Rewrite", {"templates": [b"\x80a"]}, [b"p", b"q"], commands)
        assert result.out[0] == [b"\x80b", b"\x80b"]

    def test_a_template_that_does_not_fit_the_buffer(self) -> None:
        engine = Engine(pool_packets=64, buffer_bytes=512)
        engine.create_module("m", "Rewrite", {"templates": [b"\x80" * 1000, b"\x81" * 512]})
        out = engine.run_packets("m", [b"p", b"q"])
        assert out[0] == [b"\x81" * 512]
        assert engine.module_info("m")["drops"]["template too long"] == 1

    @pytest.mark.parametrize("templates", [[b"x" * 1537], [b"x"] * 33])
    def test_bad_templates(self, templates: list[bytes]) -> None:
        with pytest.raises(EngineError, match="'templates'"):
            run("Rewrite", {"templates": templates}, [])


def mac_swap_twin(packet: bytes) -> bytes | None:
    return packet[6:12] + packet[:6] + packet[12:] if len(packet) >= 14 else None


def ip_swap_twin(packet: bytes) -> bytes:
    """Swaps addresses and ports of a whole packet, by scapy."""
    frame = Ether(packet)
    ip = frame[IP] if IP in frame else frame[IPv6]
    ip.src, ip.dst = ip.dst, ip.src
    for layer in (TCP, UDP):
        if layer in frame:
            frame[layer].sport, frame[layer].dport = frame[layer].dport, frame[layer].sport
    return bytes(frame)


class TestSwaps:
    def test_mac_at_every_length(self) -> None:
        packets = prefixes(ipv4(UDP(sport=1, dport=2)))
        result = run("MACSwap", {}, packets)
        twins = [mac_swap_twin(packet) for packet in packets]
        assert result.out[0] == [twin for twin in twins if twin is not None]
        assert result.drops == {TOO_SHORT: 14}

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("l4", [TCP(sport=1, dport=2), UDP(sport=3, dport=4), ICMP()])
    def test_ipv4(self, l4: Any, vlans: int) -> None:
        packet = ipv4(l4, vlans)
        assert run("IPSwap", {}, [packet]).out[0] == [ip_swap_twin(packet)]

    @pytest.mark.parametrize("vlans", [0, 1, 2])
    @pytest.mark.parametrize("extension", [False, True])
    @pytest.mark.parametrize("l4", [TCP(sport=1, dport=2), UDP(sport=3, dport=4)])
    def test_ipv6(self, l4: Any, vlans: int, extension: bool) -> None:
        packet = ipv6(l4, vlans, extension)
        assert run("IPSwap", {}, [packet]).out[0] == [ip_swap_twin(packet)]

    def test_twice_is_nothing(self) -> None:
        packet = ipv6(TCP(sport=1, dport=2))
        once = run("IPSwap", {}, [packet]).out[0]
        assert once != [packet]
        assert run("IPSwap", {}, once).out[0] == [packet]

    def test_later_fragments_have_no_ports(self) -> None:
        packet = ipv4(UDP(sport=1, dport=2), frag=5)
        expected = packet[:26] + packet[30:34] + packet[26:30] + packet[34:]
        assert run("IPSwap", {}, [packet]).out[0] == [expected]

    def test_other_protocols_pass(self) -> None:
        arp = bytes(Ether(**MACS) / ARP())
        assert run("IPSwap", {}, [arp]).out[0] == [arp]

    @pytest.mark.parametrize(
        ("packet", "needed"),
        [
            (ipv4(TCP()), 14 + 20 + 20),
            (ipv4(UDP(), 1), 18 + 20 + 8),
            (ipv6(UDP()), 14 + 40 + 8),
            (ipv6(TCP(), 2, True), 22 + 40 + 8 + 20),
        ],
    )
    def test_every_length(self, packet: bytes, needed: int) -> None:
        packets = prefixes(packet)
        result = run("IPSwap", {}, packets)
        assert result.drops == {TOO_SHORT: needed}
        assert [len(p) for p in result.out[0]] == list(range(needed, len(packet) + 1))


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
    engine.add_worker(0, 0)
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
    engine.add_worker(0, 0)
    engine.resume_all()
    time.sleep(0.01)
    engine.pause_all()
    info = engine.module_classes()["NoOP"]
    assert (info["igates"], info["ogates"]) == (0, 0)


@pytest.mark.parametrize(
    ("mclass", "args"),
    [
        ("MACSwap", {}),
        ("IPSwap", {}),
        ("Timestamp", {"offset": 42}),
        ("Measure", {"offset": 42}),
        ("Update", {"fields": [{"offset": 30, "size": 8, "value": 1}]}),
        ("RandomUpdate", {"fields": [{"offset": 30, "size": 4, "min": 0, "max": 9}]}),
        ("Rewrite", {"templates": [b"\x80" * 99]}),
        ("Dump", {"interval": 1000}),
    ],
)
def test_no_packet_is_lost_at_any_length(mclass: str, args: dict[str, Any]) -> None:
    for whole in (ipv4(TCP(), 1), ipv6(UDP(), 2, True), bytes(Ether(**MACS) / ARP())):
        packets = prefixes(whole)
        assert conserved(run(mclass, args, packets), packets)
