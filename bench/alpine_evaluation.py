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
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import alpine_plots as plots
from alpine.graph import build_forest
from alpine.objectives import Kind
from alpine.profile import even_profile
from alpine.schedule import Problem
from alpine.solve import solve
from alpine_pipelines import PIPELINES, Pipeline, example, fork, tree
from alpine_runs import Figures, Runner
from alpine_strategies import STRATEGIES, objective, pipeline_cost, set_up
from bess_plugins.client import BessError, Client
from bess_plugins.daemon.server import Server, make_engine

RTC, MANUAL, SEMI, ALPINE = STRATEGIES
SEED = 2018
# Of the dissertation: table 5.3, the text around figures 5.6 and 5.7, and table 5.4.
THEIR_CYCLES = {"router": 171.02, "filter": 166.42, "proxy": 216.11}
THEIR_SPEEDUP = {"router": 1.91, "filter": 1.74, "proxy": 1.30}
THEIR_SOLVE_S = {"router": 43.41, "filter": 16.31, "proxy": 23.28}
THEIR_MEANS = {1: (1.649, 1.479), 2: (1.686, 1.373)}
THEIR_ERROR = {1: 0.01, 2: 0.04}
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
                    set_up(s, pipeline, profile, classifier, policy, workers, self.runner.target)
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
            target = self.runner.target
            setups = [set_up(ALPINE, pipeline, profile, classifier, policy, target=target)]
            entry["throughput"] = _dicts(self.runner.compare(setups, self.rounds))
            found[name] = entry
        self.result["pipelines"] = found

    def costs(self) -> None:
        """Figure 5.8."""
        found: dict[str, Any] = {}
        for cycles in FORK_CYCLES:
            self.tick(f"modules of {cycles} cycles")
            pipeline = fork(cycles, self.folder)
            profile, classifier = self.runner.profile(pipeline)
            policy = objective(2, Kind.CPU_TIME, self.seed)
            setups = [
                set_up(s, pipeline, profile, classifier, policy) for s in (MANUAL, SEMI, ALPINE)
            ]
            found[str(cycles)] = {
                "pipeline_cycles": pipeline_cost(setups[-1].schedule.problem),
                **_dicts(self.runner.compare(setups, self.rounds)),
            }
        self.result["costs"] = found

    def trees(self) -> None:
        """Figure 5.9."""
        found: dict[str, Any] = {}
        for depth in self.depths:
            pipeline = tree(depth, NODE_CYCLES, self.folder)
            self.tick(f"tree of depth {depth}: profile")
            profile, classifier = self.runner.profile(pipeline)
            trials: dict[str, list[Figures]] = {}
            for trial in range(self.rounds if depth < 8 else max(1, self.rounds // 3)):
                self.tick(f"tree of depth {depth}: ratios {trial + 1}")
                count = len(pipeline.program.paths)
                policy = objective(count, Kind.CPU_TIME, self.seed + trial)
                setups = [
                    set_up(s, pipeline, profile, classifier, policy) for s in (MANUAL, SEMI, ALPINE)
                ]
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


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _pipeline_tables(found: dict[str, Any]) -> Iterator[Table]:
    for workers in ("1", "2"):
        if any(workers not in entry for entry in found.values()):
            continue
        table = _table(
            f"Figure 5.{5 + int(workers)}: five classes, {workers} worker{'s' * (workers > '1')}",
            *("pipeline", "strategy", "Mpps", "predicted", "measured/predicted", "without drift"),
            *("latency us", "error", "idle polls", "tasks"),
        )
        for name, entry in found.items():
            for strategy, one in entry[workers].items():
                latency = one["latency_s"]
                table.add_row(
                    name,
                    strategy,
                    f"{one['mpps']:.2f}",
                    f"{one['predicted_mpps']:.2f}" if strategy != RTC else "",
                    f"{one['mpps'] / one['predicted_mpps']:.2f}" if strategy != RTC else "",
                    f"{_kept(entry, workers, strategy):.2f}" if strategy != RTC else "",
                    "" if latency is None else f"{latency * 1e6:.1f}",
                    f"{one['error']:.3%}",
                    f"{one['idle']:.1%}",
                    f"{one['tasks']}",
                )
        yield table
        yield _speedups(found, workers)


def _speedups(found: dict[str, Any], workers: str) -> Table:
    table = _table(
        f"Table 5.3: Alpine's throughput over the others', {workers} worker{'s' * (workers > '1')}",
        *("pipeline", "over manual", "dissertation", "over semi-manual", "dissertation", "error"),
        "dissertation",
    )
    over: dict[str, list[float]] = {MANUAL: [], SEMI: []}
    for name, entry in found.items():
        one = entry[workers]
        for other, ratios in over.items():
            ratios.append(_over(one, ALPINE, other))
        table.add_row(
            name,
            f"{over[MANUAL][-1]:.2f}",
            f"{THEIR_SPEEDUP[name]:.2f}" if workers == "1" else "",
            f"{over[SEMI][-1]:.2f}",
            "",
            f"{one[ALPINE]['error']:.3%}",
            "",
        )
    theirs = THEIR_MEANS[int(workers)]
    table.add_row(
        *("mean", f"{fmean(over[MANUAL]):.2f}", f"{theirs[0]:.2f}"),
        *(f"{fmean(over[SEMI]):.2f}", f"{theirs[1]:.2f}", ""),
        f"< {THEIR_ERROR[int(workers)]:.0%}",
    )
    return table


def _costs_table(found: dict[str, Any]) -> Table:
    """Where cycles go, per packet that leaves."""
    table = _table(
        "Cycles per packet, one worker",
        *("pipeline", "dissertation", "ours", "input and modules", "classifier", "enqueue"),
        *("dequeue, scheduling", *STRATEGIES),
    )
    for name, entry in found.items():
        table.add_row(
            name,
            f"{THEIR_CYCLES[name]:.0f}",
            f"{entry['hz'] / entry['1'][RTC]['mpps'] / 1e6:.0f}",
            f"{entry['pipeline_cycles']:.1f}",
            f"{entry['classifier_cycles']:.1f}",
            f"{entry['enqueue_cycles']:.1f}",
            f"{entry['dequeue_cycles']:.1f}",
            *(f"{entry['hz'] / entry['1'][s]['mpps'] / 1e6:.0f}" for s in STRATEGIES),
        )
    return table


def _tables(result: dict[str, Any]) -> Iterator[Table]:
    if found := result.get("pipelines"):
        yield from _pipeline_tables(found)
        yield _costs_table(found)
        table = _table(
            "Ratios of throughput, one worker, Alpine",
            *("pipeline", "Mpps", "predicted", "error as delivered"),
        )
        for name, entry in found.items():
            one = entry["throughput"][ALPINE]
            table.add_row(
                name,
                f"{one['mpps']:.2f}",
                f"{one['predicted_mpps']:.2f}",
                f"{one['delivered_error']:.3%}",
            )
        yield table
    if found := result.get("costs"):
        table = _table(
            "Figure 5.8: modules that burn cycles (figure 5.3a), Mpps",
            *("cycles of a module", "of the pipeline", MANUAL, SEMI, ALPINE),
            *("over manual", "over semi-manual"),
        )
        for cycles, one in found.items():
            table.add_row(cycles, f"{one['pipeline_cycles']:.0f}", *_three(one))
        yield table
    if found := result.get("trees"):
        table = _table(
            f"Figure 5.9: binary trees of modules of {NODE_CYCLES} cycles, Mpps",
            *("depth", "classes", MANUAL, SEMI, ALPINE, "over manual", "over semi-manual"),
            *("error", "tasks"),
        )
        for depth, one in found.items():
            table.add_row(
                *(depth, str(2 ** (int(depth) - 1)), *_three(one)),
                *(f"{one[ALPINE]['error']:.2%}", f"{one[ALPINE]['tasks']:.0f}"),
            )
        yield table
    if found := result.get("solving"):
        yield from _solving_tables(found)


def _three(one: dict[str, Any]) -> list[str]:
    return [
        *(f"{one[s]['mpps']:.2f}" for s in (MANUAL, SEMI, ALPINE)),
        *(f"{_over(one, ALPINE, s):.2f}" for s in (MANUAL, SEMI)),
    ]


def _over(one: dict[str, Any], strategy: str, other: str) -> float:
    """How many times the other's throughput: the median over rounds, which drift has no part in."""
    pairs = zip(one[strategy]["rounds_mpps"], one[other]["rounds_mpps"], strict=True)
    return median(mine / theirs for mine, theirs in pairs)


def _kept(entry: dict[str, Any], workers: str, strategy: str) -> float:
    """Measured over predicted, both relative to run-to-completion: no change of clock moves it."""
    one = entry[workers]
    alone = entry["hz"] / entry["pipeline_cycles"] / 1e6 * int(workers)
    return _over(one, strategy, RTC) / (one[strategy]["predicted_mpps"] / alone)


def _solving_tables(found: dict[str, Any]) -> Iterator[Table]:
    table = _table(
        "Table 5.4: time to solve, ms",
        *("pipeline", "modules", "CPU time", "throughput", "dissertation"),
    )
    times = tuple(str(kind) for kind in (Kind.CPU_TIME, Kind.THROUGHPUT))
    for name, one in found["pipelines"].items():
        table.add_row(
            name,
            str(one[times[0]]["modules"]),
            *(f"{one[kind]['seconds'] * 1e3:.1f}" for kind in times),
            f"{THEIR_SOLVE_S[name] * 1e3:,.0f}",
        )
    yield table
    table = _table(
        "Figure 5.10: time to solve binary trees, ms (dissertation: over an hour at depth 9)",
        *("depth", "modules", "CPU time", "gap", "tasks", "throughput", "gap"),
    )
    for depth, one in found["trees"].items():
        timed, rate = (one[kind] for kind in times)
        table.add_row(
            *(depth, str(timed["modules"]), f"{timed['seconds'] * 1e3:.1f}"),
            *(f"{timed['gap']:.1%}", str(timed["tasks"])),
            *(f"{rate['seconds'] * 1e3:.1f}", f"{rate['gap']:.1%}"),
        )
    yield table


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
    parser.add_argument("--depth", type=int, default=9, help="of the deepest tree that runs")
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
            except BessError as error:
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
            for table in _tables(result):
                console.print(table, "")
    plots.draw(result, args.out)


if __name__ == "__main__":
    main()
