# SPDX-License-Identifier: BSD-3-Clause
"""NFs that policies enter and leave by ports with names: errors, graphs, and plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2ctl import hardware, nfs, policy
from e2ctl.filters import rule_list
from e2ctl.pgraph import bound_filters, build
from e2ctl.plan import Plan, make_plan
from e2ctl.policy import PolicyError, parse_policy
from e2ctl.trace import trace
from e2ctl.wiring import Link, wire

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOG = nfs.load(EXAMPLES / "nfs.yaml")
RACK = hardware.load(EXAMPLES / "rack.yaml")
GATEWAY = policy.load(EXAMPLES / "gateway.e2")
HEAD = "nf gw : GatewayNAT\nnf m : NetworkMonitor\nport a, b\n"


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ("a -> gw.middle;", "4:19", "'gw.middle': gw has no such port; expected gw.inside, gw.out"),
        ("a -> gw;", "4:19", "'gw' has several ports; expected one of gw.inside, gw.outside"),
        ("a -> gw.inside; gw -> b;", "4:30", "'gw' has several ports"),
        ("a -> gw.inside; gw.side -> b;", "4:30", "'gw.side': gw has no such port"),
        ("a -> m.x -> b;", "4:19", "a path can't go on behind 'm.x'"),
        ("a -> m.x; m -> b;", "4:19", "'m.x': m has no ports that have names"),
        ("a -> b.x;", "4:19", "'b.x': b has no ports that have names"),
        ("a -> zz.x;", "4:19", "'zz.x' is not declared; expected an NF or a port"),
        ("a -> gw.inside -> b;", "4:19", "begin another one with the port that they leave by"),
        ("a -> ;", "4:19", "unexpected ';'; expected a name"),
        ("a -> gw.inside; gw.inside -> b; gw.outside -> b;", "4:46", "gw -> b appears twice"),
    ],
)
def test_errors_say_where(body: str, place: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        build(parse_policy(f"{HEAD}pipeline p {{ {body} }}", "p.e2"), CATALOG)
    assert str(caught.value).startswith(f"p.e2:{place}: ")
    assert message in str(caught.value)


def test_pipelines_have_to_agree() -> None:
    text = HEAD + "pipeline p { a -> gw.inside; gw.outside -> b; }\n"
    other = "pipeline q { a -> gw.outside; gw.outside -> b; }\n"
    with pytest.raises(PolicyError, match="leads a to 'inside' of gw; expected the same here"):
        build(parse_policy(text + other, "p.e2"), CATALOG)


def test_what_leaves_by_a_port_follows_its_edges_only() -> None:
    body = "a -> gw.inside; b -> gw.outside; gw.outside [tcp] -> b; gw.outside [otherwise] -> m;"
    body += " m -> b; gw.inside [otherwise] -> a;"
    graph = build(parse_policy(f"{HEAD}pipeline p {{ {body} }}", "p.e2"), CATALOG)
    edges = graph.edges_from("gw")
    assert [(edge.target, edge.label) for edge in edges] == [
        ("b", "gw.outside and tcp"),
        ("m", "gw.outside and otherwise"),
        ("a", "gw.inside and otherwise"),
    ]
    chosen = [
        {
            edges[i].target
            for rule in rule_list(bound_filters(edges, gate, CATALOG, {"gw": "GatewayNAT"}))
            for i in rule.edges
        }
        for gate in (0, 1)
    ]
    assert chosen == [{"a"}, {"b", "m"}]
    assert [(e.enters, e.igate) for e in graph.edges_to("gw")] == [("inside", 0), ("outside", 1)]
    assert "b -> gw.outside\n" in str(graph)


def test_on_one_machine() -> None:
    links = wire(build(GATEWAY, CATALOG), CATALOG).links
    wanted = {
        Link("outgoing", 0, "gateway", 0),
        Link("gateway", 1, "out_internet"),
        Link("in_internet", 0, "gateway", 1),
        Link("gateway", 0, "incoming"),
    }
    assert wanted <= {*links}


def test_several_edges_into_each_port_meet_apart() -> None:
    text = "nf gw : GatewayNAT\nport a, b, c, d\npipeline p { a -> gw.inside; c -> gw.inside; "
    text += "b -> gw.outside; d -> gw.outside; gw.outside -> b; gw.inside -> a; }"
    links = {*wire(build(parse_policy(text), CATALOG), CATALOG).links}
    assert {Link("merge_gw", 0, "gw", 0), Link("merge_gw_1", 0, "gw", 1)} <= links


def planned() -> Plan:
    return make_plan(GATEWAY, CATALOG, RACK)


def test_on_a_cluster_each_port_is_an_entry() -> None:
    plan = planned()
    numbers = {name: number for name, _, number in plan.entries}
    assert {"gateway.0", "gateway.0:1"} <= {*numbers}
    place = plan.layout.servers["gateway.0"]
    links = {*plan.servers[place].links}
    nf = next(m.name for m in plan.servers[place].modules if m.node == "gateway.0")
    for igate, name in ((0, "gateway.0"), (1, "gateway.0:1")):
        assert Link("arrive", numbers[name], f"queue:{name}") in links
        assert Link(f"load:{name}", 0, nf, igate) in links
        assert plan.servers[place].tasks[f"queue:{name}"] == "gateway.0"  # both on one worker
    assert any(f"tag {numbers['gateway.0:1']}" in str(rule) for rule in plan.switch)
    assert make_plan(GATEWAY, CATALOG, RACK, running=plan.running).running == plan.running


def test_from_another_server_by_tunnel() -> None:
    """Where the NF in front is elsewhere, its tunnel names the entry of the gate."""
    text = """
        nf gw : GatewayNAT
        nf m : NetworkMonitor
        port subscribers, internet
        pipeline p { subscribers -> gw.inside; internet -> m @ 1Gbps; m -> gw.outside;
                     gw.inside -> subscribers; gw.outside -> internet; }
    """
    small = {name: s.model_copy(update={"cores": 2}) for name, s in RACK.servers.items()}
    plan = make_plan(parse_policy(text), CATALOG, RACK.model_copy(update={"servers": small}))
    assert plan.layout.servers["m.0"] != plan.layout.servers["gw.0"]
    numbers = {name: number for name, _, number in plan.entries}
    tunnels = [
        module.args["vni"]
        for module in plan.servers[plan.layout.servers["m.0"]].modules
        if module.mclass == "TunnelEncap"
    ]
    assert tunnels == [numbers["gw.0:1"]]


def test_traced_both_ways() -> None:
    lines = "\n".join(trace(planned(), CATALOG, RACK, "internet", ()).lines())
    assert "NF gateway.0  (GatewayNAT)" in lines
    assert "inside is true" in lines and "out by port subscribers" in lines


def test_a_program_takes_packets_by_each_device() -> None:
    described = "P: {kind: legacy, ports: {left: 0, right: 1}, program: {devices: [l, r]}}"
    text = """
        nf p : P
        port subscribers, internet
        pipeline x { subscribers -> p.left; p.right -> internet;
                     internet -> p.right; p.left -> subscribers; }
    """
    plan = make_plan(parse_policy(text), nfs.loads(described), RACK)
    links = {*plan.servers[plan.layout.servers["p.0"]].links}
    assert {Link("load:p.0", 0, "in:p.0:l"), Link("load:p.0:1", 0, "in:p.0:r")} <= links
