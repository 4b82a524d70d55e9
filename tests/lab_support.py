# SPDX-License-Identifier: BSD-3-Clause
"""Labs in tests: who can have one, and real hosts at both sides of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2ctl.lab import Lab
from harness import run_program, wait_until

__all__ = [
    "EXAMPLES",
    "GET",
    "PAGE",
    "host",
    "ip",
    "lab_file",
    "needs_lab",
    "web_server",
]

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = b"<p>the same page</p>\n"
# Prints what a cache said of a page, and the page.
GET = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=20) as answer:
    print(answer.headers.get("X-Cache"), answer.read())
"""
_PROGRAMS = ("ip", "ethtool", "ovs-vswitchd", "ovsdb-server")

needs_lab = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, _PROGRAMS),
    reason="needs root, and Debian's openvswitch-switch, iproute2 and ethtool",
)


def lab_file(folder: Path, letter: str = "t", *, agents: bool = False) -> Path:
    """A description of a lab with the examples' rack; its name is this process's."""
    path = folder / "lab.yaml"
    name = f"{letter}{os.getpid() % 10**7}"
    path.write_text(
        f"name: {name}\nhardware: {EXAMPLES / 'rack.yaml'}\nagents: {str(agents).lower()}\n",
        encoding="utf-8",
    )
    return path


def ip(*words: str) -> None:
    """Configure interfaces and the like."""
    run_program(["ip", *words])


@contextmanager
def host(made: Lab, name: str, device: str, address: str, *routes: str) -> Iterator[list[str]]:
    """What starts a command in a namespace of its own, which gets an interface of the world."""
    space = f"{made.blueprint.prefix}{name}"
    ip("netns", "add", space)
    try:
        ip("-n", made.blueprint.world, "link", "set", device, "netns", space)
        for link in ("lo", device):
            ip("-n", space, "link", "set", link, "up")
        ip("-n", space, "address", "add", address, "dev", device)
        for route in routes:
            ip("-n", space, "route", "add", *route.split(), "dev", device)
        yield ["ip", "netns", "exec", space]
    finally:
        ip("-n", space, "link", "set", device, "netns", made.blueprint.world)
        ip("netns", "delete", space)


@contextmanager
def web_server(inside: list[str], folder: Path) -> Iterator[None]:
    """A server of a page on port 80, whose log and page are in the folder."""
    page = folder / "page.html"
    page.write_bytes(PAGE)
    os.utime(page, (0, 0))  # what hasn't changed for long stays fresh for some time
    command = [*inside, sys.executable, "-m", "http.server", "80", "--directory", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        probe = [*inside, "ss", "-Hltn", "sport = :80"]
        wait_until(lambda: bool(run_program(probe).strip()), 20)
        yield
    finally:
        server.terminate()
        server.wait()
