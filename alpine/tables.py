# SPDX-License-Identifier: BSD-3-Clause
"""A reading for people and for programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.table import Table

from alpine.measure import Reading

__all__ = ["reading_dict", "reading_table"]

_NONE = "-"


def reading_table(reading: Reading) -> Table:
    """A row for each member of a policy, and for each class that none gives a share."""
    errors = [f"{policy.name}: error {policy.error:.2%}" for policy in reading.policies]
    table = Table(
        caption=", ".join([*errors, f"measured over {reading.seconds:.1f} s"]),
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("policy")
    table.add_column("class")
    for title in ("wanted", "measured", "error", "Mpps", "predicted"):
        table.add_column(title, justify="right")
    classes = {found.name: found for found in reading.classes}
    shown: set[str] = set()

    def rates(name: str) -> tuple[str, str]:
        found = classes.get(name)
        if found is None:
            return "", ""
        shown.add(name)
        return f"{found.pps / 1e6:.3f}", f"{found.predicted_pps / 1e6:.3f}"

    for policy in reading.policies:
        for member in policy.members:
            table.add_row(
                f"{policy.name} ({policy.kind})",
                member.name,
                f"{member.wanted:.1%}",
                f"{member.measured:.1%}",
                f"{abs(member.measured - member.wanted):.2%}",
                *rates(member.name),
            )
    for name in classes:
        if name not in shown:
            table.add_row(_NONE, name, _NONE, _NONE, _NONE, *rates(name))
    return table


def reading_dict(reading: Reading) -> dict[str, Any]:
    """Plain values for JSON, which has no infinity: a bound that there is none of is null."""
    values = asdict(reading)
    for found in values["classes"]:
        if math.isinf(found["latency_bound_s"]):
            found["latency_bound_s"] = None
    for policy in values["policies"]:
        policy["kind"] = str(policy["kind"])
    return {**values, "worst_error": reading.worst_error}
