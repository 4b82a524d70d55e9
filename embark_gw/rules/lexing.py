# SPDX-License-Identifier: BSD-3-Clause
"""Words of a line with their columns, and names of protocols."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from bess_plugins.sources import Location
from embark_gw.rules import ranges
from embark_gw.rules.model import ANY_ADDRESS, RulesError
from embark_gw.rules.ranges import Ranges

__all__ = ["PROTOCOLS", "Word", "addresses", "malformed", "protocol", "words"]

# As /etc/protocols has them; where a rule set was written needn't be where it is read.
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "ospf": 89,
    "pim": 103,
    "comp": 108,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "mobility-header": 135,
    "mh": 135,
    "udplite": 136,
}
_WORD = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<open>")|\S+')


class Word(NamedTuple):
    """A word, without its quotes, and where it stands."""

    text: str
    where: Location


def words(line: str, file: str, number: int) -> Iterator[Word]:
    """The words of a line; double quotes hold one together."""
    for found in _WORD.finditer(line):
        where = Location(file, number, found.start() + 1)
        if found["open"]:
            raise RulesError(where, "this quote is never closed")
        quoted = found["quoted"]
        text = found[0] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        yield Word(text, where)


@contextmanager
def malformed(where: Location) -> Iterator[None]:
    """Turn a `ValueError` into one of the file."""
    try:
        yield
    except ValueError as error:
        raise RulesError(where, str(error)) from None


def protocol(text: str) -> int:
    """The number of a protocol."""
    if text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= 255:
        return int(text)
    if text.lower() not in PROTOCOLS:
        raise ValueError(f"'{text}' is no protocol that is known here, and no number up to 255")
    return PROTOCOLS[text.lower()]


def addresses(text: str, version: int) -> Ranges:
    """An address or a prefix of an IP version; everything where it has no bits."""
    network = ranges.read_network(text)
    if network.version != version:
        raise ValueError(f"'{text}' is of IPv{network.version}, and the rules are of IPv{version}")
    return ANY_ADDRESS if network.prefixlen == 0 else (ranges.of_network(network),)
