# SPDX-License-Identifier: BSD-3-Clause
"""Switch rules as Open vSwitch's flows: every field, every action, and what it can't do."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from e2ctl import hardware, nfs, policy
from e2ctl.filters import Term
from e2ctl.openflow import OpenFlowSwitch, SwitchError, render
from e2ctl.plan import make_plan
from e2ctl.switch_rules import CLASSIFY, STEER, Action, SwitchRule, exact, spelled_out

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

IP4, IP6 = exact("ip.version", 4), exact("ip.version", 6)
TCP, UDP, SCTP = (exact("ip.proto", number) for number in (6, 17, 132))
NET6 = int("20010db8000000000000000000000000", 16)

MATCHES = [
    ((), ""),
    ((exact("port", 7),), "in_port=7"),
    ((exact("tag", 5),), "dl_vlan=5"),
    ((exact("tagged", 1),), "vlan_tci=0x1000/0x1000"),
    ((exact("tagged", 0),), "vlan_tci=0x0000/0x1000"),
    (
        (exact("port", 1), exact("tagged", 1), exact("eth.type", 0x8100)),
        "in_port=1,vlan_tci=0x1000/0x1000,dl_type=0x8100",
    ),
    ((exact("tagged", 1), exact("eth.type", 0x88A8)), "vlan_tci=0x1000/0x1000,dl_type=0x88a8"),
    ((exact("tagged", 1), exact("vlan.id", 9)), "dl_vlan=9"),
    ((exact("mac", 0x02E200000001),), "dl_dst=02:e2:00:00:00:01"),
    (
        (Term("mac", 0x010000000000, 0x010000000000),),
        "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
    ),
    ((exact("class", 3), Term("id", 0x800, 0xF00)), "reg1=3,reg0=0x800/0xf00"),
    ((exact("id", 0x123),), "reg0=0x123/0xfff"),
    ((exact("eth.type", 0x0806),), "dl_type=0x0806"),
    ((exact("vlan.id", 0),), "dl_vlan=0"),
    ((Term("vlan.id", 0x10, 0xFF0),), "vlan_vid=0x1010/0x1ff0"),
    ((IP4,), "ip"),
    ((IP6,), "ipv6"),
    ((exact("eth.type", 0x0800), IP4), "ip"),
    ((IP4, exact("ip.proto", 1)), "ip,nw_proto=1"),
    ((exact("eth.type", 0x86DD), exact("ip.proto", 58)), "dl_type=0x86dd,nw_proto=58"),
    ((IP4, exact("ip.src", 0x0A000001)), "ip,nw_src=10.0.0.1"),
    ((IP4, Term("ip.dst", 0x0A000000, 0xFF0000FF)), "ip,nw_dst=10.0.0.0/255.0.0.255"),
    ((IP6, exact("ip6.src", NET6 + 1)), "ipv6,ipv6_src=2001:db8::1"),
    ((IP6, Term("ip6.dst", NET6, 0xFFFFFFFF << 96)), "ipv6,ipv6_dst=2001:db8::/ffff:ffff::"),
    ((IP6, Term("ip6.dst", 1, 0xFF)), "ipv6,ipv6_dst=::1/::ff"),
    ((IP4, TCP, exact("l4.dport", 80)), "ip,nw_proto=6,tcp_dst=80"),
    ((IP6, UDP, Term("l4.sport", 0x400, 0xFC00)), "ipv6,nw_proto=17,udp_src=0x400/0xfc00"),
    (
        (IP4, SCTP, exact("l4.sport", 1), exact("l4.dport", 2)),
        "ip,nw_proto=132,sctp_src=1,sctp_dst=2",
    ),
    # Later fragments have ports of 0 in Open vSwitch, and none in filters.
    (
        (IP4, UDP, Term("l4.dport", 0, 0xFC00)),
        "ip,nw_proto=17,udp_dst=0x0/0xfc00,ip_frag=not_later",
    ),
    ((IP4, UDP, exact("l4.sport", 0), exact("l4.dport", 9)), "ip,nw_proto=17,udp_src=0,udp_dst=9"),
]
ACTIONS = [
    ((), "drop"),
    ((Action("output", 3),), "output:3"),
    ((Action("tag", 5),), "push_vlan:0x88a8,set_field:4101->vlan_vid"),
    ((Action("tag_id"),), "push_vlan:0x8100,move:NXM_NX_REG0[0..11]->OXM_OF_VLAN_VID[0..11]"),
    ((Action("untag"), Action("output", 2)), "pop_vlan,output:2"),
    (
        (Action("hash", "symmetric_l3l4+udp"), Action("class", 2)),
        "multipath(symmetric_l3l4+udp,0,modulo_n,4096,0,NXM_NX_REG0[0..11]),"
        "set_field:2->reg1,goto_table:1",
    ),
]


def rule(terms: tuple[Term, ...], *actions: Action) -> SwitchRule:
    return SwitchRule(CLASSIFY, 9, terms, actions)


def check_with_ovs(flows: list[str], folder: Path) -> None:
    """Open vSwitch's own reader takes them, without a word about parts that it ignores."""
    if shutil.which("ovs-ofctl") is None:
        pytest.skip("no ovs-ofctl; it comes with Debian's openvswitch-switch")
    path = folder / "flows"
    path.write_text("\n".join(flows))
    result = subprocess.run(
        ["ovs-ofctl", "-O", "OpenFlow14", "parse-flows", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(" ADD ") == len(flows)


@pytest.mark.parametrize(("terms", "expected"), MATCHES)
def test_fields(terms: tuple[Term, ...], expected: str) -> None:
    match = f",{expected}" if expected else ""
    assert render([rule(terms)]) == [f"cookie=0xe2,table=0,priority=9{match},actions=drop"]


@pytest.mark.parametrize(("actions", "expected"), ACTIONS)
def test_actions(actions: tuple[Action, ...], expected: str) -> None:
    assert render([SwitchRule(STEER, 7, (), actions)]) == [
        f"cookie=0xe2,table=1,priority=7,actions={expected}"
    ]


def test_a_packet_can_leave_where_it_came_in() -> None:
    terms = (exact("port", 3),)
    assert render([rule(terms, Action("output", 3))])[0].endswith("actions=in_port")
    assert render([rule(terms, Action("output", 4))])[0].endswith("actions=output:4")


def test_open_vswitch_reads_all_of_it(tmp_path: Path) -> None:
    rules = [rule(terms) for terms, _ in MATCHES]
    rules += [SwitchRule(CLASSIFY, n, (exact("tag", 1),), a) for n, (a, _) in enumerate(ACTIONS)]
    check_with_ovs(render(rules), tmp_path)


def test_open_vswitch_reads_a_whole_plan(tmp_path: Path) -> None:
    plan = make_plan(
        policy.load(EXAMPLES / "central_office.e2"),
        nfs.load(EXAMPLES / "nfs.yaml"),
        hardware.load(EXAMPLES / "rack.yaml"),
    )
    flows = render(plan.switch)
    assert len(flows) == len(plan.switch)
    check_with_ovs(flows, tmp_path)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ((IP4, Term("ip.proto", 4, 0xFC)), "'ip.proto' can be tested as a whole only"),
        ((Term("ip.version", 4, 4),), "'ip.version' can be tested as a whole only"),
        ((Term("eth.type", 0x800, 0xFF00),), "'eth.type' can be tested as a whole only"),
        ((Term("port", 1, 1),), "'port' can be tested as a whole only"),
        ((exact("ip.proto", 6),), "needs one of 'ip.version'"),
        ((exact("eth.type", 0x806), exact("ip.proto", 6)), "needs one of 'ip.version'"),
        ((IP4, exact("l4.dport", 80)), "needs one of 'ip.proto'"),
        ((IP4, exact("ip.proto", 1), exact("l4.dport", 80)), "TCP, UDP or SCTP"),
        ((IP4, exact("ip6.src", 1)), "no packet has all"),
        ((exact("ip.version", 5),), "no packet has all"),
        ((exact("eth.type", 0x86DD), IP4), "no packet has all"),
        ((exact("tagged", 0), exact("tag", 1)), "without a tag"),
        ((exact("tag", 1), exact("vlan.id", 1)), "are one field"),
        ((exact("tag", 1), exact("tag", 1)), "a field twice"),
    ],
)
def test_what_no_flow_says(terms: tuple[Term, ...], words: str) -> None:
    with pytest.raises(SwitchError, match=words) as error:
        render([rule(terms)])
    assert "table 0" in str(error.value)


def test_unknown_actions() -> None:
    for action in (Action("mirror", 1), Action("output", "everywhere")):
        with pytest.raises(SwitchError, match="it has no action"):
            render([rule((), action)])


def test_spelled_out_leaves_out_what_the_type_of_ethernet_rules_out() -> None:
    """Each rest is a match that Open vSwitch has."""
    port = exact("l4.dport", 80)
    both = [*spelled_out((port,))]
    assert len(both) == 6  # TCP, UDP and SCTP over both versions
    only4 = [*spelled_out((exact("eth.type", 0x0800), port))]
    assert [terms[0] for terms in only4] == [IP4] * 3
    assert [*spelled_out((exact("eth.type", 0x0806), port))] == []
    assert [*spelled_out((exact("eth.type", 0x0806),))] == [(exact("eth.type", 0x0806),)]
    render([rule(terms) for terms in (*both, *only4)])


def test_without_a_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = OpenFlowSwitch(tmp_path, "br0")
    if shutil.which("ovs-ofctl") is not None:
        with pytest.raises(SwitchError, match=r"set-frags unix:.*br0\.mgmt: .*No such file"):
            asyncio.run(switch.replace([]))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SwitchError, match="Debian's openvswitch-switch"):
        asyncio.run(switch.entries())


@pytest.mark.parametrize("files", [("ovs-vswitchd.pid",), ("ovs-vswitchd.pid", "ovs-vswitchd.ctl")])
def test_rules_are_replaced_once_the_switch_has_looked_again(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that note how they are called; a lab's switch has a socket of its own name."""
    for name in files:
        (tmp_path / name).write_text("417\n", encoding="ascii")
    for program in ("ovs-ofctl", "ovs-appctl"):
        script = tmp_path / program
        script.write_text(f'#!/bin/sh\necho "{program} $*" >> "{tmp_path}/called"\n', "ascii")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    asyncio.run(OpenFlowSwitch(tmp_path, "br0").replace([rule(())]))
    called = (tmp_path / "called").read_text(encoding="ascii").splitlines()
    control = "ovs-vswitchd.ctl" if "ovs-vswitchd.ctl" in files else "ovs-vswitchd.417.ctl"
    assert [line.split()[0] for line in called] == ["ovs-ofctl", "ovs-ofctl", "ovs-appctl"]
    assert "replace-flows" in called[1]
    assert called[2].endswith(f"--target={tmp_path}/{control} revalidator/wait")
