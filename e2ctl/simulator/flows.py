# SPDX-License-Identifier: BSD-3-Clause
"""Flows of a simulation: when they begin and end, at what rate they send, and their ids.

Flows arrive as a Poisson process whose rate follows a profile. Durations and rates are log-normal,
which is an assumption: measurements such as Benson et al. (IMC 2010) agree that most flows are
short and a few very long. Sigma 0 makes all flows alike. At time 0 flows are on their way as they
are after a long time of the first rate: the longer a flow lasts the more likely it is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2ctl.affinity import FLOW_IDS
from e2ctl.igraph import SPAN_STEP

__all__ = ["BUCKETS", "Flows", "Workload", "generate"]

BUCKETS = FLOW_IDS // SPAN_STEP
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Workload:
    """New flows per second, their mean duration and rate, and sigmas of the logarithms of both."""

    new_per_s: float
    mean_s: float
    rate_bps: float
    duration_sigma: float = 1.0
    rate_sigma: float = 0.5

    @property
    def load_bps(self) -> float:
        """The mean of what flows send together."""
        return self.new_per_s * self.mean_s * self.rate_bps


@dataclass(frozen=True, eq=False)
class Flows:
    """Sorted by when they start; ``buckets`` are ids without what is below `SPAN_STEP`."""

    start_s: Floats
    end_s: Floats
    rate_bps: Floats
    buckets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start_s)


def generate(
    workload: Workload,
    seconds: float,
    seed: int,
    profile: Sequence[tuple[float, float]] = ((0.0, 1.0),),
) -> Flows:
    """Flows of a time from 0; ``profile`` are times and factors of the rate, linear in between."""
    random = np.random.default_rng(seed)
    times, factors = (np.array(column, np.float64) for column in zip(*profile, strict=True))
    first, most = float(factors[0]), float(factors.max())
    there = int(random.poisson(workload.new_per_s * first * workload.mean_s))
    lasting = _log_normal(
        random, workload.mean_s, workload.duration_sigma, there, biased_by_length=True
    )
    age = random.random(there) * lasting
    coming = int(random.poisson(workload.new_per_s * most * seconds))
    at = np.sort(random.random(coming)) * seconds
    at = at[random.random(coming) * most < np.interp(at, times, factors)]
    durations = _log_normal(random, workload.mean_s, workload.duration_sigma, len(at))
    start = np.concatenate((-age, at))
    end = np.concatenate((lasting - age, at + durations))
    order = np.argsort(start, kind="stable")
    count = len(start)
    return Flows(
        start[order],
        end[order],
        _log_normal(random, workload.rate_bps, workload.rate_sigma, count),
        random.integers(0, BUCKETS, count),
    )


def _log_normal(
    random: np.random.Generator,
    mean: float,
    sigma: float,
    count: int,
    *,
    biased_by_length: bool = False,
) -> Floats:
    """With this mean; biased by length it is log-normal as well, further up by sigma squared."""
    mu = np.log(mean) - sigma**2 / 2 + (sigma**2 if biased_by_length else 0.0)
    return random.lognormal(mu, sigma, count)
