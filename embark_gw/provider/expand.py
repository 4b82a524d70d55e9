# SPDX-License-Identifier: BSD-3-Clause
"""Rules of one prefix per field, for classifiers that have no sets.

A rule becomes as many as its sets have parts, multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple, TypeVar

from embark_gw.rules.document import FIELDS, EncryptedRule, EncryptedRules
from embark_gw.rules.model import Action

__all__ = ["ExpansionError", "Plain", "expand"]


T = TypeVar("T")


class ExpansionError(Exception):
    """Rules would become too many."""


class Plain(NamedTuple):
    """A rule with a prefix or a range per field; None asks nothing."""

    src: str | None
    dst: str | None
    sport: tuple[int, int] | None
    dport: tuple[int, int] | None
    protocols: tuple[int, int] | None


def expand(document: EncryptedRules, most: int) -> Iterator[tuple[int, Action, Plain]]:
    """Plain rules, with position and action of the rule that each is of.

    Of equal ones only the first, which decides. `ExpansionError` for more than `most`.
    """
    count = 0
    for number, rule in enumerate(document.rules):
        count += _count(document, rule)
        if count > most:
            raise ExpansionError(
                f"rules with one prefix per field are more than {most} from rule {number} on; a "
                "firewall with sets takes them as they are: embark-gw provider render --nft"
            )
    seen: set[Plain] = set()
    for number, rule in enumerate(document.rules):
        sets = document.sets
        for parts in product(
            _chosen(sets.src, rule.src),
            _chosen(sets.dst, rule.dst),
            _chosen(sets.sport, rule.sport),
            _chosen(sets.dport, rule.dport),
            _protocols(rule),
        ):
            plain = Plain(*parts)
            if plain not in seen:
                seen.add(plain)
                yield number, rule.action, plain


def _chosen(sets: Sequence[Sequence[T]], index: int | None) -> Sequence[T | None]:
    return (None,) if index is None else sets[index]


def _protocols(rule: EncryptedRule) -> Sequence[tuple[int, int] | None]:
    if rule.protocols is None or (0, 255) in rule.protocols:
        return (None,)
    return rule.protocols


def _count(document: EncryptedRules, rule: EncryptedRule) -> int:
    sizes = (len(_chosen(getattr(document.sets, name), getattr(rule, name))) for name in FIELDS)
    return prod(sizes) * len(_protocols(rule))
