# SPDX-License-Identifier: BSD-3-Clause
"""Modules that spread packets over gates: HashLB, RoundRobin, RandomSplit, Split, Replicate and
VLANSplit."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from harness import Engine, EngineError, Result, new_engine, run

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
DROP = 8192


def udp(src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 1, dport: int = 2) -> bytes:
    return bytes(Ether(**MACS) / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / b"data")


def numbered(count: int) -> list[bytes]:
    return [n.to_bytes(2, "big") + bytes(58) for n in range(count)]


def counts(result: Result) -> dict[int, int]:
    return {gate: len(packets) for gate, packets in result.out.items() if packets}


def gate_of(mclass: str, args: dict, packet: bytes) -> int:
    (gate,) = counts(run(mclass, args, [packet]))
    return gate


class TestHashLB:
    gates = list(range(16))

    def spread(self, mode: str, packets: list[bytes]) -> list[int]:
        args = {"gates": self.gates, "mode": mode}
        return [gate_of("HashLB", args, packet) for packet in packets]

    @pytest.mark.parametrize("mode", ["l2", "l3", "l4"])
    def test_both_directions_take_one_gate(self, mode: str) -> None:
        for n in range(1, 20):
            there = Ether(src="02:00:00:00:00:01", dst=f"02:00:00:00:00:{n:02x}")
            back = Ether(src=f"02:00:00:00:00:{n:02x}", dst="02:00:00:00:00:01")
            a, b = f"10.0.0.{n}", f"10.1.{n}.9"
            forth = bytes(there / IP(src=a, dst=b) / TCP(sport=n, dport=80))
            reply = bytes(back / IP(src=b, dst=a) / TCP(sport=80, dport=n))
            assert len(set(self.spread(mode, [forth, reply]))) == 1

    def test_what_each_mode_looks_at(self) -> None:
        ports = [udp(sport=n) for n in range(40)]
        assert len(set(self.spread("l2", ports))) == 1
        assert len(set(self.spread("l3", ports))) == 1
        assert len(set(self.spread("l4", ports))) > 8
        addresses = [udp(src=f"10.0.0.{n}") for n in range(40)]
        assert len(set(self.spread("l2", addresses))) == 1
        assert len(set(self.spread("l3", addresses))) > 8

    def test_ipv6_and_vlan(self) -> None:
        six = [bytes(Ether(**MACS) / IPv6(src=f"2001:db8::{n}") / UDP()) for n in range(1, 41)]
        assert len(set(self.spread("l3", six))) > 8
        plain = Ether(**MACS) / IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=5, dport=6)
        tagged = Ether(**MACS) / Dot1Q(vlan=9) / plain.payload
        assert len(set(self.spread("l4", [bytes(plain), bytes(tagged)]))) == 1

    def test_fragments_stay_together(self) -> None:
        first = bytes(Ether(**MACS) / IP(flags="MF") / UDP(sport=7, dport=8) / bytes(24))
        last = bytes(Ether(**MACS) / IP(frag=4, proto=17) / bytes(24))
        assert len(set(self.spread("l4", [first, last]))) == 1

    def test_no_ip(self) -> None:
        packets = [bytes(Ether(**MACS) / ARP(psrc=f"1.1.1.{n}")) for n in range(9)]
        assert len(set(self.spread("l4", packets))) == 1
        assert len(self.spread("l2", [b"x", b"short"])) == 2

    def test_fields(self) -> None:
        args = {"gates": self.gates, "fields": [{"offset": 0, "num_bytes": 2}]}
        packets = numbered(64)
        gates = [gate_of("HashLB", args, packet) for packet in packets]
        assert len(set(gates)) > 8
        assert [gate_of("HashLB", args, packet[:2] + b"other") for packet in packets] == gates

    def test_even_spread(self) -> None:
        packets = [udp(sport=n) for n in range(800)]
        result = run("HashLB", {"gates": [3, 4, 5, 6]}, packets)
        assert set(counts(result)) == {3, 4, 5, 6}
        assert all(140 < count < 260 for count in counts(result).values())

    def test_commands(self) -> None:
        commands = [("set_gates", {"gates": [9]}), ("set_mode", {"mode": "l2"})]
        assert counts(run("HashLB", {}, [udp()], commands)) == {9: 1}
        assert run("HashLB", {}, [udp()]).drops == {"no gates": 1}
        assert run("HashLB", {"gates": [DROP]}, [udp()]).drops == {"gate 8192": 1}

    @pytest.mark.parametrize(
        ("args", "text"),
        [
            ({"mode": "l5"}, "available LB modes: l2, l3, l4"),
            ({"gates": [8193]}, "HashLB.gates[0]"),
            ({"gates": [0, -1]}, "HashLB.gates[1]"),
            ({"fields": [{"attr_name": "x", "num_bytes": 1}]}, "use offset"),
        ],
    )
    def test_bad_arguments(self, args: dict, text: str) -> None:
        with pytest.raises(EngineError, match=text.replace("[", r"\[")):
            run("HashLB", args, [])


class TestRoundRobin:
    def test_packets(self) -> None:
        packets = numbered(70)
        result = run("RoundRobin", {"gates": [4, 2, 9], "mode": "packet"}, packets)
        assert result.out == {4: packets[0::3], 2: packets[1::3], 9: packets[2::3]}

    def test_batches(self) -> None:
        packets = numbered(96)
        for args in ({"gates": [0, 1]}, {"gates": [0, 1], "mode": "batch"}):
            result = run("RoundRobin", args, packets)
            assert result.out == {0: packets[:32] + packets[64:], 1: packets[32:64]}

    def test_commands(self) -> None:
        commands = [("set_gates", {"gates": [5, 6]}), ("set_mode", {"mode": "packet"})]
        packets = numbered(4)
        result = run("RoundRobin", {"gates": [1]}, packets, commands)
        assert result.out == {5: packets[0::2], 6: packets[1::2]}
        assert run("RoundRobin", {}, packets).drops == {"no gates": 4}
        args = {"gates": [1, DROP], "mode": "packet"}
        assert run("RoundRobin", args, packets).drops == {"gate 8192": 2}

    def test_fewer_gates_in_mid_turn(self) -> None:
        engine = new_engine()
        engine.create_module("m", "RoundRobin", {"gates": [0, 1, 2], "mode": "packet"})
        engine.run_packets("m", numbered(2), 0)
        engine.module_command("m", "set_gates", {"gates": [7]})
        assert set(engine.run_packets("m", numbered(2), 0)) == {7}

    @pytest.mark.parametrize("args", [{"mode": "both"}, {"gates": [9999]}, {"gates": [0] * 16385}])
    def test_bad_arguments(self, args: dict) -> None:
        with pytest.raises(EngineError, match="RoundRobin"):
            run("RoundRobin", args, [])


class TestRandomSplit:
    def test_rates(self) -> None:
        packets = numbered(800)
        assert counts(run("RandomSplit", {"gates": [0]}, packets)) == {0: 800}
        everything = run("RandomSplit", {"gates": [0], "drop_rate": 1}, packets)
        assert everything.drops == {"random drop": 800}
        some = run("RandomSplit", {"gates": [0], "drop_rate": 0.25}, packets)
        assert 130 < some.drops["random drop"] < 280

    def test_gates(self) -> None:
        result = run("RandomSplit", {"gates": [1, 5, 7, 8]}, numbered(800))
        assert set(counts(result)) == {1, 5, 7, 8}
        assert all(120 < count < 280 for count in counts(result).values())

    def test_commands(self) -> None:
        commands = [("set_droprate", {"drop_rate": 0}), ("set_gates", {"gates": [3]})]
        args = {"gates": [1], "drop_rate": 1}
        assert counts(run("RandomSplit", args, numbered(5), commands)) == {3: 5}
        assert run("RandomSplit", {}, numbered(5)).drops == {"no gates": 5}

    @pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
    def test_bad_rate(self, rate: float) -> None:
        with pytest.raises(EngineError, match="must be from 0 to 1"):
            run("RandomSplit", {"drop_rate": rate}, [])


class TestSplit:
    @pytest.mark.parametrize("size", range(1, 9))
    def test_sizes(self, size: int) -> None:
        numbers = [0, 1, 63, 255]
        packets = [b"abc" + n.to_bytes(size, "big") + b"\xff" * 9 for n in numbers]
        result = run("Split", {"size": size, "offset": 3}, packets)
        assert result.out == {0: [packets[0]], 1: [packets[1]], 63: [packets[2]]}
        assert result.drops == {"no gate": 1}

    def test_numbers_that_are_no_gates(self) -> None:
        packets = [n.to_bytes(2, "big") for n in (8192, 0xFF00, 0xFF05, 0xFFFF)]
        assert run("Split", {"size": 2, "offset": 0}, packets).drops == {"no such gate": 4}
        wide = [(1 << 16).to_bytes(4, "big")]
        assert run("Split", {"size": 4, "offset": 0}, wide).drops == {"no such gate": 1}

    def test_short_packets(self) -> None:
        assert counts(run("Split", {"size": 2, "offset": 1}, [b"ab"])) == {}
        assert run("Split", {"size": 2, "offset": 1}, [b"ab"]).drops == {"no such gate": 1}
        assert counts(run("Split", {"size": 2, "offset": 1}, [b"a\0", b"a"])) == {0: 2}
        assert run("Split", {"size": 2, "offset": 1}, [b"a\1"]).drops == {"no gate": 1}

    def test_attribute(self) -> None:
        assert counts(run("Split", {"size": 2, "attribute": "color"}, [b"a"])) == {0: 1}

    @pytest.mark.parametrize(
        "args",
        [{}, {"size": 9, "offset": 0}, {"size": 1, "offset": -1}, {"size": 1, "offset": 1025}],
    )
    def test_bad_arguments(self, args: dict) -> None:
        with pytest.raises(EngineError, match="Split"):
            run("Split", args, [])


class TestReplicate:
    def test_copies(self) -> None:
        packets = numbered(50)
        result = run("Replicate", {"gates": [0, 3, 1]}, packets)
        assert result.out == {0: packets, 1: packets, 3: packets}
        assert result.drops == {}

    def test_the_list_is_taken_literally(self) -> None:
        packets = numbered(3)
        assert run("Replicate", {"gates": [5, 5]}, packets).out == {5: packets + packets}
        assert run("Replicate", {}, packets).out == {0: packets}
        commands = [("set_gates", {"gates": [31, 30]})]
        assert run("Replicate", {}, packets, commands).out == {30: packets, 31: packets}

    def test_an_empty_pool(self) -> None:
        packets = numbered(200)
        engine = Engine(pool_packets=512, buffer_bytes=2048)
        engine.create_module("m", "Replicate", {"gates": list(range(32))})
        arrived = 0
        for _ in range(3):
            out = engine.run_packets("m", packets, 0)
            assert 0 < len(out[0]) < 200
            assert all(out[gate] == out[0] for gate in range(32))
            arrived += len(out[0])
        assert engine.module_info("m")["drops"]["no buffer"] == 600 - arrived

    @pytest.mark.parametrize("gates", [[32], [0] * 33, [-1]])
    def test_bad_gates(self, gates: list[int]) -> None:
        with pytest.raises(EngineError, match=r"Replicate\.gates"):
            run("Replicate", {"gates": gates}, [])


class TestVLANSplit:
    def test_tags(self) -> None:
        inner = IP(src="1.2.3.4", dst="4.3.2.1") / UDP()
        plain = bytes(Ether(**MACS) / inner)
        single = bytes(Ether(**MACS) / Dot1Q(vlan=5, prio=7) / inner)
        outer = bytes(Ether(**MACS) / Dot1AD(vlan=63) / Dot1Q(vlan=5) / inner)
        result = run("VLANSplit", {}, [plain, single, outer])
        tagged = bytes(Ether(**MACS) / Dot1Q(vlan=5) / inner)
        assert result.out == {0: [plain], 5: [plain], 63: [tagged]}
        last = bytes(Ether(**MACS) / Dot1Q(vlan=4095) / inner)
        assert run("VLANSplit", {}, [last]).drops == {"no gate": 1}

    def test_short_packets(self) -> None:
        tagged = bytes(Ether(**MACS) / Dot1Q(vlan=5) / b"payload")
        result = run("VLANSplit", {}, [tagged[:13], tagged[:14], tagged[:15], tagged[:16]])
        assert result.out == {0: [tagged[:13]], 5: [tagged[:12]]}
        assert result.drops == {"truncated tag": 2}
