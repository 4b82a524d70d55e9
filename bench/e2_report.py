# SPDX-License-Identifier: BSD-3-Clause
"""Tables of E2's evaluation, with the dissertation's figures beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

__all__ = ["tables"]

# Of the dissertation's section 3.6, as text.
THEIR_PLACEMENT_S = {"100": 0.0146}
THEIR_DECISION_S = 0.00176
THEIR_BRINGUP_S = 0.015
THEIR_OVER_RANDOM = "2.25-2.59"
THEIR_OVER_PACKING = {"chain": "about 1", "graph": "1.28"}
THEIR_CORES_GAP, THEIR_SWITCH_GAP = 0.227, 0.164
THEIR_MOST_CORES, THEIR_MOST_INSTANCES = 60, 56
THEIR_SPLIT = {
    "migration avoidance": ("< 10 %", "5.6", "< 10", "0.5", "few"),
    "always migrate": ("ideal", "", "", "", ""),
    "never migrate": ("80 %", "", "", "", "2,048"),
}
AIMS_S = {"100": 0.002, "1000": 0.1, "10000": 10.0}
AIM_DECISION_S = 0.0002


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _s(value: float | None, unit: float = 1.0, digits: int = 1) -> str:
    return "never" if value is None else f"{value / unit:,.{digits}f}"


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """What there is."""
    if found := result.get("placement"):
        table = _table(
            "Time to place, ms (measured)",
            *("instances", "ours", "of a core", "aim", "dissertation"),
        )
        for units, one in found.items():
            theirs = THEIR_PLACEMENT_S.get(units)
            table.add_row(
                f"{int(units):,}",
                f"{one['seconds'] * 1e3:,.1f}",
                f"{one['cpu_s'] * 1e3:,.1f}",
                f"{AIMS_S[units] * 1e3:,.0f}",
                f"{theirs * 1e3:.1f}" if theirs else "",
            )
        yield table
    if found := result.get("decisions"):
        table = _table(
            "Split decisions, 68 in a row, ms (measured)",
            *("servers", "median", "99 %", "of a core, median", "99 %", "aim", "dissertation"),
        )
        for servers, one in found.items():
            table.add_row(
                servers,
                f"{one['median_s'] * 1e3:.3f}",
                f"{one['p99_s'] * 1e3:.3f}",
                f"{one['cpu_s'] * 1e3:.3f}",
                f"{one['p99_cpu_s'] * 1e3:.3f}",
                f"{AIM_DECISION_S * 1e3:.1f}",
                f"{THEIR_DECISION_S * 1e3:.2f}",
            )
        yield table
    if found := result.get("bringup"):
        yield _bringup(found)
    if found := result.get("throughput"):
        yield _throughput(found, result["exact"])
    if found := result.get("split"):
        yield _split(found, result["split_least_s"], result["hop_us"])
    if found := result.get("dynamic"):
        yield _dynamic(found)
    if found := result.get("racks"):
        yield _racks(found)


def _bringup(found: dict[str, Any]) -> Table:
    """Those of the dissertation's prototype are for one server's E2D and a controller."""
    table = _table(
        f"A replica brought up, ms: {found['splits']} splits on {found['servers']} servers, each "
        "with agent and daemon (measured)",
        *("from the call until", "median", "90 %", "least", "dissertation"),
    )
    table.add_row(
        "its detour is in use",
        *(f"{found[name] * 1e3:.1f}" for name in ("median_s", "p90_s", "least_s")),
        f"{THEIR_BRINGUP_S * 1e3:.0f}",
    )
    for part, seconds in found["parts_s"].items():
        table.add_row(f"  {part}", f"{seconds * 1e3:.1f}", "", "", "")
    return table


def _throughput(found: dict[str, Any], exact: dict[str, Any]) -> Table:
    table = _table(
        "Figure 3.8: throughput of a rack, Gbps (computed); dissertation in brackets. "
        f"Traffic between servers above the optimum of {exact['graphs']} small graphs: "
        f"{exact['mean_gap']:.2%} on average, {exact['most']:.2%} at most",
        *("service", "random", "packing", "METIS", "e2", "over random", "over packing"),
        "over METIS",
    )
    for name, loads in found.items():
        ours = loads["e2"]
        table.add_row(
            name,
            *(f"{loads[s] / 1e9:.1f}" for s in ("random", "packing", "metis", "e2")),
            f"{ours / loads['random']:.2f} ({THEIR_OVER_RANDOM})",
            f"{ours / loads['packing']:.2f} ({THEIR_OVER_PACKING[name.split()[0]]})",
            f"{ours / loads['metis']:.2f}",
        )
    return table


def _split(found: dict[str, Any], least: dict[str, list[float]], hop_us: float) -> Table:
    table = _table(
        "Figures 3.9, 3.10: a split at 1 Gbps, 2,000 new flows/s, 10,000 active (simulated; flows "
        f"of 5 s on average, log-normal, and {hop_us:g} us a hop are modelled); dissertation in "
        "brackets",
        *("policy, sigma of durations", "final imbalance", "< 10 % after s", "< 5 % after s"),
        *("over after s", "detour Gbps", "latency us", "entries", "flows moved"),
    )
    for name, one in found.items():
        theirs = THEIR_SPLIT[one["strategy"]]

        def beside(ours: str, their: str) -> str:
            return f"{ours} ({their})" if their else ours

        table.add_row(
            name,
            beside(f"{one['final_imbalance']:.1%}", theirs[0]),
            _s(one["balanced_10_s"]),
            _s(one["balanced_5_s"]),
            beside(_s(one["over_s"]), theirs[1]),
            beside(f"{one['most_detour_bps'] / 1e9:.2f}", theirs[3]),
            beside(f"{one['most_latency_s'] * 1e6:.1f}", theirs[2]),
            beside(f"{one['most_entries']:,}", theirs[4]),
            f"{one['moved'] + one['broken']:,}",
        )
    for sigma, times in least.items():
        table.add_row(f"least that halves ids, moves none, sigma {sigma}", "", *map(_s, times))
    return table


def _dynamic(one: dict[str, Any]) -> Table:
    table = _table(
        "Figure 3.11: 7.2 to 12.3 Gbps and back, NAT-firewall-IDS-VPN (simulated, mean of "
        f"{one['runs']} runs)",
        *("figure", "ours", "dissertation"),
    )
    table.add_row(
        "cores above the optimum, dataplanes' included",
        f"{one['cores_gap']:.1%}",
        f"{THEIR_CORES_GAP:.1%}",
    )
    table.add_row(
        "the least, with the load known ahead, instances 95 % busy, and no flow moved",
        f"{one['least_cores_gap']:.1%}",
        "",
    )
    table.add_row("ours without dataplanes", f"{one['instances_gap']:.1%}", "")
    up, top = one["cores_gap_rising"], one["cores_gap_top"]
    table.add_row("ours with dataplanes, while load rises", f"{up:.1%}", "")
    table.add_row("ours with dataplanes, at the top", f"{top:.1%}", "")
    table.add_row(
        "switch bandwidth above the load", f"{one['switch_gap']:.1%}", f"{THEIR_SWITCH_GAP:.1%}"
    )
    table.add_row("most cores", f"{one['most_cores']}", f"{THEIR_MOST_CORES}")
    table.add_row("most instances", f"{one['most_instances']}", f"{THEIR_MOST_INSTANCES}")
    table.add_row("traffic dropped", f"{one['dropped']:.2%}", "")
    table.add_row("flows moved", f"{one['broken']}", "")
    table.add_row("changes", f"{one['decisions']:,}", "")
    table.add_row("controller, CPU seconds", f"{one['controller_s']:.1f}", "")
    return table


def _racks(one: dict[str, Any]) -> Table:
    table = _table(
        f"{one['racks']} racks, {one['servers']} servers, {one['pipelines']} pipelines, load "
        f"doubles in {one['seconds']:.0f} s, {one['failures']} servers fail (simulated)",
        *("figure", "ours"),
    )
    done = [time for time in one["recovery_s"] if time is not None]
    table.add_row("load at the end, Gbps", f"{one['load_bps'][-1] / 1e9:.0f}")
    table.add_row("instances at the end", f"{one['instances'][-1]:,}")
    table.add_row("above the optimum at the end", f"{one['instances_gap']:.1%}")
    table.add_row("traffic dropped", f"{one['dropped']:.2%}")
    table.add_row("traffic dropped at the end", f"{one['dropped_at_the_end']:.2%}")
    table.add_row(
        "failures recovered, longest s",
        f"{len(done)}/{one['failures']}, {max(done, default=0):.2f}",
    )
    table.add_row("flows lost with servers", f"{one['flows_lost']:,}")
    table.add_row("other flows moved", f"{one['broken']:,}")
    table.add_row("changes", f"{one['decisions']:,}")
    table.add_row("first placement, CPU s", f"{one['placement_s']:.2f}")
    table.add_row("controller, CPU s", f"{one['controller_s']:.1f}")
    return table
