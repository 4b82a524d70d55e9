# SPDX-License-Identifier: BSD-3-Clause
"""NFs that the switch can do itself (step 5 of section 3.4.1 of the dissertation).

A packet filter whose traffic all comes from external ports need not run on a server: what it lets
through becomes part of the filters by which the switch chooses where traffic goes. So taking over
an NF is a change of the policy graph, made before instances are counted and placed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from e2ctl.filters import ANY, And, Const, Expr, FilterError, Match, Not, Or, Term, rule_list
from e2ctl.hardware import Switch
from e2ctl.nfs import Catalog, NfType
from e2ctl.pgraph import PEdge, PGraph

__all__ = ["acl_filter", "offload"]

_KNOWN = {"src_ip", "dst_ip", "src_port", "dst_port", "established", "drop"}


def _rule_match(rule: Mapping[str, Any]) -> Match:
    """What a rule of an ACL holds for. ``established`` is nothing that a switch tells."""
    if rule.get("established") or not set(rule) <= _KNOWN:
        raise FilterError("a rule tests more than addresses and ports")
    terms: list[Term] = []
    for key, side in (("src_ip", "src"), ("dst_ip", "dst")):
        if rule.get(key):
            net = ipaddress.ip_network(rule[key])
            name = f"{'ip6' if net.version == 6 else 'ip'}.{side}"
            if net.prefixlen:
                terms.append(Term(name, int(net.network_address), int(net.netmask)))
            else:
                terms.append(Term("ip.version", net.version, 0xF))
    for key, field in (("src_port", "l4.sport"), ("dst_port", "l4.dport")):
        if rule.get(key):
            terms.append(Term(field, int(rule[key]), 0xFFFF))
    text = " and ".join(f"{term.field} {term.value:#x}/{term.mask:#x}" for term in terms) or "any"
    return Match(text, (tuple(terms),))


def acl_filter(kind: NfType) -> Expr:
    """The packets that an ACL passes; a `FilterError` where no switch could tell."""
    passes: Expr = Const(False)
    for rule in reversed(kind.args["rules"]):
        try:
            match = _rule_match(rule)
        except (ValueError, TypeError, AttributeError) as error:
            raise FilterError(f"a rule of the ACL is wrong: {error}") from None
        if not match.alternatives[0]:
            passes = Const(not rule.get("drop"))
        elif rule.get("drop"):
            passes = And((Not(match), passes))
        else:
            passes = Or((match, passes))
    return passes


def offload(graph: PGraph, catalog: Catalog, switch: Switch) -> tuple[PGraph, tuple[str, ...]]:
    """Give the switch every NF that it can take over within half of its table.

    The other half is for steering. Returns the graph without these NFs, and their names.
    """
    taken: list[str] = []
    ports = {node.name for node in graph.nodes if node.kind == "port"}
    for node in graph.nodes:
        if node.kind != "nf" or catalog[node.type].switch not in switch.actions:
            continue
        if not all(edge.source in ports for edge in graph.edges_to(node.name)):
            continue
        try:
            smaller = _without(graph, node.name, acl_filter(catalog[node.type]))
            entries = sum(len(rules_of(smaller, port)) for port in ports)
        except FilterError:
            continue
        if entries <= switch.table // 2:
            graph = smaller
            taken.append(node.name)
    return graph, tuple(taken)


def rules_of(graph: PGraph, port: str) -> tuple[object, ...]:
    """The rules that tell apart what leaves a port."""
    return rule_list([edge.filter for edge in graph.edges_from(port)])


def _both(one: Expr, other: Expr) -> Expr:
    if other == ANY:
        return one
    return other if one == ANY else And((one, other))


def _without(graph: PGraph, name: str, passes: Expr) -> PGraph:
    """The graph with an NF replaced by edges past it."""
    edges: list[PEdge] = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    for before in graph.edges_to(name):
        for behind in graph.edges_from(name):
            if any((e.source, e.target) == (before.source, behind.target) for e in edges):
                raise FilterError(f"{before.source} also leads to {behind.target} past {name}")
            labels = [label for label in (before.label, name, behind.label) if label]
            condition = _both(_both(before.filter, passes), behind.filter)
            edges.append(
                replace(
                    behind,
                    source=before.source,
                    filter=condition,
                    label=" and ".join(labels),
                    rate=before.rate if behind.rate is None else behind.rate,
                )
            )
    return PGraph(tuple(node for node in graph.nodes if node.name != name), tuple(edges))
