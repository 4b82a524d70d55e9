# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl agent`` and ``e2ctl pki``."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins.command_line import MetricsAddress
from bess_plugins.metrics import MetricsError, serving
from e2ctl import hardware as hardwares
from e2ctl.commands.common import HardwarePath, one_line_errors
from e2ctl.pki import make_pki
from e2ctl.tls import IdentityError, load_identity

__all__ = ["app"]

app = typer.Typer()


@app.command(
    "agent",
    epilog="Example: e2ctl agent s1 --listen 127.0.0.1:10521 --daemon unix:/run/e2/s1.sock",
)
def agent_command(
    server: Annotated[str, typer.Argument(help="Name in the hardware description.")],
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="HOST:PORT or unix:PATH.")
    ] = "127.0.0.1:10520",
    daemon: Annotated[
        str, typer.Option("--daemon", metavar="ADDRESS", help="Of the dataplane daemon.")
    ] = "unix:/run/e2d.sock",
    attach: Annotated[
        bool, typer.Option("--attach", help="Use a daemon that runs; otherwise start one there.")
    ] = False,
    pki: Annotated[
        Path | None, typer.Option("--pki", metavar="DIR", help="Keys and certificates.")
    ] = None,
    metrics: MetricsAddress = None,
) -> None:
    """Look after this server for a controller, until stopped.

    A process that dies is followed by another, which takes over daemon and programs as they are.
    """
    from e2ctl.agent.dataplane import Dataplane, DataplaneError
    from e2ctl.agent.metrics import AgentCollector
    from e2ctl.agent.server import AgentServer, AgentServerError
    from e2ctl.agent.supervisor import supervise

    if not attach and not daemon.startswith("unix:"):
        message = "a daemon is started at unix:PATH only; expected that, or --attach"
        raise typer.BadParameter(message, param_hint="--daemon")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    child = supervise()
    with one_line_errors(AgentServerError, DataplaneError, IdentityError, MetricsError):
        identity = None if pki is None else load_identity(pki, server)
        agent = AgentServer(server, Dataplane(daemon, own=not attach), listen, identity)
        try:
            agent.start()
            with serving(metrics, AgentCollector(agent)) if metrics else nullcontext():
                child.serves()
                child.wait()
        finally:
            agent.stop()


@app.command("pki", epilog="Example: e2ctl pki keys --hardware examples/rack.yaml")
def pki_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for all of them.")],
    hardware: HardwarePath,
    etcd: Annotated[
        list[str] | None,
        typer.Option("--etcd", metavar="HOST", help="Also for etcd there; may be repeated."),
    ] = None,
) -> None:
    """Make keys and certificates for the controller and each agent; keep those that exist."""
    with one_line_errors(IdentityError, OSError):
        made = make_pki(folder, hardwares.load(hardware), etcd or ())
    typer.echo(f"{folder}: made {', '.join(made)}" if made else f"{folder}: nothing is missing")
