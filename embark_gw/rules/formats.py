# SPDX-License-Identifier: BSD-3-Clause
"""Files of rules, by the program that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from bess_plugins.sources import Location, read_source
from embark_gw.rules.classbench import read_classbench
from embark_gw.rules.iptables import read_iptables
from embark_gw.rules.lists import read_list
from embark_gw.rules.model import RulesError, RuleSet, combine
from embark_gw.rules.nftables import read_nftables
from embark_gw.rules.snort import read_snort

__all__ = ["Format", "parse_rules", "read_rules"]


class Format(StrEnum):
    """What rules are written in."""

    IPTABLES = "iptables"
    IP6TABLES = "ip6tables"
    NFTABLES = "nftables"
    CLASSBENCH = "classbench"
    CLASSBENCH_5TUPLE = "classbench-5tuple"
    LIST = "list"
    SNORT = "snort"


def parse_rules(
    text: str, file: str, kind: Format, chain: str = "", nets: Mapping[str, str] | None = None
) -> RuleSet:
    """The rules of a text, about packets of its own IP version; `RulesError` where it is wrong."""
    if chain and kind not in (Format.IPTABLES, Format.IP6TABLES, Format.NFTABLES):
        raise RulesError(Location(file, 1, 1), f"rules of {kind} have no chains; remove --chain")
    if nets and kind is not Format.SNORT:
        raise RulesError(Location(file, 1, 1), f"rules of {kind} have no variables; remove --net")
    match kind:
        case Format.IPTABLES:
            return read_iptables(text, file, chain or "FORWARD", 4)
        case Format.IP6TABLES:
            return read_iptables(text, file, chain or "FORWARD", 6)
        case Format.NFTABLES:
            return read_nftables(text, file, chain)
        case Format.CLASSBENCH | Format.CLASSBENCH_5TUPLE:
            return read_classbench(text, file, kind is Format.CLASSBENCH_5TUPLE)
        case Format.LIST:
            return read_list(text, file)
        case Format.SNORT:
            return read_snort(text, file, nets or {})


def read_rules(
    paths: Sequence[Path], kind: Format, chain: str = "", nets: Mapping[str, str] | None = None
) -> RuleSet:
    """One rule set for all packets.

    The second of two files is the other IP version's: with `iptables` what ip6tables-save printed,
    with `ip6tables` what iptables-save did.
    """
    kinds = {Format.IPTABLES: Format.IP6TABLES, Format.IP6TABLES: Format.IPTABLES}
    if len(paths) > 1 and (kind not in kinds or len(paths) > 2):
        where = Location(str(paths[1]), 1, 1)
        raise RulesError(
            where, "only iptables-save has a second file beside it, that of ip6tables-save"
        )
    in_order = (kind, kinds.get(kind, kind))
    return combine(
        [
            parse_rules(read_source(path, RulesError), str(path), one, chain, nets)
            for path, one in zip(paths, in_order, strict=False)
        ]
    )
