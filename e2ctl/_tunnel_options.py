# SPDX-License-Identifier: BSD-3-Clause
"""How metadata travels between servers: as options of the tunnels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2ctl.nfs import Catalog
from e2ctl.routing import PlanError
from e2ctl.server_plan import FLOW_ID

__all__ = ["ID_OPTION", "tunnel_options"]

ID_OPTION = {"attr_name": FLOW_ID, "size": 2, "type": 127}
_MOST_OPTIONS = 15  # of 16, with the flow id


def tunnel_options(
    types: Mapping[str, str], catalog: Catalog
) -> dict[str, tuple[dict[str, Any], frozenset[str]]]:
    """How metadata travels in tunnels, by attribute; with the NFs that write it."""
    writers: dict[str, list[tuple[str, int]]] = {}
    for nf, kind in types.items():
        for name, attribute in catalog[kind].attributes.items():
            if attribute.method == "metadata":
                writers.setdefault(name, []).append((nf, attribute.size))
    if len(writers) > _MOST_OPTIONS:
        raise PlanError(
            f"{len(writers)} metadata attributes ({', '.join(writers)}); tunnels carry "
            f"{_MOST_OPTIONS}"
        )
    options = {}
    for number, name in enumerate(sorted(writers)):
        sizes = {size for _, size in writers[name]}
        if len(sizes) > 1:
            nfs = ", ".join(nf for nf, _ in writers[name])
            raise PlanError(f"the attribute '{name}' has different sizes in {nfs}")
        option = {"attr_name": name, "size": sizes.pop(), "type": number}
        options[name] = (option, frozenset(nf for nf, _ in writers[name]))
    return options
