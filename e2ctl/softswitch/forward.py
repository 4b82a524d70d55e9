# SPDX-License-Identifier: BSD-3-Clause
"""What a switch does with a packet by rules: the meaning that drivers are held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from e2ctl.switch_rules import CLASSIFY, STEER, SwitchRule, exact

__all__ = ["QINQ", "VLAN", "RuleTable", "Tag", "forward"]

VLAN, QINQ = 0x8100, 0x88A8
# Type and number, or all that the tag says; of several, the outer one comes first.
Tag = tuple[int, int]


class RuleTable:
    """Rules by what every packet has: the table where it is looked up, and its port or class.

    Rules that were in the table ``before`` keep their counters: packets and bytes.
    """

    def __init__(self, rules: Iterable[SwitchRule], before: RuleTable | None = None) -> None:
        self.rules = tuple(rules)
        kept = {} if before is None else before.counts
        # By identity: to hash a rule takes longer than to find it.
        self._counts = {id(rule): kept.get(rule, [0, 0]) for rule in self.rules}
        self._of: dict[tuple[int, int | None], list[SwitchRule]] = {}
        for rule in sorted(self.rules, key=lambda rule: -rule.priority):
            self._of.setdefault((rule.table, self._key(rule)), []).append(rule)

    @property
    def counts(self) -> dict[SwitchRule, list[int]]:
        """Packets and bytes that each rule has decided on."""
        return {rule: self._counts[id(rule)] for rule in self.rules}

    def count(self, rule: SwitchRule, size: int) -> None:
        """A rule of the table has decided on a packet."""
        count = self._counts[id(rule)]
        count[:] = count[0] + 1, count[1] + size

    @staticmethod
    def _key(rule: SwitchRule) -> int | None:
        field = _KEYS[rule.table]
        return next((term.value for term in rule.terms if term == exact(field, term.value)), None)

    def first(self, table: int, fields: Mapping[str, int]) -> SwitchRule | None:
        """The matching rule of the highest priority; a field that is missing matches nothing."""
        found = [
            next((rule for rule in self._of.get((table, key), ()) if _matches(rule, fields)), None)
            for key in (fields.get(_KEYS[table]), None)
        ]
        return max((r for r in found if r is not None), key=lambda r: r.priority, default=None)


_KEYS = {CLASSIFY: "port", STEER: "class"}


def _matches(rule: SwitchRule, fields: Mapping[str, int]) -> bool:
    return all(t.field in fields and fields[t.field] & t.mask == t.value for t in rule.terms)


def forward(
    rules: RuleTable,
    packet: Mapping[str, int],
    tags: Sequence[Tag],
    flow_id: int,
    size: int = 0,
) -> list[tuple[int, tuple[Tag, ...]]]:
    """Ports that a packet leaves by, and its tags there.

    ``packet`` has the fields that its headers give it. The flow id is whatever the hash makes,
    and ``size`` what counters get. As in OpenFlow, a packet leaves where it came in only by a rule
    that names that port.
    """
    fields, left, sent = dict(packet), list(tags), []
    table: int | None = CLASSIFY
    while table is not None:
        rule = rules.first(table, fields)
        if rule is not None:
            rules.count(rule, size)
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
