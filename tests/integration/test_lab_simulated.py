# SPDX-License-Identifier: BSD-3-Clause
"""A lab without root: made, used and taken down by a user who may do nothing but that."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.all import IP, TCP, UDP, Ether, Raw, rdpcap, wrpcap

from bess_plugins.client import Client
from e2ctl.lab_traffic import Traffic
from e2ctl.openflow import SwitchError
from e2ctl.softswitch.driver import SoftwareSwitch
from e2ctl.switch_rules import CLASSIFY, Action, SwitchRule, exact
from harness import wait_until
from lab_support import EXAMPLES

NOBODY = 65534
# Root's rights are given up, but for reading: this package may be where only root looks.
DROP = "--reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search"
UNPRIVILEGED = ["setpriv", *DROP.split(), "--ambient-caps=+dac_read_search"]
PROCESSES = {"s1-agent", "s2-agent", "s3-agent", "switch", "world-e2d"}

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to give up root"
)


@dataclass(frozen=True)
class User:
    """Somebody without rights, and a runtime folder of theirs."""

    runtime: Path

    def command(self, *args: str | Path) -> list[str]:
        words = [sys.executable, "-P", "-m", "e2ctl.cli", *map(str, args)]
        return [*UNPRIVILEGED, *words] if os.geteuid() == 0 else words

    def __call__(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
        }
        return subprocess.run(
            self.command(*args),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def well(self, *args: str | Path) -> str:
        done = self(*args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def lab(self) -> Path:
        return self.runtime / "e2-lab" / "co"

    def processes(self) -> list[str]:
        shown = subprocess.run(
            ["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True
        )
        return [line for line in shown.stdout.splitlines() if f"{self.lab}/" in line]


@pytest.fixture
def user() -> Iterator[User]:
    # Sockets have short paths, and others than root have to get there.
    folder = Path(tempfile.mkdtemp(prefix="e2sim"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    made = User(folder)
    try:
        yield made
    finally:
        if made.lab.exists():
            made.well("lab", "down", "co")
        shutil.rmtree(folder)


def up(user: User) -> str:
    return user.well("lab", "up", EXAMPLES / "lab.yaml", "--simulated")


def apply(user: User) -> str:
    return user.well(
        "apply", EXAMPLES / "central_office.e2", "--nfs", EXAMPLES / "nfs.yaml", "--lab", "co"
    )


def test_a_policy_with_traffic_split_and_drained(user: User) -> None:
    said = up(user)
    assert f"lab 'co' is up: 3 servers, 2 external ports; state is in {user.lab}" in said
    assert "note: simulated: Unix sockets stand for interfaces and cables" in said
    shown = user.well("lab", "status")
    assert "note: simulated" in shown and all(name in shown for name in PROCESSES)
    assert "applied; 5 instances on 2 of 3 servers" in apply(user)
    # As many as fit into the sockets' buffers, however slow everybody is.
    sent = [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=f"10.0.0.{n % 50}", dst="198.51.100.7")
        / (UDP(sport=1000 + n, dport=53) if n % 2 else TCP(sport=1000 + n, dport=80))
        / Raw(b"GET / HTTP/1.1")
        for n in range(150)
    ]
    for name in ("whole", "split"):
        assert cross(user, sent, name) == sorted(map(bytes, sent))
        if name == "whole":
            assert "go to ids.2" in user.well("split", "ids.0", "--lab", "co")
    rows = json.loads(user.well("status", "--lab", "co", "--json"))["servers"]
    assert {row["state"] for row in rows} == {"well"}
    assert any("ids.2" in row["instances"] for row in rows)
    traced = user.well("trace", "src net 127.0.0.0/8", "--port", "subscribers", "--lab", "co")
    assert "switch: dropped" in traced
    replayed = user.well(
        "lab", "replay", user.runtime / "whole" / "sent.pcap", "--port", "internet"
    )
    assert "150 packets sent in by internet; 0 came out by subscribers" in replayed
    assert "are those of ids.0 now" in user.well("drain", "ids.2", "--lab", "co")
    refused = user("lab", "exec", "s1", "--", "true")
    assert refused.returncode == 1 and "lab 'co' is simulated" in refused.stderr
    assert user.well("lab", "down", "co") == "lab 'co' is down\n"
    assert user.processes() == [] and not user.lab.exists()


def cross(user: User, sent: list[Ether], name: str) -> list[bytes]:
    """What of some frames from the subscribers' side comes out on the other one."""
    folder = user.runtime / name
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    wrpcap(str(folder / "sent.pcap"), sent)
    with Client(f"unix:{user.lab}/world-e2d.sock") as client:
        traffic = Traffic(client)
        before = traffic.counts("internet").inc.packets
        with traffic.record("internet", folder / "got.pcap"):
            traffic.replay(folder / "sent.pcap", "subscribers")
            wait_until(lambda: traffic.counts("internet").inc.packets - before >= len(sent), 30)
    return sorted(bytes(frame) for frame in rdpcap(str(folder / "got.pcap")))


def test_what_died_is_told_and_taken_down(user: User) -> None:
    up(user)
    apply(user)
    again = user("lab", "up", EXAMPLES / "lab.yaml", "--simulated")
    assert again.returncode == 1 and "lab 'co' is up, or a crash left parts" in again.stderr
    for name in ("s1-agent", "switch"):
        pid = int((user.lab / f"{name}.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    shown = user("lab", "status")
    assert shown.returncode == 1 and shown.stdout.count("ended") == 2
    assert user("status", "--lab", "co").returncode == 3
    refused = user(
        "apply", EXAMPLES / "central_office.e2", "--nfs", EXAMPLES / "nfs.yaml", "--lab", "co"
    )
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert any("s1-e2d.sock" in line for line in user.processes())  # its agent's end left it
    user.well("lab", "down", "co")
    assert user.processes() == [] and not user.lab.exists()


def test_programs_are_refused_and_nothing_changes(user: User) -> None:
    up(user)
    refused = user(
        "apply", EXAMPLES / "web-cache.e2", "--nfs", EXAMPLES / "nfs.yaml", "--lab", "co"
    )
    assert refused.returncode == 1 and "nothing changed: agent of s1" in refused.stderr


def test_the_switch_takes_rules_or_says_why_not(user: User) -> None:
    up(user)
    switch = SoftwareSwitch(user.lab)

    def rules(count: int) -> list[SwitchRule]:
        terms = [(exact("port", 1), exact("l4.dport", number)) for number in range(count)]
        return [SwitchRule(CLASSIFY, 9, term, (Action("output", 2),)) for term in terms]

    async def work() -> None:
        await switch.replace(rules(2048))
        assert await switch.entries() == 2048
        with pytest.raises(SwitchError, match=r"2,049 entries; the table has 2,048"):
            await switch.replace(rules(2049))
        assert await switch.entries() == 2048
        await switch.replace([])
        assert await switch.entries() == 0

    asyncio.run(work())
    user.well("lab", "down", "co")
    with pytest.raises(SwitchError, match="`e2ctl lab status` says what runs"):
        asyncio.run(switch.entries())


def test_a_folder_too_deep_for_sockets(user: User) -> None:
    deep = user.runtime / ("x" * 90)
    deep.mkdir()
    if os.geteuid() == 0:
        os.chown(deep, NOBODY, NOBODY)
    refused = User(deep)("lab", "up", EXAMPLES / "lab.yaml", "--simulated")
    assert refused.returncode == 1
    assert "too long for a Unix socket; set XDG_RUNTIME_DIR" in refused.stderr
    assert [*deep.iterdir()] == []
