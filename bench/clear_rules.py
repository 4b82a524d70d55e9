# SPDX-License-Identifier: BSD-3-Clause
"""IPv4 rules in clear for MetadataMatch, as `embark_gw.provider` has encrypted ones.

A field that is one prefix or range is a term of its own, others are sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embark_gw.provider.metadata_match import ACCEPT_GATE, DROP_GATE
from embark_gw.rules import ranges
from embark_gw.rules.model import ANY_PROTOCOL, Action, Rule, RuleSet
from embark_gw.rules.ranges import Ranges

__all__ = ["clear_config"]

GATES = {Action.ACCEPT: ACCEPT_GATE, Action.DENY: DROP_GATE}
Term = Mapping[str, Any]


def clear_config(rule_set: RuleSet) -> dict[str, Any]:
    """What `set_runtime_config` takes."""
    last = len(rule_set.rules)
    sets: dict[tuple[str, Ranges], str] = {}
    rules: dict[str, dict[str, Any]] = {}  # of equal ones the first, which decides
    for number, rule in enumerate(rule_set.rules):
        if all(ranges.intersect(side, ranges.IPV4) for side in (rule.src, rule.dst)):
            terms = [*_terms(rule, sets)]
            made = {"gate": GATES[rule.action], "priority": last - number, "terms": terms}
            rules.setdefault(repr(terms), made)
    return {
        "default_gate": GATES[rule_set.default],
        "sets": [
            {
                "name": name,
                "field": field,
                "ranges": [{"min": first, "max": last} for first, last in values],
            }
            for (field, values), name in sets.items()
        ],
        "rules": [*rules.values()],
    }


def _terms(rule: Rule, sets: dict[tuple[str, Ranges], str]) -> Iterator[Term]:
    def named(field: str, values: Ranges) -> Term:
        return {"field": field, "set": sets.setdefault((field, values), f"set{len(sets)}")}

    yield {"field": "ip.version", "value": 4}
    base = ranges.mapped(0)
    for field, addresses in (("ip.src", rule.src), ("ip.dst", rule.dst)):
        in_ipv4 = ranges.intersect(addresses, ranges.IPV4)
        if in_ipv4 == ranges.IPV4:
            continue
        values = tuple((first - base, last - base) for first, last in in_ipv4)
        term = _masked(field, values, 32)
        yield term or named(field, values)
    for field, ports in (("l4.sport", rule.sport), ("l4.dport", rule.dport)):
        if ports is None:
            continue
        first, last = ports[0]
        one = {"field": field, "range": {"min": first, "max": last}}
        yield one if len(ports) == 1 else named(field, ports)
    if rule.protocols != ANY_PROTOCOL:
        term = _masked("ip.proto", rule.protocols, 8)
        yield term or named("ip.proto", rule.protocols)


def _masked(field: str, values: Ranges, bits: int) -> Term | None:
    """A value and its mask; None where it takes several."""
    prefixes = [one for first, last in values for one in ranges.prefixes(first, last, bits)]
    if len(prefixes) != 1:
        return None
    value, length = prefixes[0]
    return {"field": field, "value": value, "mask": (1 << bits) - (1 << (bits - length))}
