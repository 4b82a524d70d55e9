# SPDX-License-Identifier: BSD-3-Clause
"""Whatever the policy, a flow finds one instance of each NF, and the same one on every path."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from e2ctl import nfs
from e2ctl.affinity import FIVE_TUPLE
from e2ctl.igraph import ALL_IDS, IGraph, build, even_spans
from e2ctl.pgraph import build as build_pgraph
from e2ctl.policy import parse_policy
from e2ctl.sizing import estimate
from flow_keys import flow_id, key_of

Packet = Mapping[str, int]


def both_ports_or_none(fields: list[str]) -> bool:
    return ("l4.sport" in fields) == ("l4.dport" in fields)


packets = st.fixed_dictionaries({name: st.integers(0, 3) for name in FIVE_TUPLE})
kinds = st.builds(
    lambda fields, symmetric, mangles: {
        "affinity": ["ip.src", "ip.dst", *sorted(fields)] if symmetric else sorted(fields),
        "symmetric": symmetric,
        "mangles": sorted(mangles),
        "scaling": "servers",
    },
    st.sets(st.sampled_from(FIVE_TUPLE)),
    st.booleans(),
    st.sets(st.sampled_from(FIVE_TUPLE), max_size=2),
).filter(
    lambda kind: (
        not kind["symmetric"]
        or (
            ("l4.sport" in kind["affinity"]) == ("l4.dport" in kind["affinity"])
            and not {*kind["affinity"]} & {*kind["mangles"]}
        )
    )
)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[IGraph, nfs.Catalog]:
    """A random DAG of up to five NFs, each in up to five instances."""
    count = draw(st.integers(1, 5))
    catalog = nfs.Catalog({f"T{i}": nfs.NfType.model_validate(draw(kinds)) for i in range(count)})
    lines = []
    for i in range(count):
        sources = draw(st.sets(st.sampled_from(["in0", *(f"n{j}" for j in range(i))]), min_size=1))
        lines += [f"{source} -> n{i};" for source in sorted(sources)]
    text = "".join(f"nf n{i} : T{i}\n" for i in range(count)) + "port in0, out0\n"
    text += "pipeline p { " + " ".join([*lines, f"n{count - 1} -> out0;"]) + " }"
    graph = build_pgraph(parse_policy(text), catalog)
    counts = {f"n{i}": draw(st.integers(1, 5)) for i in range(count)}
    return build(graph, catalog, counts, estimate(graph)), catalog


def walk(
    graph: IGraph, catalog: nfs.Catalog, at: str, packet: Packet, seen: dict[object, str]
) -> None:
    """Follow a packet along every edge and note which instance each aggregate meets."""
    for edge in dict.fromkeys(e.edge for e in graph.edges if e.source == at):
        ends = [e for e in graph.edges if e.source == at and e.edge == edge]
        if edge.target == "out0":
            assert [e.span for e in ends] == [None]
            continue
        number = flow_id(graph.steering[edge.target], packet)
        taken = [e for e in ends if e.span is None or e.span.start <= number < e.span.end]
        assert len(taken) == 1
        target = taken[0].target
        kind = catalog[next(i.type for i in graph.instances if i.name == target)]
        if kind.aggregates is not None:
            key = (edge.target, key_of(kind.aggregates, packet))
            assert seen.setdefault(key, target) == target
        changed = {name: (value * 7 + 3) % 5 for name, value in packet.items()}
        behind = {**packet, **{name: changed[name] for name in kind.mangles}}
        walk(graph, catalog, target, behind, seen)


@given(graphs(), st.lists(packets, min_size=1, max_size=20))
def test_a_flow_finds_one_instance(made: tuple[IGraph, nfs.Catalog], flows: list[Packet]) -> None:
    graph, catalog = made
    seen: dict[object, str] = {}
    for packet in flows:
        walk(graph, catalog, "in0", packet, seen)


@given(graphs())
def test_no_traffic_is_lost_or_made(made: tuple[IGraph, nfs.Catalog]) -> None:
    graph, _ = made
    totals: dict[object, float] = {}
    for edge in graph.edges:
        totals[edge.edge] = totals.get(edge.edge, 0.0) + edge.rate
    for nf in graph.steering:
        load = sum(instance.load_bps for instance in graph.of(nf))
        received = sum(total for edge, total in totals.items() if edge.target == nf)
        assert abs(load - received) < 1e-6 * load
        assert sum(instance.span.share for instance in graph.of(nf)) == 1.0


@given(st.integers(1, 600))
def test_spans_cover_all_ids(count: int) -> None:
    spans = even_spans(count)
    assert (spans[0].start, spans[-1].end) == (ALL_IDS.start, ALL_IDS.end)
    assert all(one.end == other.start for one, other in pairwise(spans))
    assert max(s.share for s in spans) - min(s.share for s in spans) <= 1 / 4096
