# SPDX-License-Identifier: BSD-3-Clause
"""When nothing is on its way at a provider any more, as far as counters tell."""

from __future__ import annotations

import time

from bess_plugins.client import Client
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from embark_gw.gateway import GatewayError

__all__ = ["until_quiet"]

_LOOK_S = 0.01
_MOST_S = 5.0  # that packets may need to leave the provider


def until_quiet(ours: Client, theirs: Client, settle_s: float) -> None:
    """Wait until nothing moves to the provider, nor there, for so long.

    A worker that gets no CPU moves nothing either: all must have run meanwhile.
    """
    deadline = time.monotonic() + _MOST_S
    before, ran, since = None, None, time.monotonic()
    while True:
        found = (ours.counters(), theirs.counters())
        now = _moved(*found)
        if now != before:
            before, ran, since = now, _ran(*found), time.monotonic()
        elif time.monotonic() - since >= settle_s and _all_ran(ran, _ran(*found)):
            return
        if time.monotonic() > deadline:
            raise GatewayError(f"packets still move at the provider after {_MOST_S:.0f} s")
        time.sleep(_LOOK_S)


def _moved(ours: counters_pb.Counters, theirs: counters_pb.Counters) -> tuple[int, ...]:
    ports = [count for port in theirs.ports for count in (port.inc.packets, port.out.packets)]
    queues = [module.waiting for module in theirs.modules if module.HasField("waiting")]
    sent = [port.out.packets for port in ours.ports if port.name == "provider"]
    left = [module.waiting for module in ours.modules if module.name == "provider_out"]
    return (*ports, *queues, *sent, *left)


Runs = dict[tuple[str, str, int], int]


def _ran(ours: counters_pb.Counters, theirs: counters_pb.Counters) -> Runs:
    """How long each task that runs has run: of the provider, and of who sends there."""
    return {
        (whose, task.module, task.number): task.busy_ns
        for whose, found in (("ours", ours), ("theirs", theirs))
        for task in found.tasks
        if task.wid in {worker.wid for worker in found.workers if worker.running}
        and (whose == "theirs" or task.module == "provider_out")
    }


def _all_ran(before: Runs | None, now: Runs) -> bool:
    return before is not None and all(spent > before.get(task, 0) for task, spent in now.items())
