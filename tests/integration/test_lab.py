# SPDX-License-Identifier: BSD-3-Clause
"""Labs: frames from the world to servers and back, and nothing left behind, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.all import IP, UDP, Dot1Q, Ether, Raw, rdpcap, wrpcap

from e2ctl import lab as labs
from e2ctl.lab import Lab, LabError
from e2ctl.lab_traffic import Traffic
from e2ctl.switch_rules import CLASSIFY, STEER, Action, SwitchRule, exact
from harness import wait_until
from lab_support import EXAMPLES, lab_file, needs_lab

pytestmark = needs_lab

HOSTS = {"s1-e2d", "s2-e2d", "s3-e2d", "world-e2d", "ovsdb-server", "ovs-vswitchd"}


def e2ctl(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "e2ctl.cli", "lab", *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def traces(name: str) -> list[str]:
    """What a lab has left: namespaces, processes, interfaces and files."""
    mark = f"/run/e2-lab/{name}/"
    found = [line for line in output("ip", "netns", "list").splitlines() if f"{name}-" in line]
    found += [line for line in output("ps", "-eo", "pid,stat,args").splitlines() if mark in line]
    found += [f"interface {link}" for link in {*os.listdir("/sys/class/net")} & OWN - BEFORE]
    return found + [str(path) for path in Path("/run/e2-lab").glob(f"{name}*")]


# Interfaces that labs have, none of which is to appear outside of their namespaces.
OWN = {"br0", "eth1", "internet", "subscribers", *(f"p{port}" for port in (1, 2, 11, 12, 13))}
BEFORE = {*os.listdir("/sys/class/net")}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    file = lab_file(tmp_path)
    yield file
    labs.down(labs.load(file).name)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.lab(lab_file(tmp_path_factory.mktemp("lab"), "m")) as made:
        yield made


def frames(count: int) -> list[Ether]:
    ends = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
    return [
        Ether(**ends) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=n) / Raw(b"x" * 1400)
        for n in range(count)
    ]


def cross(
    running: Lab, sent: list[Ether], way: tuple[str, str, str, str], folder: Path
) -> list[bytes]:
    """Send frames from an interface of a host to one of another; what arrives there."""
    source, device, target, other = way
    wrpcap(str(folder / "sent.pcap"), sent)
    sender, receiver = Traffic(running.client(source)), Traffic(running.client(target))
    before = receiver.counts(other).inc.packets
    with receiver.record(other, folder / "got.pcap"):
        assert sender.replay(folder / "sent.pcap", device) == len(sent)
        wait_until(lambda: receiver.counts(other).inc.packets >= before + len(sent))
    return [bytes(frame) for frame in rdpcap(str(folder / "got.pcap"))]


def test_frames_from_the_world_and_back(running: Lab, tmp_path: Path) -> None:
    rules = [
        SwitchRule(
            CLASSIFY, 100, (exact("port", 1),), (Action("tag", 5), Action("output", 11))
        ),
        SwitchRule(CLASSIFY, 11, (exact("tag", 1),), (Action("untag"), Action("output", 1))),
    ]  # fmt: skip
    asyncio.run(running.switch.replace(rules))
    assert asyncio.run(running.switch.entries()) == 2
    sent = frames(20)
    got = cross(running, sent, ("world", "subscribers", "s1", "eth1"), tmp_path)
    for frame, was in zip(got, sent, strict=True):
        raw = bytes(was)
        assert frame == raw[:12] + b"\x88\xa8\x00\x05" + raw[12:]
    tagged = [
        Ether(src=f.src, dst=f.dst, type=0x8100) / Dot1Q(vlan=1) / f.payload for f in frames(20)
    ]
    back = cross(running, tagged, ("s1", "eth1", "world", "subscribers"), tmp_path)
    assert back == [bytes(frame) for frame in sent]

    def packets() -> list[int]:
        return sorted(count.packets for count in asyncio.run(running.switch.counters()))

    wait_until(lambda: packets() == [20, 20])
    texts = [count.text for count in asyncio.run(running.switch.counters())]
    assert any("priority=100,in_port=1 actions=push_vlan:0x88a8" in text for text in texts)
    asyncio.run(running.switch.replace(rules[:1]))
    assert packets() == [20]  # what stays keeps its counters


def test_flow_ids_and_entries_arrive_in_two_tags(running: Lab, tmp_path: Path) -> None:
    """A flow has one id, and flows have many."""
    steer = (Action("tag_id"), Action("tag", 7), Action("output", 12))
    rules = [
        SwitchRule(
            CLASSIFY,
            100,
            (exact("port", 2),),
            (Action("hash", "symmetric_l3l4+udp"), Action("class", 3)),
        ),
        SwitchRule(STEER, 100, (exact("class", 3),), steer),
    ]
    asyncio.run(running.switch.replace(rules))
    sent = frames(50) * 2
    got = cross(running, sent, ("world", "internet", "s2", "eth1"), tmp_path)
    ids: dict[bytes, set[bytes]] = {}
    for frame, was in zip(got, sent, strict=True):
        raw = bytes(was)
        assert frame[:18] == raw[:12] + b"\x88\xa8\x00\x07\x81\x00"
        assert frame[20:] == raw[12:]
        ids.setdefault(raw, set()).add(frame[18:20])
    assert all(len(found) == 1 for found in ids.values())
    assert len(set.union(*ids.values())) > 40


def test_what_stands_in_lab_json(running: Lab) -> None:
    state = json.loads((running.folder / "lab.json").read_text())
    assert state["complete"] and state["name"] == running.name
    assert {process["name"] for process in state["processes"]} == HOSTS
    assert {*state["namespaces"]} == {*labs.namespaces(f"{running.name}-")}
    with pytest.raises(LabError, match="'s9' is none of s1, s2, s3, world"):
        running.client("s9")


def test_links_are_as_the_hardware_says(running: Lab) -> None:
    links = json.loads(output("ip", "-n", f"{running.name}-s2", "-json", "address"))
    eth1 = next(link for link in links if link["ifname"] == "eth1")
    assert (eth1["address"], eth1["mtu"]) == ("02:e2:00:00:00:02", 9000)
    assert [a["local"] for a in eth1["addr_info"]] == ["192.168.77.2"]  # and none of IPv6
    for namespace, device in (("s2", "eth1"), ("sw", "p12"), ("world", "subscribers")):
        where = ("ip", "netns", "exec", f"{running.name}-{namespace}")
        assert "tx-checksumming: off" in output(*where, "ethtool", "-k", device)


def test_a_second_lab_of_the_same_name_is_refused(running: Lab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"e2ctl lab down {running.name}"):
        labs.up(lab_file(tmp_path, "m"))
    assert labs.status(running.name).well


def test_commands(path: Path) -> None:
    name = labs.load(path).name
    assert e2ctl("up", path).returncode == 0
    assert labs.status(name).well
    for words in (("--", "ip", "-br", "link", "show", "eth1"), ("cat", "/sys/class/net/eth1/mtu")):
        ran = e2ctl("exec", "--lab", name, "s1", *words)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "eth1" in ran.stdout or ran.stdout == "9000\n"
    assert e2ctl("exec", "--lab", name, "s3", "sh", "-c", "exit 7").returncode == 7
    ran = e2ctl("exec", "--lab", name, "s9", "true")
    assert ran.returncode == 1 and "it has s1, s2, s3, sw, world" in ran.stderr
    killed = next(m for m in labs.status(name).members if m.name == "s2-e2d")
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: not labs.status(name).well)
    ran = e2ctl("status")
    assert ran.returncode == 1
    (line,) = [line for line in ran.stdout.splitlines() if str(killed.pid) in line]
    assert "s2-e2d" in line and "ended" in line
    assert f"'{name}' is down" in e2ctl("down", name).stdout
    assert traces(name) == []
    ran = e2ctl("down", name)
    assert ran.returncode == 0 and "was not up" in ran.stdout


def kill_daemons(name: str) -> None:
    for member in labs.status(name).members:
        os.kill(member.pid, signal.SIGKILL)


def lose_state(name: str) -> None:
    (labs.folder_of(name) / "lab.json").unlink()


def lose_folder(name: str) -> None:
    for file in labs.folder_of(name).rglob("*"):
        if not file.is_dir():
            file.unlink()
    subprocess.run(["rm", "-r", labs.folder_of(name)], check=True)


def lose_namespaces(name: str) -> None:
    """Their processes run on; only pid files know them."""
    for space in labs.namespaces(f"{name}-"):
        subprocess.run(["ip", "netns", "delete", space], check=True)


@pytest.mark.parametrize("crash", [kill_daemons, lose_state, lose_folder, lose_namespaces])
def test_down_after_a_crash(path: Path, crash: Callable[[str], None]) -> None:
    made = labs.up(path)
    crash(made.name)
    made.down()
    assert traces(made.name) == []
    assert not labs.down(made.name)


@pytest.mark.parametrize("after", ["s1-e2d.pid", "world-e2d.pid", "ovs-vswitchd.pid"])
def test_down_after_a_crash_of_up(path: Path, after: str) -> None:
    name = labs.load(path).name
    code = "import sys; from pathlib import Path; from e2ctl import lab; lab.up(Path(sys.argv[1]))"
    made = subprocess.Popen(
        [sys.executable, "-c", code, path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wait_until((labs.folder_of(name) / after).exists)
    made.kill()
    made.wait()
    assert not labs.status(name).well
    with pytest.raises(LabError, match="a crash left parts"):
        labs.up(path)
    assert labs.down(name)
    assert traces(name) == []


def test_up_that_is_asked_to_end_leaves_nothing(path: Path) -> None:
    name = labs.load(path).name
    made = subprocess.Popen(
        [sys.executable, "-P", "-m", "e2ctl.cli", "lab", "up", path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wait_until((labs.folder_of(name) / "world-e2d.pid").exists)
    made.terminate()
    assert made.wait() == 128 + signal.SIGTERM
    assert traces(name) == []


@pytest.mark.parametrize("program", ["ovs-vswitchd", "ovs-vsctl", "ethtool"])
def test_a_failing_program_leaves_nothing(
    program: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / program
    broken.write_text("#!/bin/sh\necho this one is broken\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(LabError, match=f"{program}.*this one is broken"):
        labs.up(path)
    assert traces(labs.load(path).name) == []


def test_missing_programs_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="apt-get install ethtool iproute2 openvswitch-switch"):
        labs.up(path)
    monkeypatch.undo()  # what cleans up needs them


def test_agents_start_the_daemons(path: Path) -> None:
    path.write_text(path.read_text().replace("agents: false", "agents: true"))
    with labs.lab(path) as made:
        assert [made.client(name).list_modules() for name in ("s1", "s2", "s3")] == [[]] * 3
        named = labs.status(made.name).members
        assert {"s1-agent", "s2-agent", "s3-agent", "world-e2d"} < {m.name for m in named}
        text = (made.folder / "hardware.yaml").read_text()
        assert f"unix:{made.folder}/s1-agent.sock" in text
    assert traces(made.name) == []


def test_the_example_describes_a_lab() -> None:
    plan = labs.load(EXAMPLES / "lab.yaml")
    assert plan.namespaces == ("co-sw", "co-s1", "co-s2", "co-s3", "co-world")
