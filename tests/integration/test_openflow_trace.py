# SPDX-License-Identifier: BSD-3-Clause
"""Open vSwitch does with packets what rules mean: its own trace against a plain evaluation."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scapy.all import ARP, IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw
from scapy.layers.sctp import SCTP

from e2ctl import hardware, lab, nfs, policy
from e2ctl.filters import Term
from e2ctl.lab import Lab
from e2ctl.plan import make_plan
from e2ctl.softswitch.forward import QINQ, VLAN, RuleTable, Tag, forward
from e2ctl.switch_rules import CLASSIFY, STEER, Action, SwitchRule, exact, spelled_out
from lab_support import EXAMPLES, lab_file, needs_lab

pytestmark = needs_lab

# Each packet is a run of ovs-appctl, so that looking for a smaller example would take minutes.
SLOW = settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[*HealthCheck],
)
_PUSH = re.compile(r"push_vlan\((?:tpid=(0x[0-9a-f]+),)?vid=(\d+),pcp=0\)|(pop_vlan)|(\d+)|(drop)")
_NET6 = int("20010db8000000000000000000000000", 16)
_IP4, _IP6, _ARP = 0x0800, 0x86DD, 0x0806
_L4 = {6: TCP, 17: UDP, 132: SCTP}
# Values that rules and packets share, so that they meet.
VALUES: dict[str, list[int]] = {
    "port": [1, 2, 11, 12],
    "mac": [0x02E200000001, 0x02E200000002],
    "vlan.id": [0, 1, 5, 0xFFF],
    "eth.type": [_IP4, _IP6, _ARP, 0x1234],
    "ip.version": [4, 6],
    "ip.proto": [1, 6, 17, 132],
    "ip.src": [0x0A000001, 0x0A000102],
    "ip.dst": [0x0A000001, 0xC0A80001],
    "ip6.src": [_NET6 + 1, _NET6 + (1 << 64)],
    "ip6.dst": [_NET6 + 1, 1 << 120],
    "l4.sport": [0, 80, 1024],
    "l4.dport": [0, 53, 80],
}
MASKED = {
    "vlan.id": [0xFF0, 1],
    "ip.src": [0xFFFFFF00, 0xFF],
    "ip.dst": [0xFF000000, 0xFF0000FF],
    "ip6.src": [0xFFFFFFFF << 96, 0xFF],
    "ip6.dst": [0xFFFF << 112, (1 << 128) - 2],
    "l4.sport": [0xFC00, 0x10],
    "l4.dport": [0xFFC0, 1],
}


@dataclass(frozen=True)
class Packet:
    """A frame, what filters see in it, and its tags."""

    frame: bytes
    fields: dict[str, int]
    tags: tuple[Tag, ...]


def _mac(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    def one(field: str) -> int:
        return draw(st.sampled_from(VALUES[field]))

    fields = {field: one(field) for field in ("port", "mac")}
    numbers = draw(st.lists(st.sampled_from(VALUES["vlan.id"]), max_size=2))
    kind = one("eth.type")
    frame: Any = Ether(src="02:00:00:00:00:99", dst=_mac(fields["mac"]))
    for number in numbers:
        frame /= Dot1Q(vlan=number)
    fields["tagged"] = int(bool(numbers))
    if numbers:
        fields["vlan.id"] = numbers[0]
    # Of two tags, the second is what the frame has behind the first.
    fields["eth.type"] = VLAN if len(numbers) > 1 else kind
    inner: dict[str, int] = {}
    later = False
    if kind in (_IP4, _IP6):
        inner["ip.version"] = 4 if kind == _IP4 else 6
        names = ("ip.src", "ip.dst") if kind == _IP4 else ("ip6.src", "ip6.dst")
        inner |= {name: one(name) for name in ("ip.proto", *names)}
        source, target = (inner[name] for name in names)
        if kind == _IP4:
            later = draw(st.booleans())
            more = draw(st.sampled_from(["", "MF"]))
            frame /= IP(src=_ip4(source), dst=_ip4(target), proto=inner["ip.proto"], flags=more,
                        frag=100 if later else 0)  # fmt: skip
        else:
            frame /= IPv6(src=_ip6(source), dst=_ip6(target), nh=inner["ip.proto"])
        if inner["ip.proto"] in _L4 and not later:
            inner |= {name: one(name) for name in ("l4.sport", "l4.dport")}
            frame /= _L4[inner["ip.proto"]](sport=inner["l4.sport"], dport=inner["l4.dport"])
    elif kind == _ARP:
        frame /= ARP(psrc="10.0.0.1", pdst="10.0.0.2")
    frame /= Raw(b"\0" * 64)
    for layer in (Dot1Q, Ether):
        last = frame.getlayer(layer, max(1, len(numbers))) if layer is Dot1Q else frame
        if last is not None and not (numbers and layer is Ether):
            last.type = kind
    if len(numbers) < 2:
        fields |= inner
    return Packet(bytes(frame), fields, tuple((VLAN, number) for number in numbers))


def _ip4(value: int) -> str:
    return ".".join(str(byte) for byte in value.to_bytes(4, "big"))


def _ip6(value: int) -> str:
    return value.to_bytes(16, "big").hex(":", 2)


@st.composite
def terms(draw: st.DrawFn, names: list[str]) -> tuple[Term, ...]:
    found = []
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=3)):
        whole = exact(name, 0).mask
        mask = draw(st.sampled_from([whole, *MASKED.get(name, ())]))
        found.append(Term(name, draw(st.sampled_from(VALUES[name])) & mask, mask))
    return tuple(found)


_OUT = st.sampled_from([1, 2, 11, 12]).map(lambda port: Action("output", port))
_HASHES = ("symmetric_l3l4+udp", "symmetric_l3", "nw_src", "nw_dst")
_CLASSIFY_ACTIONS = st.one_of(
    st.just(()),
    st.tuples(_OUT),
    st.tuples(st.sampled_from([1, 77, 4094]).map(lambda number: Action("tag", number)), _OUT),
    st.tuples(st.just(Action("untag")), _OUT),
    st.tuples(
        st.sampled_from(_HASHES).map(lambda name: Action("hash", name)),
        st.sampled_from([1, 2]).map(lambda number: Action("class", number)),
    ),
)
_STEER_ACTIONS = st.tuples(
    st.just(Action("tag_id")),
    st.sampled_from([3, 4]).map(lambda number: Action("tag", number)),
    _OUT,
)


@st.composite
def rule_sets(draw: st.DrawFn) -> list[SwitchRule]:
    rules = []
    for priority in range(draw(st.integers(1, 8))):
        tested = draw(terms([*VALUES]))
        actions = draw(_CLASSIFY_ACTIONS)
        kinds = {action.kind for action in actions}
        numbered = any(term.field == "vlan.id" for term in tested)
        if "class" in kinds:
            # Open vSwitch has room for two tags, which are those that steering puts on.
            tested = (*(t for t in tested if t.field != "vlan.id"), exact("tagged", 0))
        elif not numbered and ("untag" in kinds or draw(st.booleans())):
            # It takes tags off only where a rule says that there is one.
            tested = (*tested, exact("tagged", 1 if "untag" in kinds else draw(st.integers(0, 1))))
        rules += [SwitchRule(CLASSIFY, 10 + priority, t, actions) for t in spelled_out(tested)]
    for number in (1, 2):
        for value, mask in [(0, 0x800), (0x800, 0xC00), (0xC00, 0xC00)]:
            term = Term("id", value, mask)
            where = (exact("class", number), term)
            rules.append(SwitchRule(STEER, 100, where, draw(_STEER_ACTIONS)))
    for priority in range(draw(st.integers(0, 3))):
        tested = draw(terms(["ip.src", "ip.dst", "ip6.src", "ip.proto", "l4.sport", "l4.dport"]))
        actions = draw(_STEER_ACTIONS)
        rules += [
            SwitchRule(STEER, 200 + priority, (exact("class", 1), *t), actions)
            for t in spelled_out(tested)
        ]
    return rules


class Tracer:
    """Asks a lab's switch what it would do."""

    def __init__(self, running: Lab) -> None:
        self.running = running
        self.control = str(running.folder / "ovs" / "ovs-vswitchd.ctl")
        shown = self._ask("dpif/show")
        # The datapath numbers ports on its own.
        self.ports = {
            int(there): int(port) for port, there in re.findall(r" p\d+ (\d+)/(\d+):", shown)
        }

    def _ask(self, *words: str) -> str:
        command = ["ovs-appctl", "-t", self.control, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def __call__(self, packet: Packet) -> tuple[int, list[tuple[int, tuple[Tag, ...]]]]:
        """The flow id, and where the packet leaves with which tags."""
        flow = f"in_port={packet.fields['port']}"
        text = self._ask("ofproto/trace", "br0", flow, packet.frame.hex())
        found = re.search(r"Final flow: (?:.*[, ])?reg0=0x([0-9a-f]+)", text)
        actions = re.search(r"Datapath actions: (.*)", text)
        assert actions is not None, text
        tags, sent = list(packet.tags), []
        rest = actions[1]
        while rest:
            step = _PUSH.match(rest)
            assert step is not None, text
            tpid, number, pop, port, _ = step.groups()
            if number is not None:
                tags.insert(0, (int(tpid, 16) if tpid else VLAN, int(number)))
            elif pop is not None:
                del tags[0]
            elif port is not None:
                sent.append((self.ports[int(port)], tuple(tags)))
            rest = rest[step.end() :].removeprefix(",")
        return int(found[1], 16) if found else 0, sent


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracer]:
    with lab.lab(lab_file(tmp_path_factory.mktemp("lab"), "o")) as running:
        yield Tracer(running)


def check(tracer: Tracer, rules: list[SwitchRule], examples: list[Packet]) -> None:
    for packet in examples:
        flow_id, sent = tracer(packet)
        assert sent == forward(RuleTable(rules), packet.fields, packet.tags, flow_id), packet


@SLOW
@given(rules=rule_sets(), examples=st.lists(packets(), min_size=10, max_size=20))
def test_rules_mean_what_they_say(
    tracer: Tracer, rules: list[SwitchRule], examples: list[Packet]
) -> None:
    asyncio.run(tracer.running.switch.replace(rules))
    assert asyncio.run(tracer.running.switch.entries()) == len(rules)
    check(tracer, rules, examples)


@SLOW
@given(examples=st.lists(packets(), min_size=10, max_size=20))
def test_a_plan_of_the_central_office(tracer: Tracer, examples: list[Packet]) -> None:
    rack = hardware.load(EXAMPLES / "rack.yaml")
    office = policy.load(EXAMPLES / "central_office.e2")
    plan = make_plan(office, nfs.load(EXAMPLES / "nfs.yaml"), rack)
    asyncio.run(tracer.running.switch.replace(plan.switch))
    check(tracer, [*plan.switch], [with_tag(packet) for packet in examples])


def with_tag(packet: Packet) -> Packet:
    """The rules of a plan call what tells servers' frames apart ``tag``."""
    if packet.tags:
        packet.fields["tag"] = packet.tags[0][1]
    return packet


def test_both_directions_have_one_flow_id(tracer: Tracer, tmp_path: Path) -> None:
    hashed = (Action("hash", "symmetric_l3l4+udp"), Action("class", 1))
    rules = [
        SwitchRule(CLASSIFY, 1, (), hashed),
        SwitchRule(STEER, 1, (exact("class", 1),), (Action("tag_id"), Action("output", 12))),
    ]
    asyncio.run(tracer.running.switch.replace(rules))
    ids = []
    for source, target in ((1, 2), (2, 1)):
        frame = Ether() / IP(src=f"10.0.0.{source}", dst=f"10.0.0.{target}")
        frame /= UDP(sport=source, dport=target)
        flow_id, sent = tracer(Packet(bytes(frame), {"port": 1}, ()))
        assert sent == [(12, ((VLAN, flow_id),))]
        ids.append(flow_id)
    assert ids[0] == ids[1] != 0
    assert QINQ not in {tag for _, tags in sent for tag, _ in tags}
