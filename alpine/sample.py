# SPDX-License-Identifier: BSD-3-Clause
"""Counters of a running pipeline, read from a daemon, and what they grew by."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Self

from alpine.errors import AlpineError
from bess_plugins.client import BessError, Client, DaemonUnavailableError

__all__ = [
    "Growth",
    "ModuleUse",
    "Progress",
    "Sample",
    "TaskUse",
    "accounting",
    "between",
    "daemon_errors",
    "knows_cycles",
    "read_sample",
]

Key = tuple[str, int]
Progress = Callable[[str, float], None]  # what is done now, and how much of all is done: 0..1


@dataclass(frozen=True)
class TaskUse:
    """What a module's tasks used; ``seconds`` is when, or how long."""

    seconds: float = 0.0
    runs: float = 0.0
    cycles: float = 0.0
    packets: float = 0.0

    def plus(self, other: Self) -> TaskUse:
        """Of both together, at the time of the other."""
        return TaskUse(
            other.seconds,
            self.runs + other.runs,
            self.cycles + other.cycles,
            self.packets + other.packets,
        )


@dataclass(frozen=True)
class ModuleUse:
    """A module's profile: packets and cycles at its gates, and those of its own tasks.

    ``overhead_cycles`` is what the daemon takes the profile to have cost, in none of the others.
    """

    packets: float = 0.0
    cycles: float = 0.0
    task_packets: float = 0.0
    task_cycles: float = 0.0
    idle_cycles: float = 0.0
    overhead_cycles: float = 0.0

    @property
    def cost(self) -> float | None:
        """Cycles per packet: at the gates, or of a task that is fed by none."""
        if self.packets:
            return self.cycles / self.packets
        return self.dequeue

    @property
    def dequeue(self) -> float | None:
        """Cycles per packet that a task of the module brings."""
        return self.task_cycles / self.task_packets if self.task_packets else None


@dataclass(frozen=True)
class Sample:
    """Totals: packets of each output gate and when they were read, use of tasks and modules.

    ``targets`` tells where gates lead. ``modules`` is empty unless cycles are accounted to modules.
    """

    edges: Mapping[Key, tuple[int, float]]
    targets: Mapping[Key, str]
    tasks: Mapping[str, TaskUse]
    modules: Mapping[str, ModuleUse] = field(default_factory=dict)


@dataclass(frozen=True)
class Growth:
    """What came between two samples: per second at edges and of tasks, in all of modules."""

    edges: Mapping[Key, float]
    packets: Mapping[Key, int]
    tasks: Mapping[str, TaskUse]
    modules: Mapping[str, ModuleUse]


@contextmanager
def daemon_errors(client: Client) -> Iterator[None]:
    """What goes wrong with a daemon while its pipeline is watched, as errors of this package."""
    try:
        yield
    except DaemonUnavailableError:
        raise AlpineError(
            f"the daemon at {client.address} went away; start it with `e2d start` and run again"
        ) from None
    except BessError as error:
        if error.code in (errno.ENOENT, errno.ENODEV):
            raise AlpineError(_replaced(str(error))) from None
        raise AlpineError(f"the daemon at {client.address} refused: {error}") from None


def _replaced(what: str) -> str:
    return (
        f"the pipeline on the daemon is not the one that was started, or was replaced: {what}; "
        "run again with `alpine run`"
    )


def knows_cycles(client: Client, module: str) -> bool:
    """Whether the daemon tells the cycles of modules and of their tasks apart."""
    try:
        return "task_cycles" in client.run_module_command(module, "e2_stats", "ModuleStatsArg")
    except DaemonUnavailableError:
        raise
    except BessError:
        return False


@contextmanager
def accounting(client: Client, module: str) -> Iterator[None]:
    """Cycles are accounted to modules meanwhile; any module of the pipeline will do."""

    def switch(enable: bool) -> None:
        client.run_module_command(module, "e2_profile", "ModuleProfileArg", {"enable": enable})

    switch(True)
    try:
        yield
    finally:
        switch(False)


def read_sample(client: Client, modules: Iterable[str], *, cycles: bool = False) -> Sample:
    """Counters of these modules and of all tasks; of modules' cycles where they are accounted."""
    with daemon_errors(client):
        tasks: dict[str, TaskUse] = {}
        for tc in client.list_tcs():
            if tc["policy"] == "leaf":
                stats = client.tc_stats(tc["name"])
                module = str(tc["leaf_module_name"])
                use = TaskUse(stats.timestamp, stats.count, stats.cycles, stats.packets)
                tasks[module] = tasks.get(module, TaskUse()).plus(use)
        edges: dict[Key, tuple[int, float]] = {}
        targets: dict[Key, str] = {}
        uses: dict[str, ModuleUse] = {}
        for module in modules:
            for gate in client.module_info(module)["ogates"]:
                key = (module, int(gate["ogate"]))
                edges[key] = (int(gate["pkts"]), float(gate["timestamp"]))
                targets[key] = str(gate["name"])
            if cycles:
                found = client.run_module_command(module, "e2_stats", "ModuleStatsArg")
                uses[module] = ModuleUse(**{f.name: found[f.name] for f in fields(ModuleUse)})
        return Sample(edges, targets, tasks, uses)


def between(before: Sample, after: Sample) -> Growth:
    """What came between two samples of one pipeline."""
    if before.targets != after.targets or before.tasks.keys() != after.tasks.keys():
        raise AlpineError(_replaced("its modules are connected differently"))
    edges: dict[Key, float] = {}
    packets: dict[Key, int] = {}
    for key, (count, when) in after.edges.items():
        count_before, when_before = before.edges[key]
        if count < count_before:
            raise AlpineError(_replaced(f"the counter of {key[0]}:{key[1]} went back"))
        packets[key] = count - count_before
        edges[key] = packets[key] / (when - when_before) if when > when_before else 0.0
    tasks: dict[str, TaskUse] = {}
    for module, use in after.tasks.items():
        earlier = before.tasks[module]
        seconds = use.seconds - earlier.seconds
        if use.runs < earlier.runs:
            raise AlpineError(_replaced(f"the task of {module} went back to its start"))
        scale = 1 / seconds if seconds > 0 else 0.0
        tasks[module] = TaskUse(
            seconds,
            (use.runs - earlier.runs) * scale,
            (use.cycles - earlier.cycles) * scale,
            (use.packets - earlier.packets) * scale,
        )
    modules = {
        module: ModuleUse(
            *(getattr(use, f.name) - getattr(before.modules[module], f.name) for f in fields(use))
        )
        for module, use in after.modules.items()
        if module in before.modules
    }
    return Growth(edges, packets, tasks, modules)
