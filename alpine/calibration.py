# SPDX-License-Identifier: BSD-3-Clause
"""What a queue costs on a daemon, and how fast its clock is: measured on a graph of three modules.

The queue is filled to the brim first, as queues are where a schedule holds packets back: they
have left the caches nearby when they are taken out again. It is neither full nor empty meanwhile,
so nothing is dropped and no poll is in vain.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from alpine.profile import QueueCosts
from alpine.sample import Growth, ModuleUse, Sample, accounting, between, read_sample
from bess_plugins.client import Client

__all__ = ["Calibration", "calibrate"]

_ROUNDS = 5
_ROUND_S = 0.06
_SLOW_BURST = 16  # less than the batches of any daemon
_SOURCE, _QUEUE, _SINK, _TC = "alpine_source", "alpine_queue", "alpine_sink", "alpine_calibration"


@dataclass(frozen=True)
class Calibration:
    """Cycles per packet for queues, and cycles per second."""

    queue: QueueCosts
    hz: float


@dataclass(frozen=True)
class _Figures:
    """Cycles per packet of all tasks and of the queue at its two ends; cycles per second."""

    total: float
    enqueue: float
    dequeue: float
    hz: float


def calibrate(
    client: Client, core: int, other_core: int | None = None, *, cycles: bool
) -> Calibration:
    """Measure for a second or two; whatever the daemon runs is replaced.

    A queue costs what tasks use more with it than without, scheduling another task included.
    ``cycles``: the daemon accounts cycles to modules, which tells the two ends apart. Otherwise
    they are taken to cost the same, and crossing from ``core`` to ``other_core`` nothing.
    """
    queued = _measure(client, {0: core}, queue=True, cycles=False)
    plain = _measure(client, {0: core}, queue=False, cycles=False)
    total = max(0.0, queued.total - plain.total)
    if not cycles:
        return Calibration(QueueCosts(enqueue=total / 2, dequeue=total / 2), queued.hz)
    here = _measure(client, {0: core}, queue=True, cycles=True)
    crossing = 0.0
    if other_core is not None:
        there = _measure(client, {0: core, 1: other_core}, queue=True, cycles=True)
        more = there.enqueue + there.dequeue - here.enqueue - here.dequeue
        crossing = max(0.0, more)
    enqueue = min(here.enqueue, total)
    costs = QueueCosts(enqueue=enqueue, dequeue=total - enqueue, crossing=crossing)
    return Calibration(costs, queued.hz)


def _measure(client: Client, cores: Mapping[int, int], *, queue: bool, cycles: bool) -> _Figures:
    names = _build(client, cores, queue=queue)
    samples: list[Sample] = []
    with accounting(client, _SOURCE) if cycles else nullcontext():
        for _ in range(_ROUNDS + 1):
            samples.append(read_sample(client, names, cycles=cycles))
            time.sleep(_ROUND_S)
    client.reset_all()
    rounds = [_figures(between(before, after)) for before, after in pairwise(samples)]
    return _Figures(
        median(r.total for r in rounds),
        median(r.enqueue for r in rounds),
        median(r.dequeue for r in rounds),
        _figures(between(samples[0], samples[-1])).hz,  # the longer, the more precise
    )


def _build(client: Client, cores: Mapping[int, int], *, queue: bool) -> list[str]:
    names = [_SOURCE, _QUEUE, _SINK] if queue else [_SOURCE, _SINK]
    client.reset_all()
    for wid, core in cores.items():
        client.add_worker(wid, core)
    client.pause()
    client.create_module("Source", _SOURCE)
    client.create_module("Sink", _SINK)
    # Turns are taken like below a schedule's classes, but by count, so that the queue stays full.
    client.add_tc(_TC, "weighted_fair", wid=0, resource="count")
    client.attach_task(_SOURCE, _TC, share=1)
    if queue:
        client.create_module("Queue", _QUEUE)
        if len(cores) == 1:
            client.attach_task(_QUEUE, _TC, share=1)
        else:
            client.attach_task(_QUEUE, wid=max(cores))
        _set_burst(client, _SLOW_BURST)
    for before, after in pairwise(names):
        client.connect(before, after)
    client.resume()
    time.sleep(_ROUND_S)  # the queue fills up, and clocks speed up
    if queue:
        _set_burst(client, _batch(client))
    return names


def _batch(client: Client) -> int:
    """How many packets the source brings at a time: 32 in e2d, and 64 in bessd of omec-project."""
    use = read_sample(client, []).tasks[_SOURCE]
    return round(use.packets / use.runs)


def _set_burst(client: Client, burst: int) -> None:
    client.run_module_command(_QUEUE, "set_burst", "QueueCommandSetBurstArg", {"burst": burst})


def _figures(grown: Growth) -> _Figures:
    used = sum(task.cycles for task in grown.tasks.values())
    queue = grown.modules.get(_QUEUE, ModuleUse())
    return _Figures(
        used / max(grown.tasks[_SOURCE].packets, 1),
        queue.cost or 0.0,
        queue.dequeue or 0.0,
        used,  # all the time of one worker, for the source always has packets
    )
