# SPDX-License-Identifier: BSD-3-Clause
"""Our plugin in a real bessd, with workers, ports and BESS's own modules around ours.

What the modules do to packets is tested by their own tests, which run against that bessd as well
(tests/conftest.py).
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from typer.testing import CliRunner

import bessd_support
from bess_plugins.bessd import loading
from bess_plugins.bessd.__main__ import app
from bess_plugins.bessd.tree import PluginError
from bess_plugins.client import BessError, Client
from harness import wait_until
from twins.tunnel_twin import Tunnel, encapsulate

pytestmark = pytest.mark.skipif(
    not bessd_support.ADDRESS,
    reason="BESSD_ADDRESS names no bessd with our plugin (see docs/bessd.md)",
)

CORE = min(os.sched_getaffinity(0))
END = 1 << 32
WHOLE = [{"start": 0, "end": END, "gate": 1}]
FAST = {"time_constant_ns": 1_000_000, "hold_ns": 1_000_000, "interval_ns": 100_000}


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(bessd_support.ADDRESS) as connected:
        connected.reset_all()
        yield connected
        connected.reset_all()


def frame(number: int = 0) -> bytes:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    return bytes(ether / ip / UDP(sport=1000 + number, dport=53) / bytes(20))


def ask(client: Client, module: str, command: str, kind: str, **args: Any) -> dict[str, Any]:
    return client.run_module_command(module, command, kind, args)


def join(client: Client, *modules: str) -> None:
    for before, after in pairwise(modules):
        client.connect(before, after)


def start(client: Client, wid: int | None = None) -> None:
    """As BESS's own client resumes: its modules learn from the check which workers run them."""
    client.check_scheduling_constraints()
    client.resume(wid)


class Wire:
    """A port of the daemon that this process holds the other end of."""

    def __init__(self, client: Client, folder: Path, name: str) -> None:
        path = folder / name
        client.create_port("UnixSocketPort", name, path=str(path), confirm_connect=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        assert self.socket.recv(4) == b"yes\0"

    def send(self, packet: bytes) -> None:
        self.socket.send(packet)

    def receive(self) -> bytes:
        return self.socket.recv(4096)


def test_packets_from_a_port_through_a_worker_to_a_port(client: Client, tmp_path: Path) -> None:
    tunnel = Tunnel(vni=7, options=[("a0", 4, 9, False)])
    wire = Wire(client, tmp_path, "wire")
    client.create_module("PortInc", "in", port="wire")
    value = {"name": "a0", "size": 4, "value_bin": b"abcd"}
    client.create_module("SetMetadata", "set", attrs=[value])
    client.create_module("TunnelEncap", "encap", **tunnel.encap_args())
    client.create_module("PortOut", "out", port="wire")
    join(client, "in", "set", "encap", "out")
    client.add_worker(0, CORE)
    start(client)
    sent = [frame(n) for n in range(300)]
    for packet in sent:
        wire.send(packet)
        assert wire.receive() == encapsulate(tunnel, packet, {"a0": b"abcd"})


def test_batches_of_the_daemons_size_lose_nothing(client: Client) -> None:
    """Source fills whole batches; every packet leaves by one of two gates."""
    client.create_module("Source", "source")
    client.create_module("Rewrite", "rewrite", templates=[frame(n) for n in range(30)])
    half = [
        {"start": 0, "end": END // 2, "gate": 0},
        {"start": END // 2, "end": END, "gate": 1},
    ]
    client.create_module("FlowSteer", "steer", ranges=half)
    join(client, "source", "rewrite", "steer")
    for gate in (0, 1):
        client.create_module("Sink", f"sink{gate}")
        client.connect("steer", f"sink{gate}", ogate=gate)
    client.add_worker(0, CORE)
    start(client)
    wait_until(lambda: client.module_info("rewrite")["ogates"][0]["pkts"] > 100_000)
    client.pause()
    into = client.module_info("rewrite")["ogates"][0]
    out = client.module_info("steer")["ogates"]
    assert len(out) == 2 and all(gate["pkts"] > 0 for gate in out)
    assert sum(gate["pkts"] for gate in out) == into["pkts"]
    found = ask(client, "steer", "get_status", "FlowSteerCommandGetStatusArg")
    assert found["flows"] == 30
    assert sum(gate["packets"] for gate in found["gates"]) == into["pkts"]
    assert client.module_info("steer")["deadends"] == 0


def test_drops_are_counted_here_and_by_the_daemon(client: Client) -> None:
    client.create_module("Source", "source")
    client.create_module("Rewrite", "rewrite", templates=[bytes(60)])
    client.create_module("FlowSteer", "steer", ranges=WHOLE)
    join(client, "source", "rewrite", "steer")
    client.add_worker(0, CORE)
    start(client)
    wait_until(lambda: client.module_info("steer")["deadends"] > 10_000)
    client.pause()
    drops = ask(client, "steer", "get_drops", "EmptyArg")["drops"]
    assert drops["no flow"] == client.module_info("steer")["deadends"]
    assert drops["no gate"] == 0


def test_splits_beside_a_worker(client: Client) -> None:
    fields = [{"offset": 26, "size": 4, "min": 0x0A000000, "max": 0x0A0001FF}]
    client.create_module("Source", "source")
    client.create_module("Rewrite", "rewrite", templates=[frame()])
    client.create_module("RandomUpdate", "vary", fields=fields)
    client.create_module("FlowSteer", "m", ranges=WHOLE, timeout_ms=20)
    join(client, "source", "rewrite", "vary", "m")
    for gate in (1, 2):
        client.create_module("Sink", f"sink{gate}")
        client.connect("m", f"sink{gate}", ogate=gate)
    client.add_worker(0, CORE)
    start(client)

    def status() -> dict[str, Any]:
        return ask(client, "m", "get_status", "FlowSteerCommandGetStatusArg")

    wait_until(lambda: status()["flows"] == 512)
    with pytest.raises(BessError) as refused:  # not beside a worker: bessd pauses nobody for it
        ask(client, "m", "split", "FlowSteerCommandSplitArg", gate=1, new_gate=2, cut=0)
    assert refused.value.code == errno.EBUSY
    client.pause()
    told = ask(client, "m", "split", "FlowSteerCommandSplitArg", gate=1, new_gate=2, cut=0)
    assert told == {"split": 1, "exceptions": 512}
    start(client)
    wait_until(lambda: status()["flows"] > 0)
    client.pause()
    wait_until(lambda: status()["flows"] == 0)
    (event,) = ask(client, "m", "get_events", "EmptyArg")["events"]
    assert event["kind"] == "few_exceptions"
    assert event["values"]["split"] == 1 and event["values"]["exceptions"] == 0
    assert ask(client, "m", "get_events", "EmptyArg")["events"] == []


def test_delay_after_the_daemons_own_timestamp(client: Client) -> None:
    client.create_module("Source", "source")
    client.create_module("Timestamp", "stamp")
    client.create_module("LoadMonitor", "monitor", high_delay_ns=1, **FAST)
    client.create_module("Sink", "sink")
    join(client, "source", "stamp", "monitor", "sink")
    client.add_worker(0, CORE)
    start(client)

    def status() -> dict[str, Any]:
        return ask(client, "monitor", "get_status", "LoadMonitorCommandGetStatusArg")

    wait_until(lambda: status()["overloads"] == 1)
    assert 0 < status()["delay_ns"] < 1e9


def test_a_queue_of_the_daemons_own(client: Client) -> None:
    client.create_module("Source", "source")
    client.create_module("Queue", "queue", size=64)
    client.create_module("Sink", "sink")
    client.create_module("LoadMonitor", "monitor", queue="queue", **FAST)
    join(client, "source", "queue", "sink")
    client.add_worker(0, CORE)
    client.add_worker(1, CORE)  # which the queue waits for
    client.attach_task("queue", wid=1)
    client.attach_task("source", wid=0)
    client.attach_task("monitor", wid=0)
    start(client, 0)

    def status() -> dict[str, Any]:
        return ask(client, "monitor", "get_status", "LoadMonitorCommandGetStatusArg")

    wait_until(lambda: bool(status()["overloaded"]))
    assert status()["occupancy"] > 0.8 and status()["queue"] == "queue"
    client.destroy_module("queue")
    assert status()["queue"] == ""
    wait_until(lambda: not status()["overloaded"])


@pytest.mark.parametrize(
    ("mclass", "args", "message"),
    [
        ("FlowSteer", {}, "FlowSteer.ranges: has 0 ranges"),
        ("LoadMonitor", {"queue": "nobody"}, "no module 'nobody'"),
        ("LoadMonitor", {"queue": "bypass"}, r"'bypass' \(Bypass\) keeps no packets"),
        ("TunnelEncap", {"dst_mac": "x"}, "'dst_mac'"),
    ],
)
def test_bad_arguments(client: Client, mclass: str, args: dict[str, Any], message: str) -> None:
    client.create_module("Bypass", "bypass")
    with pytest.raises(BessError, match=message):
        client.create_module(mclass, "m", **args)
    assert [module["name"] for module in client.list_modules()] == ["bypass"]


def test_an_argument_of_another_type(client: Client) -> None:
    client.create_module("FlowSteer", "m", ranges=WHOLE)
    with pytest.raises(BessError, match="argument is TunnelDecapArg, expected FlowSteerCommandGet"):
        ask(client, "m", "get_status", "TunnelDecapArg", edges={1: 1})
    with pytest.raises(BessError, match="does not support command 'nothing'"):
        ask(client, "m", "nothing", "EmptyArg")


def test_an_attribute_that_the_daemon_refuses(client: Client) -> None:
    value = {"name": "a0", "size": 2, "value_bin": b"ab"}
    client.create_module("SetMetadata", "set", attrs=[value])
    args = Tunnel(options=[("a0", 4, 9, False)]).encap_args()
    with pytest.raises(BessError, match="bessd refuses attribute 'a0' of 4 bytes"):
        client.create_module("TunnelEncap", "m", **args)


def test_out_and_in_again(client: Client) -> None:
    """With a module of the plugin, bessd would crash on unloading it: ours refuses."""
    path = loading.loaded_path(client)
    assert path is not None
    client.create_module("FlowSteer", "m", ranges=WHOLE)
    with pytest.raises(PluginError, match=r"modules of the plugin exist \(m\): destroy them first"):
        loading.unload(client, path)
    client.destroy_module("m")
    for _ in range(2):
        loading.unload(client, path)
        assert "FlowSteer" not in client.list_mclasses()
        assert "FlowSteer" in loading.load(client, Path(path))
        client.create_module("FlowSteer", "m", ranges=WHOLE)
        client.reset_modules()


def test_a_plugin_for_another_daemon_is_refused(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "e2_modules-v0.0-b64-00000000.so"
    path.write_bytes(b"")
    with pytest.raises(PluginError, match=r"was built for bessd v0\.0, and .* runs"):
        loading.load(client, path)
    with pytest.raises(PluginError, match="is not named like a plugin"):
        loading.load(client, Path(__file__))
    with pytest.raises(PluginError, match="there is no"):
        loading.load(client, tmp_path / "nothing.so")


def test_check_finds_every_module_right() -> None:
    result = CliRunner().invoke(app, ["check", "--json", "--address", bessd_support.ADDRESS])
    assert result.exit_code == 0, result.output
    outcomes = {entry["module"]: entry for entry in json.loads(result.stdout)}
    assert {"FlowSteer", "LoadMonitor", "TunnelDecap", "TunnelEncap"} <= set(outcomes)
    assert all(entry["ok"] for entry in outcomes.values())
    assert "25 dropped (no flow)" in outcomes["FlowSteer"]["detail"]
