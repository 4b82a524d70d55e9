# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch under random commands against its linear twin: fields, bytes, attributes, sets."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Engine, EngineError, new_engine
from twins.metadata_match_twin import BITS, Seen, best_gate

SETTINGS = settings(max_examples=60, deadline=None)
MISS = 15
GATES = 16
SIZES = {"tag": 2, "wide": 16, "odd": 5}
NUMBERS = st.sampled_from([0, 1, 2, 3, 0x80, 0xFF])
TCP, UDP = 6, 17

Rule = dict[str, Any]


@st.composite
def packets(draw: st.DrawFn) -> Seen:
    """Untagged TCP or UDP over either IP, whose fields are known as it is made."""
    ports = {"sport": draw(NUMBERS), "dport": draw(NUMBERS)}
    proto = draw(st.sampled_from([TCP, UDP]))
    name, flags = ("tcp", draw(NUMBERS)) if proto == TCP else ("udp", 0)
    tos, ttl, source, target = (draw(NUMBERS) for _ in range(4))
    body = draw(st.binary(max_size=4))
    l4 = struct.pack(">HH", *ports.values())
    l4 += bytes(8) + bytes([0x50, flags]) + bytes(6) if proto == TCP else bytes(4)
    size = len(l4) + len(body)
    fields = {"eth.src": 0x020000000001, "eth.dst": 0x020000000002, "ip.proto": proto}
    fields |= {f"{layer}.{end}": port for layer in ("l4", name) for end, port in ports.items()}
    fields |= {"ip.dscp": tos >> 2, "ip.ttl": ttl, "ip.fragment": 0}
    if proto == TCP:
        fields["tcp.flags"] = flags
    if draw(st.booleans()):
        head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + size, 0, 0, ttl, proto, 0)
        head += struct.pack(">II", source, target << 24)
        fields |= {"eth.type": 0x0800, "ip.version": 4, "ip.tos": tos}
        fields |= {"ip.src": source, "ip.dst": target << 24}
    else:
        head = struct.pack(">IHBB", 6 << 28 | tos << 20, size, proto, ttl)
        head += source.to_bytes(16, "big") + (target << 120).to_bytes(16, "big")
        fields |= {"eth.type": 0x86DD, "ip.version": 6, "ip6.tclass": tos}
        fields |= {"ip6.src": source, "ip6.dst": target << 120}
    ether = bytes.fromhex("020000000002020000000001") + struct.pack(">H", fields["eth.type"])
    frame = ether + head + l4 + body
    # Attributes are copies of the addresses and the ports, as `device` makes them.
    places = {"tag": 34, "wide": 14, "odd": 29}
    meta = {name: frame[at : at + SIZES[name]] for name, at in places.items()}
    return Seen(fields | {"packet.len": len(frame)}, frame, meta)


def a_field(draw: st.DrawFn, seen: list[Seen]) -> tuple[str, int, int]:
    """Name, value and bits of a field; mostly of a packet that there is."""
    packet = draw(st.sampled_from(seen))
    raw = ["raw.0.6", "raw.14.2", "raw.30.16", "raw.55.4"]
    name = draw(st.sampled_from([*packet.fields, *raw, *(f"meta.{name}" for name in SIZES)]))
    value, bits = packet.get(name) or (1, 8 * int(name.split(".")[-1]))
    return name, value, bits


@st.composite
def sets(draw: st.DrawFn, seen: list[Seen]) -> list[dict[str, Any]]:
    """Of few fields, so that they hold and cross each other: prefixes, ranges and values."""
    fields = [a_field(draw, seen) for _ in range(draw(st.integers(1, 3)))]
    made = []
    for number in range(draw(st.integers(0, 12))):
        name, value, bits = draw(st.sampled_from(fields))
        full, ranges = (1 << bits) - 1, []
        for _ in range(draw(st.integers(1, 3))):
            near = value ^ draw(st.sampled_from([0, 0, 1, 2, 1 << (bits - 1), 1 << bits // 2]))
            size = draw(st.sampled_from([0, 1, 3, bits // 2, bits]))
            first = near >> size << size & full if draw(st.booleans()) else near & full
            pair = first, min(full, first + (1 << size) - 1)
            if bits <= 64 and draw(st.booleans()):
                ranges.append(dict(zip(("min", "max"), pair, strict=True)))
            else:
                ends = (end.to_bytes((bits + 7) // 8, "big") for end in pair)
                ranges.append(dict(zip(("min_bin", "max_bin"), ends, strict=True)))
        made.append({"name": f"s{number}", "field": name, "ranges": ranges})
    return made


@st.composite
def terms(draw: st.DrawFn, seen: list[Seen], known: list[dict[str, Any]]) -> dict[str, Any]:
    """Mostly about a packet that there is."""
    if known and draw(st.booleans()):
        one = draw(st.sampled_from(known))
        return {"field": one["field"], "set": one["name"]}
    name, value, bits = a_field(draw, seen)
    if name in BITS and name.endswith(("port", ".len")) and draw(st.booleans()):
        low = max(0, value - draw(st.sampled_from([0, 1, 3, 100])))
        return {"field": name, "range": {"min": low, "max": low + draw(st.integers(0, 200))}}
    full = (1 << bits) - 1
    mask = draw(st.sampled_from([full, full, full & ~3, full >> 1, full & ~(full >> 3)])) or full
    if bits <= 64 and draw(st.booleans()):
        return {"field": name, "value": value & mask, "mask": mask}
    size = (bits + 7) // 8
    binary = {"value_bin": value & mask, "mask_bin": mask}
    return {"field": name, **{key: n.to_bytes(size, "big") for key, n in binary.items()}}


@st.composite
def rules(draw: st.DrawFn, seen: list[Seen], known: list[dict[str, Any]]) -> Rule:
    priority = draw(st.sampled_from([-(1 << 63), -1, 0, 0, 0, 1, (1 << 63) - 1]))
    wanted = draw(st.lists(terms(seen, known), max_size=3))
    return {"gate": draw(st.integers(0, MISS - 1)), "priority": priority, "terms": wanted}


def device() -> Engine:
    engine = new_engine()
    attrs = [
        {"name": name, "size": size, "offset": {"tag": 34, "wide": 14, "odd": 29}[name]}
        for name, size in SIZES.items()
    ]
    engine.create_module("set", "SetMetadata", {"attrs": attrs})
    engine.create_module("m", "MetadataMatch", {"meta": SIZES, "default_gate": MISS})
    engine.connect("set", 0, "m", 0)
    for gate in range(GATES):
        engine.create_module(f"sink{gate}", "Sink", {})
        engine.connect("m", gate, f"sink{gate}", 0)
    return engine


def sent(engine: Engine) -> list[int]:
    """Packets that left by each gate so far."""
    return [gate["pkts"] for gate in engine.module_info("m")["ogates"]]


@SETTINGS
@given(st.data())
def test_commands_and_packets(data: st.DataObject) -> None:
    seen = data.draw(st.lists(packets(), min_size=1, max_size=20))
    engine = device()
    there: list[Rule] = []
    known: list[dict[str, Any]] = []

    def command(name: str, **args: Any) -> bool:
        """Whether the module took it; if not, all must be as it was."""
        try:
            engine.module_command("m", name, args)
        except EngineError:
            config = engine.module_command("m", "get_runtime_config", {})
            assert len(config["rules"]) == len(there)
            assert len(config.get("sets", [])) == len(known)
            return False
        return True

    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["add", "add", "add", "delete", "set", "clear"]))
        if kind == "delete" and there:
            gone = data.draw(st.lists(st.sampled_from(there), unique_by=id, max_size=5))
            if gone:
                assert command("delete", rules=gone)
                there = [rule for rule in there if not any(rule is other for other in gone)]
        elif kind == "clear":
            command("clear")
            there = []
        else:
            others = data.draw(sets(seen)) if kind == "set" else known
            new = data.draw(st.lists(rules(seen, others), min_size=1, max_size=40))
            # One by one where the module refuses to take all of them.
            if kind == "set":
                if command("set_runtime_config", default_gate=MISS, rules=new, sets=others):
                    there, known = list(new), others
            elif command("add", rules=new):
                there = there + new
            else:
                for rule in new:
                    if command("add", rules=[rule]):
                        there = [*there, rule]
        before = sent(engine)
        engine.run_packets("set", [packet.frame for packet in seen])
        counts = [after - was for after, was in zip(sent(engine), before, strict=True)]
        expected = [0] * GATES
        for packet in seen:
            expected[best_gate(there, MISS, packet, known)] += 1
        assert counts == expected
