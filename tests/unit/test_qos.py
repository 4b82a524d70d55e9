# SPDX-License-Identifier: BSD-3-Clause
"""Qos against a twin in plain Python: RFC 2698's meter with exact fractions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Engine, EngineError, new_engine
from match_support import DROP, udp

PORT = {"offset": 36, "num_bytes": 2}
FIELDS = {"fields": [PORT]}
GREEN, YELLOW, RED = 1, 2, 3
ETHERNET = 14


@dataclass
class Bucket:
    rate: int
    burst: int
    has: Fraction = field(init=False)

    def __post_init__(self) -> None:
        self.has = Fraction(self.burst)

    def fill(self, ns: int) -> None:
        self.has = min(Fraction(self.burst), self.has + Fraction(self.rate * ns, 10**9))


class Twin:
    def __init__(self, cir: int, pir: int, cbs: int, pbs: int) -> None:
        self.committed, self.peak = Bucket(cir, cbs), Bucket(pir, pbs)

    def colours(self, ns: int, size: int) -> set[int]:
        """Takes a packet; both answers where less than a byte decides."""
        buckets = (self.peak, self.committed)
        for bucket in buckets:
            bucket.fill(ns)
        if self.peak.has < size:
            return {RED, YELLOW, GREEN} if self.peak.has > size - 2 else {RED}
        close = any(abs(bucket.has - size) < 2 for bucket in buckets)
        colour = GREEN if self.committed.has >= size else YELLOW
        self.peak.has -= size
        if colour == GREEN:
            self.committed.has -= size
        return {GREEN, YELLOW, RED} if close else {colour}


def rule(port: int, gate: int = 0, **rates: int) -> dict[str, Any]:
    return {"fields": [{"value_bin": port.to_bytes(2, "big")}], "gate": gate, **rates}


def new(*rules: dict[str, Any], **args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", "Qos", {**FIELDS, **args})
    for each in rules:
        engine.module_command("m", "add", each)
    return engine


def push(engine: Engine, frames: list[bytes], now_ns: int) -> dict[int, int]:
    return {gate: len(out) for gate, out in engine.run_packets("m", frames, 0, now_ns).items()}


def frame(port: int, size: int) -> bytes:
    return udp(dport=port).ljust(size + ETHERNET, b"\0")


def start(engine: Engine, each: dict[str, Any]) -> int:
    """Adds a rule and gives a time at which its buckets are full and the clock has begun."""
    engine.module_command("m", "add", each)
    return time.monotonic_ns() + 10**9


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 2**20),
    st.integers(0, 2**20),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(50, 1400)), min_size=1, max_size=40),
)
def test_colours_are_those_of_the_twin(
    cir: int, more: int, cbs: int, pbs: int, packets: list[tuple[int, int]]
) -> None:
    engine, twin = new(), Twin(cir, cir + more, cbs, pbs)
    rates = {"cir": cir, "pir": cir + more, "cbs": cbs, "pbs": pbs}
    # Both buckets are full by then, whatever the time between here and the command.
    now = start(engine, rule(80, **rates)) + 10**13
    for gap_ns, size in packets:
        now += gap_ns
        ((gate, count),) = push(engine, [frame(80, size)], now).items()
        expected = twin.colours(gap_ns, size)
        assert count == 1 and gate in expected
        if len(expected) > 1:
            return  # less than a byte apart: from here on both may go on differently


def test_bursts_are_green_then_yellow_then_red() -> None:
    engine = new()
    now = start(engine, rule(80, cir=1, pir=2, cbs=1000, pbs=3000))
    assert push(engine, [frame(80, 100)] * 40, now) == {GREEN: 10, YELLOW: 20, RED: 10}
    # A second bucket of another rule is another one.
    engine.module_command("m", "add", rule(81, cir=1, pir=1, cbs=100, pbs=100))
    assert push(engine, [frame(81, 100)] * 2 + [frame(80, 100)], now) == {GREEN: 1, RED: 2}
    # Added anew, the meter is full.
    engine.module_command("m", "add", rule(80, cir=1, pir=1, cbs=200, pbs=200))
    assert push(engine, [frame(80, 100)] * 3, now) == {GREEN: 2, RED: 1}


@pytest.mark.parametrize(("deduct", "bytes_each"), [(None, 100), (0, 114), (-6, 120), (999, 0)])
def test_bytes_that_do_not_count(deduct: int | None, bytes_each: int) -> None:
    engine = new()
    extra = {} if deduct is None else {"deduct_len": deduct}
    now = start(engine, rule(80, cir=1, pir=1, cbs=600, pbs=600, **extra))
    green = min(600 // bytes_each, 20) if bytes_each else 20
    assert push(engine, [frame(80, 100)] * 20, now).get(GREEN) == green


def test_rates_up_to_the_highest() -> None:
    for rate in (1, 999_999_999, 1_000_000_000, 1 << 40):
        engine = new()
        burst = max(100, rate)  # what flows in within a second
        now = start(engine, rule(80, cir=rate, pir=rate, cbs=burst, pbs=burst, deduct_len=0))
        now += 200 * 10**9
        assert push(engine, [frame(80, 86)], now) == {GREEN: 1}
        if rate == 1:
            assert push(engine, [frame(80, 86)], now + 98 * 10**9) == {RED: 1}
            assert push(engine, [frame(80, 86)], now + 101 * 10**9) == {GREEN: 1}


def test_gates_and_values() -> None:
    values = {"values": [{"offset": 0, "num_bytes": 2}]}
    engine = new(**values)
    written = {"values": [{"value_int": 0x1234}]}
    rates = {"cir": 1, "pir": 1, "cbs": 100, "pbs": 100}
    for each in (rule(80, **rates), rule(81, gate=4), rule(82, gate=DROP), rule(83, gate=4)):
        engine.module_command("m", "add", {**each, **written})
    now = time.monotonic_ns() + 10**9
    ports = [80, 80, 81, 82, 83, 84]
    out = engine.run_packets("m", [frame(port, 100) for port in ports], 0, now)
    assert {gate: len(packets) for gate, packets in out.items()} == {GREEN: 1, RED: 1, 4: 2}
    assert all(packet[:2] == b"\x34\x12" for packets in out.values() for packet in packets)
    drops = engine.module_info("m")["drops"]
    assert (drops["rule"], drops["no match"]) == (1, 1)
    engine.module_command("m", "set_default_gate", {"gate": 9})
    engine.module_command("m", "delete", {"fields": [{"value_bin": b"\0\x51"}]})
    assert push(engine, [frame(81, 100)], now) == {9: 1}
    assert engine.modules()[0]["desc"] == "1 fields, 3 rules"
    engine.module_command("m", "clear", {})
    assert push(engine, [frame(port, 100) for port in ports], now) == {9: 6}


def test_a_packet_too_short_for_the_values() -> None:
    each = {**rule(80, gate=4), "values": [{"value_int": 1}]}
    engine = new(each, values=[{"offset": 200, "num_bytes": 2}])
    assert push(engine, [frame(80, 100)], 1) == {}
    assert engine.module_info("m")["drops"]["too short"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": 1}, "gate is 1, where packets of one colour go"),
        ({"gate": 3}, "gate is 3"),
        ({"gate": 8193}, "not a gate"),
        ({"cir": 0}, "cir is 0; a meter .* needs 1 to 1099511627776"),
        ({"pir": 1 << 41}, "pir is 2199023255552"),
        ({"pbs": 0}, "pbs is 0"),
        ({"pir": 5}, "pir is 5; must be at least cir, 10"),
        ({"deduct_len": 65537}, "deduct_len is 65537"),
        ({"fields": []}, "fields has 0 values; must have one per field of the module, 1"),
        ({"values": [{"value_int": 1}]}, "values"),
    ],
)
def test_bad_rules(change: dict[str, Any], message: str) -> None:
    engine = new()
    good = rule(80, cir=10, pir=10, cbs=1, pbs=1)
    with pytest.raises(EngineError, match=message):
        engine.module_command("m", "add", {**good, **change})
    assert engine.modules()[0]["desc"] == "1 fields, 0 rules"
    with pytest.raises(EngineError, match="rule doesn't exist"):
        engine.module_command("m", "delete", {"fields": good["fields"]})
