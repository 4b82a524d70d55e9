# SPDX-License-Identifier: BSD-3-Clause
"""`e2ctl run` from the command line: real captures in, whole results or a clear error out."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bess_plugins.captures import count_packets
from bess_plugins.daemon.server import Server, make_engine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DATA = Path(os.environ.get("E2_DATA", ROOT.parent / "shared" / "data"))


def e2ctl(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "e2ctl.cli", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


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


def test_bad_input_is_one_line_and_no_output(capture: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.pcap"
    truncated.write_bytes(capture.read_bytes()[:1000])
    for bad, word in [(tmp_path / "none.pcap", "none.pcap"), (truncated, "truncated")]:
        out = tmp_path / "bad"
        result = run_figure(bad, out)
        assert result.returncode != 0
        assert word in result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not out.exists()


def test_no_daemon_says_how_to_start_one(capture: Path, tmp_path: Path) -> None:
    result = run_figure(capture, tmp_path / "out", "--daemon", "127.0.0.1:1")
    assert result.returncode != 0
    assert "e2d start" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_cyclic_policy_is_refused_where_it_is(capture: Path, tmp_path: Path) -> None:
    policy = tmp_path / "loop.e2"
    policy.write_text(
        "nf a : WebCache\nnf b : WebCache\nport in0\n"
        "pipeline p {\n  in0 -> a;\n  a -> b;\n  b -> a;\n}\n"
    )
    result = e2ctl(
        "run", policy, "--nfs", EXAMPLES / "nfs.yaml", "--in", f"in0={capture}",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode != 0
    assert "loop.e2:" in result.stderr
    assert "a -> b -> a" in result.stderr


def test_graph_draws_svg(tmp_path: Path) -> None:
    out = tmp_path / "figure.svg"
    result = e2ctl("graph", EXAMPLES / "figure-3.1.e2", "--nfs", EXAMPLES / "nfs.yaml", "-o", out)
    assert result.returncode == 0, result.stderr
    assert out.read_text().startswith("<svg")
    assert "normalizer" in out.read_text()
