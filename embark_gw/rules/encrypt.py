# SPDX-License-Identifier: BSD-3-Clause
"""Rules to encrypted rules: PrefixMatch's EncryptPrefixes over whole sets (dissertation, 4.2.2).

For each field the different sets of values of all rules, not their single ranges, are what a map
tells apart. So a list of thousands of addresses takes one encrypted prefix, and a provider learns
that a packet's address is on the list, and not where.

Sources and destinations have maps of their own, unless what a NAT writes is to be matched, too: it
puts what was encrypted as a source where a destination is. Then one map is made of both fields'
values. Suffixes differ all the same, as gateways have a key for each field.

With what an earlier run kept, a set of sets that there was before keeps its prefix. The names under
which that is kept are a PRF of their values under the site's key: another key changes everything.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np
from numpy.typing import NDArray

from bess_plugins._crypto import PrefixMap, SiteKeys, TooManySetsError
from embark_gw.rules import ranges
from embark_gw.rules.document import (
    ADDRESS_FIELDS,
    FIELDS,
    PORT_FIELDS,
    EncryptedRule,
    EncryptedRules,
    FieldName,
    PoolAddress,
    Sets,
)
from embark_gw.rules.kept import KeptField, KeptSets
from embark_gw.rules.model import ANY_ADDRESS, ANY_PORT, ANY_PROTOCOL, Rule, RuleSet
from embark_gw.rules.pool import Pool
from embark_gw.rules.ranges import Ranges

__all__ = ["Encrypted", "FieldReport", "Report", "encrypt"]

BITS: dict[FieldName, int] = {"src": 128, "dst": 128, "sport": 16, "dport": 16}
# Which fields share a map.
_APART: Sequence[tuple[FieldName, ...]] = tuple((name,) for name in FIELDS)
_SHARED: Sequence[tuple[FieldName, ...]] = (ADDRESS_FIELDS, PORT_FIELDS)
_NO_KEY = bytes(16)  # suffixes are made by gateways, which have the site's key


@dataclass(frozen=True)
class FieldReport:
    """A field's sets of values in rules, and what became of them."""

    values: int  # different sets of values that rules have
    prefixes: int  # intervals with different sets: what packets are told apart by
    prefix_bits: int
    parts: int  # prefixes or ranges in all sets of the document
    kept: int  # prefixes that are as they were before
    nbytes: int  # that a gateway's map takes


@dataclass(frozen=True)
class Report:
    """How rules grew."""

    rules: int
    encrypted: int
    expanded: int  # rules of one prefix per field, where a classifier has no sets
    fields: dict[FieldName, FieldReport]


@dataclass(frozen=True)
class Encrypted:
    """What comes of a rule set: for the provider, for gateways, and for the next time."""

    document: EncryptedRules
    maps: dict[FieldName, PrefixMap]
    kept: KeptSets
    report: Report


def encrypt(
    rule_set: RuleSet,
    keys: SiteKeys,
    previous: KeptSets | None = None,
    *,
    annotate: bool = False,
    pool: Pool = (),
    seed: bytes | None = None,
    shared: bool = False,
) -> Encrypted:
    """Encrypt a rule set, which must be one about all packets (`combine`).

    With `annotate` (model c) rules keep their order and bear their text. With `shared` source and
    destination have one map, for addresses and for ports. `seed`, 16 bytes, is for
    tests only: it stands for the operating system's randomness. Errors are `CryptoError`s.
    """
    rules = list(_lasting(rule_set.rules))
    before: Mapping[FieldName, KeptField] = {} if previous is None else previous.fields
    fields = {
        name: _Field(name, rules, domain)
        for names in (_SHARED if shared else _APART)
        for domain in [_Domain(names, rules, keys, before.get(names[0]), seed)]
        for name in names
    }
    if not annotate:
        chance = secrets.SystemRandom() if seed is None else random.Random(seed)
        rules = _shuffled(rules, chance)
    document = EncryptedRules(
        default=rule_set.default,
        sets=Sets.model_validate({name: field.sets for name, field in fields.items()}),
        rules=[_rule(rule, fields, annotate) for rule in rules],
        pool=_pool(keys, fields, pool, annotate),
    )
    expanded = sum(
        prod(len(field.parts(rule)) for field in fields.values())
        * (1 if rule.protocols == ANY_PROTOCOL else protocol_parts(rule.protocols))
        for rule in rules
    )
    report = Report(
        len(rule_set.rules),
        len(rules),
        expanded,
        {name: field.report() for name, field in fields.items()},
    )
    maps = {name: field.domain.map for name, field in fields.items()}
    kept = KeptSets(fields={name: field.domain.keep() for name, field in fields.items()})
    return Encrypted(document, maps, kept, report)


def protocol_parts(protocols: Ranges) -> int:
    """How many masks of a protocol number it takes."""
    return sum(len(ranges.prefixes(first, last, 8)) for first, last in protocols)


def _lasting(rules: Iterable[Rule]) -> Iterable[Rule]:
    """Without those that match nothing, and repetitions, before which the first one decides."""
    seen = set()
    for rule in rules:
        match = (rule.src, rule.dst, rule.sport, rule.dport, rule.protocols)
        if not rule.empty and match not in seen:
            seen.add(match)
            yield rule


def _shuffled(rules: Sequence[Rule], chance: random.Random) -> list[Rule]:
    """The order of neighbours that do the same tells nothing."""
    shuffled = []
    for _, run in groupby(rules, key=lambda rule: rule.action):
        neighbours = list(run)
        chance.shuffle(neighbours)
        shuffled += neighbours
    return shuffled


def _rule(rule: Rule, fields: Mapping[FieldName, _Field], annotate: bool) -> EncryptedRule:
    return EncryptedRule(
        action=rule.action,
        src=fields["src"].index(rule),
        dst=fields["dst"].index(rule),
        sport=fields["sport"].index(rule),
        dport=fields["dport"].index(rule),
        protocols=None if rule.protocols == ANY_PROTOCOL else list(rule.protocols),
        text=rule.text if annotate else None,
        line=rule.where.line if annotate else None,
    )


def _pool(
    keys: SiteKeys, fields: Mapping[FieldName, _Field], pool: Pool, annotate: bool
) -> list[PoolAddress]:
    clear = [(address.number.to_bytes(16, "big"), address.nat) for address in pool]
    encrypted = keys.encrypt_pool(fields["src"].domain.map, fields["dst"].domain.map, clear)
    return [
        PoolAddress(
            encrypted=ranges.address_text(int.from_bytes(one, "big")),
            nat=address.nat,
            address=ranges.address_text(address.number) if annotate else None,
        )
        for address, one in zip(pool, encrypted, strict=True)
    ]


def _values(name: FieldName, rules: Iterable[Rule]) -> list[Ranges]:
    """Sets of values of a field that rules name; each once."""
    return [*dict.fromkeys(value for rule in rules if (value := _value(name, rule)) is not None)]


def _value(name: FieldName, rule: Rule) -> Ranges | None:
    value: Ranges | None = getattr(rule, name)
    return None if name in ADDRESS_FIELDS and value == ANY_ADDRESS else value


def _any_port(name: FieldName, value: Ranges) -> bool:
    """Whether it only asks for ports, which addresses from :: to ::ffff don't."""
    return name in PORT_FIELDS and value == ANY_PORT


class _Domain:
    """What one map is about: the values of a field, or of two that share prefixes."""

    def __init__(
        self,
        names: Sequence[FieldName],
        rules: Sequence[Rule],
        keys: SiteKeys,
        previous: KeptField | None,
        seed: bytes | None,
    ) -> None:
        self.bits = BITS[names[0]]
        found = dict.fromkeys(value for name in names for value in _values(name, rules))
        # Having ports tells nothing of them; a NAT's, which stay in clear, are among them as well.
        values = [value for value in found if not _any_port(names[0], value)]
        texts = [f"{'+'.join(names)} {ranges.text(value)}".encode() for value in values]
        numbers = keys.names_of(texts)
        pairs = [pair for value in values for pair in value]
        ids = [one for one, value in zip(numbers, values, strict=True) for _ in value]
        own_seed = None if seed is None else bytes([seed[0] ^ FIELDS.index(names[0]), *seed[1:]])
        self._previous = {} if previous is None else previous.numbers()
        bits = 0 if previous is None else previous.prefix_bits
        try:
            self.map = self._make(pairs, ids, bits, own_seed)
        except TooManySetsError:
            if not self._previous:
                raise
            self._previous = {}  # all of them get longer
            self.map = self._make(pairs, ids, 0, own_seed)
        encrypted = iter(self.map.encrypted_rules())
        self.runs = {
            value: _runs(np.unique(np.concatenate([next(encrypted) for _ in value])))
            for value in values
        }

    def _make(
        self, pairs: list[tuple[int, int]], ids: list[int], bits: int, seed: bytes | None
    ) -> PrefixMap:
        return PrefixMap(
            pairs, self.bits, _NO_KEY, prefix_bits=bits, seed=seed, ids=ids, kept=self._previous
        )

    def keep(self) -> KeptField:
        """What the next run needs."""
        return KeptField.of(self.map.prefix_bits, self.map.set_prefixes())

    def kept(self) -> int:
        """How many prefixes are as they were before."""
        prefixes = self.map.set_prefixes()
        return sum(self._previous.get(name) == prefix for name, prefix in prefixes.items())


def _runs(prefixes: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Ascending numbers as runs without a gap."""
    breaks = np.flatnonzero(np.diff(prefixes) != 1) + 1
    return [(int(run[0]), int(run[-1])) for run in np.split(prefixes, breaks)]


class _Field:
    """One field of all rules; its sets are numbered in the order of their prefixes, by chance."""

    def __init__(self, name: FieldName, rules: Sequence[Rule], domain: _Domain) -> None:
        self._name = name
        self.domain = domain
        values = _values(name, rules)
        found = [value for value in values if not _any_port(name, value)]
        found.sort(key=domain.runs.__getitem__)
        self.sets = [self._texts(domain.runs[value]) for value in found]
        self._index = {value: number for number, value in enumerate(found)}
        if len(found) < len(values):
            self._index[ANY_PORT] = len(self.sets)
            self.sets.append(list(ANY_PORT))

    def _texts(self, parts: list[tuple[int, int]]) -> Sequence[object]:
        """Numbers of prefixes as parts of a set: IPv6 prefixes, or ranges of ports."""
        bits = self.domain.map.prefix_bits
        rest = self.domain.bits - bits
        if self._name not in ADDRESS_FIELDS:
            return [(first << rest, (last + 1 << rest) - 1) for first, last in parts]
        return [
            f"{ranges.address_text(value << rest)}/{length}"
            for first, last in parts
            for value, length in ranges.prefixes(first, last, bits)
        ]

    def index(self, rule: Rule) -> int | None:
        """Which set of the field a rule has."""
        value = _value(self._name, rule)
        return None if value is None else self._index[value]

    def parts(self, rule: Rule) -> Sequence[object]:
        """The parts of that set; one where the rule leaves the field open."""
        index = self.index(rule)
        return (None,) if index is None else self.sets[index]

    def report(self) -> FieldReport:
        """How the field grew."""
        made = self.domain.map
        return FieldReport(
            len(self.sets),
            made.sets,
            made.prefix_bits,
            sum(map(len, self.sets)),
            self.domain.kept(),
            made.nbytes,
        )
