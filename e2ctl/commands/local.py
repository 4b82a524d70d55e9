# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl run``: captures through a policy, in one dataplane."""

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

from bess_plugins.command_line import JsonFlag
from e2ctl import nfs as nf_descriptions
from e2ctl import policy as policies
from e2ctl.commands.common import NfsPath, PolicyPath, one_line_errors
from e2ctl.pgraph import build
from e2ctl.wiring import wire

__all__ = ["app"]

app = typer.Typer()

_RUN_EPILOG = (
    "Example: e2ctl run examples/figure-3.1.e2 --nfs examples/nfs.yaml "
    "--in in0=traffic.pcap.gz --out results"
)


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
    as_json: JsonFlag = False,
) -> None:
    """Run captures through a policy; write a capture per output port and report.json."""
    inputs = _captures(captures)
    with one_line_errors():
        catalog = nf_descriptions.load(nfs)
        plan = wire(build(policies.load(policy), catalog), catalog)
    from bess_plugins.captures import CaptureError
    from bess_plugins.client import BessError
    from bess_plugins.daemon.server import ServerError
    from e2ctl.report import render
    from e2ctl.run import RunError, run

    failures = (RunError, CaptureError, BessError, ServerError, OSError, ImportError)
    with one_line_errors(*failures), _progress() as progress:
        report = run(plan, inputs, out, daemon=daemon, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        render(report, Console())
        typer.echo(f"results are in {out}")
