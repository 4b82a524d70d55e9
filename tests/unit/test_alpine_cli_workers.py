# SPDX-License-Identifier: BSD-3-Clause
"""The ``alpine`` command and scripts that ask for several workers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from alpine.errors import AlpineError
from alpine.frontend import load
from alpine.live import check_workers
from alpine_support import GOOD, call, script, written
from bess_plugins.client import Client


def test_no_class_is_starved_by_more_workers_than_tasks(tmp_path: Path) -> None:
    for workers in (1, 8):
        path = script(tmp_path, f"{GOOD}alpine.workers({workers})\n")
        made = json.loads(written("explain", path, "--even", "--json"))
        assert all(found["throughput_pps"] > 1e5 for found in made["classes"])


class Far(Client):
    """Of a daemon that nobody talks to."""

    def __init__(self, address: str) -> None:
        self.address = address


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 6})


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:10514", True),
        ("localhost:10514", True),
        ("[::1]:10514", True),
        ("unix:/run/e2d", True),
        ("192.0.2.1:10514", False),
        ("[2001:db8::1]:10514", False),
        ("router:10514", False),
    ],
)
def test_more_workers_than_cores(address: str, here: bool, tmp_path: Path) -> None:
    path = script(tmp_path, f"{GOOD}alpine.workers(3)\n")
    written("compile", path, "--even")  # it may be for another machine
    program = load(path)
    if here:
        with pytest.raises(AlpineError) as caught:
            check_workers(program, Far(address))
        assert str(caught.value) == (
            f"{path}:11:1: 3 workers need as many cores, and this machine lets us use 2; "
            "say alpine.workers(2) to run it here"
        )
    else:
        check_workers(program, Far(address))
    check_workers(load(script(tmp_path, f"{GOOD}alpine.workers(2)\n")), Far(address))
    # Who adds workers says on which cores.
    own = "".join(f"bess.add_worker({wid}, 0)\n" for wid in range(3))
    check_workers(load(script(tmp_path, own + GOOD)), Far(address))


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("command", ["run", "watch", "profile"])
def test_more_workers_than_cores_by_command(command: str, tmp_path: Path) -> None:
    """Nothing answers at this address: what is said of workers comes before."""
    path = script(tmp_path, f"{GOOD}alpine.workers(3)\n")
    result = call(command, path, "--daemon", "127.0.0.1:1")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"alpine: {path}:11:1: 3 workers need as many cores")
    if command == "profile":  # costs are of use elsewhere, so it goes on, and finds no daemon
        assert lines[0].endswith("; profiling goes on")
        assert "no daemon at 127.0.0.1:1" in lines[1] or "went away" in lines[1]
    assert len(lines) == (2 if command == "profile" else 1)
