# SPDX-License-Identifier: BSD-3-Clause
"""What is written down of a simulated cluster now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2ctl.simulator.steering import NONE

if TYPE_CHECKING:
    from e2ctl.simulator.cluster import Cluster

__all__ = ["sample"]

Ints = NDArray[np.int64]


def sample(cluster: Cluster) -> dict[str, Any]:
    """Loads in bit/s, what the switch carries, entries, instances and the optimum of these."""
    taken: dict[str, Any] = {"t": round(cluster.now_s, 9)}
    load = switch = detour = dropped = entries = 0.0
    best = 0
    for p, pipeline in enumerate(cluster.pipelines):
        alive, rates = pipeline.alive, pipeline.flows.rate_bps[pipeline.alive]
        total = float(rates.sum())
        load += total
        entries += pipeline.switch.used(cluster.now_s)
        before: Ints | None = None
        for n, (nf, steering) in enumerate(zip(pipeline.nfs, pipeline.steering, strict=True)):
            best += int(np.ceil(total / nf.capacity_bps - 1e-9))
            servers = cluster.places.servers_of(p, n)
            owner, first = steering.owner[alive], steering.first(alive)
            here, there = servers[owner], servers[first]
            if before is not None:
                switch += float(rates[before != there].sum())
            else:
                switch += total
            round_about = float(rates[there != here].sum())
            switch += round_about
            detour += round_about
            before = here
            loads = np.bincount(owner + 1, rates, len(servers) + 1)[1:]
            down = [i for q, m, i in cluster.down if (q, m) == (p, n)]
            loads_up = np.delete(loads, down) if down else loads
            dropped += float(np.maximum(loads_up - nf.capacity_bps, 0.0).sum())
            dropped += float(rates[owner == NONE].sum())
            if len(cluster.pipelines) == 1:
                taken[f"loads_{nf.name}"] = loads.tolist()
    taken |= {
        "load_bps": load,
        "switch_bps": switch,
        "detour_bps": detour,
        "dropped_bps": dropped,
        "entries": int(entries),
        "instances": cluster.places.count,
        "cores": cluster.places.cores,
        "optimal": best,
        "changes": sum(len(g.changes) for one in cluster.pipelines for g in one.groups),
    }
    return taken
