# SPDX-License-Identifier: BSD-3-Clause
"""Hooks at gates and at resumption, and what resuming refuses, over gRPC."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from scapy.all import IP, UDP, Ether, Raw, rdpcap

from bess_plugins.client import Client
from daemon_support import CORE, failure
from harness import wait_until


def test_capture_of_a_running_gate(client: Client, tmp_path: Path) -> None:
    """Only what the filter names is written, and the file is whole once the hook is gone."""
    kept = bytes(Ether() / IP(dst="10.0.0.1") / UDP(dport=53) / Raw(b"x" * 20))
    other = bytes(Ether() / IP(dst="10.0.0.1") / UDP(dport=80) / Raw(b"x" * 20))
    client.create_module("Source", "src")
    client.run_module_command("src", "set_burst", "SourceCommandSetBurstArg", {"burst": 1})
    client.create_module("Rewrite", "mix", templates=[kept, other])
    client.create_module("Sink", "snk")
    client.connect("src", "mix")
    client.connect("mix", "snk")
    client.resume()
    path = tmp_path / "gate.pcap"
    name = client.configure_gate_hook(
        "Capture", "mix", gate=0, path=str(path), filter="udp dst port 53"
    )
    seen = client.tc_stats("!leaf_src:0").packets
    wait_until(lambda: client.tc_stats("!leaf_src:0").packets > seen + 5_000)
    client.configure_gate_hook("Capture", "mix", gate=0, hook_name=name, enable=False)
    client.pause()
    captured = [bytes(packet) for packet in rdpcap(str(path), 2_000)]
    assert len(captured) > 1_000
    assert set(captured) == {kept}


@pytest.mark.parametrize(
    ("arg", "code"),
    [
        ({"path": ""}, errno.EINVAL),
        ({"path": "/"}, errno.EINVAL),
        ({"path": "/nowhere/x.pcap"}, errno.ENOENT),
        ({"path": "x.pcap", "filter": "udp dst prot 53"}, errno.EINVAL),
        ({"path": "x.pcap", "fifo": "x.fifo"}, errno.EINVAL),
        ({"fifo": "/nowhere/x.fifo"}, errno.ENOENT),
    ],
)
def test_a_capture_that_cannot_be_is_refused(
    client: Client, arg: dict[str, str], code: int
) -> None:
    client.create_module("Bypass", "a")
    client.create_module("Sink", "b")
    client.connect("a", "b", skip_default_hooks=True)
    assert failure(lambda: client.configure_gate_hook("Capture", "a", gate=0, **arg)) == code
    assert failure(lambda: client.configure_gate_hook("Capture", "a", path="x")) == errno.EINVAL
    assert client.list_hooks() == []


def test_hooks(client: Client) -> None:
    assert set(client.list_hook_classes()) == {"Capture", "PcapNg", "TcpDump", "Track"}
    assert client.hook_class_info("Track")["name"] == "Track"
    client.create_module("Source", "a")
    client.create_module("Sink", "b")
    client.connect("a", "b", skip_default_hooks=True)
    assert client.list_hooks() == []
    name = client.configure_gate_hook("Track", "a", gate=0, bits=True)
    assert name
    (hook,) = client.list_hooks()
    assert (hook["hook_name"], hook["module_name"], hook["ogate"]) == (name, "a", 0)
    client.run_gate_hook_command(name, "reset", "a")
    assert failure(lambda: client.run_gate_hook_command(name, "x", "a")) == errno.ENOTSUP
    assert failure(lambda: client.run_gate_hook_command("x", "reset", "a")) == errno.ENOENT
    assert failure(lambda: client.run_gate_hook_command(name, "reset", "a", gate=9)) == errno.EINVAL
    client.configure_gate_hook("Track", "a", gate=0, enable=False)
    assert client.list_hooks() == []
    assert failure(lambda: client.configure_gate_hook("Nope", "a")) == errno.ENOENT
    assert failure(lambda: client.configure_gate_hook("Track", "gone")) == errno.ENOENT


@pytest.mark.parametrize(("mclass", "magic"), [("TcpDump", 0xA1B23C4D), ("PcapNg", 0x0A0D0D0A)])
def test_hooks_that_record(client: Client, tmp_path: Path, mclass: str, magic: int) -> None:
    assert client.hook_class_info(mclass)["cmds"] == ["get_stats"]
    client.create_module("Source", "a")
    client.create_module("Sink", "b")
    client.connect("a", "b", skip_default_hooks=True)
    client.resume()
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    deaf = failure(lambda: client.configure_gate_hook(mclass, "a", gate=0, fifo=fifo))
    assert deaf == errno.ENXIO
    with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        name = client.configure_gate_hook(mclass, "a", gate=0, fifo=fifo)
        (hook,) = client.list_hooks()
        assert (hook["class_name"], hook["arg"]["fifo"]) == (mclass, fifo)

        def stats() -> dict[str, int]:
            return client.run_gate_hook_command(name, "get_stats", "a")

        wait_until(lambda: stats()["packets"] > 0 and stats()["lost_packets"] > 0)
        assert int.from_bytes(reader.read(4), sys.byteorder) == magic
        assert failure(lambda: client.run_gate_hook_command(name, "x", "a")) == errno.ENOTSUP
        client.configure_gate_hook(mclass, "a", gate=0, hook_name=name, enable=False)
    assert client.list_hooks() == []


def test_a_capture_to_a_pipe_has_what_its_filter_takes(client: Client, tmp_path: Path) -> None:
    kept = bytes(Ether() / IP(dst="10.0.0.1") / UDP(dport=53) / Raw(b"x" * 20))
    other = bytes(Ether() / IP(dst="10.0.0.1") / UDP(dport=80) / Raw(b"x" * 20))
    client.create_module("Source", "src")
    client.create_module("Rewrite", "mix", templates=[kept, other])
    client.create_module("Sink", "snk")
    client.connect("src", "mix")
    client.connect("mix", "snk")
    client.resume()
    fifo, path = tmp_path / "fifo", tmp_path / "some.pcap"
    os.mkfifo(fifo)
    with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        client.configure_gate_hook("Capture", "mix", gate=0, fifo=str(fifo), filter="dst port 53")
        (hook,) = (hook for hook in client.list_hooks() if hook["class_name"] == "Capture")
        assert (hook["arg"]["fifo"], hook["arg"]["path"]) == (str(fifo), "")
        # Once the writer is there, reading may wait for it.
        os.set_blocking(reader.fileno(), True)
        path.write_bytes(reader.read(24 + 100 * (16 + len(kept))))
        client.configure_gate_hook("Capture", "mix", gate=0, enable=False)
    client.pause()
    captured = [bytes(packet) for packet in rdpcap(str(path))]
    assert captured == [kept] * 100


def test_resume_hooks(client: Client) -> None:
    assert failure(lambda: client.configure_resume_hook("none")) == errno.ENOENT
    assert failure(lambda: client.configure_resume_hook("setup_metadata")) == errno.EEXIST
    client.configure_resume_hook("setup_metadata", enable=False)
    client.configure_resume_hook("setup_metadata")


def test_scheduling_constraints(client: Client) -> None:
    assert client.check_scheduling_constraints() == {
        "fatal": False,
        "violations": [],
        "modules": [],
    }
    client.create_module("NAT", "nat", ext_addrs=[{"ext_addr": "192.0.2.1"}])
    for wid in (0, 1):
        client.add_worker(wid, CORE)
        client.create_module("Source", f"source{wid}")
        client.connect(f"source{wid}", "nat", igate=wid)
        client.attach_task(f"source{wid}", wid=wid)
    found = client.check_scheduling_constraints()
    assert (found["fatal"], found["modules"]) == (True, [{"name": "nat"}])
    assert failure(client.resume) == errno.EBUSY
    client.attach_task("source1", wid=0)
    assert client.check_scheduling_constraints()["fatal"] is False
    client.resume()
