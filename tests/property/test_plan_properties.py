# SPDX-License-Identifier: BSD-3-Clause
"""A plan sends every packet through the NFs that the policy names, wherever they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from e2ctl import hardware as hardwares
from e2ctl import nfs
from e2ctl.filters import FIELD_BITS, Term, evaluate
from e2ctl.pgraph import PGraph, bound_filters
from e2ctl.pgraph import build as build_pgraph
from e2ctl.placement import PlacementError
from e2ctl.plan import Plan, make_plan
from e2ctl.policy import PolicyError, parse_policy
from e2ctl.trace import Hop, trace
from flow_keys import flow_id, key_of

CATALOG = nfs.loads("""
Plain: {module: Bypass, scaling: servers, capacity: 1Gbps}
BySource: {module: Bypass, scaling: servers, capacity: 1Gbps, affinity: [ip.src]}
Fixed: {module: Bypass, capacity: 1Gbps}
Cores: {module: Bypass, scaling: cores, capacity: 1Gbps, affinity: [ip.src, l4.sport]}
Judge: {module: IDS, scaling: servers, capacity: 1Gbps,
        attributes: {safe: {method: port, gates: {true: 0, false: 1}}}}
List: {module: ACL, scaling: servers, switch: acl, args: {rules: [
    {src_ip: 10.0.0.0/9, dst_port: 80, drop: true}, {src_ip: 10.0.0.0/8}, {dst_port: 53}]}}
""")
SERVER = (
    "  s{0}: {{cores: 7, ghz: 2, nic: 100Gbps, agent: a{0}, port: {1}, ip: 10.9.0.{0}, "
    "mac: 02:00:00:00:00:0{0}}}"
)
WORDS = (
    "tcp",
    "udp dst port 53",
    "tcp dst port 80",
    "src net 10.0.0.0/9",
    "not udp",
    "icmp",
    "src port 1000 or dst port 80",
    "dst portrange 60-90",
    "ip6",
    "any",
)

packets = st.builds(
    lambda proto, src, dst, sport, dport: {
        "eth.type": 0x0800,
        "ip.version": 4,
        "ip.proto": proto,
        "ip.src": src,
        "ip.dst": dst,
        **({"l4.sport": sport, "l4.dport": dport} if proto in (6, 17) else {}),
    },
    st.sampled_from([1, 6, 17]),
    st.sampled_from([0x0A000001, 0x0A800001, 0x0B000001]),
    st.sampled_from([0x0A000002, 0xC0000201]),
    st.sampled_from([1000, 2000]),
    st.sampled_from([53, 75, 80, 443]),
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[PGraph, Plan, hardwares.Hardware]:
    """A random policy of up to four NFs on up to three servers."""
    count = draw(st.integers(1, 4))
    types = [draw(st.sampled_from(list(CATALOG.types))) for _ in range(count)]
    lines = []
    for i in range(count):
        targets = draw(
            st.sets(st.sampled_from([*(f"n{j}" for j in range(i + 1, count)), "out0", "out1"]))
        )
        for target in sorted(targets):
            condition = draw(st.sampled_from(WORDS))
            if types[i] == "Judge" and draw(st.booleans()):
                condition = f"n{i}.safe and ({condition})"
            lines.append((f"n{i}", f"[{condition}]", target))
    sources = {"in0"} | {source for source, _, _ in lines}
    reached = {target for _, _, target in lines}
    for i in range(count):
        if f"n{i}" not in reached or draw(st.booleans()):
            lines.append(("in0", f"[{draw(st.sampled_from(WORDS))}]", f"n{i}"))
    lines = [line for line in lines if line[0] in sources]
    rate = draw(st.sampled_from(["", " @ 1Gbps", " @ 5Gbps"]))
    text = "".join(f"nf n{i} : {kind}\n" for i, kind in enumerate(types)) + "port in0, out0, out1\n"
    text += "pipeline p {\n"
    text += "\n".join(f"{a} {c} -> {b}{rate if a == 'in0' else ''};" for a, c, b in lines) + "\n}"
    servers = "\n".join(SERVER.format(i, 10 + i) for i in range(1, draw(st.integers(1, 3)) + 1))
    tagged = str(draw(st.booleans())).lower()
    hardware = hardwares.loads(
        f"servers:\n{servers}\nswitch:\n  actions: {draw(st.sampled_from(['[acl]', '[]']))}\n"
        f"  tagged: {tagged}\n  ports: {{in0: 1, out0: 2, out1: 3}}\n"
    )
    try:
        policy = parse_policy(text)
        plan = make_plan(
            policy, CATALOG, hardware, strategy=draw(st.sampled_from(["e2", "random"]))
        )
        return build_pgraph(policy, CATALOG), plan, hardware
    except (PolicyError, PlacementError):
        assume(False)
        raise


def wanted(
    graph: PGraph, plan: Plan, node: str, packet: Mapping[str, int], gates: Mapping[str, int]
) -> Iterable[tuple[str, ...]]:
    """The ways of a packet from a node on, as the policy says."""
    types = {n.name: n.type for n in graph.nodes if n.kind == "nf"}
    name = [node] if node in types else []
    edges = graph.edges_from(node)
    filters = bound_filters(edges, gates.get(node, 0), CATALOG, types)
    taken = [edge for edge, f in zip(edges, filters, strict=True) if evaluate(f, packet)]
    ways: list[tuple[str, ...]] = []
    for edge in taken:
        if edge.target in plan.offloaded:
            # What the switch does is part of the edge; what it drops there is no copy.
            behind = wanted(graph, plan, edge.target, packet, gates) if listed(packet) else []
            ways += [way[1:] for way in behind if way[1:] != ("dropped",)]
        elif edge.target in types:
            ways += wanted(graph, plan, edge.target, packet, gates)
        else:
            ways.append((edge.target,))
    for way in ways or [("dropped",)]:
        yield (*name, *way)


def listed(packet: Mapping[str, int]) -> bool:
    """What the ACL of the catalog passes."""
    near, mine = packet["ip.src"] >> 23 == 0x0A000000 >> 23, packet["ip.src"] >> 24 == 0x0A
    if near and packet.get("l4.dport") == 80:
        return False
    return mine or packet.get("l4.dport") == 53


def taken(hop: Hop) -> Iterable[tuple[str, ...]]:
    """The ways that a trace shows: instances, and where they end."""
    here = (hop.what[3:],) if hop.what.startswith("NF ") else ()
    if not hop.then:
        yield (hop.what.removeprefix("out by port "),)
    for then in hop.then:
        for way in taken(then):
            yield (*here, *way)


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much], deadline=None)
@given(plans(), st.lists(packets, min_size=1, max_size=8), st.integers(0, 1))
def test_packets_take_the_ways_of_the_policy(
    made: tuple[PGraph, Plan, hardwares.Hardware], flows: list[Mapping[str, int]], gate: int
) -> None:
    graph, plan, hardware = made
    gates = {n.name: gate for n in graph.nodes if n.type == "Judge"}
    seen: dict[object, str] = {}
    for packet in flows:
        terms = tuple(Term(n, v, (1 << FIELD_BITS[n]) - 1) for n, v in sorted(packet.items()))
        ids = {nf: flow_id(steering, packet) for nf, steering in plan.igraph.steering.items()}
        way = trace(
            plan,
            CATALOG,
            hardware,
            "in0",
            terms,
            choice=lambda instance: gates.get(instance.nf, 0),
            flow_id=lambda nf, known, ids=ids: ids[nf],
        )
        ways = list(taken(way))
        nfs_only = [tuple(step.partition(".")[0] for step in steps) for steps in ways]
        assert sorted(nfs_only) == sorted(wanted(graph, plan, "in0", packet, gates))
        for instance in {step for steps in ways for step in steps[:-1]}:
            nf = instance.partition(".")[0]
            wish = CATALOG[graph.node(nf).type].aggregates
            if wish is not None:
                assert seen.setdefault((nf, key_of(wish, packet)), instance) == instance
