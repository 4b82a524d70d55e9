# SPDX-License-Identifier: BSD-3-Clause
"""What a firewall's rules are here: ranges of the 5-tuple, accept or deny (dissertation, 4.7.1).

Addresses are numbers of 128 bits, IPv4 ones IPv4-mapped. The first rule that matches decides, else
the default. Whatever a rule says that is not in this model is refused, never left aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, Self

from bess_plugins.sources import Location, SourceError
from embark_gw.rules import ranges
from embark_gw.rules.ranges import Ranges

__all__ = [
    "ANY_ADDRESS",
    "ANY_PORT",
    "ANY_PROTOCOL",
    "Action",
    "Match",
    "Packet",
    "Refused",
    "RefusedError",
    "Rule",
    "RuleSet",
    "RulesError",
    "combine",
]

ANY_ADDRESS: Ranges = ((0, 2**128 - 1),)
ANY_PORT: Ranges = ((0, 2**16 - 1),)
ANY_PROTOCOL: Ranges = ((0, 255),)
WITH_PORTS: Ranges = ((6, 6), (17, 17))  # whose ports a gateway encrypts
# Extension headers of IPv6: a classifier looks for what is behind them.
_EXTENSIONS: Ranges = ranges.join((n, n) for n in (0, 43, 44, 51, 60, 135, 139, 140))


class RulesError(SourceError):
    """A file of rules makes no sense."""


class RefusedError(Exception):
    """A rule says what the model hasn't; the message is the reason."""


class Action(StrEnum):
    """What becomes of a packet."""

    ACCEPT = "accept"
    DENY = "deny"


class Packet(NamedTuple):
    """Of a packet what rules are about; ports are None where it has no header of TCP or UDP."""

    src: int
    dst: int
    protocol: int
    sport: int | None = None
    dport: int | None = None


def _port_holds(wanted: Ranges | None, port: int | None) -> bool:
    return wanted is None or (port is not None and ranges.contains(wanted, port))


def _both_ports(one: Ranges | None, other: Ranges | None) -> Ranges | None:
    if one is None or other is None:
        return other if one is None else one
    return ranges.intersect(one, other)


@dataclass(frozen=True, kw_only=True)
class Match:
    """Packets of which each field is in its set.

    Ports of None ask nothing; `ANY_PORT` asks that the packet has ports, as a fragment behind the
    first one hasn't.
    """

    src: Ranges = ANY_ADDRESS
    dst: Ranges = ANY_ADDRESS
    sport: Ranges | None = None
    dport: Ranges | None = None
    protocols: Ranges = ANY_PROTOCOL

    @property
    def empty(self) -> bool:
        """Whether no packet is in it."""
        return () in (self.src, self.dst, self.sport, self.dport, self.protocols)

    def holds(self, packet: Packet) -> bool:
        """Whether a packet is in it."""
        return (
            ranges.contains(self.src, packet.src)
            and ranges.contains(self.dst, packet.dst)
            and ranges.contains(self.protocols, packet.protocol)
            and _port_holds(self.sport, packet.sport)
            and _port_holds(self.dport, packet.dport)
        )

    def both(self, other: Match) -> Match:
        """Packets that are in this one and in the other."""
        return Match(
            src=ranges.intersect(self.src, other.src),
            dst=ranges.intersect(self.dst, other.dst),
            sport=_both_ports(self.sport, other.sport),
            dport=_both_ports(self.dport, other.dport),
            protocols=ranges.intersect(self.protocols, other.protocols),
        )

    def without(self, other: Match) -> list[Match]:
        """Packets that are in this one and not in the other, in disjoint parts.

        Raises `RefusedError` where the other asks for ports: packets without ports would be a part
        of their own, which rules can't say.
        """
        if other.sport is not None or other.dport is not None:
            raise RefusedError("what is not of these ports includes fragments, which have none")
        parts, rest = [], self
        for name in ("src", "dst", "protocols"):
            mine, theirs = getattr(rest, name), getattr(other, name)
            parts.append(replace(rest, **{name: ranges.subtract(mine, theirs)}))
            rest = replace(rest, **{name: ranges.intersect(mine, theirs)})
        return [part for part in parts if not part.empty]

    def checked(self) -> Self:
        """The same; `RefusedError` where encrypted packets can't be matched like this."""
        if self.empty:
            return self
        if not ranges.subtract(self.protocols, _EXTENSIONS):
            raise RefusedError(
                f"protocol {self.protocols[0][0]} is an extension header in IPv6, which encrypted "
                "packets are: classifiers look behind it"
            )
        if self.sport is None and self.dport is None:
            return self
        if self.protocols == ANY_PROTOCOL:
            return replace(self, protocols=WITH_PORTS)
        if other := ranges.subtract(self.protocols, WITH_PORTS):
            raise RefusedError(f"ports of protocol {other[0][0]}; only TCP and UDP have them here")
        return self


@dataclass(frozen=True, kw_only=True)
class Rule(Match):
    """What becomes of the packets of a match, and where that is written."""

    action: Action
    where: Location
    text: str

    @classmethod
    def of(cls, match: Match, action: Action, where: Location, text: str) -> Rule:
        """A rule for a match."""
        values = {item.name: getattr(match, item.name) for item in fields(Match)}
        return cls(**values, action=action, where=where, text=text)


@dataclass(frozen=True)
class Refused:
    """A rule that can't be taken."""

    where: Location
    text: str
    reason: str


@dataclass(frozen=True)
class RuleSet:
    """Rules in order. `version` is 4 or 6 where they are about packets of that IP version only."""

    rules: tuple[Rule, ...]
    default: Action
    refused: tuple[Refused, ...] = ()
    version: int | None = None
    file: str = field(default="", compare=False)

    def decide(self, packet: Packet) -> Action:
        """What becomes of a packet."""
        for rule in self.rules:
            if rule.holds(packet):
                return rule.action
        return self.default

    def check_refused(self) -> None:
        """Raise `RulesError` where a rule was refused: leaving it out would change the others."""
        if not self.refused:
            return
        first, more = self.refused[0], len(self.refused) - 1
        others = f" (and {more} more)" if more else ""
        raise RulesError(
            first.where,
            f"{first.reason}{others}; without a rule others decide about its packets: "
            "--skip-unsupported leaves out such rules",
        )

    @cached_property
    def open(self) -> bool:
        """Whether a rule holds for packets of either IP version."""
        return any(rule.src == rule.dst == ANY_ADDRESS for rule in self.rules)


def combine(sets: Sequence[RuleSet]) -> RuleSet:
    """One rule set for all packets of those of one IP version each, or of one alone.

    What a rule set of one version says nothing about, packets of the other one, is its default's.
    """
    versions = [rules.version for rules in sets]
    if len(sets) == 1:
        return _alone(sets[0])
    if sorted(str(version) for version in versions) != ["4", "6"]:
        raise RulesError(
            Location(sets[1].file, 1, 1),
            "two rule sets must be one of IPv4 and one of IPv6, as of iptables-save and "
            "ip6tables-save",
        )
    rules = [_confined(rule, part.version) for part in sets for rule in part.rules]
    first, last = sets
    if first.default is not last.default:
        rules.append(_whole_version(first, first.version, first.default))
    return RuleSet(tuple(rules), last.default, first.refused + last.refused, None, first.file)


def _of_version(version: int | None) -> Ranges:
    return {4: ranges.IPV4, 6: ranges.IPV6, None: ANY_ADDRESS}[version]


def _confined(rule: Rule, version: int | None) -> Rule:
    """The same for packets of one version only."""
    if rule.src == rule.dst == ANY_ADDRESS:
        return replace(rule, src=_of_version(version))
    return rule


def _whole_version(part: RuleSet, version: int | None, action: Action) -> Rule:
    match = Match(src=_of_version(version))
    return Rule.of(match, action, Location(part.file, 1, 1), f"all of IPv{version}: {action}")


def _alone(part: RuleSet) -> RuleSet:
    """With a first rule for the other version, where a later one would take its packets.

    That costs a prefix or two; confining each open rule would cost it all of its version's.
    """
    if part.version is None or not part.open:
        return replace(part, version=None)
    guard = _whole_version(part, 10 - part.version, part.default)
    return replace(part, rules=(guard, *part.rules), version=None)
