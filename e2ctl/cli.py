# SPDX-License-Identifier: BSD-3-Clause
"""The command ``e2ctl``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from e2ctl import nfs as nf_descriptions
from e2ctl import policy as policies
from e2ctl.nfs import Catalog
from e2ctl.pgraph import PGraph, build
from e2ctl.sources import SourceError
from e2ctl.wiring import wire

__all__ = ["app", "main"]

app = typer.Typer(
    name="e2ctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Check, draw and run policies: which traffic passes which network functions.",
)

PolicyPath = Annotated[Path, typer.Argument(metavar="POLICY", help="Policy file (.e2).")]
NfsPath = Annotated[Path, typer.Option("--nfs", metavar="NFS.yaml", help="NF descriptions.")]

_RUN_EPILOG = (
    "Example: e2ctl run examples/figure-3.1.e2 --nfs examples/nfs.yaml "
    "--in in0=traffic.pcap.gz --out results"
)
_GRAPH_EPILOG = "Example: e2ctl graph examples/figure-3.1.e2 --nfs examples/nfs.yaml -o figure.svg"
_CHECK_EPILOG = "Example: e2ctl check examples/figure-3.1.e2 --nfs examples/nfs.yaml"


@contextmanager
def _one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn expected failures into one line on stderr and exit code 1."""
    expected: tuple[type[Exception], ...] = (SourceError, *kinds)
    try:
        yield
    except expected as error:
        typer.echo(f"e2ctl: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None


def _load(policy: Path, nfs: Path) -> tuple[PGraph, Catalog]:
    catalog = nf_descriptions.load(nfs)
    return build(policies.load(policy), catalog), catalog


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, if somebody can see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("packets"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("packets", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _captures(values: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values:
        port, equals, path = value.partition("=")
        if not (port and equals and path):
            raise typer.BadParameter(f"'{value}' is not PORT=CAPTURE", param_hint="--in")
        if port in found:
            raise typer.BadParameter(f"port '{port}' has two captures", param_hint="--in")
        found[port] = Path(path)
    return found


@app.command("run", epilog=_RUN_EPILOG)
def run_command(
    policy: PolicyPath,
    nfs: NfsPath,
    captures: Annotated[
        list[str],
        typer.Option("--in", metavar="PORT=CAPTURE", help="Capture that a port replays."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="New folder for captures and report.")
    ],
    daemon: Annotated[
        str | None,
        typer.Option("--daemon", metavar="ADDRESS", help="Use this daemon, not a private one."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run captures through a policy; write a capture per output port and report.json."""
    inputs = _captures(captures)
    with _one_line_errors():
        graph, catalog = _load(policy, nfs)
        plan = wire(graph, catalog)
    from bess_plugins.captures import CaptureError
    from bess_plugins.client import BessError
    from bess_plugins.daemon.server import ServerError
    from e2ctl.report import render
    from e2ctl.run import RunError, run

    failures = (RunError, CaptureError, BessError, ServerError, OSError, ImportError)
    with _one_line_errors(*failures), _progress() as progress:
        report = run(plan, inputs, out, daemon=daemon, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        render(report, Console())
        typer.echo(f"results are in {out}")


@app.command("graph", epilog=_GRAPH_EPILOG)
def graph_command(
    policy: PolicyPath,
    nfs: NfsPath,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.svg", help="Draw into this file.")
    ] = None,
) -> None:
    """Print the policy graph, or draw it."""
    with _one_line_errors(OSError):
        graph, _ = _load(policy, nfs)
        if output is None:
            typer.echo(str(graph), nl=False)
        else:
            output.write_text(graph.to_svg(), encoding="utf-8")


@app.command("check", epilog=_CHECK_EPILOG)
def check_command(policy: PolicyPath, nfs: NfsPath) -> None:
    """Check a policy against NF descriptions and say what it takes."""
    with _one_line_errors():
        graph, catalog = _load(policy, nfs)
        plan = wire(graph, catalog)
    nfs_used = sum(node.kind == "nf" for node in graph.nodes)
    rules = sum(len(module.args.get("rules", ())) for module in plan.modules)
    typer.echo(
        f"{policy}: correct; {nfs_used} NFs, {len(graph.edges)} edges, "
        f"{len(plan.modules)} modules, {rules} rules"
    )


def main() -> None:
    """Entry point of the command."""
    app(prog_name="e2ctl")


if __name__ == "__main__":
    main()
