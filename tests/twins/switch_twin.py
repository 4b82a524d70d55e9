# SPDX-License-Identifier: BSD-3-Clause
"""What a switch does with a packet by rules: the meaning that drivers are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from e2ctl.switch_rules import CLASSIFY, STEER, SwitchRule, exact

__all__ = ["QINQ", "VLAN", "Tag", "forward"]

VLAN, QINQ = 0x8100, 0x88A8
# Type and number; of several, the outer one comes first.
Tag = tuple[int, int]


def forward(
    rules: Sequence[SwitchRule],
    packet: Mapping[str, int],
    tags: Sequence[Tag],
    flow_id: int,
) -> list[tuple[int, tuple[Tag, ...]]]:
    """Ports that a packet leaves by, and its tags there.

    ``packet`` has the fields that its headers give it. The flow id is whatever the hash makes. As
    in OpenFlow, a packet leaves where it came in only by a rule that names that port.
    """
    fields, left, sent = dict(packet), list(tags), []
    table: int | None = CLASSIFY
    while table is not None:
        rule = _first(rules, table, fields)
        table = None
        for action in rule.actions if rule is not None else ():
            match action.kind, action.value:
                case "output", int(port):
                    named = rule is not None and exact("port", port) in rule.terms
                    if named or port != fields["port"]:
                        sent.append((port, tuple(left)))
                case "tag", int(number):
                    left.insert(0, (QINQ, number))
                case "tag_id", _:
                    left.insert(0, (VLAN, fields["id"]))
                case "untag", _:
                    del left[:1]
                case "hash", _:
                    fields["id"] = flow_id
                case "class", int(number):
                    fields["class"] = number
                    table = STEER
    return sent


def _first(rules: Sequence[SwitchRule], table: int, fields: Mapping[str, int]) -> SwitchRule | None:
    """The rule of the highest priority that a packet matches; a field it lacks matches nothing."""
    matching = [
        rule
        for rule in rules
        if rule.table == table
        and all(t.field in fields and fields[t.field] & t.mask == t.value for t in rule.terms)
    ]
    return max(matching, key=lambda rule: rule.priority, default=None)
