# SPDX-License-Identifier: BSD-3-Clause
"""Rules of Snort and Suricata that only name addresses and ports, such as lists of bad hosts.

    alert ip [192.0.2.1,198.51.100.0/24] any -> $HOME_NET any (msg:"..."; sid:1; rev:1;)

What they alert on is denied, and the rest accepted. Rules that look into packets or remember flows
are refused; so are variables that aren't given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from bess_plugins.sources import Location
from embark_gw.rules import ranges
from embark_gw.rules.lexing import malformed
from embark_gw.rules.model import (
    ANY_ADDRESS,
    ANY_PORT,
    Action,
    Match,
    Refused,
    RefusedError,
    Rule,
    RulesError,
    RuleSet,
)
from embark_gw.rules.ranges import Ranges

__all__ = ["read_snort"]

_HEADER = re.compile(
    r"(?P<action>[a-z]+)\s+(?P<protocol>[\w-]+)\s+(?P<src>\S+)\s+(?P<sport>\S+)\s+"
    r"(?P<way>->|<>)\s+(?P<dst>\S+)\s+(?P<dport>\S+)\s*\((?P<options>.*)\)\s*"
)
_OPTION = re.compile(r'\s*([\w.-]+)\s*(?::((?:[^;"\\]|\\.|"(?:[^"\\]|\\.)*")*))?;')
# What describes a rule, or says how often it alerts.
_SILENT = {"msg", "reference", "classtype", "sid", "rev", "gid", "priority", "metadata"}
_SILENT |= {"threshold", "target"}
_DENY = {"alert", "drop", "reject"}
_PROTOCOLS: dict[str, Ranges] = {
    "ip": ((0, 255),),
    "tcp": ((6, 6),),
    "udp": ((17, 17),),
    "icmp": ((1, 1), (58, 58)),
}
_MAX_DEPTH = 8  # of brackets


def read_snort(text: str, file: str, nets: Mapping[str, str]) -> RuleSet:
    """A file of rules; `nets` has what variables such as HOME_NET stand for."""
    rules: list[Rule] = []
    refused: list[Refused] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = Location(file, number, 1)
        found = _HEADER.fullmatch(line.strip())
        if found is None:
            raise RulesError(
                where, "this is no rule of Snort: ACTION PROTOCOL SRC PORT -> DST PORT (OPTIONS)"
            )
        known = _options(found["options"], Location(file, number, line.index("(") + 1))
        name = _name(known, found[0])
        try:
            with malformed(where):
                for match in _matches(found, known, nets):
                    rules.append(Rule.of(match, Action.DENY, where, name))
        except RefusedError as error:
            refused.append(Refused(where, name, str(error)))
    return RuleSet(tuple(rules), Action.ACCEPT, tuple(refused), file=file)


def _options(text: str, where: Location) -> dict[str, str]:
    known: dict[str, str] = {}
    at = 0
    while at < len(text.rstrip()):
        found = _OPTION.match(text, at)
        if found is None:
            raise RulesError(
                Location(where.file, where.line, where.column + at + 1),
                "this is no option such as sid:1;",
            )
        known[found[1]] = (found[2] or "").strip()
        at = found.end()
    return known


def _name(known: Mapping[str, str], text: str) -> str:
    return f"sid {known['sid']}: {known.get('msg', '')}" if "sid" in known else text[:100]


def _matches(
    found: re.Match[str], known: Mapping[str, str], nets: Mapping[str, str]
) -> Iterator[Match]:
    if found["action"] not in _DENY:
        raise RefusedError(f"action {found['action']} is none of {', '.join(sorted(_DENY))}")
    for option, value in known.items():
        remembers = option == "flowbits" and value.split(",")[0].strip() in ("set", "noalert")
        if option not in _SILENT and not remembers:
            raise RefusedError(f"option {option} looks into packets or flows")
    if found["protocol"] not in _PROTOCOLS:
        raise RefusedError(f"protocol {found['protocol']} is found by looking into packets")
    src, dst = (_Reader(nets).addresses(found[name]) for name in ("src", "dst"))
    sport, dport = (_Reader(nets).ports(found[name]) for name in ("sport", "dport"))
    protocols = _PROTOCOLS[found["protocol"]]
    yield Match(src=src, dst=dst, sport=sport, dport=dport, protocols=protocols).checked()
    if found["way"] == "<>":
        back = Match(src=dst, dst=src, sport=dport, dport=sport, protocols=protocols)
        yield back.checked()


class _Item(NamedTuple):
    text: str
    negated: bool


class _Reader:
    """Lists in brackets, with ! and variables; what is negated is taken out of the rest."""

    def __init__(self, nets: Mapping[str, str]) -> None:
        self._nets = nets
        self._depth = 0

    def addresses(self, text: str) -> Ranges:
        """Addresses; every one for `any`."""
        if text == "any":
            return ANY_ADDRESS
        return self._list(text, ANY_ADDRESS, self._network)

    def ports(self, text: str) -> Ranges | None:
        """Ports; None for `any`."""
        if text == "any":
            return None
        return self._list(text, ANY_PORT, lambda item: (ranges.ends(item, 65535),))

    @staticmethod
    def _network(text: str) -> Ranges:
        return (ranges.of_network(ranges.read_network(text)),)

    def _list(self, text: str, whole: Ranges, read: Callable[[str], Ranges]) -> Ranges:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise RefusedError("lists and variables in each other lead too deep")
        items = list(self._items(text))
        plain = [self._one(item.text, whole, read) for item in items if not item.negated]
        negated = [self._one(item.text, whole, read) for item in items if item.negated]
        self._depth -= 1
        found = ranges.join(pair for part in plain for pair in part) if plain else whole
        return ranges.subtract(found, ranges.join(pair for part in negated for pair in part))

    def _one(self, text: str, whole: Ranges, read: Callable[[str], Ranges]) -> Ranges:
        if text.startswith("$"):
            if text[1:] not in self._nets:
                raise RefusedError(f"variable {text} isn't known; --net {text[1:]}=... tells it")
            text = self._nets[text[1:]]
        if text == "any":
            return whole
        if text.startswith(("[", "!", "$")) or "," in text:
            return self._list(text, whole, read)
        return read(text)

    @staticmethod
    def _items(text: str) -> Iterator[_Item]:
        """The parts of a list that commas outside of inner brackets part."""
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        depth, start = 0, 0
        for at, letter in enumerate(inner + ","):
            depth += (letter == "[") - (letter == "]")
            if depth < 0:
                break
            if letter == "," and depth == 0:
                item = inner[start:at].strip()
                yield _Item(item.removeprefix("!"), item.startswith("!"))
                start = at + 1
        if depth != 0:
            raise ValueError(f"brackets of '{text}' don't match")
