# SPDX-License-Identifier: BSD-3-Clause
"""The ``bessrun`` command: run scripts and look at the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from typer.core import TyperGroup

from bess_plugins.client import DEFAULT_ADDRESS, BessError, Client
from bess_plugins.interrupt import interruptible
from bess_plugins.script.assignments import parse_assignments
from bess_plugins.script.graph import Graph, layers, read_graph, to_svg
from bess_plugins.script.runner import ScriptError, run_script

_HELP = """Run a .bess script on a daemon, replacing what it runs now.

Values given as VAR=value are what $VAR stands for in the script; otherwise
the environment is asked.

\b
Examples:
  bessrun examples/firewall.bess
  bessrun examples/firewall.bess IN=in.pcap OUT=out.pcap
  bessrun my.bess --daemon unix:/run/e2d.sock
  bessrun show --once
  bessrun graph -o pipeline.svg

Exit codes: 0 success, 1 the script or the daemon failed, 2 wrong usage.
"""
_RUN = "run"
_ONCE_SECONDS = 0.5


class _ScriptGroup(TyperGroup):
    """Takes whatever does not name a command for a script to run."""

    def _own_options(self, ctx: Any) -> set[str]:
        return {option for parameter in self.get_params(ctx) for option in parameter.opts}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *self._own_options(ctx)}:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ScriptGroup, help=_HELP, no_args_is_help=True)

DaemonOption = Annotated[
    str, typer.Option("--daemon", metavar="ADDRESS", help="HOST:PORT or unix:/PATH of the daemon.")
]


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


@app.command(_RUN)
def run(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="The .bess file.")],
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="[VAR=value]...", help="Variables.")
    ] = None,
    daemon: DaemonOption = DEFAULT_ADDRESS,
) -> None:
    """Run a script; the word `run` may be left out."""
    variables = parse_assignments(assignments or [])
    try:
        with Client(daemon) as client:
            run_script(script, client, variables)
    except ScriptError as error:
        _fail(str(error))
    except BessError as error:
        _fail(f"bessrun: {error}")


def _scaled(value: float) -> str:
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def _table(graph: Graph, before: Graph | None) -> Table:
    table = Table("module", "class", "gate", "to", box=None, pad_edge=False)
    for title in ("packets", "packets/s", "bits/s"):
        table.add_column(title, justify="right")
    earlier = {edge.key: edge for edge in before.edges} if before else {}
    for name in (name for row in layers(graph) for name in row):
        mclass, _ = graph.modules[name]
        edges = [edge for edge in graph.edges if edge.source == name]
        if not edges:
            table.add_row(name, mclass, "", "", "", "", "")
        for edge in edges:
            packets, bits = edge.rates(earlier.get(edge.key))
            target = f"{edge.igate}:{edge.target}" if edge.igate else edge.target
            table.add_row(
                name,
                mclass,
                str(edge.ogate),
                target,
                str(edge.packets),
                _scaled(packets),
                _scaled(bits) if edge.bytes else "",
            )
    return table


@app.command()
def show(
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between refreshes.")] = 1.0,
    daemon: DaemonOption = DEFAULT_ADDRESS,
) -> None:
    """Show the modules, their connections and the rates; Ctrl-C ends it."""
    try:
        with Client(daemon) as client:
            before = read_graph(client)
            if once:
                time.sleep(_ONCE_SECONDS)
                Console(soft_wrap=True).print(_table(read_graph(client), before))
                return
            with interruptible() as pressed, Live(_table(before, None), auto_refresh=False) as live:
                while not pressed.wait(interval):
                    now = read_graph(client)
                    live.update(_table(now, before), refresh=True)
                    before = now
    except BessError as error:
        _fail(f"bessrun: {error}")


@app.command()
def graph(
    output: Annotated[Path, typer.Option("--output", "-o", help="The SVG file to write.")],
    daemon: DaemonOption = DEFAULT_ADDRESS,
) -> None:
    """Draw the modules and their connections as SVG."""
    try:
        with Client(daemon) as client:
            drawing = to_svg(read_graph(client))
        output.write_text(drawing, encoding="utf-8")
    except (BessError, OSError) as error:
        _fail(f"bessrun: {error}")


def main() -> None:
    """Entry point."""
    app(prog_name="bessrun")


if __name__ == "__main__":
    main()
