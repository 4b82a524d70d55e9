# SPDX-License-Identifier: BSD-3-Clause
"""Embark after section 4.5 of the dissertation: `make bench-embark`, as root for pages.

Gateway and middleboxes run in memory, each figure's lines in turn on one machine; pages are loaded
in network namespaces. Figures are reported and never judged. Writes embark.json, embark.txt and a
plot for each figure. A part that fails doesn't end the others; the exit status tells of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from test_table42 import measure_schemes

import embark_plots as plots
from bess_plugins._crypto import SiteKeys
from bess_plugins._engine import ISA
from bess_plugins.captures import CaptureError
from embark_boxes import pairs
from embark_gateway import MODES, Site, gateway, graph_of, source_alone, steps_of
from embark_memory import CORES, Bench, Memory, Traffic
from embark_overheads import bandwidth, rule_files, rules_of
from embark_pages import MissingError, measure
from embark_report import tables
from embark_traces import SIZES, TRACES, encryptable, of_size, trace, translatable
from lines import DATA
from machine import cpu_model, load

SEED = 2018
GATEWAY_RULES = 1_000
THERE_AND_BACK = "there and back"
MAIN_TRACE = "transit, IPv4 and IPv6"


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    seconds: float = 0.2  # of a graph in a round
    rounds: int = 9
    sizes: Sequence[int] = SIZES
    rules: Sequence[int] = (0, 100, 1_000, 10_000, 100_000)
    table42: Sequence[int] = (10_000, 100_000)
    table42_values: int = 320
    pages: int = 20
    page_rounds: int = 3
    most_frames: int = 1 << 20
    most_rule_bytes: int = 1 << 30  # of a file
    firewall: str = "classbench_fw1_1k"


QUICK = Effort(
    seconds=0.02,
    rounds=2,
    sizes=SIZES[::5],
    rules=(0, 1_000),
    table42=(500,),
    table42_values=16,
    pages=2,
    page_rounds=1,
    most_frames=64,
    most_rule_bytes=100_000,
    firewall="classbench_acl1_1k",
)


@dataclass
class Evaluation:
    """What is found, and with how much effort."""

    effort: Effort
    folder: Path
    data: Path
    seed: int
    tick: Callable[[str], None]
    result: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site = Site(self.folder)
        self.bench = Bench(self.effort.seconds, self.effort.rounds)

    def traces(self, names: Sequence[str] = tuple(TRACES)) -> list[Traffic]:
        """Captures, of what a gateway sends to a provider."""
        [(_, args)] = steps_of(graph_of(self.site, self.site.maps(0), MODES[1]), "encrypt")
        most = self.effort.most_frames
        found = (trace(name, self.data) for name in names)
        return [encryptable(Traffic(one.name, one.frames[:most]), args) for one in found]

    def gateway(self) -> None:
        """Figure 4.5."""
        maps = self.site.maps(GATEWAY_RULES)
        most = min(self.effort.most_frames, 4096)
        traffics = [*self.traces(), *(of_size(size, most) for size in self.effort.sizes)]
        found: dict[str, Any] = {}
        for traffic in traffics:
            self.tick(f"gateway: {traffic.name}")
            runs = {mode: [gateway(graph_of(self.site, maps, mode), traffic)] for mode in MODES} | {
                THERE_AND_BACK: [gateway(graph_of(self.site, maps, MODES[-1]), traffic, back=True)],
                "source": [source_alone(traffic)],
            }
            found[traffic.name] = {
                "trace": traffic.name in TRACES,
                "packets": len(traffic.frames),
                "mean_bytes": traffic.mean_bytes,
                **self.figures(runs, traffic.mean_bytes),
            }
        self.result["gateway"] = {"rules": GATEWAY_RULES, "lines": found}

    def cores(self) -> None:
        """Figure 4.6: a gateway for each core, and one that has a core for ports."""
        maps = self.site.maps(GATEWAY_RULES)
        [traffic] = self.traces([MAIN_TRACE])
        runs: dict[str, list[Memory]] = {}
        for count in range(1, len(CORES) + 1):
            self.tick(f"cores: {count}")
            graph = graph_of(self.site, maps, MODES[-1])
            runs[f"{count}"] = [gateway(graph, traffic, [core]) for core in CORES[:count]]
        for count in range(2, len(CORES) + 1):
            graph = graph_of(self.site, maps, MODES[-1], workers=count - 1)
            runs[f"{count}, one for ports"] = [gateway(graph, traffic, CORES[:count])]
        lines = self.figures(runs, traffic.mean_bytes)
        self.result["cores"] = {"trace": traffic.name, "lines": lines}

    def rules(self) -> None:
        """Figure 4.7: packets of 60 bytes to everywhere."""
        traffic = of_size(SIZES[0])
        runs: dict[str, list[Memory]] = {"source": [source_alone(traffic)]}
        for count in self.effort.rules:
            self.tick(f"rules: {count:,}")
            graph = graph_of(self.site, self.site.maps(count), MODES[1])
            runs[str(count)] = [gateway(graph, traffic)]
        self.tick("rules: all in turn")
        self.result["rules"] = self.figures(runs, traffic.mean_bytes)

    def figures(self, runs: dict[str, list[Memory]], mean_bytes: float) -> dict[str, Any]:
        """Of all in turn; then they are closed. Drops are an error.

        Where ports have a core of their own, what sends packets is faster than those that encrypt:
        then queues are full.
        """
        with self.bench.open(runs):
            found = self.bench.in_turn(runs)
            lost = {
                f"{name}: {reason}": count
                for name, group in runs.items()
                for one in group
                for reason, count in one.drops().items()
                if one.workers == 1 or "queue full" not in reason
            }
        if lost:
            raise RuntimeError(f"packets were dropped: {lost}")
        return {name: one.as_dict(mean_bytes) for name, one in found.items()}

    def table42(self) -> None:
        """Table 4.2."""
        found = {}
        for rules in self.effort.table42:
            self.tick(f"BCLO, mOPE, PrefixMatch: {rules:,} rules")
            found[str(rules)] = measure_schemes(rules, self.effort.table42_values)
        self.result["table42"] = found

    def middleboxes(self) -> None:
        """Table 4.3."""
        most = self.effort.most_frames
        [traffic] = self.traces([MAIN_TRACE])
        some = translatable(traffic)
        found = {}
        self.tick("middleboxes: rules")
        rules = self.data / "rules" / self.effort.firewall
        for pair in pairs(self.site, Traffic(some.name, some.frames[:most]), rules):
            self.tick(f"middleboxes: {pair.name}")
            runs = {
                "clear": [pair.clear.memory(box=True)],
                "encrypted": [pair.encrypted.memory(box=True)],
                "clear source": [pair.clear.memory(box=False)],
                "encrypted source": [pair.encrypted.memory(box=False)],
            }
            with self.bench.open(runs):
                lines = self.bench.in_turn(runs)
            found[pair.name] = {
                "passed": pair.check(),
                "bytes": pair.clear.traffic.mean_bytes,
                "encrypted_bytes": pair.encrypted.traffic.mean_bytes,
                **{name: one.as_dict() for name, one in lines.items()},
            }
        self.result["middleboxes"] = {
            "trace": traffic.name,
            "rules": self.effort.firewall,
            "lines": found,
        }

    def bandwidth(self) -> None:
        """Section 4.5.1, bandwidth overheads."""
        found = {}
        for traffic in self.traces():
            self.tick(f"bandwidth: {traffic.name}")
            found[traffic.name] = bandwidth(self.site, self.site.maps(GATEWAY_RULES), traffic)
        self.result["bandwidth"] = found

    def pages(self) -> None:
        """Figure 4.8."""
        effort = self.effort
        self.result["pages"] = measure(
            self.folder / "pages", effort.pages, effort.page_rounds, self.seed, self.tick
        )

    def expansion(self) -> None:
        """Section 4.5.2, firewalls."""
        keys = SiteKeys(self.site.key)
        found = {}
        for path, kind in rule_files(self.data):
            if path.stat().st_size > self.effort.most_rule_bytes:
                continue
            self.tick(f"rules of {path.name}")
            found[path.name] = rules_of(path, kind, keys)
        self.result["expansion"] = found


PARTS = (
    *("gateway", "cores", "rules", "table42", "middleboxes", "bandwidth", "pages", "expansion"),
)


def _run(evaluation: Evaluation, part: str, console: Console, stacks: bool) -> str:
    """What went wrong; nothing where nothing did."""
    started = time.monotonic()
    problem = ""
    try:
        getattr(evaluation, part)()
    except (OSError, CaptureError, MissingError) as error:
        problem = str(error)
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}"
        if stacks:
            console.print(traceback.format_exc(), markup=False)
    took = f"{time.monotonic() - started:.0f} s"
    what = f"failed after {took}: {problem}" if problem else f"done in {took}"
    console.print(f"{part}: {what}", markup=False, highlight=False, soft_wrap=True)
    return problem


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python bench/embark_evaluation.py --only rules"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--seed", type=int, default=SEED, help="of the pages")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, for a look")
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts; else all")
    parser.add_argument("--traceback", action="store_true", help="show where a part failed")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    machine = {
        "cpu": cpu_model(),
        "isa": ISA,
        "cores": len(CORES),
        "of": os.cpu_count(),
        "load_before": load(),
    }
    failed = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("", total=None)
        effort = QUICK if args.quick else Effort()
        evaluation = Evaluation(
            effort,
            Path(folder),
            DATA,
            args.seed,
            lambda what: progress.update(task, description=what),
        )
        if not DATA.is_dir():
            progress.console.print(f"no traces and rules in {DATA}; set E2_DATA to their folder")
        for part in args.only or PARTS:
            progress.update(task, description=part)
            if problem := _run(evaluation, part, progress.console, args.traceback):
                failed[part] = problem
    result = {
        "machine": {**machine, "load_after": load()},
        "seed": args.seed,
        "quick": args.quick,
        "effort": asdict(effort),
        "took_s": time.monotonic() - started,
        "failed": failed,
        **evaluation.result,
    }
    (args.out / "embark.json").write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
    with (args.out / "embark.txt").open("w", encoding="utf-8") as text:
        for console in (Console(file=text, width=140), Console(width=140)):
            for table in tables(result):
                console.print(table, "")
    plots.draw(result, args.out)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
