# SPDX-License-Identifier: BSD-3-Clause
"""The ``alpine`` command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn

from alpine import live
from alpine.compiler import Compiled, compile_program
from alpine.drawing import draw_schedule
from alpine.emit import emit
from alpine.errors import AlpineError, InfeasibleError
from alpine.explain import alternatives, explain_dict, explain_table
from alpine.frontend import load
from alpine.live import Options, check_workers, find_profile
from alpine.plan import Plan
from alpine.planning import Target
from alpine.profile import even_profile, profile_path, read_profile, write_profile
from alpine.profiling import take_profile
from alpine.program import Program
from alpine.solve import SOLVERS
from alpine.tables import reading_dict, reading_table
from alpine.verify import TOLERANCE
from alpine.watch import watch as watch_shares
from bess_plugins.client import DEFAULT_ADDRESS, BessError, Client
from bess_plugins.interrupt import interruptible
from bess_plugins.script import ScriptError
from bess_plugins.script.api import Bess
from bess_plugins.script.assignments import parse_assignments
from bess_plugins.script.runner import execute

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compile service level objectives into queues and a scheduler tree, and run the result.",
)

Script = Annotated[Path, typer.Argument(metavar="SCRIPT", help="The script, with objectives.")]
Variables = Annotated[
    list[str] | None, typer.Argument(metavar="[VAR=value]...", help="What $VAR stands for.")
]
Daemon = Annotated[
    str, typer.Option("--daemon", metavar="ADDRESS", help="HOST:PORT or unix:/PATH of the daemon.")
]
Even = Annotated[
    bool,
    typer.Option("--even", help="No profile: modules cost the same, and classes are alike."),
]
Solver = Annotated[str, typer.Option("--solver", help=f"One of {', '.join(SOLVERS)}.")]
TimeLimit = Annotated[float, typer.Option("--time-limit", min=0.01, help="Seconds for the solver.")]
Tolerance = Annotated[
    float, typer.Option("--tolerance", min=0.0, help="How much a ratio may be missed by.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.1, help="End after this time; else at Ctrl-C.")
]
ProfileSeconds = Annotated[float, typer.Option(min=0.1, help="How long packets are counted.")]
Pcap = Annotated[Path | None, typer.Option("--pcap", help="Packets to bring in (e2d only).")]

_COMPILE = (
    "Examples: alpine compile examples/alpine/firewall.alpine --even -o firewall.bess;  "
    "alpine compile my.alpine N=3 --solver highs"
)
_RUN = "Example: alpine run examples/alpine/firewall.alpine --seconds 10"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn expected failures into one line on stderr and exit code 1."""
    try:
        yield
    except (AlpineError, ScriptError, BessError) as error:
        typer.echo(f"alpine: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """A bar on stderr, if somebody can see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("profile", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)


def _loader(
    program: Program, client: Client, variables: Mapping[str, str]
) -> Callable[[Plan], None]:
    def load_plan(made: Plan) -> None:
        execute(program.path, emit(program, made), Bess(client), variables, {})

    return load_plan


def _compile(
    program: Program,
    options: Options,
    tolerance: float,
    *,
    target: Target = "any",
    use_closest: bool = False,
) -> Compiled:
    path = profile_path(program.path)
    found = even_profile(program) if options.even else read_profile(path, program)
    try:
        return compile_program(
            program,
            found,
            solver=options.solver,
            time_limit_s=options.time_limit_s,
            tolerance=tolerance,
            target=target,
            use_closest=use_closest,
        )
    except InfeasibleError as error:
        raise InfeasibleError(
            f"{error}; `alpine compile --closest` writes the schedule that misses by the least",
            error.closest,
        ) from None


def _write(path: Path, text: str) -> None:
    """All or nothing."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AlpineError(f"{path}: {error.strerror or error}") from None


@app.command(epilog="Example: alpine profile examples/alpine/firewall.alpine --seconds 5")
def profile(
    script: Script,
    assignments: Variables = None,
    daemon: Daemon = DEFAULT_ADDRESS,
    seconds: ProfileSeconds = 2.0,
    pcap: Pcap = None,
) -> None:
    """Measure on a daemon what modules cost, and how packets divide; replaces what it runs."""
    with _one_line_errors(), Client(daemon) as client:
        variables = parse_assignments(assignments or [])
        program = load(script, variables)
        try:
            check_workers(program, client)
        except AlpineError as error:  # what modules cost is of use for other machines
            typer.echo(f"alpine: {error}; profiling goes on", err=True)
        with _progress() as progress:
            found = take_profile(
                program,
                client,
                _loader(program, client, variables),
                seconds,
                pcap=pcap,
                progress=progress,
            )
        write_profile(profile_path(script), found, script)
        typer.echo(f"{profile_path(script)}: {len(found.modules)} modules")


@app.command("compile", epilog=_COMPILE)
def compile_command(
    script: Script,
    assignments: Variables = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The .bess file; else standard output.")
    ] = None,
    even: Even = False,
    solver: Solver = "auto",
    time_limit: TimeLimit = 60.0,
    tolerance: Tolerance = TOLERANCE,
    target: Annotated[
        str,
        typer.Option(help="any: every BESS daemon; e2d: ours, which can share by packets."),
    ] = "any",
    closest: Annotated[
        bool, typer.Option("--closest", help="Write the closest schedule where none fits.")
    ] = False,
) -> None:
    """Write the script with queues and a scheduler tree in place of its objectives."""
    with _one_line_errors():
        if target not in ("any", "e2d"):
            raise AlpineError(f"no target '{target}'; there are: any, e2d")
        program = load(script, parse_assignments(assignments or []))
        if program.objective is None:
            text = emit(program, Plan((), (), False))
        else:
            text = _compile(
                program,
                Options(even=even, solver=solver, time_limit_s=time_limit),
                tolerance,
                target="e2d" if target == "e2d" else "any",
                use_closest=closest,
            ).text
        if output is None:
            typer.echo(text, nl=False)
        else:
            _write(output, text)


@app.command(epilog="Example: alpine explain examples/alpine/firewall.alpine --even")
def explain(
    script: Script,
    assignments: Variables = None,
    even: Even = False,
    solver: Solver = "auto",
    time_limit: TimeLimit = 60.0,
    tolerance: Tolerance = TOLERANCE,
    as_json: AsJson = False,
) -> None:
    """Say what the schedule does, task by task and class by class, and why not another cut."""
    with _one_line_errors():
        program = load(script, parse_assignments(assignments or []))
        options = Options(even=even, solver=solver, time_limit_s=time_limit)
        made = _compile(program, options, tolerance)
        others = alternatives(made.schedule, time_limit_s=time_limit)
    if as_json:
        typer.echo(json.dumps(explain_dict(made.schedule, made.verdict, others), indent=2))
    else:
        Console(soft_wrap=not sys.stdout.isatty()).print(
            explain_table(made.schedule, made.verdict, others)
        )


@app.command(epilog="Example: alpine graph examples/alpine/firewall.alpine --even -o firewall.svg")
def graph(
    script: Script,
    output: Annotated[Path, typer.Option("-o", "--output", help="The SVG file to write.")],
    assignments: Variables = None,
    even: Even = False,
    solver: Solver = "auto",
    time_limit: TimeLimit = 60.0,
    tolerance: Tolerance = TOLERANCE,
) -> None:
    """Draw the pipeline: a colour for each task, and queues where they were put."""
    with _one_line_errors():
        program = load(script, parse_assignments(assignments or []))
        options = Options(even=even, solver=solver, time_limit_s=time_limit)
        made = _compile(program, options, tolerance)
        _write(output, draw_schedule(program, made.schedule, made.plan))


def _start(
    script: Path,
    assignments: list[str] | None,
    client: Client,
    options: Options,
    tolerance: float,
) -> live.Running:
    variables = parse_assignments(assignments or [])
    program = load(script, variables)
    check_workers(program, client)
    loader = _loader(program, client, variables)
    if options.pcap is not None or not (options.even or profile_path(script).exists()):
        with _progress() as progress:
            find_profile(program, client, loader, options, progress)
        options = replace(options, pcap=None)
    return live.start(program, client, loader, options, tolerance=tolerance)


@contextmanager
def _shown(*, live_table: bool) -> Iterator[live.Observe | None]:
    """A table that follows the readings and then goes away, if somebody can see it."""
    if not (live_table and sys.stdout.isatty()):
        yield None
        return
    with Live(auto_refresh=False, transient=True) as shown:
        yield lambda reading: shown.update(reading_table(reading), refresh=True)


@app.command(epilog=_RUN)
def run(
    script: Script,
    assignments: Variables = None,
    daemon: Daemon = DEFAULT_ADDRESS,
    seconds: Seconds = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between refreshes.")] = 1.0,
    profile_seconds: ProfileSeconds = 2.0,
    pcap: Pcap = None,
    even: Even = False,
    solver: Solver = "auto",
    time_limit: TimeLimit = 60.0,
    tolerance: Tolerance = TOLERANCE,
    as_json: AsJson = False,
) -> None:
    """Compile, load and measure: shares wanted and achieved, live. Profiles first where needed."""
    options = Options(profile_seconds, pcap, even, solver, time_limit)
    with _one_line_errors(), Client(daemon) as client:
        running = _start(script, assignments, client, options, tolerance)
        with interruptible() as pressed, _shown(live_table=not as_json) as show:
            reading = live.run(
                running, seconds=seconds, interval=interval, stop=pressed, observe=show
            )
    if as_json:
        typer.echo(json.dumps(reading_dict(reading), indent=2))
    else:
        Console().print(reading_table(reading))


@app.command(epilog="Example: alpine watch examples/alpine/firewall.alpine --interval 5")
def watch(
    script: Script,
    assignments: Variables = None,
    daemon: Daemon = DEFAULT_ADDRESS,
    seconds: Seconds = None,
    interval: Annotated[float, typer.Option(min=0.3, help="Seconds between looks.")] = 2.0,
    threshold: Annotated[
        float, typer.Option(min=0.0, help="The relative change of a share that is worth a swap.")
    ] = 0.05,
    profile_seconds: ProfileSeconds = 2.0,
    even: Even = False,
    solver: Solver = "auto",
    time_limit: TimeLimit = 60.0,
    tolerance: Tolerance = TOLERANCE,
) -> None:
    """Run, and change shares where costs or traffic drift; a line says what changed and why."""
    options = Options(profile_seconds, None, even, solver, time_limit)
    with _one_line_errors(), Client(daemon) as client:
        running = _start(script, assignments, client, options, tolerance)
        with interruptible() as pressed:
            watch_shares(
                running,
                seconds=seconds,
                interval=interval,
                threshold=threshold,
                stop=pressed,
                log=typer.echo,
            )


def main() -> None:
    """Entry point."""
    app(prog_name="alpine")


if __name__ == "__main__":
    main()
