# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl controller``: one that stays."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import nullcontext
from typing import Annotated

import typer

from bess_plugins.command_line import MetricsAddress
from bess_plugins.metrics import MetricsError, serving
from bess_plugins.sources import read_source
from e2ctl import hardware as hardwares
from e2ctl.commands.cluster import (
    FAILURES,
    ClusterHardware,
    LabName,
    PkiPath,
    StorePath,
    agents_of,
    lab_socket,
    make_switch,
    places,
)
from e2ctl.commands.common import one_line_errors
from e2ctl.controller.metrics import ControllerCollector
from e2ctl.controller.northbound import serve
from e2ctl.controller.operations import LocalOperations
from e2ctl.controller.resident import Controller
from e2ctl.controller.store import open_store
from e2ctl.pki import CONTROLLER
from e2ctl.tls import load_identity

__all__ = ["app"]

app = typer.Typer()


@app.command("controller", epilog="Example: e2ctl controller --lab co")
def controller_command(
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="HOST:PORT or unix:PATH; 127.0.0.1:10530, or a socket of the lab, by default.",
        ),
    ] = None,
    scaling: Annotated[
        bool, typer.Option("--scaling/--no-scaling", help="Split and drain instances by itself.")
    ] = True,
    lost_after: Annotated[
        float,
        typer.Option(
            "--lost-after",
            metavar="SECONDS",
            min=0.5,
            help="Move a server's instances when nothing is heard of it for so long.",
        ),
    ] = 2.0,
    metrics: MetricsAddress = None,
) -> None:
    """Look after a cluster: scale, and put right what breaks, until stopped.

    A second one with the same store stands by, and takes over when the first ends.
    """
    from e2ctl.lab import LabError, joined

    hardware_path, where = places(hardware, lab, store)
    address = listen or (lab_socket(lab) if lab else "127.0.0.1:10530")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    async def work() -> None:
        text = read_source(hardware_path, hardwares.HardwareError)
        cluster = hardwares.loads(text, str(hardware_path))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        held = open_store(where, pki)
        identity = None if pki is None else load_identity(pki, CONTROLLER)
        async with agents_of(cluster, pki) as agents:
            switch = make_switch(cluster)
            controller = Controller(held, agents, switch, scaling=scaling, lost_after_s=lost_after)
            operations = LocalOperations(
                held,
                agents,
                switch,
                cluster,
                (text, str(hardware_path)),
                controller.scaler,
            )
            with serving(metrics, ControllerCollector(controller)) if metrics else nullcontext():
                async with serve(address, operations, controller.notices, identity):
                    typer.echo(f"controller: serves at {address}", err=True)
                    await controller.run(stop)

    member = joined(lab, "controller") if lab else nullcontext()
    with one_line_errors(LabError, MetricsError, *FAILURES), member:
        asyncio.run(work())
