# SPDX-License-Identifier: BSD-3-Clause
"""Scripts run on a daemon with a real engine inside this process."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bess_plugins.client import Client, DaemonUnavailableError
from bess_plugins.daemon.server import Server
from bess_plugins.script import ScriptError, run_script
from bess_plugins.script.cli import app
from bess_plugins.script.graph import Edge, Graph, layers
from harness import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
CORE = str(min(os.sched_getaffinity(0)))
UNREACHABLE = "127.0.0.1:1"


def script(folder: Path, text: str) -> Path:
    path = folder / "test.bess"
    path.write_text(text, encoding="utf-8")
    return path


def failure(folder: Path, text: str, client: Client) -> tuple[int, int, str]:
    with pytest.raises(ScriptError) as caught:
        run_script(script(folder, text), client)
    return caught.value.line, caught.value.column, caught.value.message


@pytest.mark.parametrize("name", ["firewall", "firewall-scheduled"])
def test_examples_twice(name: str, client: Client) -> None:
    for _ in range(2):
        run_script(EXAMPLES / f"{name}.bess", client, {"CORE": CORE})
        modules = {module["name"]: module["mclass"] for module in client.list_modules()}
        assert modules["wm"] == "WildcardMatch"
        assert modules["leave"] == "PortOut"
        assert [port["name"] for port in client.list_ports()] == ["inside"]
        assert all(worker["running"] for worker in client.list_workers())
    if name == "firewall-scheduled":
        assert {tc["name"] for tc in client.list_tcs()} >= {"root", "output", "other"}


@pytest.mark.parametrize(
    ("name", "passed"),
    [
        ("firewall", {("10.0.1.7", 80), ("10.0.1.7", 443)}),
        ("firewall-scheduled", {("10.0.1.7", p) for p in (80, 443)} | {("10.9.9.9", 80)}),
    ],
)
def test_examples_filter(
    name: str, passed: set[tuple[str, int]], client: Client, tmp_path: Path
) -> None:
    scapy = pytest.importorskip("scapy.all")
    wanted = [("10.0.1.7", 80), ("10.0.1.7", 443), ("10.0.1.7", 23), ("10.9.9.9", 80)]
    frames = [
        scapy.Ether() / scapy.IP(src="10.2.2.2", dst=address) / scapy.TCP(dport=port)
        for address, port in wanted
    ]
    source, result = tmp_path / "in.pcap", tmp_path / "out.pcap"
    scapy.wrpcap(str(source), frames)
    variables = {"IN": str(source), "OUT": str(result), "CORE": CORE}
    run_script(EXAMPLES / f"{name}.bess", client, variables)
    wait_until(lambda: client.port_stats("inside").out.packets >= len(passed))
    client.reset_all()
    seen = {(packet["IP"].dst, packet["TCP"].dport) for packet in scapy.rdpcap(str(result))}
    assert seen == passed


def test_script_sees_modules_ports_and_variables(client: Client, tmp_path: Path) -> None:
    text = """
port = MemoryPort(name='mem')
a, b::Bypass()
src::Source(pkt_size=int($SIZE))
src -> a:0 -> 0:b -> PortOut(port=port)
src.set_burst(burst=int($BURST!4))
assert src.get_initial_arg().pkt_size == 90
assert bess.get_module_info(src).ogates[0].name == 'a'
bess.connect_modules(PortInc(port='mem'), Sink())
bess.add_worker(0, int($CORE))
bess.add_tc('top', policy='round_robin', wid=0)
src.attach_task('top')
"""
    run_script(script(tmp_path, text), client, {"SIZE": "90", "CORE": CORE})
    names = {module["name"] for module in client.list_modules()}
    assert len(names) == 6
    assert {"a", "b", "src", "sink0"} <= names
    assert client.module_info("b")["igates"][0]["ogates"][0]["name"] == "a"


def test_failure_names_the_place(client: Client, tmp_path: Path) -> None:
    line, column, message = failure(tmp_path, "a::Source()\na -> b::Sink()\na -> b\n", client)
    assert (line, column) == (3, 3)
    assert "EBUSY" in message
    line, column, message = failure(tmp_path, "x = 1\ny = max(x, $NO_SUCH_VARIABLE)", client)
    assert (line, column) == (2, 12)
    assert "NO_SUCH_VARIABLE" in message
    source = "def go():\n    Source() -> Source(nope=1)\nx = 3; go()"
    line, column, message = failure(tmp_path, source, client)
    assert (line, column) == (2, 17)
    assert "nope" in message
    assert failure(tmp_path, "a::NoSuch()", client) == (
        1,
        1,
        "no module class or port driver named NoSuch",
    )
    assert failure(tmp_path, "a::Sink()\n a::Sink()", client)[:2] == (2, 1)
    assert failure(tmp_path, "a::Sink()\na::Sink()", client) == (2, 1, "the name a is taken")
    assert failure(tmp_path, "a::Sink()\na.nope(x=1)", client)[:2] == (2, 1)
    assert failure(tmp_path, "Source():'x' -> Sink()", client)[:2] == (1, 1)
    assert failure(tmp_path, "Source() -> 3", client)[:2] == (1, 10)
    assert "exit: bad" in failure(tmp_path, "raise SystemExit('bad')", client)[2]


def test_daemon_is_untouched_by_malformed_scripts(client: Client, tmp_path: Path) -> None:
    client.create_module("Sink", "kept")
    assert failure(tmp_path, "a ->", client)[:2] == (1, 3)
    assert [module["name"] for module in client.list_modules()] == ["kept"]


def test_workers_resume_after_a_failure(client: Client, tmp_path: Path) -> None:
    text = f"bess.add_worker(0, {CORE})\nSource() -> Sink()\n1 / 0"
    assert failure(tmp_path, text, client)[0] == 3
    assert [worker["running"] for worker in client.list_workers()] == [True]


def test_no_daemon(tmp_path: Path) -> None:
    with Client(UNREACHABLE) as client, pytest.raises(DaemonUnavailableError):
        run_script(script(tmp_path, "Sink()"), client)


def test_command(client: Client, server: Server, tmp_path: Path) -> None:
    runner = CliRunner()
    daemon = ["--daemon", server.address]
    path = str(script(tmp_path, f"bess.add_worker(0, {CORE})\nSource(name=$N) -> Sink()"))
    result = runner.invoke(app, [path, "N=first", *daemon])
    assert result.exit_code == 0, result.output
    shown = runner.invoke(app, ["show", "--once", *daemon])
    assert shown.exit_code == 0
    assert "first" in shown.output
    assert "packets/s" in shown.output
    drawing = tmp_path / "out.svg"
    assert runner.invoke(app, ["graph", "-o", str(drawing), *daemon]).exit_code == 0
    texts = [node.text for node in ET.parse(drawing).iter() if node.tag.endswith("text")]
    assert "first" in texts


def test_show_refreshes_until_ctrl_c(client: Client, server: Server, tmp_path: Path) -> None:
    run_script(script(tmp_path, f"bess.add_worker(0, {CORE})\nsrc::Source() -> Sink()"), client)
    command = [sys.executable, "-P", "-m", "bess_plugins.script.cli", "show", "--interval=0.1"]
    terminal, inside = pty.openpty()
    before = termios.tcgetattr(inside)
    process = subprocess.Popen(
        [*command, "--daemon", server.address],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
        # The terminal turns Ctrl-C into a signal only for whom it controls.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    shown = b""

    def shows(what: bytes, times: int) -> bool:
        nonlocal shown
        while select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 1 << 16)
        return shown.count(what) >= times

    try:
        wait_until(lambda: shows(b"packets/s", 3), timeout_s=30)  # at first, and two refreshes
        assert b"\x1b[?25l" in shown  # the cursor is hidden meanwhile
        counts = [int(n) for n in re.findall(rb"src +Source +0 +sink0 +(\d+) ", shown)]
        assert counts == sorted(counts) and len(set(counts)) >= 2
        os.write(terminal, b"\x03")
        wait_until(lambda: shows(b"\x1b[?25h", 1) and process.poll() is not None, timeout_s=30)
        assert process.returncode == 0
        assert b"Traceback" not in shown
        assert termios.tcgetattr(inside) == before
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(inside)


def test_exit_codes(client: Client, server: Server, tmp_path: Path) -> None:
    runner = CliRunner()
    daemon = ["--daemon", server.address]
    path = str(script(tmp_path, "Source() -> $"))
    broken = runner.invoke(app, [path, *daemon])
    assert broken.exit_code == 1
    assert f"{path}:1:13: " in broken.output
    assert "Traceback" not in broken.output
    assert runner.invoke(app, [str(tmp_path / "none.bess"), *daemon]).exit_code == 1
    assert runner.invoke(app, [path, "novalue", *daemon]).exit_code == 2
    assert runner.invoke(app, ["show", "--once", "--daemon", UNREACHABLE]).exit_code == 1
    helped = runner.invoke(app, ["--help"])
    assert helped.exit_code == 0
    assert "examples/firewall.bess" in helped.output


def test_layers_ignore_edges_that_close_a_cycle() -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "b"), ("a", "c"), ("d", "d")]
    edges = [Edge(m1, gate, m2, 0, 0, 0, 0.0) for gate, (m1, m2) in enumerate(pairs)]
    rows = layers(Graph({name: ("Bypass", "") for name in "abcd"}, edges))
    assert [sorted(row) for row in rows] == [["a", "d"], ["b"], ["c"]]


@pytest.mark.parametrize("name", ["listing-5.1", "listing-5.3"])
def test_the_dissertations_listings_split_udp_from_the_rest(
    client: Client, tmp_path: Path, name: str
) -> None:
    if 0 not in os.sched_getaffinity(0):
        pytest.skip("the listing names core 0, which this process may not use")
    scapy = pytest.importorskip("scapy.all")
    ip = scapy.Ether() / scapy.IP(dst="10.0.0.1")
    frames = [ip / (scapy.UDP(dport=i) if i % 3 else scapy.TCP(dport=i)) for i in range(1, 91)]
    paths = {key: tmp_path / f"{key}.pcap" for key in ("IN", "OUT", "LOG")}
    scapy.wrpcap(str(paths["IN"]), frames)
    for _ in range(2):
        variables = {key: str(path) for key, path in paths.items()}
        run_script(EXAMPLES / f"{name}.bess", client, variables)
        wait_until(
            lambda: (
                client.port_stats("normal").out.packets + client.port_stats("log").out.packets
                >= len(frames)
            )
        )
        client.reset_all()
        out, log = (scapy.rdpcap(str(paths[key])) for key in ("OUT", "LOG"))
        assert [packet["TCP"].dport for packet in out] == [i for i in range(1, 91) if i % 3 == 0]
        assert [packet["UDP"].dport for packet in log] == [i for i in range(1, 91) if i % 3]
