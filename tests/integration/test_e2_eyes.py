# SPDX-License-Identifier: BSD-3-Clause
"""What operators see of a cluster of real agents and daemons, with frames on their cables."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.utils import rdpcap

from bess_plugins.captures import count_packets
from bess_plugins.client import Client
from bess_plugins.metrics import MetricsError, serving
from cluster_support import Cluster, cluster, needs_root
from e2ctl.agent.captures import Captures
from e2ctl.agent.dataplane import Dataplane
from e2ctl.agent.metrics import AgentCollector
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.store import SqliteStore
from e2ctl.controller.switches import SimulatedSwitch
from e2ctl.edges import taps_of
from e2ctl.plan import Plan
from e2ctl.rates import measure
from harness import wait_until

pytestmark = needs_root

POLICY = """
nf ids : IDS
nf monitor : NetworkMonitor
port subscribers, internet
pipeline p { subscribers -> ids @ 11Gbps; ids [udp] -> monitor -> internet; ids [tcp] -> internet; }
"""
DNS = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / (b"d" * 40))
WEB = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=80) / (b"w" * 400))
SIZES = {DNS: 14 + len(DNS), WEB: 14 + len(WEB)}


class Office:
    """A cluster that has a plan, and the cables to its servers."""

    def __init__(self, made: Cluster) -> None:
        self.made = made
        self.store = made.folder / "controller.db"
        self.plan = asyncio.run(self._apply())
        self._cables: dict[str, socket.socket] = {}

    async def _apply(self) -> Plan:
        async with Agents(self.made.hardware) as agents:
            table = self.made.hardware.switch.table
            switch = SimulatedSwitch(table, sleep=lambda seconds: asyncio.sleep(0))
            return await apply(self.made.inputs(POLICY), SqliteStore(self.store), agents, switch)

    def instances(self) -> list[str]:
        """One of the IDS on each server."""
        found = {self.plan.layout.servers[i.name]: i.name for i in self.plan.igraph.of("ids")}
        return list(found.values())

    def send(self, instance: str, packets: Sequence[bytes]) -> None:
        """As the switch would: with tags for the entry and for the flow id."""
        server, number = self.plan.routing.entries[instance]
        if server not in self._cables:
            self._cables[server] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._cables[server].bind((f"e2p{server[1:]}", 0))
        flow = self.plan.instance(instance).span.start >> 20
        tags = Dot1AD(vlan=number) / Dot1Q(vlan=flow, type=0x0800)
        head = bytes(Ether(src="02:00:00:00:00:09", dst="02:00:00:00:00:08", type=0x88A8) / tags)
        for packet in packets:
            self._cables[server].send(head + packet)

    def client(self, server: str) -> Client:
        return Client(f"unix:{self.made.folder}/d-{server}.sock")

    def crossed(self, edge: str) -> int:
        """Packets that have passed an edge."""
        total = 0
        for server, taps in taps_of(self.plan, edge).items():
            with self.client(server) as client:
                gates = {
                    (module.name, gate.ogate): gate.packets
                    for module in client.counters().modules
                    for gate in module.ogates
                }
            total += sum(gates[tap.module, tap.ogate] for tap in taps)
        return total

    def hooks(self) -> list[str]:
        """Captures that daemons are at."""
        found = []
        for server in self.made.hardware.servers:
            with self.client(server) as client:
                found += [h["hook_name"] for h in client.list_hooks() if h["class_name"] != "Track"]
        return found

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A command of ``e2ctl`` about this cluster."""
        places = f"--hardware={self.made.path}", f"--store={self.store}"
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "e2ctl.cli", *words, *places],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "150"},
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Exit status and output of a command."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=60)
            return process.returncode, (out + err).decode()

    @contextmanager
    def watch(self, edge: str, path: Path | str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A capture that has begun, and does not outlive the context."""
        with self.start("capture", edge, "-w", str(path), *words) as process:
            try:
                assert process.stderr is not None
                line = process.stderr.readline()
                assert b"watching" in line, line
                yield process
            finally:
                process.kill()

    def close(self) -> None:
        for cable in self._cables.values():
            cable.close()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with cluster(tmp_path_factory.mktemp("eyes")) as made:
        running = Office(made)
        yield running
        running.close()


def test_rates_are_those_of_what_was_sent(office: Office) -> None:
    async def counters() -> dict[str, Any]:
        async with Agents(office.made.hardware) as agents:
            found = await agents.counters()
            assert not any(isinstance(answer, AgentError) for answer in found.values())
            return found

    before = asyncio.run(counters())
    first = office.instances()[0]
    seen = office.crossed("monitor -> internet"), office.crossed("ids -> internet")
    office.send(first, [DNS] * 60 + [WEB] * 40)
    wait_until(lambda: office.crossed("monitor -> internet") >= seen[0] + 60)
    wait_until(lambda: office.crossed("ids -> internet") >= seen[1] + 40)
    after = asyncio.run(counters())
    server = office.plan.layout.servers[first]
    seconds = (after[server].daemon.time_ns - before[server].daemon.time_ns) / 1e9
    found = measure(office.plan, before, after)
    edges = {(e.source, e.target): e.rate for e in found.edges}
    assert edges[first, "monitor"].packets * seconds == pytest.approx(60)
    assert edges[first, "monitor"].bits * seconds == pytest.approx(60 * 8 * SIZES[DNS])
    assert edges[first, "internet"].packets * seconds == pytest.approx(40)
    assert edges[first, "internet"].bits * seconds == pytest.approx(40 * 8 * SIZES[WEB])
    assert edges["subscribers", "ids"].packets * seconds == pytest.approx(100, rel=0.2)
    (mine,) = (i for i in found.instances if i.instance == first)
    assert mine.received.packets * seconds == pytest.approx(100)
    assert mine.sent.bits == pytest.approx(mine.received.bits)
    assert mine.drops == 0 and 0 <= (mine.cpu or 0) <= 1
    assert office.made.agents[server].restarts == 0


def test_top_shows_an_interval_and_names_who_does_not_answer(office: Office) -> None:
    code, text = office.run("top", "--once", "--interval", "0.2")
    assert code == 0
    assert {"ids.0", "monitor.0", "ids.0 -> monitor"} <= set(
        part.strip() for line in text.splitlines() for part in line.split("│")
    )
    socket_path = Path(office.made.hardware.servers["s2"].agent.removeprefix("unix:"))
    hidden = socket_path.with_suffix(".hidden")
    socket_path.rename(hidden)
    try:
        code, text = office.run("top", "--once", "--interval", "0.2")
        assert code == 0 and "agent of s2: is not there at unix:" in " ".join(text.split())
        code, text = office.run("top", "--once", "--interval", "0.2", "--json")
        said = json.loads(text)
        assert list(said["missing"]) == ["s2"]
        assert {i["server"] for i in said["instances"]} == {"s1"}
        code, text = office.run("trace", "udp dst port 53", "--port", "subscribers")
        assert code == 3 and "warning: agent of s2: is not there" in text
    finally:
        hidden.rename(socket_path)


def test_a_capture_has_what_its_filter_takes_and_ends_with_ctrl_c(
    office: Office, tmp_path: Path
) -> None:
    path = tmp_path / "dns.pcap"
    first = office.instances()[0]
    with office.watch("ids -> monitor", path, "--filter", "udp dst port 53") as process:
        seen = office.crossed("ids -> internet")
        office.send(first, [DNS] * 30 + [WEB] * 10)
        wait_until(lambda: office.crossed("ids -> internet") >= seen + 10)
        wait_until(lambda: path.stat().st_size > 24, 20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert err.decode() == "e2ctl: 30 packets\n"
    assert {bytes(packet)[14:] for packet in rdpcap(str(path))} == {DNS}
    wait_until(lambda: office.hooks() == [])


def test_a_capture_of_several_servers_is_in_the_order_of_time(
    office: Office, tmp_path: Path
) -> None:
    path = tmp_path / "all.pcap"
    instances = office.instances()
    assert len(instances) == 2
    with office.watch("subscribers -> ids", path, "--count", "120") as process:
        for _ in range(20):
            for instance in instances:
                office.send(instance, [DNS, WEB, DNS])
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err.decode()) == (0, "e2ctl: 120 packets\n")
    found = rdpcap(str(path))
    times = [packet.time for packet in found]
    assert times == sorted(times)
    assert [bytes(packet)[14:] for packet in found].count(WEB) == 40
    with office.watch(f"{instances[1]} -> monitor", "-", "--seconds", "1.5") as process:
        for instance in instances:
            office.send(instance, [DNS] * 5)
        out, err = process.communicate(timeout=30)
    (tmp_path / "one.pcap").write_bytes(out)
    assert count_packets(tmp_path / "one.pcap") == 5, err


def test_a_capture_that_is_killed_leaves_no_hook_and_a_whole_file(
    office: Office, tmp_path: Path
) -> None:
    path = tmp_path / "killed.pcap"
    first = office.instances()[0]
    wait_until(lambda: office.hooks() == [])  # those of captures before
    with office.watch(f"{first} -> monitor", path) as process:
        assert len(office.hooks()) == 2  # one for each output gate of an IDS
        office.send(first, [DNS] * 8)
        wait_until(lambda: path.stat().st_size >= 24 + 8 * (16 + SIZES[DNS]), 20)
        process.kill()
    wait_until(lambda: office.hooks() == [])
    assert count_packets(path) == 8


def test_what_a_killed_agent_watched_is_taken_away(office: Office, tmp_path: Path) -> None:
    server, (tap, *_) = next(iter(taps_of(office.plan, "ids -> monitor").items()))
    wait_until(lambda: office.hooks() == [])
    folder = tmp_path / "e2-capture-before"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with office.client(server) as client:
        client.configure_gate_hook(
            "Capture",
            tap.module,
            gate=tap.ogate,
            hook_name="e2-capture-1-1",
            fifo=str(folder / "pipe"),
        )
    os.close(reader)
    assert office.hooks() == ["e2-capture-1-1"]
    dataplane = Dataplane(f"unix:{office.made.folder}/d-{server}.sock", own=False)
    Captures(dataplane).sweep()
    dataplane.close()
    assert office.hooks() == []
    assert not folder.exists()


def test_a_capture_that_cannot_be_says_why(office: Office, tmp_path: Path) -> None:
    path = tmp_path / "none.pcap"
    for words, said in (
        (["ids -> nobody"], "edges that can be seen: ids -> internet, ids -> monitor"),
        (["ids -> monitor", "--filter", "ids.safe"], "'ids.safe' is not in packets"),
        (["ids -> monitor", "--filter", "tcp dst prot 80"], "<filter>:1:9"),
    ):
        code, text = office.run("capture", *words, "-w", str(path))
        assert code == 1 and said in text, text
    assert not path.exists()


def test_a_trace_is_held_against_what_is_live(office: Office) -> None:
    words = "trace", "udp dst port 53 and ip", "--port", "subscribers"
    code, text = office.run(*words)
    assert code == 0, text
    assert "note: the switch is simulated" in text and "NF ids.0  (IDS)  [" in text
    server, (tap, *_) = next(iter(taps_of(office.plan, "ids.0 -> monitor").items()))
    with office.client(server) as client:
        target = next(
            link.target
            for link in office.plan.servers[server].links
            if (link.source, link.ogate) == (tap.module, tap.ogate)
        )
        client.disconnect(tap.module, tap.ogate)
        try:
            code, text = office.run(*words)
            assert code == 3
            assert f"gate {tap.ogate} of {tap.module} leads nowhere on {server}" in text
            assert office.run(*words, "--plan-only")[0] == 0
        finally:
            client.connect(tap.module, target, tap.ogate)
            client.configure_gate_hook("Track", tap.module, gate=tap.ogate, bits=True)
    assert office.run(*words)[0] == 0


def test_a_trace_finds_ranges_and_exceptions(office: Office) -> None:
    server = office.plan.layout.servers["ids.0"]
    hold = next(
        module
        for module in office.plan.servers[server].modules
        if module.mclass == "FlowSteer" and module.node == "ids.0"
    )
    flow = {"src": "10.9.9.9", "dst": "10.0.0.2", "sport": 7, "dport": 53, "proto": 17}
    packets = "udp and src host 10.9.9.9 and dst host 10.0.0.2 and src port 7 and dst port 53"
    steer = "update", "FlowSteerCommandUpdateArg"
    ranges = {"ranges": hold.args["ranges"]}
    with office.client(server) as client:
        arg = {**ranges, "add_exceptions": [{"flow": flow, "gate": 0}]}
        client.run_module_command(hold.name, *steer, arg)
        code, text = office.run("trace", packets, "--port", "subscribers")
        assert code == 0 and "this flow is one, and goes to ids.0" in text
        other = packets.replace("src port 7", "src port 8")
        assert "this flow is one" not in office.run("trace", other, "--port", "subscribers")[1]
        moved = [
            {"start": 0, "end": 1 << 31, "gate": 0},
            {"start": 1 << 31, "end": 1 << 32, "gate": 1},
        ]
        arg = {"ranges": moved, "remove_exceptions": [flow]}
        client.run_module_command(hold.name, *steer, arg)
        code, text = office.run("trace", packets, "--port", "subscribers")
        assert code == 3 and f"go to ids.0, ids.1 on {server}, and should to ids.0" in text
        client.run_module_command(hold.name, *steer, ranges)


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_metrics_name_instances_and_edges(office: Office) -> None:
    first = office.instances()[0]
    server = office.plan.layout.servers[first]
    seen = office.crossed(f"{first} -> monitor")
    office.send(first, [DNS] * 3)
    wait_until(lambda: office.crossed(f"{first} -> monitor") >= seen + 3)
    with serving("0", AgentCollector(office.made.agents[server])) as port:
        text = fetched(f"http://127.0.0.1:{port}/metrics")
    about = f'instance="{first}"', 'nf="ids"', f'server="{server}"'
    lines = [line for line in text.splitlines() if all(label in line for label in about)]
    edge = next(x for x in lines if x.startswith("e2_gate_packets") and f"{first} -> mon" in x)
    assert float(edge.rpartition(" ")[2]) == seen + 3
    size = next(x for x in lines if x.startswith("e2_gate_bytes") and f"{first} -> mon" in x)
    assert float(size.rpartition(" ")[2]) >= 3 * SIZES[DNS]
    assert any(x.startswith("e2_queue_size") and x.endswith(" 4096.0") for x in lines)
    assert any(x.startswith("e2_task_busy_seconds_total") for x in lines)
    assert f'e2_daemon_up{{server="{server}"}} 1.0' in text
    assert f'e2_daemon_restarts_total{{server="{server}"}} 0.0' in text
    assert "e2_plan_info{digest=" in text and 'device="nic",direction="in"' in text


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "70000"])
def test_a_bad_address_for_metrics_is_refused(address: str) -> None:
    with pytest.raises(MetricsError, match="expected PORT or HOST:PORT"), serving(address):
        pass


def test_an_address_that_is_taken_is_refused() -> None:
    refused = pytest.raises(MetricsError, match="in use")
    with serving("127.0.0.1:0") as port, refused, serving(str(port)):
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus")
def test_prometheus_scrapes_an_agent(office: Office, tmp_path: Path) -> None:
    first = office.instances()[0]
    agent = office.made.agents[office.plan.layout.servers[first]]
    listen = f"127.0.0.1:{free_port()}"
    query = {"query": f'e2_gate_packets_total{{edge="{first} -> monitor"}}'}
    url = f"http://{listen}/api/v1/query?{urlencode(query)}"

    def value() -> float:
        try:
            found = json.loads(fetched(url))["data"]["result"]
        except OSError:
            return -1.0  # it does not listen yet
        return float(found[0]["value"][1]) if found else -1.0

    with serving("0", AgentCollector(agent)) as port:
        config = {
            "global": {"scrape_interval": "200ms"},
            "scrape_configs": [
                {"job_name": "e2", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        with subprocess.Popen(
            [
                "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address={listen}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as prometheus:
            try:
                wait_until(lambda: value() >= 0, 60)
                before = value()
                office.send(first, [DNS] * 25)
                wait_until(lambda: value() >= before + 25, 30)
                assert value() == before + 25
            finally:
                prometheus.terminate()


def test_the_agent_s_command_serves_metrics(tmp_path: Path) -> None:
    port = free_port()
    words = ["agent", "s9", f"--listen=unix:{tmp_path}/a.sock", f"--daemon=unix:{tmp_path}/d.sock"]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "e2ctl.cli", *words, f"--metrics={port}"],
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_RUNTIME_DIR": str(tmp_path),
        },
    ) as agent:
        try:

            def up() -> bool:
                try:
                    text = fetched(f"http://127.0.0.1:{port}/metrics")
                except OSError:
                    return False
                return 'e2_daemon_up{server="s9"} 1.0' in text

            wait_until(up, 60)
        finally:
            agent.terminate()
        assert agent.wait(30) == 0
