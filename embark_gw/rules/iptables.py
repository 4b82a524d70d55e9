# SPDX-License-Identifier: BSD-3-Clause
"""Rules as iptables-save and ip6tables-save print them.

| taken | of |
|---|---|
| -s, -d, -p | addresses, protocols; with ! |
| -m tcp, udp: --sport, --dport | ports and ranges; with ! |
| -m multiport: --sports, --dports, --ports | lists of them; with ! |
| -m iprange: --src-range, --dst-range | addresses from to; with ! |
| -m comment | left aside: it decides nothing |
| -j ACCEPT, DROP, REJECT, RETURN, a chain | REJECT denies like DROP, without the answer |

Everything else is refused, rule by rule. Only the table `filter` can be taken; of its chains one
(FORWARD, through which packets of others go) and those that it jumps to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from bess_plugins.sources import Location
from embark_gw.rules import ranges
from embark_gw.rules.chains import ChainRule, Return, flatten
from embark_gw.rules.lexing import Word, addresses, malformed, protocol, words
from embark_gw.rules.model import (
    ANY_PORT,
    ANY_PROTOCOL,
    Action,
    Match,
    Refused,
    RefusedError,
    RulesError,
    RuleSet,
)
from embark_gw.rules.ranges import Ranges

__all__ = ["read_iptables"]

_COUNTERS = re.compile(r"\[\d+:\d+\]")
_TARGETS: dict[str, Action | Return] = {
    "ACCEPT": Action.ACCEPT,
    "DROP": Action.DENY,
    "REJECT": Action.DENY,
    "RETURN": Return.RETURN,
}
# Extensions that the kernel or iptables brings; any other target is a chain.
_OTHER_TARGETS = {
    *("AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DNAT", "DNPT", "DSCP"),
    *("ECN", "HL", "HMARK", "IDLETIMER", "LED", "LOG", "MARK", "MASQUERADE", "NETMAP", "NFLOG"),
    *("NFQUEUE", "NOTRACK", "QUEUE", "RATEEST", "REDIRECT", "SECMARK", "SET", "SNAT", "SNPT"),
    *("SYNPROXY", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TPROXY", "TRACE", "TTL", "ULOG"),
}
_ADDRESSES = {"-s": "src", "--source": "src", "-d": "dst", "--destination": "dst"}
_RANGES = {"--src-range": "src", "--dst-range": "dst"}
_PORT = {
    "--sport": "sport",
    "--source-port": "sport",
    "--dport": "dport",
    "--destination-port": "dport",
}
_PORTS = {
    "--sports": "sport",
    "--source-ports": "sport",
    "--dports": "dport",
    "--destination-ports": "dport",
}
_MATCHES = {"tcp", "udp", "multiport", "iprange", "comment"}


def read_iptables(text: str, file: str, chain: str = "FORWARD", version: int = 4) -> RuleSet:
    """The rules of one chain of the table `filter`, with those that it jumps to."""
    tables = _read(text, file, version)
    table = tables.get("filter", _Table())
    refused = [
        Refused(rule.where, rule.text, f"table {name}: packets are filtered in the table filter")
        for name, other in tables.items()
        if name != "filter"
        for rules in other.chains.values()
        for rule in rules
    ]
    if chain not in table.policies:
        known = ", ".join(name for name, policy in table.policies.items() if policy) or "none"
        raise RulesError(
            Location(file, 1, 1),
            f"there is no chain {chain} with a policy in the table filter; expected one of {known}",
        )
    policy = table.policies[chain]
    if policy is None:
        raise RulesError(table.places[chain], f"{chain} is no chain that packets begin in")
    busy = [name for name, of in table.policies.items() if of and table.chains[name]]
    if busy and chain not in busy and policy is Action.ACCEPT:
        raise RulesError(
            table.places[chain], f"{chain} has no rules, and {busy[0]} has: --chain {busy[0]}?"
        )
    found = flatten(table.chains, chain, policy, version, file)
    everything = tuple(sorted([*refused, *found.refused], key=lambda item: item.where))
    return RuleSet(found.rules, found.default, everything, version, file)


@dataclass
class _Table:
    policies: dict[str, Action | None] = field(default_factory=dict)  # None: a user's chain
    places: dict[str, Location] = field(default_factory=dict)
    chains: dict[str, list[ChainRule]] = field(default_factory=dict)


def _read(text: str, file: str, version: int) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    table: _Table | None = None
    for number, line in enumerate(text.split("\n"), 1):
        found = list(words(line, file, number)) if line.strip()[:1] != "#" else []
        if not found:
            continue
        first, where = found[0]
        if _COUNTERS.fullmatch(first) and len(found) > 1:
            first, where = found.pop(0)[0], found[0].where
            first = found[0].text
        if first.startswith("*") and len(found) == 1:
            table = tables.setdefault(first[1:], _Table())
        elif first == "COMMIT" and table is not None:
            table = None
        elif table is None:
            raise RulesError(where, f"'{first}' outside of a table; expected *filter or the like")
        elif first.startswith(":") and len(found) >= 2:
            _add_chain(table, first[1:], found[1])
        elif first == "-A" and len(found) >= 2:
            if found[1].text not in table.chains:
                raise RulesError(found[1].where, f"there is no chain {found[1].text}")
            rule = _rule(found[2:], Location(file, number, 1), line.strip(), version)
            table.chains[found[1].text].append(rule)
        else:
            raise RulesError(where, f"'{first}': expected *TABLE, :CHAIN POLICY, -A CHAIN, COMMIT")
    if table is not None:
        raise RulesError(Location(file, number, 1), "the file ends before COMMIT: it is cut")
    return tables


def _add_chain(table: _Table, name: str, policy: Word) -> None:
    policies = {"ACCEPT": Action.ACCEPT, "DROP": Action.DENY, "-": None}
    if policy.text not in policies:
        raise RulesError(policy.where, f"'{policy.text}' is no policy; expected ACCEPT, DROP or -")
    table.policies[name] = policies[policy.text]
    table.places[name] = policy.where
    table.chains[name] = []


def _rule(found: list[Word], where: Location, text: str, version: int) -> ChainRule:
    rule = _Rule(version)
    reader = _Reader(found, where)
    try:
        for option in reader:
            rule.take(option, reader)
        return ChainRule(where, text, rule.matches(), rule.verdict())
    except RefusedError as error:
        return ChainRule(where, text, reason=str(error))


class _Reader:
    """The options of a rule, one after the other, and whether ! is before one."""

    def __init__(self, found: list[Word], where: Location) -> None:
        self._left = found[::-1]
        self._where = where
        self.negated = False

    def __iter__(self) -> Iterator[Word]:
        while self._left:
            word = self._left.pop()
            self.negated = word.text == "!"
            yield self.value(word) if self.negated else word

    def value(self, option: Word) -> Word:
        """What stands behind an option."""
        if not self._left:
            raise RulesError(option.where, f"'{option.text}' has nothing behind it")
        return self._left.pop()


class _Rule:
    def __init__(self, version: int) -> None:
        self._version = version
        self._match = Match()
        self._either: Match | None = None  # --ports: of the source, or of the destination
        self._does: str | None = None

    def take(self, option: Word, reader: _Reader) -> None:
        """One option with what belongs to it."""
        name, where = option
        negated = reader.negated
        if name in _ADDRESSES:
            self._address(_ADDRESSES[name], reader.value(option), negated)
        elif name in _RANGES:
            self._address_range(_RANGES[name], reader.value(option), negated)
        elif name in ("-p", "--protocol"):
            value = reader.value(option)
            with malformed(value.where):
                number = None if value.text == "all" else protocol(value.text)
            one: Ranges = ANY_PROTOCOL if number is None else ((number, number),)
            self._narrow(protocols=ranges.subtract(ANY_PROTOCOL, one) if negated else one)
        elif name in ("-m", "--match"):
            self._extension(reader.value(option).text)
        elif name in _PORT or name in _PORTS or name == "--ports":
            self._ports(name, reader.value(option), negated)
        elif name == "--comment":
            reader.value(option)
        elif name in ("-j", "--jump"):
            self._does = reader.value(option).text
            if self._does in _OTHER_TARGETS:
                raise RefusedError(f"target {self._does} neither accepts nor denies")
        elif name == "--reject-with" and self._does == "REJECT":
            reader.value(option)
        elif name.startswith("-"):
            raise RefusedError(f"{name} is not about addresses, ports or protocol")
        else:
            raise RulesError(where, f"'{name}' belongs to no option")

    def _narrow(self, **values: Ranges) -> None:
        self._match = self._match.both(Match(**values))

    def _extension(self, name: str) -> None:
        if name not in _MATCHES:
            raise RefusedError(f"match {name} is not about addresses, ports or protocol")
        if name in ("tcp", "udp"):  # which packets without ports do not match
            self._narrow(sport=ANY_PORT)

    def _address(self, name: str, value: Word, negated: bool) -> None:
        if re.fullmatch(r"[\d.]+/[\d.]*\.[\d.]*|[\da-fA-F:]+/[\da-fA-F:]*:[\da-fA-F:.]*", value[0]):
            self._masked(name, value, negated)
            return
        with malformed(value.where):
            found = [addresses(part, self._version) for part in value.text.split(",")]
        self._set_address(name, ranges.join(pair for part in found for pair in part), negated)

    def _masked(self, name: str, value: Word, negated: bool) -> None:
        """An address with a mask that iptables-save does not print as a length."""
        try:
            found = addresses(value.text, self._version)
        except ValueError:
            raise RefusedError(f"{value.text} has a mask that is no prefix") from None
        self._set_address(name, found, negated)

    def _address_range(self, name: str, value: Word, negated: bool) -> None:
        low, dash, high = value.text.partition("-")
        with malformed(value.where):
            if not dash:
                raise ValueError(f"'{value.text}' is no range FIRST-LAST")
            first, last = ip_address(low), ip_address(high)
            if (first.version, last.version) != (self._version,) * 2 or int(first) > int(last):
                raise ValueError(f"'{value.text}' is no range of IPv{self._version}")
        base = ranges.mapped(0) if self._version == 4 else 0
        self._set_address(name, ((base + int(first), base + int(last)),), negated)

    def _set_address(self, name: str, found: Ranges, negated: bool) -> None:
        if negated:
            whole = ranges.IPV4 if self._version == 4 else ranges.IPV6
            found = ranges.subtract(whole, found)
        self._narrow(**{name: found})

    def _ports(self, name: str, value: Word, negated: bool) -> None:
        with malformed(value.where):
            parts = [value.text] if name in _PORT else value.text.split(",")
            found = ranges.join(ranges.ends(part, 65535) for part in parts)
        if negated:
            found = ranges.subtract(ANY_PORT, found)
        if name != "--ports":
            self._narrow(**{(_PORT | _PORTS)[name]: found})
        elif negated:
            self._narrow(sport=found, dport=found)
        else:
            self._either = Match(sport=found, dport=found)

    def matches(self) -> list[Match]:
        """Of which a packet must be in one."""
        either = self._either
        if either is None:
            found = [self._match]
        else:
            sides = (Match(sport=either.sport), Match(dport=either.dport))
            found = [self._match.both(side) for side in sides]
        return [match.checked() for match in found]

    def verdict(self) -> Action | Return | str:
        """What it does."""
        if self._does is None:
            raise RefusedError("it decides nothing: there is no -j")
        return _TARGETS.get(self._does, self._does)
