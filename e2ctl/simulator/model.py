# SPDX-License-Identifier: BSD-3-Clause
"""What a simulated cluster consists of, and what is assumed of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from e2ctl.changes import Group, entries_of
from e2ctl.simulator.flows import Flows
from e2ctl.simulator.steering import Steering
from e2ctl.simulator.switch import VirtualSwitch

__all__ = ["Model", "Nf", "Pipeline"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Model:
    """What is assumed. Times of replicas and of servers' rules are the dissertation's.

    ``high`` is the load from which a queue counts as filling up; loads are averaged over
    ``average_s``, as LoadMonitor's.
    """

    control_s: float = 0.1
    sample_s: float = 0.1
    average_s: float = 0.5
    high: float = 0.95
    replica_s: float = 0.015
    rule_s: float = 20e-6
    detect_s: float = 0.1
    give_up_s: float = 10.0  # after which never-migrate takes what it has


@dataclass(frozen=True)
class Nf:
    """An NF: what one instance carries, and how many there can be."""

    name: str
    capacity_bps: float
    most: int | None = None


@dataclass(eq=False)
class Pipeline:
    """NFs in a row, the spans that they begin with, and their flows."""

    name: str
    nfs: tuple[Nf, ...]
    flows: Flows
    groups: list[Group]
    switch: VirtualSwitch
    steering: list[Steering] = field(default_factory=list)
    alive: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    begun: int = 0

    def __post_init__(self) -> None:
        self.steering = [Steering(group, self.flows) for group in self.groups]
        first = sum(entries_of(span) for span in self.groups[0].spans.values())
        self.switch.set_spans(0.0, first)
