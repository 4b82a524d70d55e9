# SPDX-License-Identifier: BSD-3-Clause
"""`e2ctl run` from the command line: real captures in, whole results or a clear error out."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

from bess_plugins.captures import count_packets
from bess_plugins.client import Client
from bess_plugins.daemon.server import Server, make_engine
from harness import real_daemon, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DATA = Path(os.environ.get("E2_DATA", ROOT.parent / "shared" / "data"))


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "e2ctl.cli", *map(str, args)]


def e2ctl(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, check=False, timeout=120)


def check_refused(status: int | None, stderr: str, *words: str) -> None:
    """One clear line, no traceback, not the exit code of success."""
    assert status not in (0, None)
    assert "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    for word in words:
        assert word in stderr


def run_figure(capture: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return e2ctl(
        "run", EXAMPLES / "figure-3.1.e2", "--nfs", EXAMPLES / "nfs.yaml",
        "--in", f"in0={capture}", "--out", out, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "demo.pcap"
    make = EXAMPLES / "make_capture.py"
    subprocess.run([sys.executable, str(make), str(path), "3000"], check=True)
    return path


@pytest.fixture
def daemon() -> Iterator[str]:
    with Server(make_engine(), port=0) as server:
        yield server.address


def check_balance(out: Path, packets: int) -> None:
    report = json.loads((out / "report.json").read_text())
    assert report["packets_in"] == packets
    assert report["packets_out"] + report["dropped"] == packets
    assert count_packets(out / "out0.pcap") == report["packets_out"]


def test_figure_3_1_over_the_demo_capture(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_figure(capture, out)
    assert result.returncode == 0, result.stderr
    assert "3,000 in = " in result.stdout
    check_balance(out, 3000)


def test_json_is_for_machines(capture: Path, tmp_path: Path) -> None:
    result = run_figure(capture, tmp_path / "out", "--json")
    assert json.loads(result.stdout)["packets_in"] == 3000


def test_a_gzipped_capture_gives_the_same(capture: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "demo.pcap.gz"
    zipped.write_bytes(gzip.compress(capture.read_bytes()))
    assert run_figure(zipped, tmp_path / "out").returncode == 0
    check_balance(tmp_path / "out", 3000)


def test_a_running_daemon_twice_in_a_row(capture: Path, tmp_path: Path, daemon: str) -> None:
    for name in ("first", "second"):
        result = run_figure(capture, tmp_path / name, "--daemon", daemon)
        assert result.returncode == 0, result.stderr
        check_balance(tmp_path / name, 3000)


@pytest.mark.parametrize(
    "name", ["sanitized4k.pcap", "echo-connections.pcap.gz", "http-qinq-0.pcap", "wikipedia.pcap"]
)
def test_real_captures(name: str, tmp_path: Path) -> None:
    path = DATA / "traces" / name
    if not path.exists():
        pytest.skip(f"no {path}; set E2_DATA to the folder with the captures")
    result = run_figure(path, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    check_balance(tmp_path / "out", count_packets(path))


def test_through_a_vpn_and_out_of_its_other_end(capture: Path, tmp_path: Path) -> None:
    """What the example sends to the office is sealed, and comes out of the other end as it was."""
    sas = tmp_path / "sas"
    sas.touch(0o600)
    sas.write_text(f"0x100 {bytes(range(20)).hex()} 198.51.100.1 198.51.100.2 esn\n")
    nfs = tmp_path / "nfs.yaml"
    text = (EXAMPLES / "nfs.yaml").read_text(encoding="utf-8")
    nfs.write_text(re.sub(r"/etc/bess-e2/vpn-\w+\.sas", str(sas), text))
    there = e2ctl(
        "run", EXAMPLES / "vpn.e2", "--nfs", nfs, "--in", f"subscribers={capture}",
        "--out", tmp_path / "there",
    )  # fmt: skip
    assert there.returncode == 0, there.stderr
    back = tmp_path / "back.e2"
    back.write_text(
        "nf end : VPNEnd\nport internet, office, rest\n"
        "pipeline p { internet [ip proto 50] -> end -> office; internet [otherwise] -> rest; }\n"
    )
    sealed = tmp_path / "there" / "internet.pcap"
    result = e2ctl(
        "run", back, "--nfs", nfs, "--in", f"internet={sealed}", "--out", tmp_path / "back"
    )
    assert result.returncode == 0, result.stderr
    sent, office = frames(capture), frames(tmp_path / "back" / "office.pcap")
    rest = frames(tmp_path / "back" / "rest.pcap")
    assert office == [frame for frame in sent if of_office(frame)] and len(office) > 100
    assert rest == [frame for frame in sent if not of_office(frame)] and len(rest) > 100


def test_a_nat_both_ways(capture: Path, tmp_path: Path) -> None:
    """Connections begin inside: what nobody asked for doesn't come in."""
    result = e2ctl(
        "run", EXAMPLES / "gateway.e2", "--nfs", EXAMPLES / "nfs.yaml",
        "--in", f"subscribers={capture}", "--in", f"internet={capture}",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    drops = {d["reason"]: d["packets"] for d in report["drops"] if d["where"] == "gateway"}
    ipv4 = [frame for frame in frames(capture) if frame[12:14] == b"\x08\x00"]
    out = frames(tmp_path / "out" / "internet.pcap")
    assert len(out) == len(ipv4) == drops["no mapping"]
    assert {frame[26:30] for frame in out} == {bytes([203, 0, 113, 1])}
    assert frames(tmp_path / "out" / "subscribers.pcap") == []


def frames(path: Path) -> list[bytes]:
    with RawPcapReader(str(path)) as reader:
        return [frame for frame, _ in reader]


def of_office(frame: bytes) -> bool:
    if frame[12:14] == b"\x86\xdd":
        return frame[38:44] == bytes.fromhex("20010db80001")
    return frame[30:33] == bytes([192, 0, 2]) and frame[33] < 4


def test_bad_input_is_one_line_and_no_output(capture: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.pcap"
    truncated.write_bytes(capture.read_bytes()[:1000])
    other = tmp_path / "text.pcap"
    other.write_text("no capture at all")
    for bad, word in [
        (tmp_path / "none.pcap", "none.pcap"),
        (truncated, "truncated.pcap: a packet is cut short at byte"),
        (other, "neither pcap nor pcapng"),
        (tmp_path, "Is a directory"),
    ]:
        result = run_figure(bad, tmp_path / "bad")
        check_refused(result.returncode, result.stderr, word)
        assert not (tmp_path / "bad").exists()


def test_no_daemon_says_how_to_start_one(capture: Path, tmp_path: Path) -> None:
    result = run_figure(capture, tmp_path / "out", "--daemon", "127.0.0.1:1")
    check_refused(result.returncode, result.stderr, "e2d start")
    assert not (tmp_path / "out").exists()


POLICY_HEAD = "nf a : WebCache\nnf b : WebCache\nnf ids : IDS\nport in0, out0\n"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("nf c : NoSuch\npipeline p { in0 -> c; }", ["p.e2:5:4", "unknown type 'NoSuch'"]),
        ("pipeline p { in0 -> ids; ids [ids.nope] -> out0; }", ["p.e2:5:31", "no 'nope'"]),
        ("pipeline p { in0 -> a; a -> b; b -> a; }", ["p.e2:5:", "a -> b -> a"]),
        ("pipeline p { in0 -> nowhere; }", ["p.e2:5:21", "'nowhere' is not declared"]),
        ("nf a : IDS\npipeline p { in0 -> a; }", ["p.e2:5:4", "'a' is declared twice"]),
        ("port in0\npipeline p { in0 -> a; }", ["p.e2:5:6", "'in0' is declared twice"]),
    ],
)
def test_a_wrong_policy_is_refused_where_it_is(
    policy: str, words: list[str], capture: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.e2"
    path.write_text(POLICY_HEAD + policy)
    result = e2ctl(
        "run", path, "--nfs", EXAMPLES / "nfs.yaml", "--in", f"in0={capture}",
        "--out", tmp_path / "out",
    )  # fmt: skip
    check_refused(result.returncode, result.stderr, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("WebCache: {args: [1, 2]}", ["n.yaml:1:", "args", "dictionary"]),
        ("WebCache: {outputs: many}", ["n.yaml:1:", "outputs", "number of gates"]),
        ("WebCache: {capacity: fast}", ["n.yaml:1:", "'fast' is not a rate"]),
        ("[WebCache]", ["n.yaml:1:1"]),
        ("WebCache: {}\nWebCache: {}", ["n.yaml:2:1", "WebCache"]),
    ],
)
def test_wrong_nf_descriptions_are_refused_where_they_are(
    yaml: str, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(yaml)
    result = e2ctl("check", EXAMPLES / "figure-3.1.e2", "--nfs", path)
    check_refused(result.returncode, result.stderr, *words)


def test_wrong_ports_are_refused(capture: Path, tmp_path: Path) -> None:
    for more, word in [
        (["--in", f"in0={capture}"], "port 'in0' has two captures"),
        (["--in", f"in7={capture}"], "'in7' is not an input port"),
        (["--in", "in0"], "is not PORT=CAPTURE"),
    ]:
        result = run_figure(capture, tmp_path / "out", *more)
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        assert word in " ".join(result.stderr.replace("\u2502", " ").split())
        assert not (tmp_path / "out").exists()


def test_the_daemon_dies_during_a_run(capture: Path, tmp_path: Path) -> None:
    """An NF that takes a long time over each packet keeps the run from ending before the daemon."""
    policy, nfs = tmp_path / "p.e2", tmp_path / "n.yaml"
    policy.write_text("nf slow : Slow\nport in0, out0\npipeline p { in0 -> slow -> out0; }\n")
    nfs.write_text("Slow: {module: Bypass, args: {cycles_per_packet: 3000000}}\n")
    results = tmp_path / "results"
    with real_daemon(tmp_path) as e2d, Client(e2d.address) as client:
        run = subprocess.Popen(
            command(
                "run", policy, "--nfs", nfs, "--in", f"in0={capture}", "--out", results / "out",
                "--daemon", e2d.address,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            wait_until(lambda: run.poll() is not None or moving(client), timeout_s=60)
            e2d.kill()
            stdout, stderr = run.communicate(timeout=60)
        finally:
            run.kill()
    check_refused(run.returncode, stderr, e2d.address, "ended during the run")
    assert stdout == ""
    assert list(results.iterdir()) == []


def moving(client: Client) -> bool:
    return any(client.port_stats(port["name"]).inc.packets for port in client.list_ports())


def test_no_room_for_the_output(capture: Path, tmp_path: Path) -> None:
    """A limit on the size of the daemon's files stands for a full disk: writes fail alike."""
    results = tmp_path / "results"
    with real_daemon(tmp_path) as e2d:
        resource.prlimit(e2d.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        result = run_figure(capture, results / "out", "--daemon", e2d.address)
    check_refused(result.returncode, result.stderr, "out0.pcap", "beyond byte", "File too large")
    assert list(results.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("own_daemon", [True, False])
def test_a_full_disk(capture: Path, small_disk: Path, own_daemon: bool, daemon: str) -> None:
    more = [] if own_daemon else ["--daemon", daemon]
    result = run_figure(capture, small_disk / "out", *more)
    check_refused(result.returncode, result.stderr, "out0.pcap", "No space left on device")
    assert list(small_disk.iterdir()) == []


def test_graph_draws_svg(tmp_path: Path) -> None:
    out = tmp_path / "figure.svg"
    result = e2ctl("graph", EXAMPLES / "figure-3.1.e2", "--nfs", EXAMPLES / "nfs.yaml", "-o", out)
    assert result.returncode == 0, result.stderr
    assert out.read_text().startswith("<svg")
    assert "normalizer" in out.read_text()
