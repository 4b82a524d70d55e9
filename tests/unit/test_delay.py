# SPDX-License-Identifier: BSD-3-Clause
"""Delay: when packets leave, in which order, and how many there may be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bess_plugins.captures import read_packets
from harness import Engine, EngineError, new_engine, wait_until

LONG_US = 10_000_000
LONG_AGO_NS = 1  # the clock counts from the start of the machine
PACKETS = [bytes([number]) * 60 for number in range(40)]


def held(engine: Engine) -> int:
    return int(engine.module_command("m", "get_status", {})["held"])


def left(engine: Engine) -> int:
    return int(engine.module_command("m", "get_status", {})["left"])


def put(engine: Engine, packets: list[bytes], now_ns: int = 0) -> None:
    assert not any(engine.run_packets("m", packets, now_ns=now_ns).values())


def running(make: Callable[[Engine], None]) -> Engine:
    engine = new_engine()
    engine.add_worker(0, -1)
    make(engine)
    return engine


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"delay_us": LONG_US + 1}, r"Delay.delay_us is 10000001; must be at most 10000000"),
        ({"size": 0}, r"Delay.size is 0; must be a power of two within 1..1048576"),
        ({"size": 100}, r"Delay.size is 100; must be a power of two"),
        ({"size": 1 << 21}, r"Delay.size is 2097152; must be a power of two"),
    ],
)
def test_wrong_arguments(args: dict[str, int], problem: str) -> None:
    with pytest.raises(EngineError, match=problem):
        new_engine().create_module("m", "Delay", args)


def test_a_full_one_drops() -> None:
    engine = new_engine()
    engine.create_module("m", "Delay", {"delay_us": LONG_US, "size": 8})
    put(engine, PACKETS)
    assert held(engine) == 8
    assert engine.module_info("m")["drops"]["full"] == 32
    engine.destroy_module("m")
    assert engine.mempool()["in_use"] == 0


def test_packets_leave_in_order_when_their_time_has_come(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"

    def make(engine: Engine) -> None:
        engine.create_port("p", "PCAPPort", num_inc_q=0, args={"write_path": str(path)})
        engine.create_module("m", "Delay", {"delay_us": LONG_US})
        engine.create_module("out", "PortOut", {"port": "p"})
        engine.connect("m", 0, "out", 0)

    engine = running(make)
    for packet in PACKETS[:-2]:
        put(engine, [packet], LONG_AGO_NS)
    put(engine, PACKETS[-2:])  # these have ten seconds to go
    engine.resume_all()
    wait_until(lambda: left(engine) == len(PACKETS) - 2)
    assert held(engine) == 2
    # Another delay is for what comes from now on, which waits for what is there.
    engine.module_command("m", "set_delay", {"delay_us": 0})
    put(engine, PACKETS[:1])
    assert held(engine) == 3
    with pytest.raises(EngineError, match=r"set_delay.delay_us is 10000001"):
        engine.module_command("m", "set_delay", {"delay_us": LONG_US + 1})
    engine.pause_all()
    engine.reset_modules()
    assert engine.mempool()["in_use"] == 0
    engine.destroy_port("p")
    assert [*read_packets(path)] == PACKETS[:-2]


def test_no_packet_leaves_early() -> None:
    delay_us = 3000

    def make(engine: Engine) -> None:
        exact = {"latency_ns_max": 100_000_000, "latency_ns_resolution": 1000}
        chain = [
            ("source", "Source", {}),
            ("stamp", "Timestamp", {}),
            ("queue", "Queue", {}),  # whose task starts after the stamp
            ("m", "Delay", {"delay_us": delay_us, "size": 64}),
            ("measure", "Measure", exact),
            ("out", "Sink", {}),
        ]
        for name, mclass, args in chain:
            engine.create_module(name, mclass, args)
        for (before, _, _), (after, _, _) in pairwise(chain):
            engine.connect(before, 0, after, 0)

    engine = running(make)
    engine.resume_all()
    wait_until(lambda: left(engine) > 256)
    engine.pause_all()
    summary = engine.module_command("measure", "get_summary", {})
    # Stamps and delays are counted by two clocks, which are that close.
    assert summary["latency"]["min_ns"] >= (delay_us - 100) * 1000
