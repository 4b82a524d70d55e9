# SPDX-License-Identifier: BSD-3-Clause
"""From what a daemon runs to what a plan says, without losing a packet.

The state is read from the daemon each time, so that nothing else has to be remembered. Names of
modules change with their arguments; what two plans name alike is kept, with all its state. Only
ranges of FlowSteers and entries of TunnelDecap are changed in place. Three steps, each repeatable:

* `prepare` makes what is missing, and links of gates that lead nowhere: nothing that runs changes;
* `commit` leads gates elsewhere, with the workers paused: packets wait in rings and queues;
* `finish` takes away what the plan has not, once its queues are empty.

Going back is a change to the plan before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bess_plugins.client import BessError, Client
from e2ctl.server_plan import DATAPLANE, ServerPlan
from e2ctl.wiring import Link

__all__ = ["Found", "SyncError", "commit", "finish", "is_done", "prepare", "read"]

_DRAIN_S = 1.0
_POLL_S = 0.005
_MOST_WORKERS = 64


class SyncError(Exception):
    """A daemon can't have what a plan says; the message says what it refused and why."""


@dataclass(frozen=True)
class Found:
    """What a daemon runs: classes of modules, links, ports, workers by module and by label."""

    modules: Mapping[str, str]
    links: frozenset[Link]
    ports: frozenset[str]
    tasks: Mapping[str, int]
    workers: Mapping[str, int]


def read(client: Client) -> Found:
    """Ask a daemon what it runs."""
    counted = client.counters()
    modules = {module.name: module.mclass for module in counted.modules}
    links = [
        Link(module.name, gate.ogate, gate.target, gate.igate)
        for module in counted.modules
        for gate in module.ogates
    ]
    ports = frozenset(port.name for port in counted.ports)
    tasks = {task.module: task.wid for task in counted.tasks}
    workers = {DATAPLANE: tasks["nic_in"]} if "nic_in" in tasks else {}
    for module, wid in tasks.items():
        if module.startswith("queue:") and wid != workers.get(DATAPLANE):
            workers[module.split(":")[1]] = wid
    return Found(modules, frozenset(links), ports, tasks, workers)


def is_done(found: Found, plan: ServerPlan) -> bool:
    """Whether a daemon has exactly the modules, links and ports of a plan."""
    return (
        dict(found.modules) == {module.name: module.mclass for module in plan.modules}
        and found.links == frozenset(plan.links)
        and found.ports == {device.name for device in plan.devices}
    )


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except BessError as error:
        raise SyncError(f"{what}: {error}") from None


def prepare(client: Client, plan: ServerPlan) -> None:
    """Make what is missing; what fails is taken away again."""
    found = read(client)
    try:
        _make(client, plan, found)
    except BaseException:
        with suppress(BessError):
            _remove(client, read(client), found.modules, found.ports, frozenset(found.workers))
            client.resume()
        raise


def _make(client: Client, plan: ServerPlan, found: Found) -> None:
    for device in plan.devices:
        if device.name not in found.ports:
            with _refusals(f"port {device.name}"):
                client.create_port(device.driver, device.name, **device.args)
    for module in plan.modules:
        if module.name not in found.modules:
            with _refusals(f"module {module.name}"):
                client.create_module(module.mclass, module.name, **module.args)
    workers = _add_workers(client, plan, found)
    for name, label in plan.tasks.items():
        if name not in found.modules:
            with _refusals(f"task of {name}"):
                client.attach_task(name, wid=workers[label])
    taken = {(link.source, link.ogate) for link in found.links}
    for link in plan.links:
        if (link.source, link.ogate) not in taken:
            with _refusals(f"link {link}"):
                client.connect(link.source, link.target, link.ogate, link.igate)
    _count_bytes(client, plan)
    for module in plan.modules:
        if module.mclass == "TunnelDecap" and module.name in found.modules:
            # Nobody sends to these entries yet.
            with _refusals(f"module {module.name}"):
                arg = {"edges": module.args["edges"]}
                client.run_module_command(
                    module.name, "add_edges", "TunnelDecapCommandEdgesArg", arg
                )
    with _refusals("workers"):
        client.resume()


def _count_bytes(client: Client, plan: ServerPlan) -> None:
    """Have gates that stand for edges count bytes, too; all gates count packets."""
    counting = {
        (hook["module_name"], hook["ogate"])
        for hook in client.list_hooks()
        if hook["class_name"] == "Track" and hook["arg"]["bits"]
    }
    for tap in plan.taps:
        if (tap.module, tap.ogate) not in counting:
            with _refusals(f"gate {tap.ogate} of {tap.module}"):
                client.configure_gate_hook("Track", tap.module, gate=tap.ogate, bits=True)


def _add_workers(client: Client, plan: ServerPlan, found: Found) -> dict[str, int]:
    """A worker for each label of the plan; numbers go round the CPUs that there are."""
    cpus = sorted(os.sched_getaffinity(0))
    running = {worker["wid"] for worker in client.list_workers()}
    workers = dict(found.workers)
    free = (wid for wid in range(_MOST_WORKERS) if wid not in {*workers.values()})
    for label in dict.fromkeys(plan.tasks.values()):
        if label in workers:
            continue
        try:
            workers[label] = next(free)
        except StopIteration:
            raise SyncError(f"{label} needs a worker, and a daemon has {_MOST_WORKERS}") from None
        if workers[label] not in running:
            with _refusals(f"worker of {label}"):
                client.add_worker(workers[label], cpus[workers[label] % len(cpus)])
    return workers


def commit(client: Client, plan: ServerPlan) -> None:
    """Lead gates where the plan leads them, and change ranges and entries, all in one pause."""
    found = read(client)
    wanted = frozenset(plan.links)
    sources = {module.name for module in plan.modules}
    old = [link for link in found.links - wanted if link.source in sources]
    new = [link for link in plan.links if link not in found.links]
    with _refusals("pause"):
        client.pause()
    try:
        for link in old:
            with _refusals(f"link {link}"):
                client.disconnect(link.source, link.ogate)
        for link in new:
            with _refusals(f"link {link}"):
                client.connect(link.source, link.target, link.ogate, link.igate)
        _count_bytes(client, plan)
        for module in plan.modules:
            if module.name in found.modules:
                with _refusals(f"module {module.name}"):
                    _update(client, module.mclass, module.name, module.args)
        workers = _add_workers(client, plan, found)
        for name, label in plan.tasks.items():
            if found.tasks.get(name) != workers[label]:
                with _refusals(f"task of {name}"):
                    client.attach_task(name, wid=workers[label])
    finally:
        _resume(client, [name for name in found.modules if name not in sources])


def _resume(client: Client, going: Sequence[str]) -> None:
    """Let workers run on. What is about to go may read metadata that nobody writes any more: then
    it goes at once, with what waits in its queues.
    """
    try:
        client.resume()
    except BessError:
        with _refusals("resume"):
            for name in going:
                client.destroy_module(name)
            client.resume()


def _update(client: Client, mclass: str, name: str, args: Mapping[str, Any]) -> None:
    """Change in place what may change."""
    if mclass == "FlowSteer":
        arg = {"ranges": args["ranges"]}
        client.run_module_command(name, "update", "FlowSteerCommandUpdateArg", arg)
    elif mclass == "TunnelDecap":
        arg = {"edges": args["edges"]}
        client.run_module_command(name, "set_edges", "TunnelDecapCommandEdgesArg", arg)


def finish(client: Client, plan: ServerPlan) -> None:
    """Take away what the plan has not, once its queues are empty."""
    found = read(client)
    modules = {module.name: module.mclass for module in plan.modules}
    going = [name for name in found.modules if name not in modules]
    deadline = time.monotonic() + _DRAIN_S
    for name in going:
        while found.modules[name] == "Queue" and _filled(client, name):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
    with _refusals("old parts"):
        devices = frozenset(device.name for device in plan.devices)
        _remove(client, found, modules, devices, frozenset(plan.tasks.values()))


def _filled(client: Client, queue: str) -> bool:
    status = client.run_module_command(queue, "get_status", "QueueCommandGetStatusArg")
    return int(status["count"]) > 0


def _remove(
    client: Client,
    found: Found,
    modules: Mapping[str, str],
    ports: frozenset[str],
    workers: frozenset[str],
) -> None:
    """Remove all but these; workers are named by label."""
    for name in found.modules:
        if name not in modules:
            client.destroy_module(name)
    for port in found.ports - ports:
        client.destroy_port(port)
    kept = {found.workers[label] for label in workers if label in found.workers}
    for worker in client.list_workers():
        if worker["wid"] not in kept:
            client.destroy_worker(worker["wid"])
