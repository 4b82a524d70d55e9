# SPDX-License-Identifier: BSD-3-Clause
"""Ports: captures replayed and recorded, the memory loop, UNIX sockets, kernel interfaces."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.all import Ether, PcapNgWriter, Raw, rdpcap, wrpcap

from harness import EngineError, new_engine, wait_until
from port_support import Pipe, make_packets

TIMEOUT_S = 10.0


def replay(capture: Path, out: Path, packets: int) -> dict[str, int]:
    """Copy a capture through the dataplane; returns what the reading port counted."""
    pipe = Pipe()
    pipe.port("source", "PCAPPort", {"dev": str(capture)}, (1, 0))
    pipe.port("sink", "PCAPPort", {"write_path": str(out)}, (0, 1))
    pipe.start("source", "sink")
    wait_until(lambda: sum(pipe.stats("source")[k] for k in ("packets", "dropped")) >= packets)
    time.sleep(0.02)  # time to deliver more than it should
    pipe.stop()
    stats = pipe.stats("source")
    pipe.engine.destroy_port("sink")
    pipe.engine.destroy_port("source")
    return stats


def assert_same(out: Path, expected: list[Any]) -> None:
    actual = rdpcap(str(out))
    assert [bytes(p) for p in actual] == [bytes(p) for p in expected]
    for got, want in zip(actual, expected, strict=True):
        assert abs(float(got.time) - float(want.time)) <= 1e-6


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_round_trip(tmp_path: Path, endian: str, nano: bool) -> None:
    packets = make_packets()
    wrpcap(str(tmp_path / "in.pcap"), packets, endianness=endian, nano=nano)
    stats = replay(tmp_path / "in.pcap", tmp_path / "out.pcap", len(packets))
    assert stats["packets"] == len(packets)
    assert stats["bytes"] == sum(len(p) for p in packets)
    assert stats["dropped"] == 0
    assert_same(tmp_path / "out.pcap", packets)


def test_output_is_the_same_bytes_as_nanosecond_input(tmp_path: Path) -> None:
    packets = make_packets()
    wrpcap(str(tmp_path / "in.pcap"), packets, nano=True)
    replay(tmp_path / "in.pcap", tmp_path / "out.pcap", len(packets))
    expected, actual = ((tmp_path / f"{name}.pcap").read_bytes() for name in ("in", "out"))
    assert actual[24:] == expected[24:]  # the file header's snapshot length may differ


def test_pcapng_round_trip(tmp_path: Path) -> None:
    packets = make_packets()
    with PcapNgWriter(str(tmp_path / "in.pcapng")) as writer:
        for packet in packets:
            writer.write(packet)
    replay(tmp_path / "in.pcapng", tmp_path / "out.pcap", len(packets))
    assert_same(tmp_path / "out.pcap", packets)


def test_gzip_round_trip(tmp_path: Path) -> None:
    packets = make_packets(500)
    wrpcap(str(tmp_path / "in.pcap"), packets)
    content = (tmp_path / "in.pcap").read_bytes()
    for level in (0, 1, 9):
        (tmp_path / "in.pcap.gz").write_bytes(gzip.compress(content, level))
        replay(tmp_path / "in.pcap.gz", tmp_path / "out.pcap", len(packets))
        assert_same(tmp_path / "out.pcap", packets)


def test_snapped_packets_keep_their_wire_length(tmp_path: Path) -> None:
    for packet in (packets := make_packets(10)):
        packet.wirelen = 1500
    wrpcap(str(tmp_path / "in.pcap"), packets)
    replay(tmp_path / "in.pcap", tmp_path / "out.pcap", len(packets))
    assert [p.wirelen for p in rdpcap(str(tmp_path / "out.pcap"))] == [1500] * 10


def test_headers_put_before_a_snapped_packet_count_on_the_wire(tmp_path: Path) -> None:
    for packet in (packets := make_packets(10)):
        packet.wirelen = 1500
    wrpcap(str(tmp_path / "in.pcap"), packets)
    for chain, wire_len in (
        ([("VLANPush", {"tci": 7})], 1504),
        ([("GenericDecap", {"bytes": 14})], 1486),
        ([("VLANPush", {"tci": 7}), ("VLANPop", {})], 1500),
    ):
        pipe = Pipe()
        pipe.port("source", "PCAPPort", {"dev": str(tmp_path / "in.pcap")}, (1, 0))
        pipe.port("sink", "PCAPPort", {"write_path": str(tmp_path / "out.pcap")}, (0, 1))
        pipe.start("source", "sink", chain)
        wait_until(lambda at=pipe: at.stats("sink", "out")["packets"] == 10)
        pipe.stop()
        pipe.engine.destroy_port("sink")
        assert [p.wirelen for p in rdpcap(str(tmp_path / "out.pcap"))] == [wire_len] * 10


def test_packets_longer_than_a_buffer_are_dropped(tmp_path: Path) -> None:
    packets = make_packets(40)
    packets.insert(5, Ether() / Raw(b"x" * 4000))
    wrpcap(str(tmp_path / "in.pcap"), packets)
    stats = replay(tmp_path / "in.pcap", tmp_path / "out.pcap", len(packets))
    assert (stats["packets"], stats["dropped"]) == (40, 1)
    del packets[5]
    assert_same(tmp_path / "out.pcap", packets)


@pytest.mark.parametrize("compress", [False, True])
def test_truncated_capture_is_reported(tmp_path: Path, compress: bool) -> None:
    packets = make_packets(20)
    wrpcap(str(tmp_path / "whole.pcap"), packets)
    content = (tmp_path / "whole.pcap").read_bytes()[:-5]
    offset = len(content) + 5 - 16 - len(packets[-1])
    (tmp_path / "in.pcap").write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(EngineError) as error:
        replay(tmp_path / "in.pcap", tmp_path / "out.pcap", len(packets))
    assert f"at byte {offset}" in error.value.message
    assert_same(tmp_path / "out.pcap", packets[:-1])


def test_truncated_gzip_is_reported(tmp_path: Path) -> None:
    packets = make_packets(20)
    wrpcap(str(tmp_path / "whole.pcap"), packets)
    content = gzip.compress((tmp_path / "whole.pcap").read_bytes())
    (tmp_path / "in.pcap").write_bytes(content[:-8])
    with pytest.raises(EngineError, match="gzip data is cut short"):
        replay(tmp_path / "in.pcap", tmp_path / "out.pcap", len(packets) + 1)
    assert_same(tmp_path / "out.pcap", packets)


def test_loop(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "in.pcap"), make_packets(7))
    pipe = Pipe()
    pipe.port("source", "PCAPPort", {"dev": str(tmp_path / "in.pcap"), "loop": True}, (1, 0))
    pipe.port("sink", "MemoryPort", {}, (1, 1))
    pipe.start("source", "sink")
    wait_until(lambda: pipe.stats("source")["packets"] >= 1000)
    pipe.stop()
    pipe.engine.destroy_port("source")
    pipe.engine.destroy_port("sink")


def test_original_timing(tmp_path: Path) -> None:
    for i, packet in enumerate(packets := make_packets(4)):
        packet.time = 1000 + 0.1 * i
    wrpcap(str(tmp_path / "in.pcap"), packets)
    pipe = Pipe()
    args = {"dev": str(tmp_path / "in.pcap"), "original_timing": True}
    pipe.port("source", "PCAPPort", args, (1, 0))
    pipe.port("sink", "PCAPPort", {"write_path": str(tmp_path / "out.pcap")}, (0, 1))
    start = time.monotonic()
    pipe.start("source", "sink")
    wait_until(lambda: pipe.stats("source")["packets"] == 4)
    assert time.monotonic() - start >= 0.29
    pipe.stop()


def test_bad_capture_arguments(tmp_path: Path) -> None:
    engine = new_engine()
    wrpcap(str(tmp_path / "in.pcap"), make_packets(1))
    (tmp_path / "text").write_text("hello, world")
    path = str(tmp_path / "in.pcap")
    for args, expected in (
        ({}, "'dev'"),
        ({"dev": "lo"}, "'lo' is a network interface"),
        ({"dev": str(tmp_path / "absent")}, "No such file"),
        ({"dev": str(tmp_path / "text")}, "neither a pcap nor a pcapng"),
        ({"dev": str(tmp_path)}, "not a regular file"),
        ({"dev": path, "write_path": path}, "the same file"),
        ({"write_path": "/dev/full"}, "No space left"),
        ({"write_path": str(tmp_path / "a" / "b")}, "No such file"),
    ):
        with pytest.raises(EngineError) as error:
            engine.create_port("p", "PCAPPort", 1, 1, 64, 64, args)
        assert expected in error.value.message
    with pytest.raises(EngineError, match="one queue each way"):
        engine.create_port("p", "PCAPPort", 2, 1, 64, 64, {"dev": path})
    assert len(rdpcap(path)) == 1


def test_memory_port_passes_packets_on(tmp_path: Path) -> None:
    packets = make_packets(300)
    wrpcap(str(tmp_path / "in.pcap"), packets, nano=True)
    pipe = Pipe()
    pipe.port("source", "PCAPPort", {"dev": str(tmp_path / "in.pcap")}, (1, 0))
    pipe.port("loop", "MemoryPort", {}, (1, 1))
    pipe.port("sink", "PCAPPort", {"write_path": str(tmp_path / "out.pcap")}, (0, 1))
    pipe.engine.create_module("in2", "PortInc", {"port": "loop", "prefetch": True})
    pipe.engine.create_module("out2", "PortOut", {"port": "sink"})
    pipe.engine.connect("in2", 0, "out2", 0)
    pipe.start("source", "loop")
    wait_until(lambda: pipe.stats("sink", "out")["packets"] == 300)
    pipe.stop()
    pipe.engine.destroy_port("sink")
    assert_same(tmp_path / "out.pcap", packets)


def test_memory_port_is_bounded_and_frees_what_it_holds(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "in.pcap"), make_packets(100))
    pipe = Pipe()
    for _ in range(30):  # 3000 packets through a pool of 1024: none may leak
        pipe.port("source", "PCAPPort", {"dev": str(tmp_path / "in.pcap")}, (1, 0))
        pipe.engine.create_port("loop", "MemoryPort", 1, 1, 50, 50, {})
        pipe.start("source", "loop")
        wait_until(lambda: sum(pipe.stats("loop", "out")[k] for k in ("packets", "dropped")) == 100)
        stats = pipe.stats("loop", "out")
        assert (stats["packets"], stats["dropped"]) == (50, 50)
        pipe.stop()
        pipe.engine.destroy_port("source")
        pipe.engine.destroy_port("loop")
        pipe.engine.reset_workers()
    with pytest.raises(EngineError, match="make them equal"):
        pipe.engine.create_port("loop", "MemoryPort", 1, 2, 50, 50, {})


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(TIMEOUT_S)
    client.connect("\0" + path[1:] if path.startswith("@") else path)
    return client


@contextlib.contextmanager
def echo(path: str) -> Iterator[Pipe]:
    """A UNIX socket port whose packets go back to it."""
    pipe = Pipe()
    pipe.port("unix", "UnixSocketPort", {"path": path, "confirm_connect": True}, (1, 1))
    pipe.start("unix", "unix")
    try:
        yield pipe
    finally:
        pipe.stop()
        pipe.engine.destroy_port("unix")


@pytest.mark.parametrize("abstract", [False, True])
def test_unix_socket_echo(tmp_path: Path, abstract: bool) -> None:
    path = f"@test_ports_{os.getpid()}" if abstract else str(tmp_path / "socket")
    with echo(path) as pipe:
        for _ in range(5):  # one client after the other
            with connect(path) as client:
                assert client.recv(64) == b"yes\0"
                for packet in make_packets(50):
                    client.send(bytes(packet))
                    assert client.recv(4096) == bytes(packet)
                assert pipe.engine.port_link("unix")["link_up"]
            wait_until(lambda: not pipe.engine.port_link("unix")["link_up"])
        assert pipe.stats("unix")["packets"] == 250
        wait_until(lambda: pipe.stats("unix", "out")["packets"] == 250)  # counted after the send
    assert not (tmp_path / "socket").exists()


def test_unix_socket_serves_one_client(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with echo(path), connect(path) as first:
        assert first.recv(64) == b"yes\0"
        with connect(path) as second:
            assert second.recv(64) == b""  # disconnected at once
        first.send(b"x" * 60)
        assert first.recv(4096) == b"x" * 60


def test_unix_socket_delivers_what_a_leaving_client_sent(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with echo(path) as pipe:
        with connect(path) as client:
            client.recv(64)
            for _ in range(8):
                client.send(b"y" * 100)
        wait_until(lambda: pipe.stats("unix")["packets"] == 8)


def test_unix_socket_drops_long_messages(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with echo(path) as pipe, connect(path) as client:
        client.recv(64)
        client.send(b"z" * 5000)
        client.send(b"z" * 60)
        assert client.recv(8192) == b"z" * 60
        assert pipe.stats("unix")["dropped"] == 1


def test_unix_socket_arguments(tmp_path: Path) -> None:
    engine = new_engine()
    (tmp_path / "file").write_text("precious")
    for args, expected in (
        ({"path": str(tmp_path / "file")}, "not a socket"),
        ({"path": "/tmp/" + "x" * 200}, "at most 107 bytes"),
        ({"path": str(tmp_path / "absent" / "socket")}, "No such file"),
    ):
        with pytest.raises(EngineError) as error:
            engine.create_port("p", "UnixSocketPort", 1, 1, 64, 64, args)
        assert expected in error.value.message
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(EngineError, match="one queue each way"):
        engine.create_port("p", "UnixSocketPort", 2, 2)


def test_a_port_that_is_down_neither_sends_nor_receives(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "in.pcap"), make_packets(10))
    pipe = Pipe()
    pipe.port("source", "PCAPPort", {"dev": str(tmp_path / "in.pcap")}, (1, 0))
    pipe.port("sink", "MemoryPort", {}, (1, 1))
    pipe.engine.set_port_conf("source", {"admin_up": False})
    pipe.engine.set_port_conf("sink", {"admin_up": False})
    pipe.start("source", "sink")
    runs = pipe.engine.tc_stats("!leaf_in:0")["count"]
    wait_until(lambda: pipe.engine.tc_stats("!leaf_in:0")["count"] > runs + 100)
    assert pipe.stats("source")["packets"] == 0
    pipe.engine.set_port_conf("source", {"admin_up": True})
    wait_until(lambda: pipe.stats("sink", "out")["dropped"] == 10)
    assert pipe.engine.module_info("out")["drops"]["port down"] == 10
    pipe.stop()


def test_settings_that_a_driver_cannot_change_are_refused() -> None:
    engine = new_engine()
    engine.create_port("p", "MemoryPort")
    before = engine.port_conf("p")
    for conf in ({"mtu": 9000}, {"mac_addr": "02:00:00:00:00:09"}):
        with pytest.raises(EngineError, match="MemoryPort can't change its MAC address or MTU"):
            engine.set_port_conf("p", conf)
    assert engine.port_conf("p") == before


def test_recorded_time_is_now_where_the_packet_has_none(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    pipe = Pipe()
    pipe.port("unix", "UnixSocketPort", {"path": path, "confirm_connect": True}, (1, 1))
    pipe.port("sink", "PCAPPort", {"write_path": str(tmp_path / "out.pcap")}, (0, 1))
    pipe.start("unix", "sink")
    before = time.time()
    with connect(path) as client:
        client.recv(64)
        client.send(b"x" * 60)
        wait_until(lambda: pipe.stats("sink", "out")["packets"] == 1)
    pipe.stop()
    pipe.engine.destroy_port("sink")
    (packet,) = rdpcap(str(tmp_path / "out.pcap"))
    assert before - 1 <= float(packet.time) <= time.time() + 1
