# SPDX-License-Identifier: BSD-3-Clause
"""What the documentation shows works, and looks as it is shown."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.all import RawPcapReader

from bess_plugins.client import Client
from harness import run_program, wait_until
from lab_support import needs_lab

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "alpine": "alpine.cli",
    "e2ctl": "e2ctl.cli",
    "e2d": "bess_plugins.daemon.cli",
    "bessrun": "bess_plugins.script.cli",
}


def run(
    command: list[str], folder: Path, extra: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the installed program that a line of the documentation names."""
    return subprocess.run(
        [sys.executable, "-P", "-m", PROGRAMS[command[0]], *command[1:], *extra],
        cwd=folder,
        env={
            **os.environ,
            "COLUMNS": "80",
            "PYTHONPATH": os.pathsep.join(sys.path),  # what these tests import, from any folder
            "XDG_RUNTIME_DIR": str(folder),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def console(path: Path) -> list[tuple[list[str], list[str]]]:
    """The commands of a page's console blocks, each with the output that is shown below it."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((shlex.split(line[2:], comments=True), []))
            elif found:
                found[-1][1].append(line.rstrip())
    return found


def without_numbers(line: str) -> str:
    """What is measured is other each time."""
    return re.sub(r"[0-9.]+", "0", " ".join(line.split()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_five_minutes(folder: Path) -> None:
    capture = folder / "out" / "demo.pcap"
    subprocess.run([sys.executable, ROOT / "examples" / "make_capture.py", capture], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    daemon = ("--daemon", f"127.0.0.1:{port}")
    where = {"e2d": ("--port", port), "bessrun": daemon, "alpine run": daemon}
    commands = console(ROOT / "README.md")
    assert [command[0] for command, _ in commands] == [
        *("e2ctl", "e2d", "bessrun", "bessrun", "e2d"),
        *("e2d", "alpine", "alpine", "e2d"),
    ]
    for command, shown in commands:
        if command[0] == "alpine" and 0 not in os.sched_getaffinity(0):
            continue  # schedules are for cores from 0 on
        extra = where.get(command[0], where.get(" ".join(command[:2]), ()))
        result = run(command, folder, extra)
        assert result.returncode == 0, result.stderr
        alike = without_numbers if command[0] == "alpine" else str.rstrip
        lines = iter([alike(line) for line in result.stdout.splitlines()])
        assert all(alike(line) in lines for line in shown if line != "..."), result.stdout


@needs_lab
def test_five_minutes_of_a_cluster(folder: Path) -> None:
    for command, shown in console(ROOT / "docs" / "cluster.md"):
        result = run(command, folder)
        assert result.returncode == 0, result.stderr
        assert [line.rstrip() for line in result.stdout.splitlines()] == shown


def test_error_of_a_policy(folder: Path) -> None:
    policy = (ROOT / "examples" / "figure-3.1.e2").read_text()
    (folder / "wrong.e2").write_text(policy.replace("-> cache ->", "-> cach ->"))
    (command, shown) = console(ROOT / "docs" / "e2ctl.md")[-1]
    assert run(command, folder).stderr.splitlines() == shown


@pytest.mark.parametrize(
    "text",
    [
        "a::Bypass()\na -> -> b\n",
        "wm::WildcardMatch(fields=[{'offset': 23, 'num_bytes': 9}])\n",
        "a::Source()\nb::Sink()\na -> b\na -> c:9\n",
    ],
)
def test_errors_of_scripts(text: str, folder: Path, client: Client) -> None:
    (folder / "wrong.bess").write_text(text)
    command, shown = console(ROOT / "docs" / "scripts.md")[0]
    result = run(command, folder, ("--daemon", client.address))
    assert result.stderr.strip() in shown


def test_the_script_shown_runs(folder: Path, client: Client) -> None:
    page = (ROOT / "docs" / "scripts.md").read_text()
    (folder / "my.bess").write_text(page.partition("```\n")[2].partition("```")[0])
    capture = folder / "in.pcap"
    subprocess.run([sys.executable, ROOT / "examples" / "make_capture.py", capture], check=True)
    command = ["bessrun", "my.bess", f"IN={capture}", f"OUT={folder / 'out.pcap'}"]
    result = run(command, folder, ("--daemon", client.address))
    assert result.returncode == 0, result.stderr
    assert {module["mclass"] for module in client.list_modules()} == {
        "PortInc",
        "BPF",
        "PortOut",
        "Sink",
    }


def test_the_embark_example(folder: Path, client: Client) -> None:
    """Key, maps and pipeline as the page has them: all packets come back."""
    page = (ROOT / "docs" / "embark.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, cwd=folder, env=environment, check=True)
    key, maps = folder / "site.key", folder / "site.maps"
    key.touch(0o600)
    key.write_text("0123456789abcdef" * 4 + "\n")
    (folder / "my.bess").write_text(page.partition("```bess\n")[2].partition("```")[0])
    capture, back = folder / "in.pcap", folder / "back.pcap"
    make = ROOT / "examples" / "make_capture.py"
    subprocess.run([sys.executable, make, capture, "500"], check=True)
    variables = [f"IN={capture}", f"OUT={back}", f"KEY={key}", f"MAPS={maps}"]
    result = run(["bessrun", "my.bess", *variables], folder, ("--daemon", client.address))
    assert result.returncode == 0, result.stderr
    wait_until(lambda: client.port_stats("back").out.packets == 500)
    with RawPcapReader(str(capture)) as reader:
        sent = [data[12:] for data, _ in reader]
    client.reset_all()
    with RawPcapReader(str(back)) as reader:
        assert [data[12:] for data, _ in reader] == sent


def test_client_example(client: Client) -> None:
    result = subprocess.run(
        [sys.executable, "-P", ROOT / "examples" / "client.py", client.address],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    page = (ROOT / "docs" / "client.md").read_text()
    _, shown = console(ROOT / "docs" / "client.md")[0]
    numbers = re.compile(r"\d+ packets")
    assert numbers.sub("N", result.stdout).splitlines() == [numbers.sub("N", x) for x in shown]
    assert client.list_modules() == []
    methods = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
    assert {name for name in methods if f"`{name}" not in page} == set()


@pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("g++")), reason="make or g++ is not installed"
)
def test_writing_a_module(folder: Path) -> None:
    page = (ROOT / "docs" / "writing-modules.md").read_text()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    where = {"e2d": ("--port", port), "bessrun": ("--daemon", f"127.0.0.1:{port}")}
    (folder / "try.bess").write_text(page.partition("try.bess")[2].split("```\n")[1])
    commands = console(ROOT / "docs" / "writing-modules.md")
    names = [command[0] for command, _ in commands]
    assert names == ["pip", "python", "make", "e2d", "bessrun", "bessrun", "e2d"]
    for command, shown in commands[1:]:
        command = [word.replace("$PWD", str(folder)) for word in command]
        if command[0] in where:
            result = run(command, folder, where[command[0]])
            assert result.returncode == 0, result.stdout + result.stderr
            printed = result.stdout
        else:
            if command[0] == "python":
                command[0] = sys.executable
            else:
                command.append(f"PYTHON={sys.executable}")
            printed = run_program(command, folder)
        assert shown == [] or printed.splitlines() == shown
    # The page shows what the skeleton has, and speaks of what it does.
    source = (folder / "too_long" / "too_long.cc").read_text()
    assert page.partition("```cpp\n")[2].partition("```")[0] in source
