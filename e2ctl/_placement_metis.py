# SPDX-License-Identifier: BSD-3-Clause
"""Placement by a general graph partitioner, to compare with.

METIS makes parts alike in size, or as unlike as it is told to; how many are best, and that they fit
exactly, is not its concern. So some numbers of parts are tried, units leave parts that are too big,
those first that are bound to them the least, and NICs are relieved where they carry too much.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2ctl._placement_arrays import Arrays

__all__ = ["partition"]

_WEIGHT = 1e8  # of all edges; METIS counts in 32 bits
_RELIEF = 1_000_000  # links to look at, at most, to relieve NICs


def partition(arrays: Arrays, seed: int) -> NDArray[np.int32] | None:
    """The best of what fits, or None. Raises ImportError without pymetis."""
    pymetis: Any = importlib.import_module("pymetis")
    units, count = len(arrays.cores), len(arrays.rooms)
    apart = arrays.ends[0] != arrays.ends[1]
    low, high = arrays.ends.min(axis=0)[apart], arrays.ends.max(axis=0)[apart]
    pairs, which = np.unique(low.astype(np.int64) * units + high, return_inverse=True)
    weights = np.bincount(which, arrays.rates[apart], len(pairs))
    one, other = (
        np.concatenate(two) for two in (np.divmod(pairs, units), np.divmod(pairs, units)[::-1])
    )
    weights = np.tile(weights, 2)
    order = np.argsort(one, kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(one, minlength=units))))
    graph = pymetis.CSRAdjacency(starts, other[order])
    scaled = np.maximum(1, weights[order] * (_WEIGHT / max(weights.sum(), 1.0))).astype(int)
    options = pymetis.Options(seed=seed % 2**31)
    by_room = np.argsort(-arrays.rooms, kind="stable").astype(np.int32)
    fewest = 1 + int(np.searchsorted(np.cumsum(arrays.rooms[by_room]), arrays.cores.sum()))
    best: tuple[tuple[int, int], NDArray[np.int32]] | None = None
    for parts in sorted({fewest, min(fewest + 1, count), (fewest + count) // 2, count}):
        shares = arrays.rooms[by_room[:parts]] / arrays.rooms[by_room[:parts]].sum()
        _, part = pymetis.part_graph(
            parts,
            graph,
            vweights=arrays.cores.tolist(),
            eweights=scaled.tolist(),
            tpwgts=shares.tolist(),
            options=options,
        )
        servers = by_room[part]
        inside = np.bincount(one, weights * (servers[one] == servers[other]), units)
        search = arrays.search(seed)
        firm = np.argsort(-inside, kind="stable").astype(np.int32)
        search.settle(firm, servers[firm])
        if search.fit(np.argsort(-arrays.cores, kind="stable").astype(np.int32)):
            search.relieve(_RELIEF)
            if best is None or search.costs() < best[0]:
                best = search.costs(), search.where()
    return best[1] if best else None
