# SPDX-License-Identifier: BSD-3-Clause
"""What no way to scale does better that moves no flow: `e2_evaluation` sets it beside ours.

Whoever gives new flows of some ids to another instance keeps those that are active. How long these
last is the workload's: log-normal durations as in `e2ctl.simulator.flows`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from e2ctl.simulator.model import Nf

__all__ = ["balanced_after", "lasting", "least_cores_gap"]

STEP_S = 0.5
LONGEST_S = 1000.0


def lasting(seconds: float, mean_s: float, sigma: float) -> float:
    """The part of active flows that still last after so long: they are biased by length."""
    if seconds <= 0:
        return 1.0
    if sigma == 0:
        return max(0.0, 1 - seconds / mean_s)
    below = NormalDist().cdf
    away = (math.log(mean_s / seconds) - sigma**2 / 2) / sigma
    return below(away + sigma) - seconds / mean_s * below(away)


def balanced_after(imbalance: float, mean_s: float, sigma: float) -> float:
    """When two halves of the ids are as even as that, if one had all active flows."""
    low, high = 0.0, LONGEST_S
    while high - low > 1e-3:
        middle = (low + high) / 2
        if lasting(middle, mean_s, sigma) > imbalance:
            low = middle
        else:
            high = middle
    return high


def least_cores_gap(
    nfs: Sequence[Nf],
    profile: Sequence[tuple[float, float]],
    dataplanes: int,
    *,
    busy: float,
    flow_bps: float,
    mean_s: float,
    sigma: float,
) -> float:
    """Cores above the optimum, on average, of who knows the load (profile: s, bit/s) ahead.

    Instances are all as busy as that, one goes as soon as the others can do without, and its core
    is free once its last flow has ended.
    """
    times = np.arange(profile[0][0], profile[-1][0], STEP_S)
    load = np.interp(times, *zip(*profile, strict=True))
    ages = np.arange(STEP_S, LONGEST_S, STEP_S)
    stay = np.array([max(0.0, lasting(age, mean_s, sigma)) for age in ages.tolist()])
    best = np.zeros(len(times))
    cores = np.full(len(times), float(dataplanes))
    for nf in nfs:
        best += np.ceil(load / nf.capacity_bps - 1e-9)
        count = np.ceil(load / (busy * nf.capacity_bps) - 1e-9)
        cores += count
        there = 1 - (1 - stay) ** (busy * nf.capacity_bps / flow_bps)
        fewer = np.maximum(0.0, -np.diff(count, prepend=count[0]))
        cores += np.convolve(fewer, there)[: len(times)]
    return float((cores / best - 1).mean())
