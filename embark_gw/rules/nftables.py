# SPDX-License-Identifier: BSD-3-Clause
"""Rules as `nft -j list ruleset` prints them (libnftables-json(5)).

| taken | of |
|---|---|
| ip, ip6: saddr, daddr; ip protocol; meta l4proto | values, prefixes, ranges, sets; ==, != |
| tcp, udp, th: sport, dport | the same; with <, <=, >, >= too |
| meta nfproto, protocol | one version of IP; ==, != |
| accept, drop, reject, jump, return | reject denies like drop, without the answer |
| counter, comments | left aside: they decide nothing |

Everything else is refused, rule by rule. Packets of others go through the base chain at the hook
`forward`; another base chain is taken by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bess_plugins.sources import Location
from embark_gw.rules import ranges
from embark_gw.rules.chains import ChainRule, Return, flatten
from embark_gw.rules.lexing import protocol
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
from embark_gw.rules.nft_values import Values

__all__ = ["read_nftables"]

_VERSIONS = {"ip": 4, "ip6": 6, "inet": None}
_VERDICTS: dict[str, Action | Return] = {
    "accept": Action.ACCEPT,
    "drop": Action.DENY,
    "reject": Action.DENY,
    "return": Return.RETURN,
}
_SPACE = re.compile(r"[\s,]*")
_MAX_TEXT = 200


def read_nftables(text: str, file: str, chain: str = "") -> RuleSet:
    """The rules of the base chain at `forward`, or of one by its name, with its jumps."""
    items = list(_items(text, file))
    bases = [(item, where) for kind, item, where in items if kind == "chain" and _is_base(item)]
    wanted = [
        (item, where)
        for item, where in bases
        if (item.get("name") == chain if chain else item.get("hook") == "forward")
    ]
    if len(wanted) != 1:
        known = ", ".join(sorted({str(item.get("name")) for item, _ in bases})) or "none"
        what = f"called {chain}" if chain else "at the hook forward"
        where = wanted[1][1] if wanted else Location(file, 1, 1)
        how_many = "more than one base chain" if wanted else "no base chain"
        raise RulesError(where, f"there is {how_many} {what}; --chain names one of {known}")
    base, where = wanted[0]
    if base.get("family") not in _VERSIONS:
        raise RulesError(where, f"chain {base.get('name')} is of family {base.get('family')}")
    if base.get("policy", "accept") not in ("accept", "drop"):
        raise RulesError(where, f"'{base.get('policy')}' is no policy; expected accept or drop")
    default = Action.DENY if base.get("policy") == "drop" else Action.ACCEPT
    version = _VERSIONS[str(base["family"])]
    mine = [(kind, item, at) for kind, item, at in items if _same_table(item, base)]
    sets = {str(item.get("name")): item for kind, item, _ in mine if kind == "set"}
    chains: dict[str, list[ChainRule]] = {
        str(item.get("name")): [] for kind, item, _ in mine if kind == "chain"
    }
    for kind, item, at in mine:
        if kind == "rule" and item.get("chain") in chains:
            chains[str(item["chain"])].append(_rule(item, at, version, sets))
    found = flatten(chains, str(base.get("name")), default, version, file)
    others = _of_other_bases(items, base)
    everything = tuple(sorted([*found.refused, *others], key=lambda item: item.where))
    return RuleSet(found.rules, default, everything, version, file)


def _is_base(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "filter" and "hook" in item


def _same_table(item: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    return all(item.get(key) == base.get(key) for key in ("family", "table"))


def _of_other_bases(items: list[Any], base: Mapping[str, Any]) -> Iterator[Refused]:
    """Rules that change what comes to the chain, or are asked as well: NAT, prerouting, netdev."""
    hooks = {"prerouting", "postrouting", "ingress", "egress", "forward"}
    also = {
        tuple(item.get(key) for key in ("family", "table", "name")): item
        for kind, item, _ in items
        if kind == "chain" and item.get("hook") in hooks and item is not base
    }
    for kind, item, where in items:
        other = also.get(tuple(item.get(key) for key in ("family", "table", "chain")))
        if kind == "rule" and other is not None:
            reason = f"chain {other.get('name')} at {other.get('hook')} is asked besides"
            yield Refused(where, _text(item), f"{reason} {base.get('name')}")


def _items(text: str, file: str) -> Iterator[tuple[str, dict[str, Any], Location]]:
    """What is in the array "nftables", with its places, which json.loads() doesn't tell."""
    decoder = json.JSONDecoder()
    head = re.match(r'\s*\{\s*"nftables"\s*:\s*\[', text)
    if head is None:
        where = Location(file, 1, 1)
        raise RulesError(where, 'expected {"nftables": [...]}, as nft -j list ruleset prints it')
    at = _skip(text, head.end())
    while not text.startswith("]", at):
        where = _place(text, file, at)
        try:
            item, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise RulesError(_place(text, file, error.pos), error.msg) from None
        except RecursionError:
            raise RulesError(where, "this is nested too deeply") from None
        if not isinstance(item, dict) or len(item) != 1:
            raise RulesError(where, 'expected an object such as {"rule": {...}}')
        (kind, inner), *_ = item.items()
        if not isinstance(inner, dict):
            raise RulesError(where, f'expected an object as "{kind}"')
        yield kind, inner, where
        at = _skip(text, end)
    if not re.fullmatch(r"\]\s*\}\s*", text[at:]):
        raise RulesError(_place(text, file, at + 1), "expected the end of the file: it is cut")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _place(text: str, file: str, at: int) -> Location:
    return Location(file, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _text(item: Mapping[str, Any]) -> str:
    text = json.dumps(item.get("expr"))
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _rule(
    item: Mapping[str, Any], where: Location, version: int | None, sets: Mapping[str, Any]
) -> ChainRule:
    text = _text(item)
    statements = item.get("expr")
    try:
        if not isinstance(statements, list):
            raise ValueError('a rule has no list "expr"')
        rule = _Rule(Values(sets), version)
        for statement in statements:
            if not isinstance(statement, dict) or len(statement) != 1:
                raise ValueError(f"'{statement}' is no statement")
            (name, value), *_ = statement.items()
            rule.take(name, value)
        return ChainRule(where, text, [rule.match.checked()], rule.verdict())
    except RefusedError as error:
        return ChainRule(where, text, reason=str(error))
    except ValueError as error:
        raise RulesError(where, str(error)) from None


class _Rule:
    def __init__(self, values: Values, version: int | None) -> None:
        self.match = Match()
        self._values = values
        self._version = version
        self._does: Action | Return | str | None = None

    def take(self, name: str, value: Any) -> None:
        """One statement of a rule."""
        if self._does is not None:
            raise RefusedError(f"'{name}' stands behind the verdict")
        if name == "match":
            self._compare(value)
        elif name in _VERDICTS:
            self._does = _VERDICTS[name]
        elif name == "jump" and isinstance(value, dict) and isinstance(value.get("target"), str):
            self._does = value["target"]
        elif name not in ("counter", "comment"):
            raise RefusedError(f"'{name}' is neither a comparison nor accept, drop or jump")

    def verdict(self) -> Action | Return | str:
        """What it does."""
        if self._does is None:
            raise RefusedError("it decides nothing: there is no verdict")
        return self._does

    def _compare(self, match: Any) -> None:
        if not isinstance(match, dict) or not {"op", "left", "right"} <= match.keys():
            raise ValueError("a match needs op, left and right")
        left, operator, right = match["left"], match["op"], match["right"]
        if not isinstance(left, dict) or len(left) != 1:
            raise RefusedError(f"'{json.dumps(left)}' can't be compared")
        (kind, what), *_ = left.items()
        if not isinstance(what, dict):
            raise RefusedError(f"'{kind}' is not about addresses, ports or protocol")
        if kind == "payload":
            key = (what.get("protocol"), what.get("field"))
        else:
            key = (kind, what.get("key"))
        self.match = self.match.both(self._meaning(key, operator, right))

    def _meaning(self, key: tuple[Any, Any], operator: Any, right: Any) -> Match:
        layer, name = key
        values = self._values
        if layer in ("ip", "ip6") and name in ("saddr", "daddr"):
            version = 4 if layer == "ip" else 6
            whole = ranges.IPV4 if version == 4 else ranges.IPV6
            found = values.chosen(operator, right, whole, lambda v: values.address(v, version))
            if found == whole and self._version == version:
                return Match()
            return Match(src=found) if name == "saddr" else Match(dst=found)
        if layer in ("tcp", "udp", "th") and name in ("sport", "dport"):
            found = values.chosen(operator, right, ANY_PORT, lambda v: values.number(v, 65535, int))
            kinds = {"tcp": ((6, 6),), "udp": ((17, 17),), "th": ANY_PROTOCOL}[layer]
            return (
                Match(sport=found, protocols=kinds)
                if name == "sport"
                else Match(dport=found, protocols=kinds)
            )
        if key in (("meta", "l4proto"), ("ip", "protocol")):
            found = values.chosen(
                operator, right, ANY_PROTOCOL, lambda v: values.number(v, 255, protocol)
            )
            if layer == "ip" and self._version is None:
                return Match(src=ranges.IPV4, protocols=found)
            return Match(protocols=found)
        if key in (("meta", "nfproto"), ("meta", "protocol")) and operator in ("==", "!="):
            return self._of_version(str(right), operator == "!=")
        raise RefusedError(f"'{layer} {name}' is not about addresses, ports or protocol")

    def _of_version(self, name: str, negated: bool) -> Match:
        names = {"ipv4": 4, "ip": 4, "ipv6": 6, "ip6": 6}
        if name not in names:
            raise RefusedError(f"'{name}' is no version of IP")
        version = 10 - names[name] if negated else names[name]
        if self._version is not None:
            return Match() if version == self._version else Match(src=())
        return Match(src=ranges.IPV4 if version == 4 else ranges.IPV6)
