# SPDX-License-Identifier: BSD-3-Clause
"""Tables of Embark's evaluation, with the dissertation's figures and what we aim at beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.table import Table

from anchors import GATEWAY_MPPS, PREFIX_MATCH_KB, TABLE_42_US

__all__ = ["tables"]

MODES = ("redirection", "headers", "headers and payload", "there and back")
THEIR_TRACES_GBPS, THEIR_FULL_GBPS, AIM_GBPS = 9.6, 9.8, 10.0
THEIR_RULES_MPPS = {line.split()[2]: mpps for line, mpps in GATEWAY_MPPS.items()}
AIM_RULES_MPPS = {"100000": 10.0}
AIM_TIMES = 50
THEIR_BOXES = {
    "IP firewall": "9.8 / 9.8 (1.000)",
    "load balancer L4": "9.8 / 9.8 (1.000)",
    "NAT": "3.6 / 3.5 (0.973)",
}
AIM_RATIO = 0.97
THEIR_BANDWIDTH_PERCENT = 2.5
THEIR_ADDED_MS = {"central office": "< 50", "CDN": "< 100", "EC2": "720"}
THEIR_EXPANSION_PERCENT = 0.5
CORE_PERCENT = 98


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """What there is."""
    yield _machine(result)
    if found := result.get("gateway"):
        yield _gateway(found)
    if found := result.get("cores"):
        yield _cores(found)
    if found := result.get("rules"):
        yield _rules(found)
    if found := result.get("table42"):
        yield _table42(found)
    if found := result.get("middleboxes"):
        yield _middleboxes(found)
    if found := result.get("bandwidth"):
        yield _bandwidth(found)
    if found := result.get("pages"):
        yield _pages(found)
    if found := result.get("expansion"):
        yield _expansion(found)


def _machine(result: dict[str, Any]) -> Table:
    machine = result["machine"]
    table = _table("Where and how this was measured", "what", "value")
    table.add_row("CPU", f"{machine['cpu']}, {machine['isa']}")
    table.add_row("cores in use", f"{machine['cores']} of {machine['of']}")
    table.add_row("load before and after", f"{machine['load_before']}; {machine['load_after']}")
    table.add_row("took", f"{result['took_s']:.0f} s{', --quick' if result['quick'] else ''}")
    table.add_row("packets come from", "memory, and end there: no device is in any figure")
    table.add_row(
        "(n %)", f"that much of its core a line had: below {CORE_PERCENT} % it is worth nothing"
    )
    for part, problem in result["failed"].items():
        table.add_row(f"failed: {part}", problem)
    return table


def _share(line: dict[str, Any]) -> str:
    percent = line["core_percent"]
    return "" if percent >= CORE_PERCENT else f" ({percent:.0f} %)"


def _gbps(line: dict[str, Any]) -> str:
    return f"{line['gbps']:.1f}, {line['mpps']:.2f}{_share(line)}"


def _gateway(found: dict[str, Any]) -> Table:
    table = _table(
        f"Figure 4.5: a gateway on one core, {found['rules']:,} rules; Gbps (frames from inside, "
        "without checksum and gaps), Mpps",
        *("packets", "mean bytes", *MODES, "aim", "dissertation"),
    )
    for name, one in found["lines"].items():
        theirs = f"{THEIR_TRACES_GBPS}" if one["trace"] else ""
        if one["mean_bytes"] > 1500:
            theirs = f"{THEIR_FULL_GBPS}"
        table.add_row(
            name,
            f"{one['mean_bytes']:,.0f}",
            *(_gbps(one[mode]) for mode in MODES),
            f"{AIM_GBPS:.0f}" if one["trace"] else "",
            theirs,
        )
    return table


def _cores(found: dict[str, Any]) -> Table:
    table = _table(
        f"Figure 4.6: headers and payload, {found['trace']}; by cores. With one for ports, the "
        "others encrypt",
        *("cores", "Gbps, Mpps", "of linear"),
    )
    one = found["lines"]["1"]["mpps"]
    for name, line in found["lines"].items():
        count = int(name.split(",")[0])
        table.add_row(name, _gbps(line), f"{line['mpps'] / one / count:.0%}")
    return table


def _rules(found: dict[str, Any]) -> Table:
    table = _table(
        "Figure 4.7: headers on one core, packets of 60 bytes of 4,096 flows",
        *("rules", "Mpps", "ns", "ns without source", "aim: Mpps", "dissertation"),
    )
    source = 1e3 / found["source"]["mpps"]
    for rules, line in found.items():
        if rules == "source":
            continue
        ns = 1e3 / line["mpps"]
        table.add_row(
            f"{int(rules):,}",
            f"{line['mpps']:.1f}{_share(line)}",
            f"{ns:.0f}",
            f"{ns - source:.0f}",
            f"{AIM_RULES_MPPS[rules]:.0f}" if rules in AIM_RULES_MPPS else "",
            f"{THEIR_RULES_MPPS[rules]}" if rules in THEIR_RULES_MPPS else "",
        )
    return table


def _table42(found: dict[str, Any]) -> Table:
    table = _table(
        "Table 4.2: one encryption of an IPv6 address, us of CPU time (the others are plain "
        "Python); memory of the map",
        *("scheme, rules", "us", "dissertation", "times faster", "aim", "MB", "dissertation: MB"),
    )
    for rules, schemes in found.items():
        for scheme, one in schemes.items():
            theirs = TABLE_42_US[scheme].get(int(rules))
            ours = scheme == "PrefixMatch"
            kb = PREFIX_MATCH_KB.get(int(rules)) if ours else None
            table.add_row(
                f"{scheme}, {int(rules):,}",
                f"{one['us']:,.4f}",
                f"{theirs:,.2f}" if theirs else "",
                f"{theirs / one['us']:,.0f}" if theirs else "",
                f"{AIM_TIMES}" if ours and theirs else "",
                f"{one['kb'] / 1e3:.2f}" if "kb" in one else "",
                f"{kb / 1e3:.1f}" if kb else "",
            )
    return table


def _middleboxes(found: dict[str, Any]) -> Table:
    table = _table(
        f"Table 4.3: one core, {found['trace']}: its IPv4 TCP and UDP; firewall: {found['rules']}. "
        "Every packet is decided alike in both",
        *("middlebox", "passed", "clear: Mpps, Gbps", "encrypted", "ratio of Mpps", "of Gbps"),
        *("ns of the box alone", "aim", "dissertation: Gbps"),
    )
    for name, one in found["lines"].items():
        rates, gbps = [], []
        for side, size in (("clear", one["bytes"]), ("encrypted", one["encrypted_bytes"])):
            line = one[side]
            gbps.append(line["mpps"] * size * 8 / 1e3)
            rates.append(f"{line['mpps']:.1f}, {gbps[-1]:.0f}{_share(line)}")
        alone = [
            1e3 / one[side]["mpps"] - 1e3 / one[f"{side} source"]["mpps"]
            for side in ("clear", "encrypted")
        ]
        table.add_row(
            name,
            f"{one['passed']:.0%}",
            *rates,
            f"{one['encrypted']['mpps'] / one['clear']['mpps']:.2f}",
            f"{gbps[1] / gbps[0]:.2f}",
            f"{alone[0]:.0f}, {alone[1]:.0f}",
            f"{AIM_RATIO}",
            THEIR_BOXES.get(name, ""),
        )
    return table


def _bandwidth(found: dict[str, Any]) -> Table:
    parts = list(next(iter(found.values()))["parts_bytes"])
    table = _table(
        "Bandwidth to the provider: what a frame grows by, bytes and percent of its own. The "
        f"dissertation's {THEIR_BANDWIDTH_PERCENT} % is the first line's alone",
        *("bytes", *found),
    )
    rows = found.values()
    table.add_row("mean frame", *(f"{one['mean_bytes']:.0f}" for one in rows))
    for part in parts:
        table.add_row(part, *(f"{one['parts_bytes'][part]:.1f}" for one in rows))
    for label, key in (
        ("the IPv6 header, %", "address_percent"),
        ("headers, %", "headers_percent"),
        ("headers and payload, %", "payload_percent"),
        ("with tunnel, %", "tunnel_percent"),
    ):
        table.add_row(label, *(f"{one[key]:.1f}" for one in rows))
    return table


def _pages(found: dict[str, Any]) -> Table:
    table = _table(
        f"Figure 4.8: {found['pages']} pages, {found['rounds']} times; median "
        f"{found['objects']:.0f} objects, {found['bytes'] / 1e3:.0f} kB; direct, and through "
        "gateway, firewall and NAT. A round trip costs 2 RTTs: out and back both go by way of the "
        "provider",
        *("provider", "RTT ms", "direct ms", "Embark ms", "added ms", "in RTTs", "aim", "diss. ms"),
        *("a round trip: direct ms", "Embark ms", "beyond 2 RTTs"),
    )
    for place, one in found["places"].items():
        rtt = one["rtt_us"] / 1e3
        added = one["added_median_s"] * 1e3
        direct, embark = one["round_trip_direct_s"] * 1e3, one["round_trip_embark_s"] * 1e3
        table.add_row(
            place,
            f"{rtt:g}",
            f"{one['direct_median_s'] * 1e3:.1f}",
            f"{one['embark_median_s'] * 1e3:.1f}",
            f"{added:.1f}",
            f"{added / rtt:.1f}",
            f"< {rtt + 1:g}",
            THEIR_ADDED_MS[place],
            f"{direct:.2f}",
            f"{embark:.2f}",
            f"{embark - direct - 2 * rtt:.2f}",
        )
    return table


def _percent(after: int, before: int) -> str:
    return f"{100 * (after / before - 1):+,.1f}" if before else ""


def _expansion(found: dict[str, Any]) -> Table:
    table = _table(
        "Rules encrypted: for a firewall with sets (nft), and with one prefix a field. Refused are "
        f"rules about more than the 5-tuple. Dissertation: +{THEIR_EXPANSION_PERCENT} %",
        *("rule set", "refused", "rules", "encrypted", "%", "one prefix a field", "%", "maps MB"),
        "CPU s",
    )
    for name, one in found.items():
        table.add_row(
            name,
            f"{one['refused']:,}",
            f"{one['rules']:,}",
            f"{one['encrypted']:,}",
            _percent(one["encrypted"], one["rules"]),
            f"{one['plain']:,}",
            _percent(one["plain"], one["rules"]),
            f"{one['map_bytes'] / 1e6:.2f}",
            f"{one['cpu_s']:.1f}",
        )
    if sizes := [100 * (o["encrypted"] / o["rules"] - 1) for o in found.values() if o["rules"]]:
        table.add_row("median", "", "", "", f"{median(sizes):+.1f}")
    return table
