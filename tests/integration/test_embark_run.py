# SPDX-License-Identifier: BSD-3-Clause
"""`embark-gw run` between namespaces: a capture on the provider's side, whatever happens."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from embark_gw.cli import app
from embark_gw.inspecting import Seen, inspect
from harness import wait_until
from lab_support import EXAMPLES

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("ip", "ethtool", "sysctl")),
    reason="needs root, and Debian's iproute2, ethtool and procps",
)
SECRET = b"nobody may read this"
SEND = """
import socket, sys, time
host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = 0
while True:
    try:
        host.sendto(sys.argv[1].encode() + b"%8d" % number, ("198.51.100.7", 80))
        number += 1
    except OSError:
        pass
    time.sleep(0.005)
"""
# Hexadecimal, a frame on a line.
CAPTURE = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind((sys.argv[1], 0))
while True:
    frame, (_, _, kind, _, _) = link.recvfrom(65536)
    print(frame.hex(), flush=True)
"""


@pytest.fixture
def demo() -> ModuleType:
    """The demo's namespaces, under another name."""
    spec = importlib.util.spec_from_file_location("embark_demo", EXAMPLES / "embark_demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PREFIX = f"es{os.getpid() % 10**5}"
    return module


@contextmanager
def running(folder: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program meanwhile; what it says is in a file."""
    runtime = folder / f"{name}-run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XDG_RUNTIME_DIR": str(runtime),
    }
    with (
        (folder / f"{name}.log").open("ab") as log,
        subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=folder) as child,
    ):
        try:
            yield child
        finally:
            child.kill()


def write_site(demo: ModuleType, folder: Path) -> Path:
    """The demo's gateway, whose provider gives nothing back."""
    text = (EXAMPLES / "embark" / "gateway.yaml").read_text(encoding="utf-8")
    text = text.replace("unix:gateway.sock", f"unix:{folder}/gateway.sock")
    site = folder / "gateway.yaml"
    text = text[: text.index("pool:")].replace(
        "tunnel: {local: 192.0.2.1, remote: 192.0.2.2, vni: 7}", ""
    )
    site.write_text(text, encoding="utf-8")
    rules, key = EXAMPLES / "embark" / "rules.v4", folder / "site.key"
    outputs = ["--maps", folder / "site.maps", "--out", folder / "rules.json"]
    for words in (
        ["keygen", key],
        ["encrypt-rules", rules, "--format", "iptables", "--key", key, *outputs],
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    return site


def test_nothing_is_in_clear_at_the_provider(demo: ModuleType, tmp_path: Path) -> None:
    """Not before the gateway runs, not when its daemon is killed, nor while it is built again."""
    site = write_site(demo, tmp_path)
    daemon = ["-P", "-m", "bess_plugins.daemon.cli", "--foreground", "--unix-socket"]
    daemon = demo.inside("gw", sys.executable, *daemon, str(tmp_path / "gateway.sock"))
    capture = demo.inside("cloud", sys.executable, "-c", CAPTURE, "gateway")
    send = demo.inside("host", sys.executable, "-c", SEND, SECRET.decode())
    run = [sys.executable, "-P", "-m", "embark_gw.cli", "run", str(site)]

    def seen() -> list[bytes]:
        lines = (tmp_path / "capture.log").read_text(encoding="ascii").splitlines(keepends=True)
        return [bytes.fromhex(line) for line in lines if line.endswith("\n")]

    def said(name: str) -> str:
        return (tmp_path / f"{name}.log").read_text(encoding="utf-8")

    with ExitStack() as stack:
        stack.enter_context(demo.spaces())
        stack.enter_context(running(tmp_path, "capture", *capture))
        # Else hosts wait for ARP's answers while there is nobody to pass them.
        words = "neigh replace 10.0.0.1 lladdr 02:00:00:00:02:02 dev eth0"
        demo.run(*demo.inside("host", "ip", *words.split()))
        stack.enter_context(running(tmp_path, "send", *send))
        first = stack.enter_context(running(tmp_path, "daemon", *daemon))
        wait_until((tmp_path / "gateway.sock").exists)
        stack.enter_context(running(tmp_path, "run", *run))
        wait_until(lambda: "runs on" in said("run"), 20)
        wait_until(lambda: len(seen()) > 50)
        first.kill()
        first.wait()
        until_dead = len(seen())
        time.sleep(0.3)  # in which a host sends some 60 packets
        assert len(seen()) <= until_dead + 5
        stack.enter_context(running(tmp_path, "daemon", *daemon))
        wait_until(lambda: "building them again" in said("run"), 20)
        wait_until(lambda: len(seen()) > until_dead + 50, 20)
        status = CliRunner().invoke(app, ["status", str(site), "--json"])
        assert status.exit_code == 0, status.output
        assert '"encrypted"' in status.output
        frames = seen()
    for one in inspect(frames):
        assert isinstance(one, Seen) and one.sealed, one
    assert not any(SECRET in frame for frame in frames)
    assert "Traceback" not in said("run")


@pytest.mark.parametrize("name", ["site.key", "site.maps"])
def test_files_that_others_can_read(demo: ModuleType, tmp_path: Path, name: str) -> None:
    """Refused before anything is built, in one line that shows nothing of them."""
    site = write_site(demo, tmp_path)
    (tmp_path / name).chmod(0o640)
    done = CliRunner().invoke(app, ["run", str(site)])
    assert done.exit_code == 1
    assert done.output == (
        f"embark-gw: others can use {tmp_path / name}; expected mode 600: "
        f"chmod 600 {tmp_path / name}\n"
    )
