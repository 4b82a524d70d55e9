# SPDX-License-Identifier: BSD-3-Clause
"""Alpine's evaluation after section 5.5 of the dissertation: `make bench-alpine`.

Every figure of one table is measured in turn on one machine, so that ratios can be compared; they
are reported and never judged. Writes alpine.json, alpine.txt and a plot for each figure.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress

import alpine_plots as plots
from alpine.errors import AlpineError
from alpine.graph import build_forest
from alpine.objectives import Kind
from alpine.profile import even_profile
from alpine.schedule import Problem
from alpine.solve import solve
from alpine_pipelines import PIPELINES, Pipeline, example, fork, tree
from alpine_report import tables
from alpine_runs import Figures, Runner
from alpine_strategies import STRATEGIES, objective, pipeline_cost, set_up
from bess_plugins.client import BessError, Client
from bess_plugins.daemon.server import Server, make_engine

ALPINE = STRATEGIES[-1]
CUTTING = STRATEGIES[1:]  # those that have queues
SEED = 2018
FORK_CYCLES = (0, 25, 50, 100, 200, 400, 800)
NODE_CYCLES = 50
TREE_QUEUE_PACKETS = 64  # a thousand queues of the usual size would hold all packets there are


@dataclass
class Evaluation:
    """What is measured, and where it goes."""

    runner: Runner
    folder: Path
    rounds: int
    depths: Sequence[int]
    seed: int
    tick: Callable[[str], None]
    result: dict[str, Any] = field(default_factory=dict)

    def pipelines(self) -> None:
        """Figures 5.6 and 5.7, table 5.3."""
        found: dict[str, Any] = {}
        target = self.runner.target
        cores = len(os.sched_getaffinity(0))
        for index, name in enumerate(PIPELINES):
            pipeline = example(name, self.folder)
            self.tick(f"{name}: profile")
            profile, classifier = self.runner.profile(pipeline)
            entry: dict[str, Any] = {"classifier_cycles": classifier}
            for workers in (1, 2):
                if workers > cores:
                    continue
                policy = objective(5, Kind.CPU_TIME, self.seed + index)
                setups = [
                    set_up(s, pipeline, profile, classifier, policy, target, workers)
                    for s in STRATEGIES
                ]
                self.tick(f"{name}: {workers} worker{'s' * (workers > 1)}")
                figures = self.runner.compare(setups, self.rounds)
                entry[str(workers)] = _dicts(figures)
                if workers == 1:
                    problem = setups[-1].schedule.problem
                    queue = profile.queue
                    entry |= {
                        "pipeline_cycles": pipeline_cost(problem),
                        "enqueue_cycles": queue.enqueue,
                        "dequeue_cycles": queue.dequeue,
                        "hz": profile.hz,
                    }
            policy = objective(5, Kind.THROUGHPUT, self.seed + index)
            self.tick(f"{name}: ratios of throughput")
            setups = [set_up(ALPINE, pipeline, profile, classifier, policy, target)]
            entry["throughput"] = _dicts(self.runner.compare(setups, self.rounds))
            found[name] = entry
        self.result["pipelines"] = found

    def costs(self) -> None:
        """Figure 5.8."""
        found: dict[str, Any] = {}
        target = self.runner.target
        for cycles in FORK_CYCLES:
            self.tick(f"modules of {cycles} cycles")
            pipeline = fork(cycles, self.folder)
            profile, classifier = self.runner.profile(pipeline)
            policy = objective(2, Kind.CPU_TIME, self.seed)
            setups = [set_up(s, pipeline, profile, classifier, policy, target) for s in CUTTING]
            found[str(cycles)] = {
                "pipeline_cycles": pipeline_cost(setups[-1].schedule.problem),
                **_dicts(self.runner.compare(setups, self.rounds)),
            }
        self.result["costs"] = found

    def trees(self) -> None:
        """Figure 5.9."""
        found: dict[str, Any] = {}
        target = self.runner.target
        for depth in self.depths:
            pipeline = tree(depth, NODE_CYCLES, self.folder)
            self.tick(f"tree of depth {depth}: profile")
            profile, classifier = self.runner.profile(pipeline)
            trials: dict[str, list[Figures]] = {}
            for trial in range(self.rounds if depth < 8 else max(1, self.rounds // 3)):
                self.tick(f"tree of depth {depth}: ratios {trial + 1}")
                count = len(pipeline.program.paths)
                policy = objective(count, Kind.CPU_TIME, self.seed + trial)
                setups = [set_up(s, pipeline, profile, classifier, policy, target) for s in CUTTING]
                figures = self.runner.compare(setups, 1, queue_packets=TREE_QUEUE_PACKETS)
                for strategy, one in figures.items():
                    trials.setdefault(strategy, []).append(one)
            found[str(depth)] = {
                strategy: {
                    "rounds_mpps": [one.mpps for one in many],
                    "mpps": median(one.mpps for one in many),
                    "predicted_mpps": median(one.predicted_mpps for one in many),
                    "error": median(one.error for one in many),
                    "tasks": median(one.tasks for one in many),
                }
                for strategy, many in trials.items()
            }
        self.result["trees"] = found

    def solving(self) -> None:
        """Table 5.4 and figure 5.10."""
        found: dict[str, Any] = {"pipelines": {}, "trees": {}}
        for index, name in enumerate(PIPELINES):
            self.tick(f"solving: {name}")
            pipeline = example(name, self.folder)
            found["pipelines"][name] = {
                str(kind): _solve(pipeline, kind, self.seed + index, self.rounds)
                for kind in (Kind.CPU_TIME, Kind.THROUGHPUT)
            }
        for depth in range(1, 11):
            self.tick(f"solving: tree of depth {depth}")
            pipeline = tree(depth, NODE_CYCLES, self.folder)
            found["trees"][str(depth)] = {
                str(kind): _solve(pipeline, kind, self.seed, min(3, self.rounds))
                for kind in (Kind.CPU_TIME, Kind.THROUGHPUT)
            }
        self.result["solving"] = found


def _dicts(figures: dict[str, Figures]) -> dict[str, Any]:
    return {strategy: one.as_dict() for strategy, one in figures.items()}


def _solve(pipeline: Pipeline, kind: Kind, seed: int, rounds: int) -> dict[str, float]:
    """With costs that are assumed: how long it takes does not depend on them."""
    program = pipeline.program
    profile = even_profile(program)
    forest = build_forest(program.graph, program.paths)
    policy = objective(len(program.paths), kind, seed)
    problem = Problem(forest, profile.rates(program), profile.costs(), policy)
    times = []
    for _ in range(rounds):
        schedule = solve(problem)
        times.append(schedule.solve_s)
    return {
        "seconds": median(times),
        "gap": schedule.gap,
        "tasks": len(schedule.tasks),
        "modules": len(program.graph.modules),
    }


@contextmanager
def _daemon() -> Iterator[Client]:
    """That of BESSD_ADDRESS, else the embedded engine in this process."""
    address = os.environ.get("BESSD_ADDRESS")
    if address:
        with Client(address) as client:
            yield client
        return
    with Server(make_engine(), port=0) as server, Client(server.address) as client:
        yield client


PARTS = ("pipelines", "costs", "trees", "solving")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python bench/alpine_evaluation.py --only pipelines --rounds 3",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions; medians are shown")
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    parser.add_argument("--seed", type=int, default=SEED, help="of the random ratios")
    parser.add_argument("--depth", type=int, default=10, help="of the deepest tree that runs")
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts; else all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        _daemon() as client,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("", total=None)
        evaluation = Evaluation(
            Runner(client, args.seconds),
            Path(folder),
            args.rounds,
            range(1, args.depth + 1),
            args.seed,
            lambda what: progress.update(task, description=what),
        )
        for part in args.only or PARTS:
            try:
                getattr(evaluation, part)()
            except (AlpineError, BessError) as error:
                raise SystemExit(f"{part}: {error}") from None
        version = client.version()
    result = {
        "daemon": version,
        "seed": args.seed,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "took_s": time.monotonic() - started,
        **evaluation.result,
    }
    (args.out / "alpine.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with (args.out / "alpine.txt").open("w", encoding="utf-8") as text:
        for console in (Console(file=text, width=140), Console(width=140)):
            for table in tables(result, NODE_CYCLES):
                console.print(table, "")
    plots.draw(result, args.out)


if __name__ == "__main__":
    main()
