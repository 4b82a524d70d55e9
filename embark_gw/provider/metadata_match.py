# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules for MetadataMatch, the classifier of our own dataplane, in a provider's daemon.

Its rules have a mask or a range per field. Gate 0 has what is accepted; what is denied is dropped.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import IPv6Network
from typing import Any, NamedTuple

from bess_plugins.client import BessError, Client
from embark_gw.provider.expand import Plain, expand
from embark_gw.rules import ranges
from embark_gw.rules.document import EncryptedRules
from embark_gw.rules.model import ANY_PORT, Action

__all__ = ["CLASS", "Applied", "WrongClassError", "apply", "config_of"]

CLASS = "MetadataMatch"
ACCEPT_GATE = 0
DROP_GATE = 8192
_GATES = {Action.ACCEPT: ACCEPT_GATE, Action.DENY: DROP_GATE}


class Applied(NamedTuple):
    """What was done."""

    created: bool
    rules: int  # that the module has


class WrongClassError(Exception):
    """The daemon has another module under this name."""


def config_of(document: EncryptedRules, most: int) -> dict[str, Any]:
    """What `set_runtime_config` takes; `ExpansionError` for more than `most` rules."""
    last = len(document.rules)
    rules: dict[str, dict[str, Any]] = {}
    for number, action, plain in expand(document, most):
        for terms in _alternatives(plain):
            rule = {"gate": _GATES[action], "priority": last - number, "terms": terms}
            rules.setdefault(repr(terms), rule)  # of equal ones the first decides
    return {"default_gate": _GATES[document.default], "rules": [*rules.values()]}


def apply(client: Client, name: str, document: EncryptedRules, most: int) -> Applied:
    """Load the rules into the module, replacing all that it has at once; make it where it isn't.

    Raises `WrongClassError`, `ExpansionError` or `BessError`; then nothing
    changed.
    """
    config = config_of(document, most)
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


def _alternatives(plain: Plain) -> Iterator[list[dict[str, Any]]]:
    """The terms of a rule; of several where a range of protocols is several masks."""
    terms: list[dict[str, Any]] = []
    for field, prefix in (("ip6.src", plain.src), ("ip6.dst", plain.dst)):
        if prefix is not None and (network := IPv6Network(prefix)).prefixlen > 0:
            value, mask = network.network_address.packed, network.netmask.packed
            terms.append({"field": field, "value_bin": value, "mask_bin": mask})
    ports = {"l4.sport": plain.sport, "l4.dport": plain.dport}
    if ANY_PORT[0] in ports.values():  # which only asks for a header that has ports
        ports = {field: pair for field, pair in ports.items() if pair != ANY_PORT[0]}
        if not any(ports.values()):
            ports = {"l4.sport": ANY_PORT[0]}
    for field, pair in ports.items():
        if pair is not None:
            terms.append({"field": field, "range": {"min": pair[0], "max": pair[1]}})
    terms.append({"field": "ip.version", "value": 6})
    if plain.protocols is None:
        yield terms
        return
    for number, length in ranges.prefixes(*plain.protocols, 8):
        bits = 0xFF << (8 - length) & 0xFF
        yield [*terms, {"field": "ip.proto", "value": number, "mask": bits}]
