# SPDX-License-Identifier: BSD-3-Clause
"""Descriptions of labs: what they come to, and what is refused where."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from e2ctl import hardware, lab
from e2ctl._lab_system import Process, read_pid_files, run, wait_for
from e2ctl.lab import LabError, LabFile, LabFileError

RACK = """
servers:
  a: {cores: 2, ghz: 1, nic: 1Gbps, agent: "a:1", port: 21, ip: 10.0.0.1, mac: "02:00:00:00:00:01"}
  b: {cores: 2, ghz: 1, nic: 1Gbps, agent: "b:1", port: 22, ip: 10.0.0.2, mac: "02:00:00:00:00:02",
      device: ens3}
switch:
  ports: {in0: 1, customers: [2, 4-5]}
"""


def drawn(text: str = RACK) -> lab.Blueprint:
    return lab.draw(LabFile(name="x", hardware="rack.yaml"), hardware.loads(text))


def test_a_lab_as_the_hardware_says(tmp_path: Path) -> None:
    (tmp_path / "rack.yaml").write_text(RACK)
    path = tmp_path / "lab.yaml"
    path.write_text("name: x\nhardware: rack.yaml\n")
    plan = lab.load(path)
    assert plan == drawn()
    assert (plan.mtu, plan.agents) == (9000, True)
    assert plan.namespaces == ("x-sw", "x-a", "x-b", "x-world")
    assert [(c.namespace, c.device, c.port, c.end, c.mac) for c in plan.cables] == [
        ("x-a", "eth1", 21, "p21", "02:00:00:00:00:01"),
        ("x-b", "ens3", 22, "p22", "02:00:00:00:00:02"),
        ("x-world", "in0", 1, "p1", None),
        ("x-world", "customers.2", 2, "p2", None),
        ("x-world", "customers.4", 4, "p4", None),
        ("x-world", "customers.5", 5, "p5", None),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hardware: rack.yaml", ["lab.yaml:1:1", "'name' is missing"]),
        ("name: x", ["lab.yaml:1:1", "'hardware' is missing"]),
        ("name: central-office\nhardware: r", ["lab.yaml:1:1", "name: ", "'central-office'"]),
        ("name: ../x\nhardware: r", ["lab.yaml:1:1", "name: "]),
        ("name: x\nhardware: r\nmtu: 60", ["lab.yaml:3:1", "mtu: "]),
        (
            "name: x\nhardware: r\nspeed: 1",
            ["lab.yaml:3:1", "expected name, hardware, mtu"],
        ),
        ("- x", ["lab.yaml:1:1", "a mapping with name and hardware"]),
    ],
)
def test_a_wrong_file_is_refused_where_it_is(text: str, words: list[str]) -> None:
    with pytest.raises(LabFileError) as error:
        lab.loads(text, "lab.yaml")
    assert all(word in str(error.value) for word in words), error.value


def test_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    with pytest.raises(LabFileError, match=r"lab\.yaml:1:1: No such file"):
        lab.load(path)
    path.write_text("name: x\nhardware: rack.yaml\n")
    with pytest.raises(hardware.HardwareError, match=r"rack\.yaml:1:1: No such file"):
        lab.load(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  a: {", "  sw: {", "server 'sw' would share"),
        ("  a: {", "  world: {", "server 'world' would share"),
        ("  a: {", "  'a b': {", "server 'a b': expected a name"),
        ("  a: {", "  -a: {", "server '-a': expected a name"),
        ("in0: 1", "a-port-of-16-let: 1", "'a-port-of-16-let' of switch port 1"),
        ("in0: 1", "customers.4: 1", "would be 'customers.4'"),
        ("switch:", "switch:\n  bridge: a/b", "bridge 'a/b'"),
    ],
)
def test_names_that_linux_can_t_have(old: str, new: str, words: str) -> None:
    with pytest.raises(LabError, match=words):
        drawn(RACK.replace(old, new))


@pytest.mark.parametrize("name", ["", "..", "a-b", "../x", "ninechars", "9x", "X"])
def test_names_of_labs_are_no_paths(name: str) -> None:
    with pytest.raises(LabError, match="no name of a lab"):
        lab.folder_of(name)


def test_commands_say_what_was_run_and_what_it_said() -> None:
    assert run("echo", "a") == "a\n"
    with pytest.raises(LabError, match=r"`sh -c 'echo no >&2; exit 3'`: no"):
        run("sh", "-c", "echo no >&2; exit 3")
    with pytest.raises(LabError, match="`false`: exit code 1"):
        run("false")
    with pytest.raises(LabError, match="`no-such-program`: no such program"):
        run("no-such-program")


def test_waiting_ends() -> None:
    start = time.monotonic()
    with pytest.raises(LabError, match="the tide turns: not after"):
        wait_for(lambda: False, "the tide turns", 0.05)
    assert time.monotonic() - start < 5


def test_processes_are_told_apart_by_when_they_started(tmp_path: Path) -> None:
    """A number that somebody else has now names no process of the lab."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    (tmp_path / "me.pid").write_text(f"{os.getpid()} {started}\n")
    (tmp_path / "other.pid").write_text(f"{os.getpid()} {started + 1}\n")
    (tmp_path / "torn.pid").write_text("12")
    me, other = read_pid_files(tmp_path)
    assert (me, me.running) == (Process("me", os.getpid(), started), True)
    assert not other.running


def test_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="takes root"):
        lab.down("x")
