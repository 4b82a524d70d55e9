# SPDX-License-Identifier: BSD-3-Clause
"""Edges as operators name them, such as ``ids -> cache``, and filters for what passes them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from e2ctl.filters import And, Attr, Const, Expr, FilterError, Match, Not, Or, Term, bind
from e2ctl.plan import Plan
from e2ctl.routing import PlanError
from e2ctl.server_plan import EdgeTap

__all__ = ["pcap_filter", "taps_of"]

_ARROW = "->"
_VERSIONS = {4: "ip", 6: "ip6"}
_NUMBERS = {"eth.type": "ether proto", "ip.proto": "proto"}


def taps_of(plan: Plan, text: str) -> dict[str, tuple[EdgeTap, ...]]:
    """Where packets of an edge can be seen, by server.

    The source is an NF, an instance of one, or a port. A `PlanError` says what there is instead.
    """
    source, arrow, target = (part.strip() for part in text.partition(_ARROW))
    if not (source and arrow and target):
        raise PlanError(f"'{text}' is no edge; expected one such as 'ids -> cache'")
    found: dict[str, tuple[EdgeTap, ...]] = {}
    known: set[str] = set()
    for server, wanted in plan.servers.items():
        here = [tap for tap in wanted.taps if source in _names(plan, tap) and tap.target == target]
        if here:
            found[server] = tuple(here)
        known |= {f"{_names(plan, tap)[-1]} {_ARROW} {tap.target}" for tap in wanted.taps}
    if not found:
        listed = ", ".join(sorted(known)) or "none"
        raise PlanError(f"no server sees packets of '{text}'; edges that can be seen: {listed}")
    return found


def _names(plan: Plan, tap: EdgeTap) -> tuple[str, ...]:
    """What a tap's source may be called; an instance's NF is the last."""
    if tap.source in plan.layout.servers:
        return tap.source, plan.instance(tap.source).nf
    return (tap.source,)


def pcap_filter(expr: Expr) -> str:
    """A filter of the policy's in the dataplane's words, which are pcap-filter's; empty: all.

    A `FilterError` names what packets alone don't tell.
    """
    folded = bind(expr, _refuse)
    if isinstance(folded, Const):
        if not folded.value:
            raise FilterError(f"no packet passes '{expr}'")
        return ""
    return _words(folded)


def _refuse(attr: Attr) -> Expr:
    raise FilterError(f"'{attr}' is not in packets; expected packet fields only")


def _words(expr: Expr) -> str:
    match expr:
        case Not(operand):
            return f"not ({_words(operand)})"
        case And(operands):
            return " and ".join(f"({_words(operand)})" for operand in operands)
        case Or(operands):
            return " or ".join(f"({_words(operand)})" for operand in operands)
        case Match(_, alternatives):
            return " or ".join(f"({' and '.join(map(_word, terms))})" for terms in alternatives)
    raise FilterError(f"'{expr}' does not stand for packets")


def _word(term: Term) -> str:
    if term.field == "ip.version":
        return _VERSIONS[term.value]
    if term.field in _NUMBERS:
        return f"{_NUMBERS[term.field]} {term.value}"
    if term.field == "vlan.id":
        # Without a number, the policy's word has a term for each half of them.
        return f"vlan {term.value}" if term.mask == 0xFFF else "vlan"
    kind, _, name = term.field.partition(".")
    if kind == "l4":
        side = {"sport": "src", "dport": "dst"}[name]
        return f"{side} portrange {term.value}-{term.value | (term.mask ^ 0xFFFF)}"
    address = (IPv6Address if kind == "ip6" else IPv4Address)(term.value)
    return f"{kind} {name} net {address}/{term.mask.bit_count()}"
