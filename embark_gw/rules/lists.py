# SPDX-License-Identifier: BSD-3-Clause
"""Plain lists of addresses, one on a line, whose packets are denied, from and to them.

An address, a prefix, or a range FIRST-LAST; behind # or ; stands a comment. A whole list is one
rule per direction, so that a provider doesn't learn which of its addresses a packet has.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from bess_plugins.sources import Location
from embark_gw.rules import ranges
from embark_gw.rules.lexing import malformed
from embark_gw.rules.model import Action, Match, Rule, RuleSet

__all__ = ["read_list"]


def read_list(text: str, file: str) -> RuleSet:
    """A list as a rule set: what isn't listed is accepted."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        item = re.split("[#;]", line, maxsplit=1)[0]
        if item.strip():
            where = Location(file, number, len(item) - len(item.lstrip()) + 1)
            with malformed(where):
                found.append(_addresses(item.strip()))
    listed = ranges.join(found)
    where, text_of_rule = Location(file, 1, 1), f"the {len(found)} addresses and ranges of the list"
    sides = (Match(src=listed), Match(dst=listed)) if listed else ()
    rules = tuple(Rule.of(match, Action.DENY, where, text_of_rule) for match in sides)
    return RuleSet(rules, Action.ACCEPT, file=file)


def _addresses(item: str) -> tuple[int, int]:
    low, dash, high = item.partition("-")
    if not dash:
        return ranges.of_network(ranges.read_network(item))
    first, last = ip_address(low.strip()), ip_address(high.strip())
    if first.version != last.version or int(first) > int(last):
        raise ValueError(f"'{item}' is no range FIRST-LAST")
    base = ranges.mapped(0) if first.version == 4 else 0
    return base + int(first), base + int(last)
