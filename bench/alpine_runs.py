# SPDX-License-Identifier: BSD-3-Clause
"""Schedules on a daemon, measured in turn, so that slow phases of the machine meet all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from alpine.emit import emit
from alpine.graph import build_forest
from alpine.live import target_of
from alpine.measure import Meter, Reading, Wiring, read_off, slo_error
from alpine.objectives import Kind
from alpine.plan import Plan
from alpine.planning import Target
from alpine.profile import Profile
from alpine.profiling import Load, take_profile
from alpine.program import Program
from alpine.sample import Growth, Sample, between, read_sample
from alpine_pipelines import CLASSIFIER, Pipeline
from alpine_strategies import MANUAL, RTC, Setup
from bess_plugins.client import Client
from bess_plugins.script.api import Bess
from bess_plugins.script.runner import execute

__all__ = ["Figures", "Runner"]

WARM_UP_S = 0.15
LOOKS = 10  # at how full queues are, while a schedule runs
MOST_QUEUES = 16  # that are looked at


@dataclass(frozen=True)
class Figures:
    """Medians of the rounds of one setup, and the throughput of each.

    ``latency_s`` is the mean over packets: by Little's law in queues, and a batch's time in tasks.
    """

    rounds_mpps: tuple[float, ...]
    mpps: float
    predicted_mpps: float
    error: float
    delivered_error: float
    latency_s: float | None
    idle: float
    tasks: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class _Round:
    mpps: float
    error: float
    delivered_error: float
    latency_s: float | None
    idle: float


class Runner:
    """Measures on one daemon."""

    def __init__(self, client: Client, seconds: float) -> None:
        self.client = client
        self.seconds = seconds
        self.target: Target = target_of(client)

    def loader(self, program: Program) -> Load:
        def load(plan: Plan) -> None:
            self.execute(program, emit(program, plan))

        return load

    def execute(self, program: Program, text: str) -> None:
        """Replace what the daemon runs."""
        execute(program.path, text, Bess(self.client), program.recording.variables, {})

    def profile(self, pipeline: Pipeline) -> tuple[Profile, float]:
        """The pipeline's profile, and what the manual strategy's classifier costs."""
        # With two workers asked for, the way from one to the other is measured as well.
        program = replace(pipeline.program, workers=2)
        found = take_profile(program, self.client, self.loader(program), 2 * self.seconds)
        manual = take_profile(
            pipeline.manual, self.client, self.loader(pipeline.manual), 2 * self.seconds
        )
        # Behind the classifier all classes meet, so what flows there can't be told from counters;
        # costs there are for packets of which most seem to be lost.
        forest = build_forest(pipeline.manual.graph, pipeline.manual.paths)
        flow = manual.flow(forest)
        passed = sum(flow.rates(forest)) / flow.arrived[forest.roots[0]]
        return found, manual.modules[CLASSIFIER] * passed

    def compare(
        self, setups: Sequence[Setup], rounds: int, *, queue_packets: int | None = None
    ) -> dict[str, Figures]:
        """By strategy. ``queue_packets``: the size of queues, where not the default."""
        taken: dict[str, list[_Round]] = {setup.strategy: [] for setup in setups}
        for _ in range(rounds):
            for setup in setups:
                taken[setup.strategy].append(self._round(setup, queue_packets))
        found = {}
        for setup in setups:
            mine = taken[setup.strategy]
            latencies = [r.latency_s for r in mine if r.latency_s is not None]
            found[setup.strategy] = Figures(
                tuple(r.mpps for r in mine),
                median(r.mpps for r in mine),
                sum(setup.schedule.throughput_pps) / 1e6,
                median(r.error for r in mine),
                median(r.delivered_error for r in mine),
                median(latencies) if latencies else None,
                median(r.idle for r in mine),
                len(setup.schedule.tasks),
            )
        return found

    def _round(self, setup: Setup, queue_packets: int | None) -> _Round:
        text = setup.text
        if queue_packets is not None:
            text = text.replace("::Queue()", f"::Queue(size={queue_packets})")
        self.execute(setup.program, text)
        wiring = Wiring.of(setup.schedule, setup.plan)
        graph = setup.program.graph
        modules = [*graph.modules, *wiring.queues.values()]
        if setup.strategy != RTC:
            Meter(self.client, [*graph.modules], setup.schedule, setup.plan)  # checks what runs
        time.sleep(WARM_UP_S)
        before = read_sample(self.client, modules)
        waiting = self._wait(list(wiring.queues.values()))
        after = read_sample(self.client, modules)
        return _evaluate(setup, wiring, before, after, waiting)

    def _wait(self, queues: Sequence[str]) -> Mapping[str, float] | None:
        """Let it run; how many packets wait in each queue meanwhile."""
        if len(queues) > MOST_QUEUES:
            time.sleep(self.seconds)
            return None
        seen: dict[str, list[float]] = {queue: [] for queue in queues}
        for _ in range(LOOKS):
            time.sleep(self.seconds / LOOKS)
            for queue in queues:
                status = self.client.run_module_command(
                    queue, "get_status", "QueueCommandGetStatusArg"
                )
                seen[queue].append(float(status["count"]))
        return {queue: fmean(counts) for queue, counts in seen.items()}


def _evaluate(
    setup: Setup,
    wiring: Wiring,
    before: Sample,
    after: Sample,
    waiting: Mapping[str, float] | None,
) -> _Round:
    grown = between(before, after)
    schedule, problem = setup.schedule, setup.schedule.problem
    forest = problem.forest
    reading = read_off(schedule, wiring, grown)
    (policy,) = reading.policies
    arrived = wiring.arrived(grown.edges)
    rates = [arrived[path.edges[-1].key] for path in forest.paths]
    wanted = [member.value for member in problem.objective.members]
    total = sum(rates)
    delivered = slo_error(wanted, rates)
    error = policy.error
    if setup.strategy == MANUAL:
        error = slo_error(wanted, _times_by_queue(setup, wiring, grown))
    if problem.objective.kind is Kind.THROUGHPUT:
        error = delivered
    # Parts are of a task's worker; here, of the time of all of them.
    idle = sum(task.idle * task.part for task in reading.tasks) / sum(t.part for t in reading.tasks)
    latency = None if waiting is None else _latency(setup, wiring, grown, reading, waiting, rates)
    return _Round(total / 1e6, error, delivered, latency, idle)


def _times_by_queue(setup: Setup, wiring: Wiring, grown: Growth) -> list[float]:
    """CPU time of the classes of a manual pipeline: their queue's, and a part of the classifier's.

    Behind the queues all classes take the same edges, so those don't tell one from the other.
    """
    program = setup.program
    gates = [grown.edges[CLASSIFIER, gate] for gate in range(len(program.paths))]
    before = grown.tasks[program.paths[0].input].cycles
    queues = [wiring.queues[CLASSIFIER, gate] for gate in range(len(program.paths))]
    return [
        before * packets / sum(gates) + grown.tasks[queue].cycles
        for packets, queue in zip(gates, queues, strict=True)
    ]


def _latency(
    setup: Setup,
    wiring: Wiring,
    grown: Growth,
    reading: Reading,
    waiting: Mapping[str, float],
    rates: Sequence[float],
) -> float:
    """The mean over packets that leave."""
    schedule = setup.schedule
    forest, hz = schedule.problem.forest, schedule.problem.costs.hz
    idle = {task.module: task.idle for task in reading.tasks}
    source = grown.tasks[forest.paths[0].input]
    batch = source.packets / source.runs  # of the daemon: 32 packets or 64
    latency = 0.0
    for path, way, rate in zip(forest.paths, forest.ways, rates, strict=True):
        own = 0.0
        for edge in path.edges:
            queue = wiring.queues.get(edge.key)
            if queue is not None and grown.tasks[queue].packets:
                own += waiting[queue] / grown.tasks[queue].packets
        for task in schedule.tasks:
            module = wiring.modules[task.head]
            use = grown.tasks[module]
            if task.head in way and use.packets:
                own += batch * use.cycles * (1 - idle[module]) / use.packets / hz
        latency += own * rate / sum(rates)
    return latency
