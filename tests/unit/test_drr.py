# SPDX-License-Identifier: BSD-3-Clause
"""DRR against a twin of the algorithm in plain Python, and Buffer."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap

from harness import Engine, EngineError, new_engine, run, wait_until

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
Key = tuple[Any, ...]


def random_packet(rng: random.Random, flows: int) -> Packet:
    layer: Packet = Ether(**MACS)
    if rng.random() < 0.3:
        layer /= Dot1Q(vlan=rng.randrange(9))
    flow = rng.randrange(flows)
    if flow == 0:
        return layer / ARP()
    ip = (
        IP(src=f"10.0.0.{flow}", id=rng.randrange(9))
        if flow % 2
        else IPv6(src=f"2001:db8::{flow}", hlim=rng.randrange(1, 99))
    )
    l4 = {0: TCP(sport=flow), 1: UDP(sport=flow), 2: ICMP()}[flow % 3]
    return layer / ip / l4 / Raw(rng.randbytes(rng.choice([1, 100, 700, 1400])))


def flow_of(packet: Packet) -> Key:
    ip = packet.getlayer(IP) or packet.getlayer(IPv6)
    if ip is None:
        return ()
    l4 = packet.getlayer(TCP) or packet.getlayer(UDP)
    ports = (l4.sport, l4.dport) if l4 else (0, 0)
    return (ip.src, ip.dst, ip.proto if IP in packet else ip.nh, *ports)


class Twin:
    """Deficit round robin; `run` gives what one run of the task sends."""

    def __init__(self, flows: int, quantum: int, most: int) -> None:
        self.limits = (flows, most)
        self.quantum = quantum
        self.ring: OrderedDict[Key, tuple[list[int], deque[bytes]]] = OrderedDict()
        self.resumes = False
        self.drops = {"flow queue full": 0, "too many flows": 0}

    def put(self, packet: Packet) -> None:
        key = flow_of(packet)
        if key not in self.ring:
            if len(self.ring) == self.limits[0]:
                self.drops["too many flows"] += 1
                return
            self.ring[key] = ([0], deque())
        queue = self.ring[key][1]
        if len(queue) == self.limits[1]:
            self.drops["flow queue full"] += 1
        else:
            queue.append(bytes(packet))

    def run(self) -> list[bytes]:
        out: list[bytes] = []
        idle = 0
        while len(out) < 32 and self.ring and idle < len(self.ring):
            key, (deficit, queue) = next(iter(self.ring.items()))
            deficit[0] += 0 if self.resumes else self.quantum
            self.resumes = False
            before = len(out)
            while queue and len(out) < 32 and len(queue[0]) <= deficit[0]:
                deficit[0] -= len(queue[0])
                out.append(queue.popleft())
            idle = idle + 1 if len(out) == before else 0
            if not queue:
                del self.ring[key]
            elif len(out) == 32 and len(queue[0]) <= deficit[0]:
                self.resumes = True
            else:
                self.ring.move_to_end(key)
        return out


def served(tmp_path: Path, engine: Engine, count: int) -> list[bytes]:
    """What a DRR that was filled while nothing ran sends, in order."""
    path = tmp_path / "out.pcap"
    engine.create_port("p", "PCAPPort", 0, 1, 0, 1024, {"write_path": str(path)})
    engine.create_module("out", "PortOut", {"port": "p"})
    engine.connect("m", 0, "out", 0)
    engine.add_worker(0, -1)
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("!leaf_m:0")["packets"] >= count)
    engine.pause_all()
    engine.reset_modules()
    engine.destroy_port("p")
    return [bytes(packet) for packet in rdpcap(str(path))]


@pytest.mark.parametrize("seed", range(10))
def test_twin(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    flows = rng.choice([1, 2, 5, 12])
    args = {
        "num_flows": rng.choice([2, 100]),
        "quantum": rng.choice([60, 500, 1500, 9000]),
        "max_flow_queue_size": rng.choice([20, 1000]),
    }
    packets = [random_packet(rng, flows) for _ in range(rng.choice([10, 300]))]
    twin = Twin(args["num_flows"], args["quantum"], args["max_flow_queue_size"])
    for packet in packets:
        twin.put(packet)
    expected: list[bytes] = []
    while twin.ring:
        expected += twin.run()
    engine = new_engine()
    engine.create_module("m", "DRR", args)
    assert engine.run_packets("m", [bytes(packet) for packet in packets]) == {}
    drops = {k: v for k, v in engine.module_info("m")["drops"].items() if k in twin.drops}
    assert drops == twin.drops
    assert served(tmp_path, engine, len(expected)) == expected
    assert engine.mempool()["in_use"] == 0


def test_bytes_are_shared_fairly(tmp_path: Path) -> None:
    """Small and large packets take turns so that flows get the same number of bytes."""
    sizes = [60, 300, 1400]
    packets = [
        bytes(Ether(**MACS) / IP(src=f"10.0.0.{n}") / UDP() / Raw(bytes(size - 42)))
        for n, size in enumerate(sizes, 1)
        for _ in range(100_000 // size if size > 60 else 400)
    ]
    engine = new_engine()
    engine.create_module("m", "DRR", {"quantum": 1400})
    engine.run_packets("m", packets)
    out = served(tmp_path, engine, len(packets))
    assert sorted(out) == sorted(packets)
    sent = dict.fromkeys(sizes, 0)
    for packet in out:
        sent[len(packet)] += len(packet)
        if min(sent.values()) > 10_000 and max(sent.values()) < 20_000:
            assert max(sent.values()) - min(sent.values()) <= 2 * 1400


def test_commands() -> None:
    engine = new_engine()
    engine.create_module("m", "DRR", {})
    packets = [bytes(Ether(**MACS) / IP() / UDP())] * 10
    engine.module_command("m", "set_max_flow_queue_size", {"max_queue_size": 4})
    engine.run_packets("m", packets)
    assert engine.module_info("m")["drops"]["flow queue full"] == 6
    engine.module_command("m", "set_quantum_size", {"quantum": 77})
    assert engine.module_info("m")["desc"] == "77 bytes per turn"
    assert engine.mempool()["in_use"] == 4
    engine.reset_modules()
    assert engine.mempool()["in_use"] == 0


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("set_quantum_size", {"quantum": 0}),
        ("set_quantum_size", {"quantum": (1 << 30) + 1}),
        ("set_max_flow_queue_size", {"max_queue_size": 0}),
    ],
)
def test_bad_commands(command: str, args: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=f"{command}: .* must be"):
        run("DRR", {}, [], [(command, args)])


@pytest.mark.parametrize("args", [{"num_flows": (1 << 20) + 1}, {"quantum": 1 << 40}])
def test_bad_arguments(args: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"DRR\.(num_flows|quantum) is"):
        run("DRR", args, [])


def test_all_that_lead_to_drr_run_on_its_worker() -> None:
    engine = new_engine()
    for wid in (0, 1):
        engine.add_worker(wid, -1)
    engine.create_module("m", "DRR", {})
    engine.create_module("sink", "Sink", {})
    engine.create_module("source", "Source", {})
    engine.connect("source", 0, "m", 0)
    engine.connect("m", 0, "sink", 0)
    place = {"leaf_module_taskid": 0}
    engine.update_tc_parent({"leaf_module_name": "m", "wid": 0, **place})
    engine.update_tc_parent({"leaf_module_name": "source", "wid": 1, **place})
    with pytest.raises(EngineError, match=r"'m' \(DRR\) is reached from workers 0 and 1"):
        engine.resume_all()


@pytest.mark.parametrize("sizes", [[1] * 130, [63, 1], [64], [20] * 8, [200]])
def test_buffer_sends_64_packets_at_a_time(sizes: list[int]) -> None:
    packets = [n.to_bytes(2, "big") for n in range(sum(sizes))]
    engine = new_engine()
    engine.create_module("m", "Buffer", {})
    sent: list[bytes] = []
    given = 0
    for size in sizes:
        sent += engine.run_packets("m", packets[given : given + size]).get(0, [])
        given += size
        assert sent == packets[: given // 64 * 64]
        assert engine.mempool()["in_use"] == given % 64
    engine.reset_modules()
    assert engine.mempool()["in_use"] == 0
