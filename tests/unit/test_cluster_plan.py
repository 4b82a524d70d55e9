# SPDX-License-Identifier: BSD-3-Clause
"""Plans for clusters: sizes, what the switch does, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from e2ctl import hardware, nfs
from e2ctl.cli import app
from e2ctl.igraph import Span
from e2ctl.placement import PlacementError
from e2ctl.plan import FlowException, Plan, Running, diff, make_plan
from e2ctl.policy import PolicyError, load, parse_policy
from e2ctl.routing import PlanError, number_entries
from e2ctl.server_plan import dump_plan, load_plan
from e2ctl.switch_rules import STEER
from e2ctl.transitions import middle, push, split

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOG = nfs.load(EXAMPLES / "nfs.yaml")
RACK = hardware.load(EXAMPLES / "rack.yaml")
OFFICE = load(EXAMPLES / "central_office.e2")
HEAD = "nf ids : IDS\nnf mon : NetworkMonitor\nnf nat : NAT\nport subscribers, internet\n"
ARGS = ["--nfs", str(EXAMPLES / "nfs.yaml"), "--hardware", str(EXAMPLES / "rack.yaml")]


def plan_of(body: str, rack: hardware.Hardware = RACK, running: Running | None = None) -> Plan:
    policy = parse_policy(HEAD + "pipeline p { " + body + " }")
    return make_plan(policy, CATALOG, rack, running=running)


def counts(plan: Plan) -> dict[str, int]:
    return {nf: len(plan.igraph.of(nf)) for nf in plan.igraph.steering}


def test_rates_make_instances() -> None:
    # 1.2 and 4 Gbps per core and GHz, at 2.6 GHz; the monitor gets what the IDS passes on.
    plan = plan_of("subscribers -> ids @ 11Gbps; ids -> mon -> internet;")
    assert counts(plan) == {"ids": 4, "mon": 2}
    assert [str(i.span) for i in plan.igraph.of("mon")] == [
        "0x00000000-0x7fffffff",
        "0x80000000-0xffffffff",
    ]
    assert counts(plan_of("subscribers -> ids -> mon -> internet;")) == {"ids": 1, "mon": 1}


def test_what_can_not_scale_is_noted() -> None:
    plan = plan_of("subscribers -> nat @ 24Gbps; nat -> internet;", wide(50e9))
    assert counts(plan) == {"nat": 3}
    assert plan.notes == (
        "nat: 3 instead of 4 instances for 24Gbps; all of them must share a server",
    )
    assert len({*plan.layout.servers.values()}) == 1


def wide(nic_bps: float, cores: int = 4) -> hardware.Hardware:
    """The rack with other links and cores."""
    servers = {
        name: server.model_copy(update={"nic": nic_bps, "cores": cores})
        for name, server in RACK.servers.items()
    }
    return RACK.model_copy(update={"servers": servers})


def test_too_small_a_cluster_says_what_is_missing() -> None:
    with pytest.raises(PlacementError, match="8 cores are missing on all servers"):
        plan_of("subscribers -> ids @ 50Gbps; ids -> internet;")
    with pytest.raises(PlacementError, match=r"1\.94\d*Gbps of NIC bandwidth are missing"):
        plan_of("subscribers -> ids @ 50Gbps; ids -> internet;", wide(1e9, 40))
    switch = RACK.switch.model_copy(update={"table": 10})
    small = RACK.model_copy(update={"switch": switch})
    with pytest.raises(PlanError, match="10: 4 are missing; use fewer port ranges"):
        plan_of("subscribers [dst port 80] -> ids -> internet;", small)


def test_the_switch_takes_over_access_lists() -> None:
    plan = make_plan(OFFICE, CATALOG, RACK)
    assert plan.offloaded == ("acl",)
    assert not plan.igraph.of("acl")
    cannot = RACK.model_copy(update={"switch": RACK.switch.model_copy(update={"actions": ()})})
    plan = make_plan(OFFICE, CATALOG, cannot)
    assert plan.offloaded == ()
    assert plan.igraph.of("acl")


def test_ports_are_the_switch_s() -> None:
    text = "port subscribers, out\npipeline p { subscribers -> out; }"
    with pytest.raises(PlanError, match="port 'out' is none of the switch's ports: subscribers"):
        make_plan(parse_policy(text), CATALOG, RACK)
    ports = {"subscribers": (1,), "internet": (2, 3)}
    several = RACK.model_copy(update={"switch": RACK.switch.model_copy(update={"ports": ports})})
    with pytest.raises(PlanError, match="leave by one port only, and 'internet' stands for"):
        plan_of("subscribers -> mon -> internet;", several)
    with pytest.raises(PolicyError, match="tests VLANs, but the switch takes no tagged frames"):
        plan_of("subscribers [vlan 7] -> mon -> internet;")


def test_a_new_plan_keeps_what_runs() -> None:
    first = make_plan(OFFICE, CATALOG, RACK)
    again = make_plan(OFFICE, CATALOG, RACK, running=first.running)
    assert diff(first, again) == ()
    spans = first.running.spans
    more = plan_of("subscribers -> ids @ 50Mbps; ids -> internet;", running=first.running)
    assert {n: s for n, s in more.running.spans.items() if n in spans} == {
        name: spans[name] for name in ("ids.0", "ids.1")
    }
    assert all(more.layout.servers[n] == first.layout.servers[n] for n in ("ids.0", "ids.1"))
    numbers = first.running.entries
    assert all(more.running.entries[n] == numbers[n] for n in ("ids.0", "ids.1"))


def test_another_type_begins_anew() -> None:
    body = "subscribers -> nf @ 6Gbps; nf -> internet; }"
    head = "port subscribers, internet\npipeline p { "
    first = make_plan(parse_policy(f"nf nf : IDS\n{head}{body}"), CATALOG, RACK)
    assert counts(first) == {"nf": 2}
    policy = parse_policy(f"nf nf : LinuxNAT\n{head}{body}")
    assert counts(make_plan(policy, CATALOG, RACK, running=first.running)) == {"nf": 1}


def test_exceptions_are_above_spans() -> None:
    first = make_plan(OFFICE, CATALOG, RACK)
    cut = middle(first.running.spans["ids.0"][0])
    running, name = split(first.running, "ids.0", cut, "s2")
    flow = (("dport", 80), ("dst", "192.0.2.1"), ("proto", 6), ("sport", 5), ("src", "10.0.0.1"))
    running = push(running, "ids.0", [FlowException("ids.0", flow)])
    plan = make_plan(OFFICE, CATALOG, RACK, running=running)
    rules = [rule for rule in plan.switch if rule.table == STEER]
    top = max(rules, key=lambda rule: rule.priority)
    assert {term.field for term in top.terms} == {
        *("class", "ip.version", "ip.proto", "ip.src", "ip.dst", "l4.sport", "l4.dport")
    }
    entry = dict((n, number) for n, _, number in plan.entries)
    assert [action.value for action in top.actions if action.kind == "tag"] == [entry["ids.0"]]
    assert plan.instance(name).span == Span(cut, first.instance("ids.0").span.end)


def test_entries_keep_their_numbers() -> None:
    assert number_entries(["a", "b", "c"], {"b": 1, "x": 2}) == {"b": 1, "a": 3, "c": 4}
    with pytest.raises(PlanError, match="VLAN tags can name 4,094"):
        number_entries(map(str, range(5000)), {})


def test_plans_travel_as_text() -> None:
    policy = (
        "subscribers [src net 2001:db8::/32] -> mon -> internet; subscribers -> ids -> internet;"
    )
    for server in plan_of(policy).servers.values():
        assert dump_plan(replace(load_plan(dump_plan(server)))) == dump_plan(server)
    with pytest.raises(ValueError, match="not a plan for a server: devices"):
        load_plan('{"server": "s", "devices": 1}')


def test_commands() -> None:
    runner = CliRunner()
    office = str(EXAMPLES / "central_office.e2")
    result = runner.invoke(app, ["check", office, *ARGS])
    assert "5 NFs, 5 instances on 2 of 3 servers, 16 switch entries" in result.output
    result = runner.invoke(app, ["plan", office, *ARGS, "--json"])
    found = json.loads(result.output)
    assert found["offloaded"] == ["acl"]
    assert found["instances"]["ids.1"]["flow_ids"] == [1 << 31, 1 << 32]
    result = runner.invoke(app, ["plan", office, *ARGS, "--all"])
    assert "switch: table 1" in result.output
    assert "worker of ids.0 runs queue:ids.0" in result.output
    result = runner.invoke(app, ["diff", office, office, *ARGS])
    assert (result.exit_code, result.output) == (0, "")
    result = runner.invoke(app, ["plan", office, *ARGS, "--strategy", "best"])
    assert result.exit_code == 2
    for kind in ("nfs", "hardware", "lab"):
        schema = json.loads(runner.invoke(app, ["schema", kind]).output)
        assert schema["$schema"].startswith("https://json-schema.org")


def test_picture(tmp_path: Path) -> None:
    out = tmp_path / "p.svg"
    result = CliRunner().invoke(
        app, ["graph", str(EXAMPLES / "central_office.e2"), *ARGS, "-o", str(out)]
    )
    assert result.exit_code == 0
    texts = {e.text for e in ElementTree.parse(out).iter() if e.tag.endswith("text")}
    assert {"ids.0", "ids.1", "subscribers", "s1"} <= texts


def test_running_is_a_value() -> None:
    running = make_plan(OFFICE, CATALOG, RACK).running
    assert replace(running) == running
