# SPDX-License-Identifier: BSD-3-Clause
"""From what a daemon runs to what a plan says, without losing a packet.

What is known of a daemon (`Found`) holds for one generation of it: every step does all of its work
in one batch, which the daemon refuses where it is no longer as known. Then it is read anew. Names
of modules change with their arguments; what two plans name alike is kept, with all its state. Only
ranges of FlowSteers and entries of TunnelDecap are changed in place. Three steps, each repeatable:

* `prepare` makes what is missing, and links of gates that lead nowhere: nothing that runs changes;
* `commit` leads gates elsewhere, with the workers paused: packets wait in rings and queues;
* `finish` takes away what the plan has not, once its queues are empty.

Going back is a change to the plan before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bess_plugins.client import Batch, BatchError, BessError, Client
from e2ctl.found import IN_PLACE, Found, found_of, read
from e2ctl.server_plan import ServerPlan
from e2ctl.wiring import Link, ModuleSpec

__all__ = ["Command", "SyncError", "commit", "finish", "prepare"]

_DRAIN_S = 1.0
_POLL_S = 0.005
_MOST_WORKERS = 64
_MOST_TRIES = 5


class SyncError(Exception):
    """A daemon can't have what a plan says; the message says what it refused and why."""


class _StaleError(Exception):
    """The daemon is no longer as it was."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found


@dataclass(frozen=True)
class Command:
    """To be run by a module of a daemon."""

    module: str
    command: str
    arg_type: str
    arg: Mapping[str, Any]


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except BessError as error:
        raise SyncError(f"{what}: {error}") from None


class _Work:
    """Calls to a daemon that is still as it was found, and what each of them is about."""

    def __init__(self, client: Client, found: Found) -> None:
        self.batch = client.batch()
        self.told = dict(found.told)
        self._client = client
        self._found = found
        self._about: list[str] = []

    @contextmanager
    def on(self, what: str) -> Iterator[Batch]:
        """Note calls that are about something."""
        with _refusals(what):
            yield self.batch
        self._about += [what] * (len(self.batch.calls) - len(self._about))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the workers once for all calls noted within, if there are any."""
        start = len(self.batch.calls)
        yield
        if len(self.batch.calls) > start:
            pause = self._client.batch()
            pause.pause()
            self.batch.calls[start:start] = pause.calls
            self._about.insert(start, "pause")
            with self.on("resume") as batch:
                batch.resume()

    def tell(self, module: ModuleSpec, command: str) -> None:
        """Change arguments of a module in place."""
        changes = IN_PLACE[module.mclass]
        with self.on(f"module {module.name}") as batch:
            arg = {changes.what: module.args[changes.what]}
            batch.run_module_command(module.name, command, changes.arg_type, arg)

    def replace(self, module: ModuleSpec) -> None:
        """Have a module with exactly these arguments."""
        self.tell(module, IN_PLACE[module.mclass].replaces)
        self.told[module.name] = module.args

    def do(self) -> Found:
        """Have it done; a `BessError` says what failed, and a `_StaleError` what there is."""
        done = self._client.run(self.batch, self._found.generation)
        if done.stale:
            raise _StaleError(found_of(done, self._found))
        return found_of(done, self._found, self.told)

    def only_last(self, error: BessError) -> bool:
        """Whether all was done but the last call."""
        return isinstance(error, BatchError) and error.index == len(self.batch.calls) - 1

    def failed(self, error: BessError) -> SyncError:
        """What to raise for it."""
        if not isinstance(error, BatchError):
            return SyncError(str(error))
        return SyncError(f"{self._about[error.index]}: {error}")


def _repeat(client: Client, found: Found | None, step: Callable[[Found], Found]) -> Found:
    """Do a step on what is found; once more where somebody else has changed it meanwhile."""
    found = found or read(client)
    for _ in range(_MOST_TRIES):
        try:
            return step(found)
        except _StaleError as stale:
            found = stale.found
    raise SyncError("somebody else changes the daemon again and again; only its agent should")


def prepare(client: Client, plan: ServerPlan, known: Found | None = None) -> Found:
    """Make what is missing; what fails is taken away again."""

    def step(found: Found) -> Found:
        work = _Work(client, found)
        _make(work, plan, found)
        try:
            return work.do()
        except BessError as error:
            with suppress(BessError, SyncError):
                _take_back(client, found)
            with suppress(BessError):
                client.resume()
            raise work.failed(error) from None

    return _repeat(client, known, step)


def _make(work: _Work, plan: ServerPlan, found: Found) -> None:
    for device in plan.devices:
        if device.name not in found.ports:
            with work.on(f"port {device.name}") as batch:
                batch.create_port(device.driver, device.name, **device.args)
    for module in plan.modules:
        if module.name not in found.modules:
            with work.on(f"module {module.name}") as batch:
                batch.create_module(module.mclass, module.name, **module.args)
            if module.mclass in IN_PLACE:
                work.told[module.name] = module.args
    workers = _add_workers(work, plan, found)
    taken = {(link.source, link.ogate) for link in found.links}
    with work.paused():
        for name, label in plan.tasks.items():
            if name not in found.modules:
                _attach(work, name, workers[label])
        _connect(work, [link for link in plan.links if (link.source, link.ogate) not in taken])
        _count_bytes(work, plan, found.counting)
    for module in plan.modules:
        if _entries_differ(module, found):
            # Nobody sends to these yet, and those of before are still in use.
            before = found.told.get(module.name)
            work.tell(module, "add_edges")
            if before is not None and before["edges"].items() <= module.args["edges"].items():
                work.told[module.name] = module.args
            else:
                work.told.pop(module.name, None)


def _entries_differ(module: ModuleSpec, found: Found) -> bool:
    return (
        module.mclass == "TunnelDecap"
        and module.name in found.modules
        and found.told.get(module.name) != module.args
    )


def _take_back(client: Client, before: Found) -> None:
    """Remove what there was not before."""
    now = read(client)
    batch = client.batch()
    _remove(batch, now, before.modules, before.ports, before.running)
    client.run(batch, now.generation)


def _attach(work: _Work, module: str, wid: int) -> None:
    with work.on(f"task of {module}") as batch:
        batch.attach_task(module, wid=wid)


def _connect(work: _Work, links: Sequence[Link]) -> None:
    for link in links:
        with work.on(f"link {link}") as batch:
            batch.connect(link.source, link.target, link.ogate, link.igate)


def _count_bytes(work: _Work, plan: ServerPlan, counting: frozenset[tuple[str, int]]) -> None:
    """Have gates that stand for edges count bytes, too; all gates count packets."""
    for tap in plan.taps:
        if (tap.module, tap.ogate) not in counting:
            with work.on(f"gate {tap.ogate} of {tap.module}") as batch:
                batch.configure_gate_hook("Track", tap.module, gate=tap.ogate, bits=True)


def _add_workers(work: _Work, plan: ServerPlan, found: Found) -> dict[str, int]:
    """A worker for each label of the plan; numbers go round the CPUs that there are.

    Instances that have shared one are found by both labels there: the first keeps it.
    """
    cpus = sorted(os.sched_getaffinity(0))
    workers: dict[str, int] = {}
    free = (wid for wid in range(_MOST_WORKERS) if wid not in {*found.workers.values()})
    for label in dict.fromkeys(plan.tasks.values()):
        known = found.workers.get(label)
        if known is not None and known not in workers.values():
            workers[label] = known
            continue
        try:
            workers[label] = next(free)
        except StopIteration:
            raise SyncError(f"{label} needs a worker, and a daemon has {_MOST_WORKERS}") from None
        if workers[label] not in found.running:
            with work.on(f"worker of {label}") as batch:
                batch.add_worker(workers[label], cpus[workers[label] % len(cpus)])
    return workers


def commit(
    client: Client,
    plan: ServerPlan,
    known: Found | None = None,
    commands: Sequence[Command] = (),
) -> Found:
    """Lead gates where the plan leads them, and change ranges and entries, all in one pause that
    commands come first in.
    """
    sources = {module.name for module in plan.modules}

    def step(found: Found) -> Found:
        work = _Work(client, found)
        _lead(work, plan, found, commands)
        try:
            return work.do()
        except BessError as error:
            _resume(client, [name for name in found.modules if name not in sources])
            if not work.only_last(error):
                raise work.failed(error) from None
            return found_of(client.run(), None, work.told)

    return _repeat(client, known, step)


def _lead(work: _Work, plan: ServerPlan, found: Found, commands: Sequence[Command]) -> None:
    wanted = frozenset(plan.links)
    sources = {module.name for module in plan.modules}
    old = [link for link in found.links - wanted if link.source in sources]
    with work.paused():
        for command in commands:
            with work.on(f"module {command.module}") as batch:
                batch.run_module_command(
                    command.module, command.command, command.arg_type, command.arg
                )
            work.told.pop(command.module, None)
        for link in old:
            with work.on(f"link {link}") as batch:
                batch.disconnect(link.source, link.ogate)
        _connect(work, [link for link in plan.links if link not in found.links])
        _count_bytes(work, plan, found.counting - {(link.source, link.ogate) for link in old})
        for module in plan.modules:
            if module.mclass in IN_PLACE and work.told.get(module.name) != module.args:
                work.replace(module)
        workers = _add_workers(work, plan, found)
        for name, label in plan.tasks.items():
            if found.tasks.get(name) != workers[label]:
                _attach(work, name, workers[label])


def _resume(client: Client, going: Sequence[str]) -> None:
    """Let workers run on. What is about to go may read metadata that nobody writes any more: then
    it goes at once, with what waits in its queues.
    """
    try:
        client.resume()
    except BessError:
        batch = client.batch()
        for name in going:
            batch.destroy_module(name)
        batch.resume()
        with _refusals("resume"):
            client.run(batch)


def finish(client: Client, plan: ServerPlan, known: Found | None = None) -> Found:
    """Take away what the plan has not, once its queues are empty."""
    modules = {module.name: module.mclass for module in plan.modules}
    devices = frozenset(device.name for device in plan.devices)

    def step(found: Found) -> Found:
        deadline = time.monotonic() + _DRAIN_S
        going = {n for n, kind in found.modules.items() if kind == "Queue" and n not in modules}
        while going and _filled(client, going) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        labels = {*plan.tasks.values()}
        workers = frozenset(wid for label, wid in found.workers.items() if label in labels)
        work = _Work(client, found)
        with work.on("old parts") as batch:
            _remove(batch, found, modules, devices, workers)
        for module in plan.modules:
            if _entries_differ(module, found):
                work.replace(module)
        try:
            return work.do()
        except BessError as error:
            raise work.failed(error) from None

    return _repeat(client, known, step)


def _filled(client: Client, queues: Collection[str]) -> bool:
    """Whether packets wait in one of them: one after the other, they would fill the next."""
    with _refusals("old parts"):
        counted = client.counters()
    return any(module.waiting for module in counted.modules if module.name in queues)


def _remove(
    batch: Batch,
    found: Found,
    modules: Collection[str],
    ports: frozenset[str],
    workers: frozenset[int],
) -> None:
    """Remove all but these."""
    for name in found.modules:
        if name not in modules:
            batch.destroy_module(name)
    for port in found.ports - ports:
        batch.destroy_port(port)
    for wid in found.running - workers:
        batch.destroy_worker(wid)
