# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules for MetadataMatch, the classifier of our own dataplane, in a provider's daemon.

Sets and rules are as many there as here. Gate 0 has what is accepted; what is denied is dropped.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Network
from typing import Any, NamedTuple

from bess_plugins.client import BessError, Client
from embark_gw.rules.document import ADDRESS_FIELDS, FIELDS, EncryptedRule, EncryptedRules
from embark_gw.rules.model import Action

__all__ = ["CLASS", "Applied", "WrongClassError", "apply", "config_of"]

CLASS = "MetadataMatch"
ACCEPT_GATE = 0
DROP_GATE = 8192
_GATES = {Action.ACCEPT: ACCEPT_GATE, Action.DENY: DROP_GATE}
_FIELDS = {"src": "ip6.src", "dst": "ip6.dst", "sport": "l4.sport", "dport": "l4.dport"}
_PROTOCOL = "ip.proto"

Protocols = Sequence[tuple[int, int]]


class Applied(NamedTuple):
    """What was done."""

    created: bool
    rules: int  # that the module has


class WrongClassError(Exception):
    """The daemon has another module under this name."""


def config_of(document: EncryptedRules) -> dict[str, Any]:
    """What `set_runtime_config` takes."""
    last = len(document.rules)
    rules: dict[str, dict[str, Any]] = {}
    for number, rule in enumerate(document.rules):
        if _can_match(document, rule):
            terms = [*_terms(rule)]
            made = {"gate": _GATES[rule.action], "priority": last - number, "terms": terms}
            rules.setdefault(repr(terms), made)  # of equal ones the first decides
    sets = [*_field_sets(document), *_protocol_sets(document)]
    return {"default_gate": _GATES[document.default], "sets": sets, "rules": [*rules.values()]}


def apply(client: Client, name: str, document: EncryptedRules) -> Applied:
    """Load the rules into the module, replacing all that it has at once; make it where it isn't.

    Raises `WrongClassError` or `BessError`; then nothing changed.
    """
    config = config_of(document)
    try:
        found = client.module_info(name)["mclass"]
    except BessError as error:
        if error.code != errno.ENOENT:
            raise
        client.create_module(CLASS, name, **config)
        return Applied(True, len(config["rules"]))
    if found != CLASS:
        raise WrongClassError(f"module {name} is a {found}; rules are for a {CLASS}")
    client.run_module_command(name, "set_runtime_config", "MetadataMatchConfig", config)
    return Applied(False, len(config["rules"]))


def _field_sets(document: EncryptedRules) -> Iterator[dict[str, Any]]:
    for name in FIELDS:
        for number, parts in enumerate(getattr(document.sets, name)):
            if parts:
                ranges = [
                    _address_range(one) if name in ADDRESS_FIELDS else _range(*one) for one in parts
                ]
                yield {"name": f"{name}{number}", "field": _FIELDS[name], "ranges": ranges}


def _protocol_sets(document: EncryptedRules) -> Iterator[dict[str, Any]]:
    found = {_protocols_name(one): one for rule in document.rules if (one := rule.protocols)}
    for name, protocols in found.items():
        yield {"name": name, "field": _PROTOCOL, "ranges": [_range(*pair) for pair in protocols]}


def _terms(rule: EncryptedRule) -> Iterator[dict[str, Any]]:
    yield {"field": "ip.version", "value": 6}
    for name, field in _FIELDS.items():
        index = getattr(rule, name)
        if index is not None:
            yield {"field": field, "set": f"{name}{index}"}
    if rule.protocols is not None:
        yield {"field": _PROTOCOL, "set": _protocols_name(rule.protocols)}


def _can_match(document: EncryptedRules, rule: EncryptedRule) -> bool:
    sets = (
        getattr(document.sets, name)[index]
        for name in FIELDS
        if (index := getattr(rule, name)) is not None
    )
    return all(sets) and rule.protocols != []


def _protocols_name(protocols: Protocols) -> str:
    return "proto" + ",".join(f"{first}-{last}" for first, last in protocols)


def _address_range(prefix: str) -> dict[str, bytes]:
    network = IPv6Network(prefix)
    return {"min_bin": network.network_address.packed, "max_bin": network.broadcast_address.packed}


def _range(first: int, last: int) -> dict[str, int]:
    return {"min": first, "max": last}
