# SPDX-License-Identifier: BSD-3-Clause
"""The switch in software: what it sees of frames, which rule decides, and the process itself."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from e2ctl.filters import Term
from e2ctl.softswitch.driver import SoftwareSwitch, control_socket
from e2ctl.softswitch.forward import QINQ, VLAN, RuleTable, forward
from e2ctl.softswitch.frames import parse, with_tags
from e2ctl.switch_rules import CLASSIFY, STEER, Action, SwitchRule, exact
from harness import wait_until

MAC = 0x020000000002
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ALWAYS = {"port": 7, "mac": MAC}
NET6 = 0x2001_0DB8 << 96
V4 = {"ip.version": 4, "ip.src": 0x0A000001, "ip.dst": 0x0A000002}
V6 = {"ip.version": 6, "ip6.src": NET6 + 1, "ip6.dst": NET6 + 2}
PORTS = {"l4.sport": 5, "l4.dport": 80}


def ip4(**fields: int | str) -> Packet:
    return IP(src="10.0.0.1", dst="10.0.0.2", **fields)


def ip6() -> Packet:
    return IPv6(src="2001:db8::1", dst="2001:db8::2")


@pytest.mark.parametrize(
    ("packet", "fields"),
    [
        (ARP(), {"eth.type": 0x0806}),
        (ip4() / TCP(sport=5, dport=80), {**V4, "ip.proto": 6, **PORTS}),
        (ip4(options=[]) / UDP(sport=5, dport=80), {**V4, "ip.proto": 17, **PORTS}),
        (ip4() / ICMP(), {**V4, "ip.proto": 1}),
        (ip4(flags="MF") / UDP(sport=5, dport=80) / Raw(b"x" * 8), {**V4, "ip.proto": 17, **PORTS}),
        (ip4(frag=9, proto=17) / Raw(b"x" * 8), {**V4, "ip.proto": 17}),
        (ip4(proto=6) / Raw(b"\0\5"), {**V4, "ip.proto": 6}),
        (ip6() / TCP(sport=5, dport=80), {**V6, "ip.proto": 6, **PORTS}),
        (
            ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=5, dport=80),
            {**V6, "ip.proto": 17, **PORTS},
        ),
        (
            ip6() / IPv6ExtHdrFragment(m=1) / UDP(sport=5, dport=80),
            {**V6, "ip.proto": 17, **PORTS},
        ),
        (ip6() / IPv6ExtHdrFragment(offset=5, nh=17) / Raw(b"x" * 8), {**V6, "ip.proto": 17}),
    ],
)
def test_fields(packet: Packet, fields: dict[str, int]) -> None:
    kind = {4: 0x0800, 6: 0x86DD}.get(fields.get("ip.version", 0), 0x0806)
    frame = parse(bytes(ETHER / packet), 7)
    assert frame is not None and frame.tags == ()
    assert frame.fields == {**ALWAYS, "tagged": 0, "eth.type": kind, **fields}
    assert with_tags(frame, ()) == bytes(ETHER / packet)
    tagged = bytes(ETHER / Dot1Q(vlan=5, prio=3) / packet)
    frame = parse(tagged, 7)
    assert frame is not None and frame.tags == ((VLAN, 3 << 13 | 5),)
    tag = {"tagged": 1, "tag": 5, "vlan.id": 5}
    assert frame.fields == {**ALWAYS, **tag, "eth.type": kind, **fields}
    assert with_tags(frame, frame.tags) == tagged
    twice = bytes(ETHER / Dot1AD(vlan=5) / Dot1Q(vlan=9) / packet)
    frame = parse(twice, 7)
    assert frame is not None and frame.fields == {**ALWAYS, **tag, "eth.type": VLAN}
    assert with_tags(frame, frame.tags[1:]) == bytes(ETHER / Dot1Q(vlan=9) / packet)


def test_frames_that_are_cut() -> None:
    whole = bytes(ETHER / Dot1Q(vlan=5) / ip6() / IPv6ExtHdrHopByHop() / UDP())
    for size in range(len(whole)):
        frame = parse(whole[:size], 1)
        assert (frame is None) == (size < 18)
        assert frame is None or with_tags(frame, frame.tags) == whole[:size]


def test_flow_ids() -> None:
    """One for both directions, others for other flows."""

    def flow_id(packet: Packet) -> int:
        frame = parse(bytes(ETHER / packet), 1)
        assert frame is not None
        return frame.flow_id

    there = ip4() / TCP(sport=5, dport=80)
    back = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=80, dport=5)
    assert flow_id(there) == flow_id(back) < 1 << 12
    assert len({flow_id(ip4() / TCP(sport=n, dport=80)) for n in range(100)}) > 90


def test_the_highest_priority_decides() -> None:
    """As a plain search over all rules says."""
    draw = random.Random(1)
    for _ in range(300):
        rules = []
        for priority in draw.sample(range(100), 12):
            table = draw.choice([CLASSIFY, STEER])
            names = draw.sample(["port", "class", "mac", "ip.dst"], draw.randrange(3))
            terms = [exact(name, draw.randrange(3)) for name in names]
            if draw.random() < 0.3:
                terms.append(Term("l4.dport", 0, 2))
            action = Action("output", priority)
            rules.append(SwitchRule(table, priority, tuple(terms), (action,)))
        made = RuleTable(rules)
        for _ in range(20):
            names = draw.sample(["port", "class", "mac", "ip.dst", "l4.dport"], 4)
            fields = {name: draw.randrange(4) for name in names}
            for table in (CLASSIFY, STEER):
                matching = [
                    rule
                    for rule in rules
                    if rule.table == table
                    and all(
                        t.field in fields and fields[t.field] & t.mask == t.value
                        for t in rule.terms
                    )
                ]
                best = max(matching, key=lambda rule: rule.priority, default=None)
                assert made.first(table, fields) is best


def test_actions() -> None:
    hashed = (Action("hash", "x"), Action("class", 3))
    rules = RuleTable(
        [
            SwitchRule(CLASSIFY, 1, (exact("port", 1),), hashed),
            SwitchRule(
                CLASSIFY, 1, (exact("port", 2),), (Action("output", 1), Action("output", 2))
            ),
            SwitchRule(CLASSIFY, 1, (exact("mac", 5),), (Action("output", 3),)),
            SwitchRule(CLASSIFY, 2, (exact("tag", 7),), (Action("untag"), Action("output", 1))),
            SwitchRule(
                STEER,
                1,
                (exact("class", 3), Term("id", 0x800, 0x800)),
                (Action("tag_id"), Action("tag", 9), Action("output", 4)),
            ),
        ]
    )
    assert forward(rules, {"port": 1}, (), 0xABC) == [(4, ((QINQ, 9), (VLAN, 0xABC)))]
    assert forward(rules, {"port": 1}, (), 0x123) == []
    assert forward(rules, {"port": 2}, (), 0) == [(1, ()), (2, ())]
    assert forward(rules, {"port": 3, "mac": 5}, (), 0) == []  # never back by chance
    assert forward(rules, {"port": 8, "mac": 5, "tag": 7}, ((VLAN, 7),), 0, 60) == [(1, ())]
    assert [*rules.counts.values()] == [[2, 0], [1, 0], [1, 0], [1, 60], [1, 0]]
    after = RuleTable(rules.rules[:2], rules)
    assert forward(after, {"port": 2}, (), 0, 100) == [(1, ()), (2, ())]
    assert [*after.counts.values()] == [[2, 0], [2, 100]]


class Host:
    """What a daemon's UnixSocketPort is to the switch."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(20)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.link, _ = self.listener.accept()
        self.link.settimeout(20)

    def close(self) -> None:
        self.link.close()
        self.listener.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="e2sw"))  # short, as paths of sockets are
    config = made / "switch.json"
    ports = {str(port): str(made / f"p{port}") for port in (1, 2)}
    control = str(control_socket(made))
    config.write_text(json.dumps({"control": control, "table": 5, "ports": ports}))
    command = [sys.executable, "-P", "-m", "e2ctl.softswitch.process", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(control_socket(made).exists, 20)
        yield made
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
        shutil.rmtree(made)
    assert (process.returncode, said) == (-signal.SIGTERM, "")


def test_the_process_forwards_and_finds_hosts_again(folder: Path) -> None:
    rules = [
        SwitchRule(CLASSIFY, 1, (exact("port", 1),), (Action("tag", 9), Action("output", 2))),
        SwitchRule(CLASSIFY, 1, (exact("tag", 9),), (Action("untag"), Action("output", 1))),
    ]
    wanted = SwitchRule(CLASSIFY, 1, (exact("port", 2),), ())
    asyncio.run(SoftwareSwitch(folder).replace(rules))
    one, two = Host(folder / "p1"), Host(folder / "p2")
    frame = bytes(ETHER / ip4() / UDP())
    for _ in range(2):
        one.link.send(b"short")
        one.link.send(frame)
        tagged = two.link.recv(2000)
        assert tagged == frame[:12] + b"\x88\xa8\x00\x09" + frame[12:]
        two.link.send(tagged)
        assert one.link.recv(2000) == frame
        two.close()
        one.link.send(frame)  # lost
        two = Host(folder / "p2")
    there = asyncio.run(SoftwareSwitch(folder).compare([*rules[:1], wanted]))
    assert [*there.found] == rules[:1] and there.found[rules[0]].packets >= 2
    assert there.foreign == (str(rules[1]),)
    for host in (one, two):
        host.close()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "Expecting property name"),
        (b"5", "not iterable"),
        (b'{"replace": 5}', "rules: Input should be a valid tuple"),
        (b'{"replace": [{"table": 0}]}', "rules: Field required"),
        (json.dumps({"replace": [{}] * 6}).encode(), "rules: Field required"),
    ],
)
def test_questions_that_are_wrong_are_answered(folder: Path, line: bytes, message: str) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(control_socket(folder)))
        with asking.makefile("rwb") as lines:
            for sent, wanted in ((line, message), (b'{"entries": true}', None)):
                lines.write(sent + b"\n")
                lines.flush()
                answer = json.loads(lines.readline())
                assert answer == {"entries": 0} if wanted is None else wanted in answer["error"]
