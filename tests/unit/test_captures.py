# SPDX-License-Identifier: BSD-3-Clause
"""Pcap that is read piece by piece, put in order and written."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bess_plugins.captures import count_packets
from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl.agent.captures import PcapReader
from e2ctl.controller.captures import PcapWriter, TimeOrder

packets = st.lists(
    st.builds(
        lambda time_ns, data, more: pb.CapturedPacket(
            time_ns=time_ns, data=data, wire_bytes=len(data) + more
        ),
        st.integers(0, (1 << 32) * 10**9 - 1),
        st.binary(max_size=60),
        st.integers(0, 9),
    ),
    max_size=20,
)


def written(given_packets: list[pb.CapturedPacket]) -> bytes:
    file = io.BytesIO()
    writer = PcapWriter(file)
    for packet in given_packets:
        writer.write(packet)
    writer.flush()
    assert writer.packets == len(given_packets)
    return file.getvalue()


@given(packets, st.lists(st.integers(0, 2000), max_size=30))
def test_what_is_written_is_read_however_it_is_cut(
    wanted: list[pb.CapturedPacket], cuts: list[int]
) -> None:
    data, reader = written(wanted), PcapReader()
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [packet for a, b in pairwise(ends) for packet in reader.feed(data[a:b])]
    assert found == wanted


def test_others_read_it_too(tmp_path: Path) -> None:
    path = tmp_path / "some.pcap"
    some = [pb.CapturedPacket(time_ns=i, data=b"x" * 60, wire_bytes=60) for i in range(7)]
    path.write_bytes(written(some))
    assert count_packets(path) == 7


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 0)), max_size=40))
def test_late_packets_find_their_place_within_the_window(steps: list[tuple[int, int]]) -> None:
    """Each arrives up to nine after its time, and the window is ten."""
    order, now, came, left = TimeOrder(10.0), 100, [], []
    for step, late in steps:
        now += step
        came.append(now + late)
        order.add(pb.CapturedPacket(time_ns=now + late), now)
        left += [packet.time_ns for packet in order.due(now)]
    assert len(left) + len(order) == len(came)
    left += [packet.time_ns for packet in order.rest()]
    assert left == sorted(came)


def test_without_a_window_nothing_waits() -> None:
    order = TimeOrder(0.0)
    order.add(pb.CapturedPacket(time_ns=5), 1.0)
    assert [packet.time_ns for packet in order.due(1.0)] == [5]
