# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules for the kernel's firewall, as `nft -f` reads them: its sets are ours.

The text replaces the table as a whole in one transaction. Fields are compared behind all extension
headers, and only in packets that have them.
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
    for rule in document.rules:
        yield f"    {_rule(rule)}"
    yield "  }"
    yield "}"


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
