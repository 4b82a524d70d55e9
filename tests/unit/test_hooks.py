# SPDX-License-Identifier: BSD-3-Clause
"""Gate hooks that record packets: to a pipe that is read, not read, read slowly, or left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.all import PcapNgReader, rdpcap

from harness import Engine, EngineError, new_engine, wait_until

FRAME = bytes(range(60))
GATE = {"module_name": "m", "direction": "ogate", "gate": 0}


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = new_engine()
    made.create_module("m", "SetMetadata", {"attrs": [{"name": "tag", "size": 2, "value_int": 7}]})
    made.create_module("sink", "Sink", {})
    made.connect("m", 0, "sink", 0)
    yield made
    made.reset_modules()


def install(engine: Engine, mclass: str, name: str = "", **args: Any) -> str:
    return engine.configure_hook(
        {**GATE, "class_name": mclass, "hook_name": name, "args": args}, True
    )


def remove(engine: Engine, mclass: str, name: str) -> None:
    engine.configure_hook({**GATE, "class_name": mclass, "hook_name": name, "args": {}}, False)


def stats(engine: Engine, name: str) -> dict[str, int]:
    return engine.hook_command({**GATE, "hook_name": name}, "get_stats", {})


def send(engine: Engine, count: int) -> None:
    engine.run_packets("m", [FRAME] * count)


def drain(fd: int) -> bytes:
    data = b""
    while True:
        try:
            piece = os.read(fd, 1 << 20)
        except BlockingIOError:
            return data
        if not piece:
            return data
        data += piece


def test_tcpdump_writes_pcap_to_whoever_reads(engine: Engine, fifo: Path, tmp_path: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    name = install(engine, "TcpDump", fifo=str(fifo))
    assert name == "tcpdump"
    (gate,) = engine.module_info("m")["ogates"]
    assert gate["hooks"] == [["Track", "track"], ["TcpDump", "tcpdump"]]
    send(engine, 100)
    assert stats(engine, name) == {"packets": 100, "lost_packets": 0}
    (tmp_path / "x.pcap").write_bytes(drain(reader))
    assert [bytes(packet) for packet in rdpcap(str(tmp_path / "x.pcap"))] == [FRAME] * 100
    remove(engine, "TcpDump", name)
    send(engine, 1)
    assert drain(reader) == b""
    assert [hook["class_name"] for hook in engine.hooks()] == ["Track"]
    os.close(reader)


def test_pcapng_adds_the_metadata(engine: Engine, fifo: Path, tmp_path: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    name = install(engine, "PcapNg", fifo=str(fifo))
    send(engine, 3)
    (tmp_path / "x.pcapng").write_bytes(drain(reader))
    with PcapNgReader(str(tmp_path / "x.pcapng")) as packets:
        seen = list(packets)
    assert [bytes(packet) for packet in seen] == [FRAME] * 3
    assert [packet.comment for packet in seen] == [b"tag = 0007"] * 3
    remove(engine, "PcapNg", name)
    os.close(reader)


def test_a_pipe_without_a_reader_is_refused_or_waited_for(
    engine: Engine, fifo: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="nobody reads it; set 'defer'") as error:
        install(engine, "TcpDump", fifo=str(fifo))
    assert error.value.code == errno.ENXIO
    name = install(engine, "TcpDump", fifo=str(fifo), defer=True)
    send(engine, 40)
    assert stats(engine, name) == {"packets": 0, "lost_packets": 40}
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def recorded() -> bool:
        send(engine, 1)
        return stats(engine, name)["packets"] > 0

    wait_until(recorded)
    (tmp_path / "x.pcap").write_bytes(drain(reader))
    assert bytes(rdpcap(str(tmp_path / "x.pcap"))[0]) == FRAME
    os.close(reader)


@pytest.mark.parametrize("reconnect", [False, True])
def test_a_reader_that_leaves_stops_nothing(
    engine: Engine, fifo: Path, tmp_path: Path, reconnect: bool
) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    name = install(engine, "TcpDump", fifo=str(fifo), reconnect=reconnect)
    os.close(reader)
    send(engine, 32)
    send(engine, 32)
    lost = stats(engine, name)["lost_packets"]
    assert lost >= 32
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    if not reconnect:
        send(engine, 10)
        assert stats(engine, name)["lost_packets"] == lost + 10
        assert drain(reader) == b""
    else:
        before = stats(engine, name)["packets"]

        def recorded() -> bool:
            send(engine, 1)
            return stats(engine, name)["packets"] > before

        wait_until(recorded)
        (tmp_path / "x.pcap").write_bytes(drain(reader))  # with a header of its own
        assert bytes(rdpcap(str(tmp_path / "x.pcap"))[0]) == FRAME
    os.close(reader)


def test_a_reader_that_is_too_slow_loses_whole_packets(
    engine: Engine, fifo: Path, tmp_path: Path
) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    name = install(engine, "TcpDump", fifo=str(fifo))
    sent = 0
    while stats(engine, name)["lost_packets"] == 0:
        send(engine, 512)
        sent += 512
    data = drain(reader)
    send(engine, 1)
    data += drain(reader)
    now = stats(engine, name)
    assert now["packets"] + now["lost_packets"] == sent + 1
    (tmp_path / "x.pcap").write_bytes(data)
    assert [bytes(p) for p in rdpcap(str(tmp_path / "x.pcap"))] == [FRAME] * now["packets"]
    os.close(reader)


def test_a_running_worker_never_waits_for_a_reader(engine: Engine, fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    name = install(engine, "TcpDump", fifo=str(fifo), reconnect=True)
    engine.create_module("source", "Source", {})
    engine.connect("source", 0, "m", 0)
    engine.resume_all()
    wait_until(lambda: stats(engine, name)["lost_packets"] > 10_000)  # nothing is read
    os.close(reader)  # and now nobody is there to read
    seen = engine.tc_stats("!leaf_source:0")["packets"]
    wait_until(lambda: engine.tc_stats("!leaf_source:0")["packets"] > seen + 10_000)
    engine.pause_all()


def test_what_is_refused(engine: Engine, fifo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for mclass, args, expected in (
        ("TcpDump", {}, "'fifo' must name a pipe"),
        ("TcpDump", {"fifo": str(tmp_path / "absent")}, "No such file"),
        ("PcapNg", {"fifo": str(tmp_path / "file")}, "Capture writes to a file"),
        ("Capture", {"path": str(fifo)}, "not a regular file"),
        ("None", {}, "No gate hook class 'None'"),
    ):
        with pytest.raises(EngineError) as error:
            install(engine, mclass, **args)
        assert expected in error.value.message
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(EngineError, match="m: ogate 0 has no hook"):
        stats(engine, "absent")


def test_track_counts_from_zero_after_reset(engine: Engine) -> None:
    send(engine, 5)
    assert engine.module_info("m")["ogates"][0]["pkts"] == 5
    engine.hook_command({**GATE, "hook_name": "track"}, "reset", {})
    assert engine.module_info("m")["ogates"][0]["pkts"] == 0
    with pytest.raises(EngineError, match="does not support command 'x'"):
        engine.hook_command({**GATE, "hook_name": "track"}, "x", {})
    name = engine.configure_hook({**GATE, "class_name": "Track", "args": {}}, False)
    assert name == "track"
    with pytest.raises(EngineError, match="has no hook named 'track'"):
        engine.hook_command({**GATE, "hook_name": "track"}, "reset", {})
