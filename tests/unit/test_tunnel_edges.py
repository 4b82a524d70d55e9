# SPDX-License-Identifier: BSD-3-Clause
"""TunnelDecap's edges: which gate each leads to, how that changes, and how packets are counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from harness import EngineError, new_engine, run
from twins.tunnel_twin import Tunnel, encapsulate


def udp(sport: int = 1) -> bytes:
    macs = {"src": "02:00:00:00:00:11", "dst": "02:00:00:00:00:12"}
    network = IP(src="10.0.0.1", dst="10.0.0.2")
    return bytes(Ether(**macs) / network / UDP(sport=sport, dport=2) / b"payload")


edge_maps = st.dictionaries(st.integers(0, 40), st.integers(0, 63))


class TestEdges:
    frames = [encapsulate(Tunnel(vni=n % 6), udp(n), {}) for n in range(66)]

    def out(self, args: dict[str, Any], *commands: tuple[str, dict[str, Any]]) -> dict[int, int]:
        result = run("TunnelDecap", args, self.frames, commands)
        assert result.forwarded + result.dropped == len(self.frames)
        return {gate: len(packets) for gate, packets in result.out.items()}

    def test_gates(self) -> None:
        edges = {0: 5, 1: 4, 2: 4, 3: 8192}
        result = run("TunnelDecap", {"edges": edges}, self.frames, after=[("get_stats", {})])
        assert {g: len(p) for g, p in result.out.items()} == {5: 11, 4: 22}
        assert result.drops == {"edge": 11, "unknown edge": 22}
        (stats,) = result.command_results
        assert stats["edges"] == [
            {"vni": vni, "gate": gate, "packets": 11} for vni, gate in edges.items()
        ]
        assert (stats["other_packets"], stats["default_gate"]) == (22, 8192)

    def test_commands(self) -> None:
        assert self.out({"edges": {0: 1}, "default_gate": 2}) == {1: 11, 2: 55}
        add = ("add_edges", {"edges": {0: 3, 1: 3}})
        assert self.out({"edges": {0: 1}}, add) == {3: 22}
        replace = ("set_edges", {"edges": {5: 1}})
        assert self.out({"edges": {0: 1, 1: 1}}, replace) == {1: 11}
        remove = ("remove_edges", {"vnis": [0, 1]})
        assert self.out({"edges": {0: 1, 1: 1, 2: 1}}, remove) == {1: 11}
        assert self.out({"edges": {0: 1}}, ("set_default_gate", {"gate": 0})) == {1: 11, 0: 55}

    @settings(deadline=None, max_examples=30)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("add_edges"), edge_maps),
                st.tuples(st.just("set_edges"), edge_maps),
                st.tuples(st.just("remove_edges"), st.lists(st.integers(0, 40), unique=True)),
            ),
            max_size=12,
        )
    )
    def test_any_changes(self, changes: list[tuple[str, Any]]) -> None:
        engine = new_engine()
        engine.create_module("m", "TunnelDecap", {})
        gates: dict[int, int] = {}
        for command, what in changes:
            if command == "remove_edges":
                known = set(what) <= set(gates)
                try:
                    engine.module_command("m", command, {"vnis": what})
                    assert known
                    gates = {vni: gate for vni, gate in gates.items() if vni not in what}
                except EngineError:
                    assert not known
            else:
                engine.module_command("m", command, {"edges": what})
                gates = what if command == "set_edges" else gates | what
        frames = [encapsulate(Tunnel(vni=n), udp(n), {}) for n in range(41)]
        out = engine.run_packets("m", frames)
        expected = Counter(gates.values())
        assert {gate: len(packets) for gate, packets in out.items()} == expected
        stats = engine.module_command("m", "get_stats", {})["edges"]
        assert {e["vni"]: e["gate"] for e in stats} == gates
        assert all(e["packets"] == 1 for e in stats)

    def test_a_new_gate_keeps_the_count(self) -> None:
        engine = new_engine()
        engine.create_module("m", "TunnelDecap", {"edges": {0: 1, 1: 1}})
        engine.run_packets("m", self.frames)
        engine.module_command("m", "set_edges", {"edges": {0: 2, 7: 2}})
        assert engine.module_command("m", "get_stats", {})["edges"] == [
            {"vni": 0, "gate": 2, "packets": 11},
            {"vni": 7, "gate": 2, "packets": 0},
        ]
        assert engine.module_info("m")["desc"] == "2 edges"

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"edges": {1 << 24: 0}}, "'edges': '16777216' must be an edge id"),
            ({"edges": {"x": 0}}, "must be an edge id"),
            ({"edges": {1: 8193}}, r"'edges'\[1\]: not a gate"),
            ({"default_gate": 8193}, "'default_gate'"),
            ({"vni_attr": "a", "options": [{"attr_name": "a", "size": 4}]}, "'vni_attr'"),
            ({"options": [{"attr_name": "a", "size": 0}]}, "'size'"),
        ],
    )
    def test_bad_arguments(self, args: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            run("TunnelDecap", args, [])

    def test_bad_commands(self) -> None:
        for command, args, message in (
            ("remove_edges", {"vnis": [0, 9]}, "no edge 9"),
            ("remove_edges", {"vnis": [1 << 32]}, "no edge 4294967296"),
            ("add_edges", {"edges": {1: 9999}}, "not a gate"),
            ("set_default_gate", {"gate": 9999}, "not a gate"),
        ):
            with pytest.raises(EngineError, match=message):
                run("TunnelDecap", {"edges": {0: 0}}, [], [(command, args)])
