# SPDX-License-Identifier: BSD-3-Clause
"""Graphs in engines of their own, fed from memory, paused until they are measured in turn."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bess_plugins._engine import Engine
from bess_plugins.captures import read_packets
from graphs import thread_ns

__all__ = ["CORES", "Bench", "Figures", "Memory", "Step", "Traffic", "through"]

CORES = sorted(os.sched_getaffinity(0), reverse=True)  # the last one first, as other benchmarks
BATCH = 32  # packets of a run, and templates of a Rewrite
MOST_FRAMES = 128 * BATCH
LONGEST_FRAME = 1536  # beyond it captures have what was cut later
LONGEST_S = 10.0  # that a round waits for a packet
WARMUP = 0.25  # of the time that counts
Step = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Traffic:
    """Frames that are sent over and over."""

    name: str
    frames: Sequence[bytes]

    @property
    def mean_bytes(self) -> float:
        return sum(map(len, self.frames)) / len(self.frames)


class Memory:
    """An engine whose packets are in memory; with one core, that does everything."""

    def __init__(self, cores: Sequence[int] = CORES[:1]) -> None:
        self.engine = Engine()
        self.modules: list[str] = []
        self.exits: list[str] = []  # what leaves these by any gate counts
        self.workers = len(cores)
        for number, core in enumerate(cores):
            self.engine.add_worker(number, core)

    def add(
        self, name: str, mclass: str, args: Mapping[str, Any], worker: int | None = None
    ) -> str:
        self.engine.create_module(name, mclass, dict(args))
        self.modules.append(name)
        if worker is not None:
            place = {"leaf_module_name": name, "leaf_module_taskid": 0}
            self.engine.update_tc_parent({**place, "wid": worker % self.workers})
        return name

    def feed(self, name: str, traffic: Traffic) -> str:
        """A module that sends the traffic's packets in turn, batch by batch."""
        frames = list(traffic.frames[:MOST_FRAMES])
        frames *= -(-BATCH // len(frames))
        parts = [frames[at : at + BATCH] for at in range(0, len(frames), BATCH)]
        self.add("source", "Source", {"pkt_size": 60}, worker=0)
        self.add("parts", "RoundRobin", {"gates": list(range(len(parts))), "mode": "batch"})
        self.add(name, "Merge", {})
        self.engine.connect("source", 0, "parts", 0)
        for gate, part in enumerate(parts):
            self.add(f"part{gate}", "Rewrite", {"templates": part})
            self.engine.connect("parts", gate, f"part{gate}", 0)
            self.engine.connect(f"part{gate}", 0, name, gate)
        return name

    def passed(self) -> int:
        """Packets that have left."""
        return sum(
            int(gate["pkts"])
            for name in self.exits
            for gate in self.engine.module_info(name)["ogates"]
        )

    def drops(self) -> dict[str, int]:
        """What was dropped, by module and reason."""
        return {
            f"{name}: {reason}": count
            for name in self.modules
            for reason, count in self.engine.module_info(name)["drops"].items()
            if count
        }

    def close(self) -> None:
        self.engine.pause_all()
        self.engine.reset_modules()


@dataclass(frozen=True)
class Figures:
    """Of the rounds of one graph. ``core_percent`` of its cores it had: below 98 others were there.

    ``mpps`` is the median; ``cpu_mpps`` counts by the time that its busiest core gave it.
    """

    rounds_mpps: tuple[float, ...]
    mpps: float
    cpu_mpps: float
    core_percent: float

    def as_dict(self, mean_bytes: float = 0.0) -> dict[str, Any]:
        """For JSON."""
        rates = {"gbps": self.mpps * mean_bytes * 8 / 1e3} if mean_bytes else {}
        return {**vars(self), **rates}


@dataclass(frozen=True)
class Bench:
    """How long to measure, and how often."""

    seconds: float
    rounds: int

    def in_turn(self, groups: Mapping[str, Sequence[Memory]]) -> dict[str, Figures]:
        """Round by round, so that slow phases meet all alike. What is in a group runs at a time."""
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in groups}
        for _ in range(self.rounds):
            for name, group in groups.items():
                taken[name].append(self._round(group))
        found = {}
        for name, rounds in taken.items():
            mpps, cpu, percent = zip(*rounds, strict=True)
            if not min(mpps) > 0:
                raise RuntimeError(f"{name}: no packets came through")
            found[name] = Figures(mpps, median(mpps), median(cpu), median(percent))
        return found

    def _round(self, group: Sequence[Memory]) -> tuple[float, float, float]:
        for one in group:
            one.engine.resume_all()
        time.sleep(WARMUP * self.seconds)
        used, start = thread_ns(os.getpid()), time.perf_counter_ns()
        before = sum(one.passed() for one in group)
        packets = spent = 0
        # Where others have the core for all of that time, it goes on.
        while packets == 0 and spent < LONGEST_S * 1e9:
            time.sleep(self.seconds)
            packets = sum(one.passed() for one in group) - before
            spent = time.perf_counter_ns() - start
        now = thread_ns(os.getpid())
        for one in group:
            one.engine.pause_all()
        workers = sum(one.workers for one in group)
        busy = sorted((ns - used.get(name, 0) for name, ns in now.items()), reverse=True)[:workers]
        # The kernel counts a thread's time as it is switched, which may be after a short round.
        return packets / spent * 1e3, packets / max(1, busy[0]) * 1e3, 100 * busy[-1] / spent

    @contextmanager
    def open(self, groups: dict[str, list[Memory]]) -> Iterator[dict[str, list[Memory]]]:
        """Graphs that are closed at the end."""
        try:
            yield groups
        finally:
            for group in groups.values():
                for one in group:
                    one.close()


def write_capture(path: Path, frames: Sequence[bytes]) -> None:
    """A pcap file of Ethernet frames, all at the same time."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def through(frames: Sequence[bytes], steps: Sequence[Step]) -> list[bytes]:
    """What comes out of a chain of modules, in order; `RuntimeError` where something is missing."""
    with tempfile.TemporaryDirectory() as folder:
        read, written = Path(folder) / "in.pcap", Path(folder) / "out.pcap"
        write_capture(read, frames)
        chain = Memory()
        chain.engine.create_port("in", "PCAPPort", num_out_q=0, args={"dev": str(read)})
        chain.engine.create_port("out", "PCAPPort", num_inc_q=0, args={"write_path": str(written)})
        names = [chain.add("first", "PortInc", {"port": "in"}, worker=0)]
        names += [chain.add(f"step{n}", *step) for n, step in enumerate(steps)]
        names.append(chain.add("last", "PortOut", {"port": "out"}))
        for before, after in pairwise(names):
            chain.engine.connect(before, 0, after, 0)
        chain.exits = names[-2:-1]
        chain.engine.resume_all()
        _wait(lambda: chain.passed() + sum(chain.drops().values()) >= len(frames))
        drops = chain.drops()
        chain.close()
        chain.engine.destroy_port("out")
        if drops:
            raise RuntimeError(f"packets were dropped: {drops}")
        return [*read_packets(written)]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("packets did not come through in a minute")
        time.sleep(0.01)
