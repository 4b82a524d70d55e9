# SPDX-License-Identifier: BSD-3-Clause
"""Runs a script under its schedule on a daemon, and measures it for as long as it is told to."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from alpine.compiler import compile_program
from alpine.errors import AlpineError
from alpine.measure import Meter, Reading
from alpine.plan import Plan
from alpine.planning import Target
from alpine.profile import (
    Profile,
    even_profile,
    profile_path,
    read_profile,
    write_profile,
)
from alpine.profiling import Load, take_profile
from alpine.program import Program
from alpine.sample import Progress, daemon_errors
from alpine.schedule import Schedule
from alpine.verify import TOLERANCE
from bess_plugins.client import Client

__all__ = [
    "Observe",
    "Options",
    "Running",
    "check_workers",
    "find_profile",
    "run",
    "start",
    "target_of",
]

Observe = Callable[[Reading], None]
_WARM_UP_S = 0.2  # queues fill up, or run empty


@dataclass(frozen=True)
class Options:
    """How to find costs and a schedule. ``even`` assumes costs instead of a profile."""

    profile_s: float = 2.0
    pcap: Path | None = None
    even: bool = False
    solver: str = "auto"
    time_limit_s: float = 60.0


@dataclass(frozen=True)
class Running:
    """A schedule that a daemon runs."""

    program: Program
    schedule: Schedule
    plan: Plan
    meter: Meter
    target: Target


def find_profile(
    program: Program,
    client: Client,
    load: Load,
    options: Options,
    progress: Progress | None = None,
) -> Profile:
    """The profile next to the script; where there is none, it is taken and written there."""
    if options.even:
        return even_profile(program)
    path = profile_path(program.path)
    if path.exists():
        return read_profile(path, program)
    profile = take_profile(
        program, client, load, options.profile_s, pcap=options.pcap, progress=progress
    )
    write_profile(path, profile, program.path)
    return profile


def check_workers(program: Program, client: Client) -> None:
    """Refuse more workers than cores. Of a daemon elsewhere, the cores are not known."""
    cores = len(os.sched_getaffinity(0))
    if program.workers_place is None or program.workers <= cores or not _is_here(client.address):
        return
    raise AlpineError(
        f"{program.workers_place}: {program.workers} workers need as many cores, and this machine "
        f"lets us use {cores}; say alpine.workers({cores}) to run it here"
    )


def _is_here(address: str) -> bool:
    """Whether a daemon runs on this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def start(
    program: Program,
    client: Client,
    load: Load,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    tolerance: float = TOLERANCE,
) -> Running:
    """Find costs, solve, verify, and put the result on the daemon in place of what it runs."""
    options = options or Options()
    check_workers(program, client)
    profile = find_profile(program, client, load, options, progress)
    target = target_of(client)
    made = compile_program(
        program,
        profile,
        solver=options.solver,
        time_limit_s=options.time_limit_s,
        tolerance=tolerance,
        target=target,
    )
    with daemon_errors(client):
        load(made.plan)
    meter = Meter(client, [*program.graph.modules], made.schedule, made.plan)
    return Running(program, made.schedule, made.plan, meter, target)


def target_of(client: Client) -> Target:
    """What schedules for this daemon may use."""
    with daemon_errors(client):
        return "e2d" if client.version().startswith("e2d ") else "any"


def run(
    running: Running,
    *,
    seconds: float | None = None,
    interval: float = 1.0,
    observe: Observe | None = None,
    stop: Event | None = None,
) -> Reading:
    """Measure until the time is over or ``stop`` is set; tell what was achieved in all.

    ``observe`` is told each interval's reading.
    """
    meter, stop = running.meter, stop or Event()
    end = None if seconds is None else time.monotonic() + _WARM_UP_S + seconds
    stop.wait(_WARM_UP_S)
    first = last = meter.sample()
    while True:
        left = interval if end is None else min(interval, end - time.monotonic())
        stopped = stop.wait(max(0.0, left))
        now = meter.sample()
        if observe is not None:
            observe(meter.reading(last, now))
        last = now
        if stopped or (end is not None and time.monotonic() >= end):
            return meter.reading(first, last)
