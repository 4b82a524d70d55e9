# SPDX-License-Identifier: BSD-3-Clause
"""The engine: graph, errors, workers, metadata, and that no packet is ever lost."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.all import Ether, rdpcap, wrpcap

from harness import Engine, EngineError, new_engine, wait_until


def pool_is_whole(engine: Engine) -> bool:
    pool = engine.mempool()
    return pool["available"] == pool["size"]


def test_every_packet_returns_to_the_pool() -> None:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.create_module("queue", "Queue", {"size": 64})
    engine.create_module("sink", "Sink", {})
    engine.connect("source", 0, "queue", 0)
    engine.connect("queue", 0, "sink", 0)
    engine.add_worker(0, -1)
    engine.resume_all()
    wait_until(lambda: engine.tc_stats("!leaf_source:0")["packets"] > 100_000)
    engine.pause_all()
    made = engine.tc_stats("!leaf_source:0")["packets"]
    status = engine.module_command("queue", "get_status", {})
    assert status["enqueued"] + status["dropped"] == made
    assert engine.module_info("sink")["igates"][0]["pkts"] == status["dequeued"]
    assert engine.module_info("queue")["drops"]["queue full"] == status["dropped"]
    engine.reset_modules()
    engine.reset_workers()
    assert pool_is_whole(engine)


def test_open_gate_drops_with_a_reason() -> None:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.resume_all()
    wait_until(lambda: engine.module_info("source")["drops"]["no gate"] > 0)
    engine.pause_all()
    assert (
        engine.module_info("source")["drops"]["no gate"]
        == engine.tc_stats("!leaf_source:0")["packets"]
    )


def test_a_loop_drops_instead_of_overflowing_the_stack() -> None:
    engine = new_engine()
    for name in ("a", "b"):
        engine.create_module(name, "Bypass", {})
    engine.connect("a", 0, "b", 0)
    engine.connect("b", 0, "a", 0)
    assert engine.run_packets("a", [b"x" * 60] * 5) == {}
    drops = engine.module_info("a")["drops"]["loop"] + engine.module_info("b")["drops"]["loop"]
    assert drops == 5


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda e: e.create_module("x", "NoSuchClass", {}), errno.ENOENT),
        (lambda e: e.create_module("sink", "Sink", {}), errno.EEXIST),
        (lambda e: e.destroy_module("nobody"), errno.ENOENT),
        (lambda e: e.connect("source", 1, "sink", 0), errno.EINVAL),
        (lambda e: e.connect("source", 0, "sink", 1), errno.EINVAL),
        (lambda e: e.connect("source", 0, "nobody", 0), errno.ENOENT),
        (lambda e: e.module_command("source", "dance", {}), errno.ENOTSUP),
        (lambda e: e.module_command("source", "set_burst", {"burst": 33}), errno.EINVAL),
        (lambda e: e.create_module("p", "PortInc", {"port": "none"}), errno.ENODEV),
        (lambda e: e.create_module("q", "Queue", {"size": 3}), errno.EINVAL),
        (lambda e: e.add_worker(64, 0), errno.EINVAL),
        (lambda e: e.add_worker(1, 10_000), errno.EINVAL),
        (lambda e: e.add_tc({"name": "t", "policy": "lottery"}), errno.EINVAL),
        (lambda e: e.add_tc({"name": "!t", "policy": "round_robin"}), errno.EINVAL),
        (lambda e: e.update_tc_parent({"leaf_module_name": "sink"}), errno.ENOENT),
    ],
)
def test_refused_calls_say_why_and_change_nothing(call: Callable[[Engine], Any], code: int) -> None:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.create_module("sink", "Sink", {})
    before = (engine.modules(), engine.workers(), engine.tcs())
    with pytest.raises(EngineError) as error:
        call(engine)
    assert error.value.code == code
    assert error.value.message
    assert (engine.modules(), engine.workers(), engine.tcs()) == before


def test_a_second_connection_of_a_gate_is_refused() -> None:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.create_module("sink", "Sink", {})
    engine.connect("source", 0, "sink", 0)
    with pytest.raises(EngineError) as error:
        engine.connect("source", 0, "sink", 0)
    assert error.value.code == errno.EBUSY
    engine.disconnect("source", 0)
    engine.connect("source", 0, "sink", 0)


def test_a_port_in_use_is_not_destroyed() -> None:
    engine = new_engine()
    engine.create_port("p", "MemoryPort")
    engine.create_module("out", "PortOut", {"port": "p"})
    with pytest.raises(EngineError) as error:
        engine.destroy_port("p")
    assert error.value.code == errno.EBUSY
    engine.destroy_module("out")
    engine.destroy_port("p")
    assert engine.ports() == []


def test_reading_an_attribute_that_nobody_writes_is_refused_at_resume() -> None:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.create_module(
        "match", "ExactMatch", {"fields": [{"attr_name": "colour", "num_bytes": 2}]}
    )
    engine.connect("source", 0, "match", 0)
    with pytest.raises(EngineError, match=r"match.*colour"):
        engine.resume_all()


def test_graph_changes_while_packets_flow() -> None:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    engine.create_module("sink", "Sink", {})
    engine.connect("source", 0, "sink", 0)
    engine.resume_all()
    for i in range(50):
        engine.create_module(f"bypass{i}", "Bypass", {})
        engine.disconnect("source", 0)
        engine.connect("source", 0, f"bypass{i}", 0)
        engine.connect(f"bypass{i}", 0, "sink", 0)
        seen = engine.tc_stats("!leaf_source:0")["packets"]
        wait_until(lambda seen=seen: engine.tc_stats("!leaf_source:0")["packets"] > seen)
    engine.pause_all()
    engine.reset_modules()
    engine.reset_workers()
    assert pool_is_whole(engine)


def test_a_queue_keeps_order_and_content_round_its_end(tmp_path: Path) -> None:
    """Bursts of 7 make batches straddle the end of the ring's 64 slots."""
    frames = [b"\x02" * 12 + b"\x08\x00" + i.to_bytes(4, "big") * 12 for i in range(1_000)]
    wrpcap(str(tmp_path / "in.pcap"), [Ether(frame) for frame in frames])
    engine = new_engine()
    engine.create_port("from", "PCAPPort", args={"dev": str(tmp_path / "in.pcap")})
    engine.create_port("to", "PCAPPort", args={"write_path": str(tmp_path / "out.pcap")})
    engine.create_module("receive", "PortInc", {"port": "from"})
    engine.create_module("queue", "Queue", {"size": 64})
    engine.create_module("send", "PortOut", {"port": "to"})
    engine.module_command("receive", "set_burst", {"burst": 7})
    engine.module_command("queue", "set_burst", {"burst": 5})
    engine.connect("receive", 0, "queue", 0)
    engine.connect("queue", 0, "send", 0)
    engine.add_worker(0, -1)
    engine.add_tc({"name": "turns", "policy": "priority", "wid": 0})
    for priority, module in enumerate(("queue", "receive")):
        engine.update_tc_parent(
            {"leaf_module_name": module, "parent": "turns", "priority": priority}
        )
    engine.resume_all()
    wait_until(lambda: engine.port_stats("to")["out"]["packets"] == len(frames))
    engine.pause_all()
    engine.reset_modules()
    engine.destroy_port("to")
    assert [bytes(packet) for packet in rdpcap(str(tmp_path / "out.pcap"))] == frames
