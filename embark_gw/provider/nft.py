# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules for the kernel's firewall, as `nft -f` reads them: its sets are ours.

The text replaces the table as a whole in one transaction. Pieces of a datagram behind its first one
have no ports, but kernels do compare what is there instead: such pieces have a chain of their own,
with all rules that ask for none.
"""

from __future__ import annotations

from collections.abc import Iterator

from embark_gw.rules.document import (
    ADDRESS_FIELDS,
    FIELDS,
    PORT_FIELDS,
    EncryptedRule,
    EncryptedRules,
)
from embark_gw.rules.model import Action

__all__ = ["TABLE", "render_nft"]

TABLE = "embark"
_VERDICTS = {Action.ACCEPT: "accept", Action.DENY: "drop"}
_NAMES = {"src": "ip6 saddr", "dst": "ip6 daddr", "sport": "th sport", "dport": "th dport"}


def render_nft(document: EncryptedRules) -> str:
    """A table with a chain of all packets that are forwarded."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: EncryptedRules) -> Iterator[str]:
    yield f"table ip6 {TABLE}"
    yield f"delete table ip6 {TABLE}"
    yield f"table ip6 {TABLE} {{"
    for name in FIELDS:
        kind = "ipv6_addr" if name in ADDRESS_FIELDS else "inet_service"
        for number, parts in enumerate(getattr(document.sets, name)):
            elements = ", ".join(map(_element, parts))
            yield f"  set {name}{number} {{"
            yield f"    type {kind}; flags interval;"
            yield f"    elements = {{ {elements} }}"
            yield "  }"
    yield "  chain forward {"
    policy = _VERDICTS[document.default]
    yield f"    type filter hook forward priority filter; policy {policy};"
    yield "    frag frag-off != 0 goto pieces"
    yield from (f"    {_rule(rule)}" for rule in document.rules)
    yield "  }"
    yield "  chain pieces {"
    yield from (f"    {_rule(rule)}" for rule in document.rules if not _has_ports(rule))
    yield "  }"
    yield "}"


def _has_ports(rule: EncryptedRule) -> bool:
    return rule.sport is not None or rule.dport is not None


def _element(part: str | tuple[int, int]) -> str:
    if isinstance(part, str):
        return part
    first, last = part
    return str(first) if first == last else f"{first}-{last}"


def _rule(rule: EncryptedRule) -> str:
    words = []
    if rule.protocols is not None:
        numbers = ", ".join(map(_element, rule.protocols))
        words.append(f"meta l4proto {{ {numbers} }}")
    for name in (*ADDRESS_FIELDS, *PORT_FIELDS):
        index = getattr(rule, name)
        if index is not None:
            words.append(f"{_NAMES[name]} @{name}{index}")
    return " ".join([*words, "counter", _VERDICTS[rule.action]])
