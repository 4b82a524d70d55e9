# SPDX-License-Identifier: BSD-3-Clause
"""What a daemon runs, as its agent knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bess_plugins.client import Client
from bess_plugins.pb import e2_batch_pb2 as pb
from e2ctl.server_plan import DATAPLANE, ServerPlan
from e2ctl.wiring import Link

__all__ = ["IN_PLACE", "Found", "InPlace", "found_of", "is_done", "read"]

_Args = Mapping[str, Any]


@dataclass(frozen=True)
class InPlace:
    """Which argument of a class's modules changes in place, and by which command."""

    what: str
    replaces: str
    arg_type: str


IN_PLACE = {
    "FlowSteer": InPlace("ranges", "update", "FlowSteerCommandUpdateArg"),
    "TunnelDecap": InPlace("edges", "set_edges", "TunnelDecapCommandEdgesArg"),
}


@dataclass(frozen=True)
class Found:
    """What a daemon runs: classes of modules, links, ports, workers by module and by label.

    ``running`` are all workers, ``counting`` the gates that count bytes, and ``told`` the arguments
    of modules that change in place, as far as they are known.
    """

    generation: int
    modules: Mapping[str, str]
    links: frozenset[Link]
    ports: frozenset[str]
    tasks: Mapping[str, int]
    workers: Mapping[str, int]
    running: frozenset[int]
    counting: frozenset[tuple[str, int]]
    told: Mapping[str, _Args]

    def without(self, module: str) -> Found:
        """The same, but that nobody knows a module's arguments any more."""
        told = {name: args for name, args in self.told.items() if name != module}
        return replace(self, told=told)


def read(client: Client, known: Found | None = None) -> Found:
    """What a daemon runs; it is asked for more than its generation only if that is a new one."""
    done = client.run(generation=None if known is None else known.generation)
    return found_of(done, known)


def found_of(
    done: pb.BatchDone, known: Found | None, told: Mapping[str, _Args] | None = None
) -> Found:
    """What an answer tells, with what is ``known``, or was ``told`` since."""
    if known is not None and done.generation == known.generation:
        return known if told is None else replace(known, told=told)
    counted = done.counters
    modules = {module.name: module.mclass for module in counted.modules}
    links, counting = [], []
    for module in counted.modules:
        for gate in module.ogates:
            links.append(Link(module.name, gate.ogate, gate.target, gate.igate))
            if gate.counts_bytes:
                counting.append((module.name, gate.ogate))
    tasks = {task.module: task.wid for task in counted.tasks}
    workers = {DATAPLANE: tasks["nic_in"]} if "nic_in" in tasks else {}
    for name, wid in tasks.items():
        if name.startswith("queue:") and wid != workers.get(DATAPLANE):
            workers[name.split(":")[1]] = wid
    if told is None:
        told = {} if known is None else known.told
    return Found(
        done.generation,
        modules,
        frozenset(links),
        frozenset(port.name for port in counted.ports),
        tasks,
        workers,
        frozenset(worker.wid for worker in counted.workers),
        frozenset(counting),
        {name: args for name, args in told.items() if name in modules},
    )


def is_done(found: Found, plan: ServerPlan) -> bool:
    """Whether a daemon has exactly the modules, links and ports of a plan, and its arguments."""
    return (
        dict(found.modules) == {module.name: module.mclass for module in plan.modules}
        and found.links == frozenset(plan.links)
        and found.ports == {device.name for device in plan.devices}
        and dict(found.told) == {m.name: m.args for m in plan.modules if m.mclass in IN_PLACE}
    )
