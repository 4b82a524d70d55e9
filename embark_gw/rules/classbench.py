# SPDX-License-Identifier: BSD-3-Clause
"""ClassBench's filter sets (Taylor and Turner, INFOCOM 2005), the first rule being the best.

    @SRC/LEN DST/LEN SPORT : SPORT DPORT : DPORT 0xPROTOCOL/0xMASK [0xFLAGS/0xMASK]

They have no actions: rules accept or deny in turn, so that order matters, and the rest is denied.
Rules that ask for TCP flags or a type of ICMP are refused, unless that column is to be left aside,
as papers on packet classification do.
"""

from __future__ import annotations

import re

from bess_plugins.sources import Location
from embark_gw.rules import ranges
from embark_gw.rules.lexing import addresses, malformed
from embark_gw.rules.model import (
    ANY_PORT,
    ANY_PROTOCOL,
    Action,
    Match,
    Refused,
    RefusedError,
    Rule,
    RulesError,
    RuleSet,
)

__all__ = ["read_classbench"]

_LINE = re.compile(
    r"@(?P<src>[\d.]+/\d+)\s+(?P<dst>[\d.]+/\d+)"
    r"\s+(?P<sport>\d+\s*:\s*\d+)\s+(?P<dport>\d+\s*:\s*\d+)"
    r"\s+0x(?P<protocol>[\da-fA-F]{1,2})/0x(?P<mask>[\da-fA-F]{1,2})"
    r"(?:\s+0x[\da-fA-F]{1,4}/0x(?P<flags>[\da-fA-F]{1,4}))?\s*"
)


def read_classbench(text: str, file: str, five_tuple: bool = False) -> RuleSet:
    """A filter set; with `five_tuple` the column of flags is left aside."""
    rules: list[Rule] = []
    refused: list[Refused] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = Location(file, number, 1)
        found = _LINE.fullmatch(line)
        if found is None:
            example = "@10.0.0.0/8 0.0.0.0/0 0 : 65535 80 : 80 0x06/0xFF"
            raise RulesError(where, f"this is no rule of ClassBench, such as {example}")
        action = Action.DENY if (len(rules) + len(refused)) % 2 else Action.ACCEPT
        text_of_rule = " ".join(line.split())
        try:
            match = _match(found, where, five_tuple).checked()
            rules.append(Rule.of(match, action, where, text_of_rule))
        except RefusedError as error:
            refused.append(Refused(where, text_of_rule, str(error)))
    return RuleSet(tuple(rules), Action.DENY, tuple(refused), 4, file)


def _match(found: re.Match[str], where: Location, five_tuple: bool) -> Match:
    with malformed(where):
        src, dst = (addresses(found[name], 4) for name in ("src", "dst"))
        ports = []
        for name in ("sport", "dport"):
            pair = (ranges.ends("".join(found[name].split()), 65535),)
            ports.append(None if pair == ANY_PORT else pair)
    protocol, mask = int(found["protocol"], 16), int(found["mask"], 16)
    if int(found["flags"] or "0", 16) and not five_tuple:
        raise RefusedError("it asks for TCP flags or an ICMP type, which are not in the 5-tuple")
    protocols = ranges.join((n, n) for n in range(256) if n & mask == protocol & mask)
    if not mask:
        protocols = ANY_PROTOCOL
    return Match(src=src, dst=dst, sport=ports[0], dport=ports[1], protocols=protocols)
