# SPDX-License-Identifier: BSD-3-Clause
"""What the daemon costs and how fast it answers: a real `e2d`, asked from Python over loopback.

It reports and never judges. Calls are timed one by one, without and with a worker that forwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anchors import BESSD_US
from bess_plugins.client import Client
from graphs import CORE
from harness import E2d, new_e2d, real_daemon

Report = Callable[..., None]
Timed = Callable[[], Any]

STARTS = 5
CALLS = 300
IDLE_SECONDS = 3.0
FOOTPRINT = "daemon: start, memory, idling"
CALLS_TABLE = "daemon: median microseconds of a call"
IP_SOURCE = {"offset": 26, "num_bytes": 4}


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_percent(pid: int) -> float:
    """Of one core, while nobody calls and no packet comes."""
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - start)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[E2d]:
    with real_daemon(tmp_path) as running:
        yield running


def test_start(tmp_path: Path, benchmark: BenchmarkFixture, report: Report) -> None:
    e2d = new_e2d(tmp_path)
    seconds: list[float] = []

    def start() -> None:
        begin = time.monotonic()
        assert e2d("start").returncode == 0
        seconds.append(time.monotonic() - begin)

    pedantic: Any = benchmark.pedantic
    try:
        pedantic(start, setup=lambda: e2d("stop") and None, rounds=STARTS, iterations=1)
        figures = {"seconds": median(seconds), "rss_mb": resident_mb(e2d.pid)}
    finally:
        e2d("stop")
    report("e2d start", figures, FOOTPRINT)


@pytest.mark.parametrize("state", ["without workers", "a worker that polls a silent port"])
def test_idle(state: str, daemon: E2d, benchmark: BenchmarkFixture, report: Report) -> None:
    with Client(daemon.address) as client:
        if state != "without workers":
            client.create_port("UnixSocketPort", "p", path=str(daemon.folder / "p.sock"))
            client.create_module("PortInc", "inc", port="p")
            client.create_module("Sink", "sink")
            client.connect("inc", "sink")
            client.add_worker(0, CORE)
            client.resume()
    pid = daemon.pid
    pedantic: Any = benchmark.pedantic
    figures = {"percent_of_core": pedantic(idle_percent, (pid,), rounds=1, iterations=1)}
    report(f"idle, {state}", {**figures, "rss_mb": resident_mb(pid)}, FOOTPRINT)


def calls(client: Client, name: str) -> tuple[Timed, Timed]:
    """The call to time, and what undoes it."""
    numbers = count()
    nothing: Timed = lambda: None  # noqa: E731

    def create() -> None:
        client.create_module("Bypass", "new")

    def connect() -> None:
        client.connect("one", "two")

    def add_exact() -> None:
        value = {"value_bin": next(numbers).to_bytes(4, "big")}
        client.run_module_command(
            "exact", "add", "ExactMatchCommandAddArg", {"gate": 1, "fields": [value]}
        )

    def add_wildcard() -> None:
        rule = {
            "gate": 1,
            "values": [{"value_bin": next(numbers).to_bytes(4, "big")}],
            "masks": [{"value_bin": b"\xff" * 4}],
        }
        client.run_module_command("wildcard", "add", "WildcardMatchCommandAddArg", rule)

    def pause_and_resume() -> None:
        client.pause()
        client.resume()

    disconnect: Timed = lambda: client.disconnect("one")  # noqa: E731
    destroy: Timed = lambda: client.destroy_module("new")  # noqa: E731
    return {
        "GetVersion": (client.version, nothing),
        "CreateModule (Bypass)": (create, destroy),
        "ConnectModules": (connect, disconnect),
        "DisconnectModules": (disconnect, connect),
        "DestroyModule": (destroy, create),
        "ModuleCommand add to ExactMatch": (add_exact, nothing),
        "ModuleCommand add to WildcardMatch": (add_wildcard, nothing),
        "PauseAll + ResumeAll": (pause_and_resume, nothing),
    }[name]


def build(client: Client) -> None:
    """A source that feeds both tables, and two modules to join and part beside them."""
    client.add_worker(0, CORE)
    client.create_module("Source", "source")
    client.create_module("Rewrite", "rewrite", templates=[bytes(60)])
    client.create_module("ExactMatch", "exact", fields=[IP_SOURCE])
    client.create_module("WildcardMatch", "wildcard", fields=[IP_SOURCE])
    client.create_module("Sink", "sink")
    for first, second in (
        ("source", "rewrite"), ("rewrite", "exact"), ("exact", "wildcard"), ("wildcard", "sink")
    ):  # fmt: skip
        client.connect(first, second)
    client.create_module("Bypass", "one")
    client.create_module("Bypass", "two")


@pytest.mark.parametrize("name", list(BESSD_US))
def test_call(name: str, daemon: E2d, benchmark: BenchmarkFixture, report: Report) -> None:
    spans: dict[str, list[float]] = {"idle": [], "running": []}
    with ExitStack() as stack:
        client = stack.enter_context(Client(daemon.address))
        build(client)
        client.pause()
        timed, undo = calls(client, name)
        if name in ("DisconnectModules", "DestroyModule"):
            undo()

        def measure() -> None:
            for state, times in spans.items():
                if state == "running":
                    client.resume()
                for _ in range(CALLS):
                    start = time.perf_counter()
                    timed()
                    times.append(1e6 * (time.perf_counter() - start))
                    undo()
                client.pause()

        pedantic: Any = benchmark.pedantic
        pedantic(measure, rounds=1, iterations=1)
    idle, running = BESSD_US[name]
    figures = {"running_us": median(spans["running"]), "bessd_running_us": running}
    if idle is not None:
        figures |= {"idle_us": median(spans["idle"]), "bessd_idle_us": idle}
    report(name, figures, CALLS_TABLE)
