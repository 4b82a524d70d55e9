# SPDX-License-Identifier: BSD-3-Clause
"""Lookup modules against twins that do the same in the plainest way."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness import new_engine

DROPPED = -1
MISS = 63
SETTINGS = settings(max_examples=60, deadline=None)


class Device:
    """A module under test; gates of packets that carry their own numbers."""

    def __init__(self, mclass: str, args: dict[str, Any]) -> None:
        self.engine = new_engine()
        self.engine.create_module("m", mclass, args)

    def command(self, name: str, **arg: Any) -> Any:
        return self.engine.module_command("m", name, arg)

    def gates(self, packets: list[bytes]) -> list[int]:
        """Every packet ends in its index, so that it can be told apart."""
        marked = [packet + n.to_bytes(2, "big") for n, packet in enumerate(packets)]
        found = [DROPPED] * len(packets)
        for gate, out in self.engine.run_packets("m", marked, 0).items():
            for packet in out:
                found[int.from_bytes(packet[-2:], "big")] = gate
        return found


def frame(version: int, address: int) -> bytes:
    if version == 4:
        header = bytes.fromhex("4500001400000000400b0000") + bytes(4) + address.to_bytes(4, "big")
        return bytes(12) + b"\x08\x00" + header
    return (
        bytes(12)
        + b"\x86\xdd\x60"
        + bytes(5)
        + b"\x3b\x40"
        + bytes(16)
        + address.to_bytes(16, "big")
    )


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[int, int, int]:
    """(version, length, address): crowded, so that prefixes nest and meet."""
    version = draw(st.sampled_from([4, 4, 6]))
    bits = 32 if version == 4 else 128
    length = draw(st.one_of(st.integers(0, bits), st.sampled_from([8, 16, 23, 24, 25, 26, 32])))
    base = draw(st.sampled_from([0x0A010100, 0x0A010200, 0x0A020000, 0xC0000000]))
    address = (base | draw(st.integers(0, 255))) << (bits - 32)
    if version == 6:
        address |= draw(st.sampled_from([0, 1, 1 << 64, 1 << 90]))
    return version, length, address >> (bits - length) << (bits - length)


ROUTE_STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "add", "delete"]), prefixes(), st.integers(0, 30)),
    max_size=40,
)


def longest(rules: dict[tuple[int, int, int], int], version: int, address: int) -> int:
    bits = 32 if version == 4 else 128
    for length in range(bits, -1, -1):
        gate = rules.get((version, length, address >> (bits - length) << (bits - length)))
        if gate is not None:
            return gate
    return DROPPED


@SETTINGS
@given(ROUTE_STEPS, st.lists(prefixes(), max_size=40))
def test_ip_lookup(steps: list, probes: list) -> None:
    device = Device("IPLookup", {})
    rules: dict[tuple[int, int, int], int] = {}
    for name, prefix, gate in steps:
        version, length, address = prefix
        if name == "delete" and rules:
            # Half the time something that is there.
            prefix = sorted(rules)[gate % len(rules)] if gate % 2 else prefix
            version, length, address = prefix
        cls = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        arg = {"prefix": str(cls(address)), "prefix_len": length}
        if name == "add":
            device.command("add", **arg, gate=gate)
            rules[prefix] = gate
        elif prefix in rules:
            device.command("delete", **arg)
            del rules[prefix]
    addresses = []
    for version, length, address in [*probes, *rules]:
        bits = 32 if version == 4 else 128
        last = address | ((1 << (bits - length)) - 1)
        around = {address, last, max(address - 1, 0), min(last + 1, (1 << bits) - 1)}
        addresses += [(version, value) for value in sorted(around)]
    addresses = addresses[:300]
    expected = [longest(rules, *address) for address in addresses]
    assert device.gates([frame(*address) for address in addresses]) == expected


BYTES = st.integers(0, 3).map(lambda n: b"\0\1\x80\xff"[n : n + 1])


def small(size: int) -> st.SearchStrategy[bytes]:
    """Byte strings of few values, so that rules and packets meet."""
    return st.lists(BYTES, min_size=size, max_size=size).map(b"".join)


def covers(value: bytes, mask: bytes, data: bytes) -> bool:
    return all(d & m == v for v, m, d in zip(value, mask, data, strict=True))


def masked(value: bytes, mask: bytes) -> bytes:
    return bytes(v & m for v, m in zip(value, mask, strict=True))


def key_of(packet: bytes, fields: list[tuple[int, int]]) -> list[bytes]:
    return [packet[at : at + size].ljust(size, b"\0") for at, size in fields]


def as_bytes(value: bytes | str) -> bytes:
    """The engine gives text where bytes are text."""
    return value.encode() if isinstance(value, str) else value


FIELDS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 8)), min_size=1, max_size=8)


def as_args(fields: list[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"offset": at, "num_bytes": size} for at, size in fields]


def bins(values: list[bytes]) -> list[dict[str, bytes]]:
    return [{"value_bin": value} for value in values]


@SETTINGS
@given(st.data())
def test_exact_match(data: st.DataObject) -> None:
    fields = data.draw(FIELDS)
    masks = [data.draw(small(size).filter(any)) for _, size in fields]
    device = Device("ExactMatch", {"fields": as_args(fields), "masks": bins(masks)})
    device.command("set_default_gate", gate=MISS)
    packets = data.draw(st.lists(st.integers(0, 16).flatmap(small), min_size=1, max_size=60))
    # The index at the end of a packet must not matter to its key.
    packets = [packet.ljust(16, b"\0") for packet in packets]

    def key(packet: bytes) -> tuple[bytes, ...]:
        return tuple(map(masked, key_of(packet, fields), masks))

    rules: dict[tuple[bytes, ...], int] = {}
    for step, packet in enumerate(data.draw(st.lists(st.sampled_from(packets), max_size=60))):
        rule = key(packet)
        if rule in rules and data.draw(st.booleans()):
            device.command("delete", fields=bins(list(rule)))
            del rules[rule]
        else:
            device.command("add", gate=step, fields=bins(list(rule)))
            rules[rule] = step
    assert device.gates(packets) == [rules.get(key(packet), MISS) for packet in packets]
    config = device.command("get_runtime_config")
    assert {
        tuple(as_bytes(field["value_bin"]) for field in rule["fields"]): rule["gate"]
        for rule in config["rules"]
    } == rules
    twin = Device("ExactMatch", device.command("get_initial_arg"))
    twin.command("set_runtime_config", **config)
    assert twin.gates(packets) == device.gates(packets)


@SETTINGS
@given(st.data())
def test_wildcard_match(data: st.DataObject) -> None:
    fields = data.draw(FIELDS)
    device = Device("WildcardMatch", {"fields": as_args(fields)})
    device.command("set_default_gate", gate=MISS)
    packets = data.draw(st.lists(small(16), min_size=1, max_size=60))
    # In order of age: (values, masks) -> (priority, gate).
    rules: dict[tuple, tuple[int, int]] = {}
    for step in range(data.draw(st.integers(0, 40))):
        if rules and data.draw(st.integers(0, 4)) == 0:
            rule = data.draw(st.sampled_from(sorted(rules)))
            device.command("delete", values=bins(list(rule[0])), masks=bins(list(rule[1])))
            del rules[rule]
            continue
        masks = tuple(data.draw(small(size)) for _, size in fields)
        origin = key_of(data.draw(st.sampled_from(packets)), fields)
        rule = (tuple(map(masked, origin, masks)), masks)
        priority = data.draw(st.sampled_from([-(1 << 40), -1, 0, 0, 1, 2, 1 << 40]))
        device.command(
            "add", gate=step, priority=priority, values=bins(list(rule[0])), masks=bins(list(masks))
        )
        rules[rule] = (priority, step)

    def best(packet: bytes) -> int:
        key = key_of(packet, fields)
        hits = [
            (priority, -age, gate)
            for age, ((values, masks), (priority, gate)) in enumerate(rules.items())
            if all(map(covers, values, masks, key))
        ]
        return max(hits)[2] if hits else MISS

    assert device.gates(packets) == [best(packet) for packet in packets]
