# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl lab``: a cluster on one machine."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from e2ctl import lab as labs
from e2ctl.commands.common import one_line_errors
from e2ctl.lab import LabError, LabStatus

__all__ = ["app"]

app = typer.Typer()
_lab = typer.Typer(
    no_args_is_help=True,
    help="Run a cluster on this machine: servers, an Open vSwitch, and the world around them.",
)
app.add_typer(_lab, name="lab")


def _only(name: str | None) -> str:
    """The lab that is meant, which needs no name where there is one."""
    if name is not None:
        return name
    found = labs.lab_names()
    if len(found) != 1:
        listed = f"there are {', '.join(found)}; say which" if found else "no lab is up"
        raise LabError(listed)
    return found[0]


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


@_lab.command("up", epilog="Example: e2ctl lab up examples/lab.yaml")
def up_command(
    path: Annotated[Path, typer.Argument(metavar="LAB.yaml", help="Description of the lab.")],
    simulated: Annotated[
        bool,
        typer.Option("--simulated", help="Unix sockets and a switch in Python, without root."),
    ] = False,
) -> None:
    """Make a lab of network namespaces; when anything fails, nothing of it stays.

    The lab stays up when the command ends, until `e2ctl lab down`.
    """
    # What asks this process to end must not keep it from cleaning up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with one_line_errors(LabError, OSError):
        made = labs.up(path, simulated=simulated)
    plan = made.blueprint
    typer.echo(
        f"lab '{plan.name}' is up: {len(plan.hardware.servers)} servers, "
        f"{len(plan.cables) - len(plan.hardware.servers)} external ports; state is in {made.folder}"
    )
    if simulated:
        typer.echo(f"note: {labs.REPLACES}")


@_lab.command("down", epilog="Example: e2ctl lab down co")
def down_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The lab, where several are up.")
    ] = None,
) -> None:
    """Take a lab down, also what a crash has left of one."""
    with one_line_errors(LabError, OSError):
        if name is None and not labs.lab_names():
            typer.echo("no lab is up")
            return
        chosen = _only(name)
        found = labs.down(chosen)
    typer.echo(f"lab '{chosen}' is down" if found else f"lab '{chosen}' was not up")


@_lab.command("status", epilog="Example: e2ctl lab status")
def status_command() -> None:
    """Show labs and their processes; exit code 1 means that something of them is missing."""
    with one_line_errors(LabError, OSError):
        found = [labs.status(name) for name in labs.lab_names()]
    if not found:
        typer.echo("no lab is up")
        return
    console = Console()
    for status in found:
        _render(status, console)
    if not all(status.well for status in found):
        raise typer.Exit(1)


@_lab.command(
    "exec",
    epilog="Example: e2ctl lab exec s1 -- ip -br address",
    context_settings={"allow_interspersed_args": False},
)
def exec_command(
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="A server; or sw, the switch; or world.")
    ],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run there.")],
    name: Annotated[
        str | None, typer.Option("--lab", metavar="NAME", help="The lab, where several are up.")
    ] = None,
) -> None:
    """Run a command in a server's network namespace."""
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise typer.BadParameter("expected a command behind --", param_hint="COMMAND")
    with one_line_errors(LabError, OSError):
        labs.enter(_only(name), server, words)


@_lab.command("replay", epilog="Example: e2ctl lab replay capture.pcap --port subscribers")
def replay_command(
    capture: Annotated[Path, typer.Argument(metavar="CAPTURE", help="pcap or pcapng, also .gz.")],
    port: Annotated[str, typer.Option("--port", help="Of the policy, where it comes in.")],
    rate: Annotated[
        int, typer.Option("--rate", min=1, help="Packets per second; a lab takes a few thousand.")
    ] = 2000,
    times: Annotated[int, typer.Option("--times", min=1, help="How often to send it.")] = 1,
    timed: Annotated[
        bool, typer.Option("--timed", help="Keep the times of the capture, within that rate.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--lab", metavar="NAME", help="The lab, where several are up.")
    ] = None,
) -> None:
    """Send a capture into a lab from the world around it, and count what comes out again."""
    from bess_plugins.client import BessError
    from e2ctl.lab_traffic import Traffic

    with (
        one_line_errors(LabError, OSError, BessError),
        labs.world_of(_only(name)) as (world, ports),
    ):
        if port not in ports:
            raise LabError(f"'{port}' is none of {', '.join(ports)}")
        traffic, others = Traffic(world), [other for other in ports if other != port]
        with ExitStack() as stack:
            for other in others:
                stack.enter_context(traffic.counting(other))
            before = {other: traffic.counts(other).inc.packets for other in others}
            sent = 0
            for _ in track(range(times), f"sending {capture.name}", console=Console(stderr=True)):
                sent += traffic.replay(capture, port, rate, timed=timed)
            came = {o: traffic.settled(o) - before[o] for o in others}
    listed = ", ".join(f"{count:,} came out by {other}" for other, count in came.items())
    typer.echo(f"{sent:,} packets sent in by {port}; {listed}")


def _render(status: LabStatus, console: Console) -> None:
    state = "up" if status.complete else "not complete: it is being made, or its making was killed"
    table = Table(title=f"{status.name}: {state}", title_justify="left", header_style="bold")
    for column in ("process", "namespace", "pid", "state"):
        table.add_column(column, justify="right" if column == "pid" else "left")
    for member in status.members:
        running = "running" if member.running else "[red]ended[/red]"
        table.add_row(member.name, member.namespace or "-", str(member.pid), running)
    console.print(table)
    if status.simulated:
        console.print(f"note: {labs.REPLACES}", highlight=False, soft_wrap=True)
    for namespace in status.missing:
        console.print(f"namespace {namespace} is missing", highlight=False)
