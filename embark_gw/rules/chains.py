# SPDX-License-Identifier: BSD-3-Clause
"""Chains that jump to each other, as one list of rules with the same decisions.

A jump makes each rule of the other chain one about the packets of both. `return` takes its packets
out of the rest of its chain, which may part the packets that are left into several matches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from bess_plugins.sources import Location
from embark_gw.rules.model import Action, Match, Refused, RefusedError, Rule, RulesError, RuleSet

__all__ = ["Chain", "ChainRule", "Return", "flatten"]

MAX_RULES = 1_000_000
MAX_DEPTH = 16  # of jumps; the kernel's own limit


class Return(Enum):
    """Back to where the chain was jumped to from; in the first chain, to the default."""

    RETURN = "return"


@dataclass(frozen=True)
class ChainRule:
    """A rule as it is written: what it does with packets of any of its matches.

    `does` may be the name of a chain. A rule that can't be taken has a reason.
    """

    where: Location
    text: str
    matches: Sequence[Match] = ()
    does: Action | Return | str = Return.RETURN
    reason: str = ""


Chain = Sequence[ChainRule]


def flatten(
    chains: Mapping[str, Chain], first: str, default: Action, version: int | None, file: str
) -> RuleSet:
    """What becomes of packets that enter the first chain."""
    walk = _Walk(chains, default)
    walk.chain(first, Match(), [])
    refused = tuple(sorted(walk.refused.values(), key=lambda item: item.where))
    return RuleSet(tuple(walk.rules), default, refused, version, file)


class _Walk:
    def __init__(self, chains: Mapping[str, Chain], default: Action) -> None:
        self.chains = chains
        self.default = default
        self.rules: list[Rule] = []
        self.refused: dict[Location, Refused] = {}

    def chain(self, name: str, packets: Match, path: list[str]) -> None:
        left = [packets]
        for rule in self.chains[name]:
            try:
                if rule.reason:
                    raise RefusedError(rule.reason)
                left = self._rule(rule, left, [*path, name])
            except RefusedError as error:
                self.refused[rule.where] = Refused(rule.where, rule.text, str(error))

    def _rule(self, rule: ChainRule, left: list[Match], path: list[str]) -> list[Match]:
        """Take a rule for the packets that are left in its chain; tell what is left behind it."""
        does = rule.does
        if does is Return.RETURN and len(path) == 1:
            does = self.default
        if isinstance(does, str) and not isinstance(does, Action):
            if does in path or len(path) > MAX_DEPTH:
                raise RefusedError(f"the jump to {does} leads back or too deep")
            if does not in self.chains:
                raise RefusedError(f"there is no chain {does}")
        parts = [part.both(match).checked() for match in rule.matches for part in left]
        for packets in parts:
            if packets.empty:
                continue
            if isinstance(does, Action):
                self._add(Rule.of(packets, does, rule.where, rule.text))
            elif isinstance(does, str):
                self.chain(does, packets, path)
        if does is Return.RETURN:
            for match in rule.matches:
                left = [part for packets in left for part in packets.without(match)]
        return left

    def _add(self, rule: Rule) -> None:
        if len(self.rules) == MAX_RULES:
            raise RulesError(rule.where, f"jumps make more than {MAX_RULES} rules here")
        self.rules.append(rule)
