# SPDX-License-Identifier: BSD-3-Clause
"""One way to build and count a graph on the engine in this process and on a daemon that runs."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from bess_plugins._engine import Engine
from bess_plugins.client import Client

CORE = max(os.sched_getaffinity(0))


class MissingClassError(LookupError):
    """The daemon has no module class of that name."""


def thread_ns(pid: int) -> dict[str, int]:
    """CPU time of each thread so far."""
    times = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # the thread ended meanwhile
            times[task.name] = int((task / "schedstat").read_text().split()[0])
    return times


def listening_pid(port: int) -> int | None:
    """The process on this machine that serves the port, where we may know."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(fd) in sockets for fd in (process / "fd").iterdir()):
                return int(process.name)
    return None


class Graph(ABC):
    """A graph on worker 0; the packets that count are those that its exits pass to sinks."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}  # class by name
        self.exits: list[tuple[str, int]] = []
        self.copies = 1  # of each packet, that reach the sinks
        self.pid: int | None = None  # whose thread the worker is

    @abstractmethod
    def create(self, mclass: str, name: str, args: dict[str, Any]) -> None: ...
    @abstractmethod
    def command(self, module: str, command: str, **args: Any) -> dict[str, Any]: ...
    @abstractmethod
    def connect(self, before: str, after: str, ogate: int = 0, igate: int = 0) -> None: ...
    @abstractmethod
    def add_tc(self, name: str, policy: str, **place: Any) -> None: ...
    @abstractmethod
    def attach(self, module: str, parent: str, **place: int) -> None: ...
    @abstractmethod
    def module_info(self, module: str) -> dict[str, Any]: ...
    @abstractmethod
    def cycles(self) -> int:
        """That the tasks used so far."""

    @abstractmethod
    def resume(self) -> None: ...
    @abstractmethod
    def pause(self) -> None: ...
    @abstractmethod
    def close(self) -> None: ...

    def add(self, mclass: str, **args: Any) -> str:
        name = f"{mclass.lower()}{len(self.modules)}"
        self.create(mclass, name, args)
        self.modules[name] = mclass
        return name

    def join(self, *modules: str) -> None:
        for before, after in pairwise(modules):
            self.connect(before, after)

    def source(self, templates: Sequence[bytes] = ()) -> str:
        """A source, and a Rewrite behind it where there are templates."""
        source = self.add("Source", pkt_size=60)
        if not templates:
            return source
        rewrite = self.add("Rewrite", templates=list(templates))
        self.join(source, rewrite)
        return rewrite

    def sinks(self, module: str, gates: Sequence[int] = (0,)) -> None:
        for gate in gates:
            self.connect(module, self.add("Sink"), ogate=gate)
            self.exits.append((module, gate))

    def counts(self) -> list[tuple[int, float]]:
        """Packets and the time in seconds, for each exit."""
        infos = {module: self.module_info(module) for module, _ in self.exits}
        gates = {
            (module, gate["ogate"]): (gate["pkts"], gate["timestamp"])
            for module, info in infos.items()
            for gate in info["ogates"]
        }
        return [gates[place] for place in self.exits]

    def worker_ns(self) -> dict[str, int]:
        """CPU time of the threads, one of which is the worker; none where we cannot know."""
        return {} if self.pid is None else thread_ns(self.pid)


class EngineGraph(Graph):
    """On a fresh engine."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = os.getpid()
        self.engine = Engine()
        self.engine.add_worker(0, CORE)

    def create(self, mclass: str, name: str, args: dict[str, Any]) -> None:
        self.engine.create_module(name, mclass, args)

    def command(self, module: str, command: str, **args: Any) -> dict[str, Any]:
        return self.engine.module_command(module, command, args)

    def connect(self, before: str, after: str, ogate: int = 0, igate: int = 0) -> None:
        self.engine.connect(before, ogate, after, igate)

    def add_tc(self, name: str, policy: str, **place: Any) -> None:
        self.engine.add_tc({"name": name, "policy": policy, **place})

    def attach(self, module: str, parent: str, **place: int) -> None:
        self.engine.update_tc_parent(
            {"leaf_module_name": module, "leaf_module_taskid": 0, "parent": parent, **place}
        )

    def module_info(self, module: str) -> dict[str, Any]:
        info = self.engine.module_info(module)
        now = time.time()
        for gate in info["ogates"]:
            gate["timestamp"] = now
        return info

    def cycles(self) -> int:
        leaves = [tc["name"] for tc in self.engine.tcs() if tc["policy"] == "leaf"]
        return sum(self.engine.tc_stats(leaf)["cycles"] for leaf in leaves)

    def resume(self) -> None:
        self.engine.resume_all()

    def pause(self) -> None:
        self.engine.pause_all()

    def close(self) -> None:
        self.engine.pause_all()
        self.engine.reset_modules()

    def lost(self) -> dict[str, dict[str, int]]:
        """Drops by module and reason, but for queues: a full one drops by design."""
        drops = {
            name: self.engine.module_info(name)["drops"]
            for name, mclass in self.modules.items()
            if mclass not in ("Queue", "DRR")
        }
        counts = {
            name: {reason: count for reason, count in reasons.items() if count}
            for name, reasons in drops.items()
        }
        return {name: reasons for name, reasons in counts.items() if reasons}


class DaemonGraph(Graph):
    """On a daemon of BESS's protocol, of which nothing is kept."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.classes = client.list_mclasses()
        port = client.address.rpartition(":")[2]
        self.pid = listening_pid(int(port)) if port.isdigit() else None
        self.arg_types: dict[str, dict[str, str]] = {}  # by class and command
        client.reset_all()
        client.add_worker(0, CORE)

    def create(self, mclass: str, name: str, args: dict[str, Any]) -> None:
        if mclass not in self.classes:
            raise MissingClassError(mclass)
        self.client.create_module(mclass, name, **args)

    def command(self, module: str, command: str, **args: Any) -> dict[str, Any]:
        mclass = self.modules[module]
        if mclass not in self.arg_types:
            info = self.client.mclass_info(mclass)
            self.arg_types[mclass] = dict(zip(info["cmds"], info["cmd_args"], strict=True))
        return self.client.run_module_command(
            module, command, self.arg_types[mclass][command], args
        )

    def connect(self, before: str, after: str, ogate: int = 0, igate: int = 0) -> None:
        self.client.connect(before, after, ogate, igate)

    def add_tc(self, name: str, policy: str, **place: Any) -> None:
        self.client.add_tc(name, policy, **place)

    def attach(self, module: str, parent: str, **place: int) -> None:
        self.client.attach_task(module, parent, **place)

    def module_info(self, module: str) -> dict[str, Any]:
        return self.client.module_info(module)

    def cycles(self) -> int:
        leaves = [tc["name"] for tc in self.client.list_tcs() if tc["policy"] == "leaf"]
        return sum(self.client.tc_stats(leaf).cycles for leaf in leaves)

    def resume(self) -> None:
        self.client.resume()

    def pause(self) -> None:
        self.client.pause()

    def close(self) -> None:
        self.client.pause()
        self.client.reset_all()
