# SPDX-License-Identifier: BSD-3-Clause
"""Filters as values: their meaning, and ternary rules that have the same meaning.

A filter is a boolean expression whose leaves are `Match`: alternatives, each a conjunction of
ternary `Term`s over named header fields. A term holds when the packet *has* the field and
``field & mask == value``; so ``not`` also holds for packets without the field. The dataplane has
no negative terms. Negation becomes order: every expression is compiled to a *decision list*,
``[(terms, outcome), ...]``, in which the first entry that matches decides.

* a leaf: ``[(alternative, True), ..., ((), False)]``
* ``not``: the same entries, outcomes flipped
* ``and``, ``or``: the cross product in lexicographic order. The first pair of entries that both
  match is the pair of each list's first match, so the product decides as the operands do.

A node's rule list is the product over its out edges with the *set* of matching edges as outcome:
a packet that matches several edges finds one rule that names them all. Products grow
multiplicatively, hence the cap of `MAX_RULES` and simplification after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = [
    "ANY",
    "FIELD_BITS",
    "MAX_RULES",
    "VERSION_OF",
    "And",
    "Attr",
    "Const",
    "Expr",
    "FilterError",
    "Match",
    "Not",
    "Or",
    "Otherwise",
    "Rule",
    "Term",
    "attributes",
    "bind",
    "covers",
    "evaluate",
    "fields",
    "first_match",
    "join",
    "prefixes",
    "rule_list",
]

MAX_RULES = 4096
_SIMPLIFY_LIMIT = 512

FIELD_BITS: Mapping[str, int] = {
    "eth.type": 16,
    "vlan.id": 12,
    "ip.version": 4,
    "ip.proto": 8,
    "ip.src": 32,
    "ip.dst": 32,
    "ip6.src": 128,
    "ip6.dst": 128,
    "l4.sport": 16,
    "l4.dport": 16,
}
VERSION_OF = {"ip.src": 4, "ip.dst": 4, "ip6.src": 6, "ip6.dst": 6}

AttrValue = bool | int | str
V = TypeVar("V")


class FilterError(Exception):
    """A filter cannot be expressed as rules."""


@dataclass(frozen=True, order=True)
class Term:
    """The packet has ``field``, and ``field & mask == value``. The mask is never 0."""

    field: str
    value: int
    mask: int


Terms = tuple[Term, ...]


@dataclass(frozen=True)
class Const:
    """Always true or always false."""

    value: bool

    def __str__(self) -> str:
        return "any" if self.value else "not any"


ANY = Const(True)


@dataclass(frozen=True)
class Match:
    """Holds when all terms of one alternative do. ``text`` is how it was written."""

    text: str
    alternatives: tuple[Terms, ...]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Attr:
    """An NF attribute has a value. ``line`` and ``column`` say where that was written."""

    node: str
    name: str
    value: AttrValue
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.value is True:
            return f"{self.node}.{self.name}"
        if isinstance(self.value, str):
            return f'{self.node}.{self.name} == "{self.value}"'
        return f"{self.node}.{self.name} == {str(self.value).lower()}"


@dataclass(frozen=True)
class Not:
    """The operand does not hold."""

    operand: Expr

    def __str__(self) -> str:
        return f"not {_bracket(self.operand)}"


@dataclass(frozen=True)
class And:
    """All operands hold."""

    operands: tuple[Expr, ...]

    def __str__(self) -> str:
        return " and ".join(map(_bracket, self.operands))


@dataclass(frozen=True)
class Or:
    """At least one operand holds."""

    operands: tuple[Expr, ...]

    def __str__(self) -> str:
        return " or ".join(map(_bracket, self.operands))


@dataclass(frozen=True)
class Otherwise:
    """No other edge of the node and pipeline matches."""

    def __str__(self) -> str:
        return "otherwise"


Expr = Const | Match | Attr | Not | And | Or | Otherwise


@dataclass(frozen=True)
class Rule:
    """Packets that match ``terms`` and no rule of higher priority follow all of ``edges``."""

    priority: int
    terms: Terms
    edges: frozenset[int]


def _bracket(expr: Expr) -> str:
    return f"({expr})" if isinstance(expr, (And, Or)) else str(expr)


def attributes(expr: Expr) -> list[Attr]:
    """List the attributes that an expression tests."""
    if isinstance(expr, Attr):
        return [expr]
    if isinstance(expr, Not):
        return attributes(expr.operand)
    if isinstance(expr, (And, Or)):
        return [attr for operand in expr.operands for attr in attributes(operand)]
    return []


def fields(expr: Expr) -> set[str]:
    """Names of the header fields that an expression tests."""
    if isinstance(expr, Match):
        return {term.field for terms in expr.alternatives for term in terms}
    if isinstance(expr, Not):
        return fields(expr.operand)
    if isinstance(expr, (And, Or)):
        return {name for operand in expr.operands for name in fields(operand)}
    return set()


def bind(expr: Expr, resolve: Callable[[Attr], Expr]) -> Expr:
    """Replace attributes by what ``resolve`` returns for them, and fold constants."""
    if isinstance(expr, Attr):
        return resolve(expr)
    if isinstance(expr, Not):
        operand = bind(expr.operand, resolve)
        return Const(not operand.value) if isinstance(operand, Const) else Not(operand)
    if isinstance(expr, (And, Or)):
        decisive = isinstance(expr, Or)
        rest: list[Expr] = []
        for part in expr.operands:
            bound = bind(part, resolve)
            if not isinstance(bound, Const):
                rest.append(bound)
            elif bound.value is decisive:
                return bound
        if not rest:
            return Const(not decisive)
        if len(rest) == 1:
            return rest[0]
        return Or(tuple(rest)) if decisive else And(tuple(rest))
    return expr


def evaluate(expr: Expr, packet: Mapping[str, int]) -> bool:
    """Tell whether a packet, given as its fields, passes a bound filter.

    ``meta.NAME`` is 0 where the packet doesn't carry it; other fields may be absent.
    """
    if isinstance(expr, Const):
        return expr.value
    if isinstance(expr, Match):
        return any(_holds(terms, packet) for terms in expr.alternatives)
    if isinstance(expr, Not):
        return not evaluate(expr.operand, packet)
    if isinstance(expr, And):
        return all(evaluate(operand, packet) for operand in expr.operands)
    if isinstance(expr, Or):
        return any(evaluate(operand, packet) for operand in expr.operands)
    raise FilterError(f"'{expr}' must be resolved before it can be evaluated")


def _holds(terms: Terms, packet: Mapping[str, int]) -> bool:
    for term in terms:
        value = packet.get(term.field, 0 if term.field.startswith("meta.") else None)
        if value is None or value & term.mask != term.value:
            return False
    return True


def first_match(rules: Sequence[Rule], packet: Mapping[str, int]) -> frozenset[int]:
    """Edges that a packet follows under a rule list."""
    best = max(
        (rule for rule in rules if _holds(rule.terms, packet)),
        key=lambda rule: rule.priority,
        default=None,
    )
    return frozenset() if best is None else best.edges


def prefixes(low: int, high: int, bits: int) -> list[tuple[int, int]]:
    """Split a range into (value, mask) pairs, none of which has an empty mask."""
    full = (1 << bits) - 1
    pairs = []
    while low <= high:
        size = min(low & -low or 1 << bits, 1 << ((high - low + 1).bit_length() - 1))
        size = min(size, 1 << (bits - 1))
        pairs.append((low, full & ~(size - 1)))
        low += size
    return pairs


# Decision lists.

_List = list[tuple[Terms, V]]


def join(left: Terms, right: Terms) -> Terms | None:
    """Conjunction of two conjunctions; None when no packet can match."""
    merged = {term.field: term for term in left}
    for term in right:
        old = merged.get(term.field)
        if old is not None:
            if (old.value ^ term.value) & old.mask & term.mask:
                return None
            term = Term(term.field, old.value | term.value, old.mask | term.mask)
        merged[term.field] = term
    versions = {VERSION_OF[name] for name in merged if name in VERSION_OF}
    version = merged.get("ip.version")
    if len(versions) > 1:
        return None
    if version is not None and any((v ^ version.value) & version.mask for v in versions):
        return None
    return tuple(sorted(merged.values()))


def covers(general: Terms, special: Terms) -> bool:
    """Every packet that matches ``special`` matches ``general``."""
    known = {term.field: term for term in special}
    for term in general:
        other = known.get(term.field)
        if other is None or term.mask & ~other.mask or (term.value ^ other.value) & term.mask:
            return False
    return True


def _simplify(entries: _List[V]) -> _List[V]:
    """Drop entries that cannot decide, or decide as a later one would."""
    end = next(i for i, (terms, _) in enumerate(entries) if not terms)
    entries = entries[: end + 1]
    while len(entries) > 1 and entries[-2][1] == entries[-1][1]:
        del entries[-2]
    if len(entries) > _SIMPLIFY_LIMIT:
        return entries
    kept: _List[V] = []
    for terms, outcome in entries:
        if not any(covers(earlier, terms) for earlier, _ in kept):
            kept.append((terms, outcome))
    result: _List[V] = []
    for terms, outcome in reversed(kept):
        redundant = False
        for later, other in reversed(result):
            if other == outcome and covers(later, terms):
                redundant = True
                break
            if other != outcome and join(later, terms) is not None:
                break
        if not redundant:
            result.append((terms, outcome))
    return result[::-1]


def _check_size(entries: Sequence[object]) -> None:
    if len(entries) > MAX_RULES:
        raise FilterError(
            f"the filters of this node need more than {MAX_RULES:,} rules; "
            "use fewer port ranges and negations, or spread them over several nodes"
        )


def _product(
    left: _List[V], right: _List[V], combine: Callable[[V, V], V], absorbing: V | None
) -> _List[V]:
    entries: _List[V] = []
    for terms, outcome in left:
        if absorbing is not None and outcome == absorbing:
            entries.append((terms, outcome))
            continue
        for others, other in right:
            joined = join(terms, others)
            if joined is not None:
                entries.append((joined, combine(outcome, other)))
        _check_size(entries)
    return _simplify(entries)


def _decide(expr: Expr) -> _List[bool]:
    if isinstance(expr, Const):
        return [((), expr.value)]
    if isinstance(expr, Match):
        joined = (join((), terms) for terms in expr.alternatives)
        alternatives = [terms for terms in joined if terms is not None]
        return _simplify([*((terms, True) for terms in alternatives), ((), False)])
    if isinstance(expr, Not):
        return [(terms, not outcome) for terms, outcome in _decide(expr.operand)]
    if isinstance(expr, (And, Or)):
        # Outcomes that didn't absorb are neutral, so the other operand decides.
        decisive = isinstance(expr, Or)
        entries = _decide(expr.operands[0])
        for operand in expr.operands[1:]:
            entries = _product(entries, _decide(operand), lambda _, other: other, decisive)
        return entries
    raise FilterError(f"'{expr}' must be resolved before rules can be made")


def rule_list(filters: Sequence[Expr]) -> tuple[Rule, ...]:
    """Compile the bound filters of a node's out edges.

    Edges are named by their position. The last rule has no terms, so that one always matches;
    packets that no edge takes find a rule without edges.
    """
    entries: _List[frozenset[int]] = [((), frozenset())]
    for index, expr in enumerate(filters):
        here = frozenset({index})
        decided = [(terms, here if hit else frozenset[int]()) for terms, hit in _decide(expr)]
        entries = _product(entries, decided, frozenset.union, None)
    count = len(entries)
    return tuple(Rule(count - i, terms, edges) for i, (terms, edges) in enumerate(entries))
