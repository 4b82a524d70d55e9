# SPDX-License-Identifier: BSD-3-Clause
"""Ports that are interfaces of the kernel: TAP and AF_PACKET, with one queue and with several."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from scapy.all import IP, UDP, Ether, Raw, rdpcap, wrpcap

from bess_plugins.captures import read_packets
from harness import Engine, EngineError, new_engine, wait_until
from port_support import Pipe


def test_kernel_port_arguments() -> None:
    engine = new_engine()
    for driver, args, expected in (
        ("TAPPort", {"ifname": "x" * 16}, "at most 15 characters"),
        ("AFPacketPort", {}, "needs 'ifname'"),
        ("AFPacketPort", {"ifname": "absent0"}, "no network interface 'absent0'"),
    ):
        with pytest.raises(EngineError) as error:
            engine.create_port("p", driver, 1, 1, 64, 64, args)
        assert expected in error.value.message


def test_tap_and_af_packet_exchange_packets(tmp_path: Path) -> None:
    """A capture is sent out of the TAP interface's host side and received from the port."""
    packets = [
        Ether(dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(bytes([i]) * 60) for i in range(20)
    ]
    wrpcap(str(tmp_path / "in.pcap"), packets)
    pipe = Pipe()
    ifname = f"t{os.getpid() % 10**8}"
    try:
        pipe.port("tap", "TAPPort", {"ifname": ifname}, (1, 1))
        pipe.port("host", "AFPacketPort", {"ifname": ifname, "promiscuous": True}, (1, 1))
    except EngineError as error:
        pytest.skip(f"needs privileges and TAP support: {error}")
    for name, sink in (("a", "tap_out.pcap"), ("b", "host_out.pcap")):
        pipe.port(
            name,
            "PCAPPort",
            {"dev": str(tmp_path / "in.pcap"), "write_path": str(tmp_path / sink)},
            (1, 1),
        )
    for source, sink in (("tap", "a"), ("host", "b"), ("a", "tap"), ("b", "host")):
        pipe.engine.create_module(f"from_{source}", "PortInc", {"port": source})
        pipe.engine.create_module(f"to_{sink}", "PortOut", {"port": sink})
        pipe.engine.connect(f"from_{source}", 0, f"to_{sink}", 0)
    pipe.engine.add_worker(0, -1)
    pipe.engine.resume_all()
    wait_until(lambda: all(pipe.stats(p, "out")["packets"] >= 20 for p in ("a", "b")))
    time.sleep(0.2)  # some of these may have been the kernel's own, such as router solicitations
    pipe.stop()
    for port in ("a", "b", "host", "tap"):
        pipe.engine.destroy_port(port)
    for name in ("tap_out.pcap", "host_out.pcap"):
        seen = [bytes(p) for p in rdpcap(str(tmp_path / name)) if p.type == 0x88B5]
        assert seen == [bytes(p) for p in packets]


def received(folder: Path, frames: list[bytes]) -> tuple[list[bytes], dict[str, int]]:
    """What an AFPacketPort receives of frames that come to its interface, and its counts."""
    source, sink = folder / "in.pcap", folder / "out.pcap"
    wrpcap(str(source), [Raw(frame) for frame in frames], linktype=1)
    pipe, sender = Pipe(), Engine(pool_packets=512, buffer_bytes=4096)
    ifname = f"r{os.getpid() % 10**8}"
    try:
        sender.create_port("tap", "TAPPort", 0, 1, 64, 64, {"ifname": ifname})
        pipe.port("host", "AFPacketPort", {"ifname": ifname, "promiscuous": True}, (1, 0))
    except EngineError as error:
        pytest.skip(f"needs privileges and TAP support: {error}")
    pipe.port("sink", "PCAPPort", {"write_path": str(sink)}, (0, 1))
    pipe.start("host", "sink")
    sender.create_port("source", "PCAPPort", 1, 0, 64, 64, {"dev": str(source)})
    sender.create_module("in", "PortInc", {"port": "source"})
    sender.create_module("out", "PortOut", {"port": "tap"})
    sender.connect("in", 0, "out", 0)
    sender.add_worker(0, -1)
    sender.resume_all()
    wait_until(lambda: pipe.stats("host")["packets"] + pipe.stats("host")["dropped"] == len(frames))
    pipe.stop()
    pipe.engine.destroy_port("sink")
    return [*read_packets(sink)], pipe.stats("host")


def test_af_packet_port_receives_what_fits_a_buffer_and_counts_the_rest(tmp_path: Path) -> None:
    """Tags are taken off by the kernel, and put back."""
    head = bytes.fromhex("ffffffffffff020000000001")
    kinds = {"untagged": "88b5", "802.1Q": "8100a00788b5", "802.1ad": "88a8000388b5"}
    frames = [
        (head + bytes.fromhex(kind)).ljust(length, bytes([number]))
        for number, length in enumerate((60, 61, 1514, 1518, 2044, 2045, 2048, 2049, 2052, 3000))
        for kind in kinds.values()
    ]
    seen, counts = received(tmp_path, frames)
    assert seen == [frame for frame in frames if len(frame) <= 2048]
    assert counts["dropped"] == 3 * len(kinds)


def test_af_packet_port_uses_its_ring_again(tmp_path: Path) -> None:
    """More frames than the ring has room for, in order: one worker sends and receives in turn."""
    pipe = Pipe()
    ifname = f"w{os.getpid() % 10**8}"
    try:
        pipe.port("tap", "TAPPort", {"ifname": ifname}, (0, 1))
        pipe.port("host", "AFPacketPort", {"ifname": ifname, "promiscuous": True}, (1, 0))
    except EngineError as error:
        pytest.skip(f"needs privileges and TAP support: {error}")
    header = bytes.fromhex("ffffffffffff02000000000188b5")
    frames = [header + number.to_bytes(4, "big") + bytes(42) for number in range(9_000)]
    wrpcap(str(tmp_path / "in.pcap"), [Raw(frame) for frame in frames], linktype=1)
    pipe.port("source", "PCAPPort", {"dev": str(tmp_path / "in.pcap")}, (1, 0))
    pipe.port("sink", "PCAPPort", {"write_path": str(tmp_path / "out.pcap")}, (0, 1))
    for source, sink in (("source", "tap"), ("host", "sink")):
        pipe.engine.create_module(f"from_{source}", "PortInc", {"port": source})
        pipe.engine.create_module(f"to_{sink}", "PortOut", {"port": sink})
        pipe.engine.connect(f"from_{source}", 0, f"to_{sink}", 0)
    pipe.engine.add_worker(0, -1)
    pipe.engine.resume_all()
    wait_until(lambda: pipe.stats("sink", "out")["packets"] == len(frames))
    pipe.stop()
    pipe.engine.destroy_port("sink")
    assert pipe.stats("host")["dropped"] == 0
    assert [*read_packets(tmp_path / "out.pcap")] == frames


def flows(count: int, sport: int) -> list[Any]:
    """Frames of as many UDP flows."""
    return [
        Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
        / IP(src="10.9.0.1", dst="10.9.0.2")
        / UDP(sport=sport, dport=1000 + i)
        / Raw(b"x" * 30)
        for i in range(count)
    ]


def test_kernel_ports_with_several_queues_spread_flows(tmp_path: Path) -> None:
    """What is sent to either end's queues arrives once, over more than one queue, by flow."""
    # TAP steers a flow to the queue that it was last sent to: the ends have flows of their own.
    sent = {"tap": flows(64, 1234), "host": flows(64, 4321)}
    pipe = Pipe()
    ifname = f"q{os.getpid() % 10**8}"
    try:
        pipe.port("tap", "TAPPort", {"ifname": ifname}, (4, 2))
        pipe.port("host", "AFPacketPort", {"ifname": ifname, "promiscuous": True}, (4, 2))
    except EngineError as error:
        pytest.skip(f"needs privileges and TAP support: {error}")
    engine = pipe.engine
    for end in ("tap", "host"):
        capture = str(tmp_path / f"{end}.pcap")
        wrpcap(capture, sent[end] * 3)
        pipe.port(f"{end}_source", "PCAPPort", {"dev": capture}, (1, 0))
        engine.create_module(f"{end}_source", "PortInc", {"port": f"{end}_source"})
        engine.create_module(f"{end}_turns", "RoundRobin", {"gates": [0, 1], "mode": "packet"})
        engine.connect(f"{end}_source", 0, f"{end}_turns", 0)
        for queue in (0, 1):
            out = f"{end}_out{queue}"
            engine.create_module(out, "QueueOut", {"port": end, "qid": queue})
            engine.connect(f"{end}_turns", queue, out, 0)
        for queue in range(4):
            inc = f"{end}_in{queue}"
            engine.create_module(inc, "QueueInc", {"port": end, "qid": queue})
            sink = tmp_path / f"{inc}.pcap"
            pipe.port(inc, "PCAPPort", {"write_path": str(sink)}, (0, 1))
            engine.create_module(f"{inc}_out", "PortOut", {"port": inc})
            engine.connect(inc, 0, f"{inc}_out", 0)
    engine.add_worker(0, -1)
    engine.resume_all()
    for end in ("tap", "host"):
        wait_until(lambda at=end: pipe.stats(at)["packets"] >= 3 * 64)
    pipe.stop()
    for end, other_end in (("tap", "host"), ("host", "tap")):
        frames = [bytes(frame) for frame in sent[other_end]]
        seen: list[list[bytes]] = []
        for queue in range(4):
            engine.destroy_port(f"{end}_in{queue}")
            captured = rdpcap(str(tmp_path / f"{end}_in{queue}.pcap"))
            seen.append([bytes(p) for p in captured if bytes(p) in frames])
        everything = sorted(frame for queue in seen for frame in queue)
        assert everything == sorted(frames * 3)
        assert sum(bool(queue) for queue in seen) > 1
        for i, queue in enumerate(seen):
            others = {frame for j, other in enumerate(seen) if j != i for frame in other}
            assert not others & set(queue)  # a flow stays in its queue


def test_tap_port_follows_its_configuration() -> None:
    engine = new_engine()
    ifname = f"c{os.getpid() % 10**8}"
    try:
        engine.create_port("tap", "TAPPort", 1, 1, 64, 64, {"ifname": ifname})
    except EngineError as error:
        pytest.skip(f"needs privileges and TAP support: {error}")
    sys_path = Path("/sys/class/net") / ifname
    assert engine.port_conf("tap")["mac_addr"] == (sys_path / "address").read_text().strip()
    wanted = {"mac_addr": "02:11:22:33:44:55", "mtu": 1400, "admin_up": False}
    engine.set_port_conf("tap", wanted)
    assert engine.port_conf("tap") == wanted
    assert (sys_path / "address").read_text().strip() == "02:11:22:33:44:55"
    assert (sys_path / "mtu").read_text().strip() == "1400"
    assert int((sys_path / "flags").read_text(), 16) & 1 == 0
    engine.destroy_port("tap")
