# SPDX-License-Identifier: BSD-3-Clause
"""E2's control plane after section 3.6.2 of the dissertation: `make bench-e2`.

Times of placement, decisions and new replicas are measured; throughput follows from placements;
figures 3.9 to 3.11 and ten racks are simulated (`e2ctl.simulator`). Figures are reported and never
judged. Writes e2.json, e2.txt and a plot for each figure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

import e2_plots as plots
from e2_bounds import balanced_after, least_cores_gap
from e2_bringup import bring_up
from e2_report import tables
from e2_throughput import SERVICES, most_load
from e2ctl.igraph import even_spans
from e2ctl.placement import Room, place
from e2ctl.replicas import Traffic, split_decision
from e2ctl.scaling import POLICIES
from e2ctl.simulator import dynamic_load, racks, split_once
from e2ctl.simulator.scenarios import CARRIER, DYNAMIC_BPS
from igraphs import chains, tangle

SEED = 2018
STRATEGIES = ("random", "packing", "metis", "e2")
# All flows alike, as the dissertation's seem to be, and with a tail.
SIGMAS = (0.0, 1.0)


# Of runs with a dynamic load.
MEANS = ("cores_gap", "instances_gap", "cores_gap_rising", "cores_gap_top", "switch_gap", "dropped")


@dataclass
class Evaluation:
    """What is found, and how much effort it is worth."""

    quick: bool
    seed: int
    hop_s: float
    tick: Callable[[str], None]
    result: dict[str, Any] = field(default_factory=dict)

    def placement(self) -> None:
        """The time to place a whole graph."""
        found: dict[str, Any] = {}
        for units in (100, 1_000) if self.quick else (100, 1_000, 10_000):
            self.tick(f"placing {units:,} instances")
            problem = chains(units, self.seed)
            times, spent = [], []
            for _ in range(1 if units > 1_000 else 5):
                started, worked = time.perf_counter(), time.thread_time()
                place(replace(problem), seed=self.seed)  # which knows nothing of the round before
                spent.append(time.thread_time() - worked)
                times.append(time.perf_counter() - started)
            found[str(units)] = {"seconds": median(times), "cpu_s": median(spent)}
        self.result["placement"] = found

    def decisions(self) -> None:
        """A split of each of 68 instances, one after the other."""
        self.tick("split decisions")
        found = {}
        for servers in (4, 24):
            times: list[tuple[float, float]] = []
            for _ in range(3 if self.quick else 20):
                times += _split_all(_cluster(68, servers))
            wall, cpu = zip(*times, strict=True)
            found[str(servers)] = {
                "median_s": median(wall),
                "p99_s": quantiles(wall, n=100)[-1],
                "cpu_s": median(cpu),
                "p99_cpu_s": quantiles(cpu, n=100)[-1],
                "decisions": len(times),
            }
        self.result["decisions"] = found

    def bringup(self) -> None:
        """A new replica on a real cluster."""
        self.result["bringup"] = bring_up(2 if self.quick else 20, self.tick)

    def throughput(self) -> None:
        """Figure 3.8."""
        found: dict[str, Any] = {}
        for service in SERVICES:
            loads = {}
            for strategy in STRATEGIES:
                self.tick(f"{service.name}: {strategy}")
                loads[strategy] = most_load(service, strategy, 1 if self.quick else 5)
            found[service.name] = loads
        gaps = []
        for seed in range(10 if self.quick else 40):
            self.tick(f"small graph {seed + 1}: exact")
            problem = tangle(10 + seed % 3, seed, 5 + seed % 2, Room(4, 1e12))
            best = place(problem, strategy="exact").cross_bps
            if best > 0:
                gaps.append(place(problem).cross_bps / best - 1)
        self.result["throughput"] = found
        self.result["exact"] = {"graphs": len(gaps), "mean_gap": fmean(gaps), "most": max(gaps)}

    def split(self) -> None:
        """Figures 3.9 and 3.10."""
        found = {}
        for strategy in POLICIES:
            for sigma in SIGMAS:
                self.tick(f"{strategy}, sigma {sigma}")
                found[f"{strategy}, sigma {sigma:g}"] = split_once(
                    strategy,
                    seed=self.seed,
                    duration_sigma=sigma,
                    hop_s=self.hop_s,
                    seconds=15.0 if self.quick else 40.0,
                )
        self.result["split"] = found
        self.result["split_least_s"] = {
            f"{sigma:g}": [balanced_after(part, 5.0, sigma) for part in (0.10, 0.05)]
            for sigma in SIGMAS
        }

    def dynamic(self) -> None:
        """Figure 3.11."""
        seconds, count = (120.0, 1) if self.quick else (600.0, 4)
        runs = []
        for number in range(count):
            self.tick(f"dynamic load, run {number + 1}")
            runs.append(dynamic_load(seconds=seconds, seed=self.seed + number))
        means = {key: fmean(run[key] for run in runs) for key in MEANS}
        profile = [(part * seconds, load) for part, load in DYNAMIC_BPS]
        servers, flows = runs[0]["servers"], {"flow_bps": 1e6, "mean_s": 5.0, "sigma": 1.0}
        least = least_cores_gap(CARRIER, profile, servers, busy=0.95, **flows)
        self.result["dynamic"] = {**runs[0], **means, "runs": count, "least_cores_gap": least}

    def racks(self) -> None:
        """Beyond the dissertation."""
        self.tick("racks")
        if self.quick:
            self.result["racks"] = racks(count=2, seconds=30.0, seed=self.seed, failures=2)
        else:
            self.result["racks"] = racks(seed=self.seed)


def _cluster(instances: int, servers: int) -> Traffic:
    """A chain of four NFs with as many instances each, placed in turn, on servers with room."""
    count = instances // 4
    spans = even_spans(count)
    tails = np.concatenate([np.arange(count) + nf * count for nf in range(3)])
    share = 12.3e9 / count
    outside = np.zeros((2, instances))
    outside[0, :count] = outside[1, -count:] = share
    return Traffic(
        servers=np.tile(np.arange(count) * servers // count, 4),
        cores=np.ones(instances, np.int64),
        starts=np.tile([span.start for span in spans], 4),
        ends=np.tile([span.end for span in spans], 4),
        tails=tails,
        heads=tails + count,
        rates=np.full(3 * count, share),
        direct=np.ones(3 * count, np.bool_),
        outside=outside,
        rooms=(Room(2 * -(-instances // servers) + 4, 10e9),) * servers,
        names=tuple(f"s{i}" for i in range(servers)),
    )


def _split_all(traffic: Traffic) -> list[tuple[float, float]]:
    """How long each decision takes, and how much of a core, with what it leaves for the next."""
    times = []
    for unit in range(len(traffic.servers)):
        steps = int(traffic.ends[unit] - traffic.starts[unit]) >> 20
        buckets = [1.0] * steps
        started, worked = time.perf_counter(), time.thread_time()
        traffic = traffic.split(unit, split_decision(traffic, unit, buckets))
        spent = time.thread_time() - worked
        times.append((time.perf_counter() - started, spent))
    return times


PARTS = ("placement", "decisions", "bringup", "throughput", "split", "dynamic", "racks")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python bench/e2_evaluation.py --only split --quick"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--seed", type=int, default=SEED, help="of all that is random")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, for a look")
    parser.add_argument(
        "--hop-us",
        type=float,
        default=10.0,
        help="latency that a way through another server is modelled to add (default: 10)",
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts; else all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        evaluation = Evaluation(
            args.quick,
            args.seed,
            args.hop_us / 1e6,
            lambda what: progress.update(task, description=what),
        )
        for part in args.only or PARTS:
            getattr(evaluation, part)()
    result = {
        "seed": args.seed,
        "quick": args.quick,
        "hop_us": args.hop_us,
        "took_s": time.monotonic() - started,
        **evaluation.result,
    }
    (args.out / "e2.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with (args.out / "e2.txt").open("w", encoding="utf-8") as text:
        for console in (Console(file=text, width=140), Console(width=140)):
            for table in tables(result):
                console.print(table, "")
    plots.draw(result, args.out)


if __name__ == "__main__":
    main()
