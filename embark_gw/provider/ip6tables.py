# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted rules for the kernel's firewall, as `ip6tables-restore` reads them.

It has no sets: each rule becomes as many as its sets have parts, multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator

from embark_gw.provider.expand import Plain, expand
from embark_gw.rules.document import EncryptedRules
from embark_gw.rules.model import Action

__all__ = ["render_ip6tables"]

_TARGETS = {Action.ACCEPT: "ACCEPT", Action.DENY: "DROP"}
_PORT_MATCHES = {6: "tcp", 17: "udp"}


def render_ip6tables(document: EncryptedRules, most: int) -> str:
    """The table `filter`; `ExpansionError` where it would have more than `most` rules."""
    lines = ["*filter", ":INPUT ACCEPT", f":FORWARD {_TARGETS[document.default]}", ":OUTPUT ACCEPT"]
    for _, action, plain in expand(document, most):
        lines += [f"-A FORWARD {words}-j {_TARGETS[action]}" for words in _matches(plain)]
    return "\n".join([*lines, "COMMIT"]) + "\n"


def _matches(plain: Plain) -> Iterator[str]:
    """One for each protocol number; one for all of them."""
    addresses = "".join(
        f"{option} {prefix} "
        for option, prefix in (("-s", plain.src), ("-d", plain.dst))
        if prefix is not None
    )
    if plain.protocols is None:
        yield addresses
        return
    first, last = plain.protocols
    for number in range(first, last + 1):
        yield f"{addresses}-p {number} {_ports(plain, number)}"


def _ports(plain: Plain, protocol: int) -> str:
    words = "".join(
        f"{option} {pair[0]}:{pair[1]} "
        for option, pair in (("--sport", plain.sport), ("--dport", plain.dport))
        if pair is not None
    )
    return f"-m {_PORT_MATCHES[protocol]} {words}" if words else ""
