# SPDX-License-Identifier: BSD-3-Clause
"""Commands that change a cluster, or tell how it does.

A controller that stays does what they say; where there is none, they are one for a moment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from bess_plugins.command_line import JsonFlag
from bess_plugins.pb import e2_controller_pb2 as pb
from bess_plugins.sources import read_source
from e2ctl import hardware as hardwares
from e2ctl.commands.cluster import (
    FAILURES,
    ClusterHardware,
    ControllerAddress,
    LabName,
    PkiPath,
    StorePath,
    agents_of,
    controller_at,
    make_switch,
    operator_identity,
    places,
)
from e2ctl.commands.common import NfsPath, PolicyPath, one_line_errors
from e2ctl.controller.apply import recover
from e2ctl.controller.northbound import remote
from e2ctl.controller.operations import LocalOperations, Operations
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import open_store
from e2ctl.nfs import NfError
from e2ctl.policy import PolicyError

__all__ = ["app"]

app = typer.Typer()
T = TypeVar("T")
ServerOption = Annotated[
    str | None, typer.Option("--server", help="Of the new instance; by default the best one.")
]


@asynccontextmanager
async def _operations(
    hardware: Path | None,
    lab: str | None,
    store: str | None,
    pki: Path | None,
    controller: str | None,
    *,
    change: bool = True,
) -> AsyncIterator[Operations]:
    """Those of a controller that stays, or of this process."""
    if (address := controller_at(hardware, lab, controller)) is not None:
        async with remote(address, operator_identity(pki)) as operations:
            yield operations
        return
    hardware_path, where = places(hardware, lab, store)
    text = read_source(hardware_path, hardwares.HardwareError)
    cluster = hardwares.loads(text, str(hardware_path))
    held = open_store(where, pki)
    async with agents_of(cluster, pki) as agents:
        switch = make_switch(cluster)
        scaler = Scaler(held, agents, switch, _say)
        local = LocalOperations(held, agents, switch, cluster, (text, str(hardware_path)), scaler)
        if not change:
            yield local
            return
        with held.only_one():
            if held.read().stage != "done":
                await recover(held, agents, switch, _say)
            yield local


def _say(step: str) -> None:
    typer.echo(f"e2ctl: {step}", err=True)


def _ask(
    work: Callable[[Operations], Awaitable[T]],
    hardware: Path | None,
    lab: str | None,
    store: str | None,
    pki: Path | None,
    controller: str | None,
    *,
    change: bool = True,
) -> T:
    async def main() -> T:
        where = hardware, lab, store, pki, controller
        async with _operations(*where, change=change) as operations:
            return await work(operations)

    with one_line_errors(*FAILURES):
        return asyncio.run(main())


@app.command(
    "apply",
    epilog="Example: e2ctl apply examples/central_office.e2 --nfs examples/nfs.yaml --lab co",
)
def apply_command(
    policy: PolicyPath,
    nfs: NfsPath,
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    controller: ControllerAddress = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a cluster do what a policy says: all of it or nothing, and without a packet lost."""

    async def work(operations: Operations) -> pb.Applied:
        request = pb.PolicyRequest(
            policy=pb.SourceText(name=str(policy), text=read_source(policy, PolicyError)),
            nfs=pb.SourceText(name=str(nfs), text=read_source(nfs, NfError)),
        )
        return await operations.apply(request, _say)

    done = _ask(work, hardware, lab, store, pki, controller)
    if as_json:
        typer.echo(json.dumps(json.loads(done.plan), indent=2))
        return
    change = "applied" if done.changed else "nothing changed"
    typer.echo(
        f"{policy}: {change}; {done.instances} instances on {done.servers_used} of "
        f"{done.servers} servers, {done.switch_entries} switch entries"
    )
    for note in done.notes:
        typer.echo(f"note: {note}")


@app.command("split", epilog="Example: e2ctl split ids.0 --lab co")
def split_command(
    instance: Annotated[str, typer.Argument(help="Such as ids.0.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    controller: ControllerAddress = None,
    server: ServerOption = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until the switch steers new flows by itself.")
    ] = True,
) -> None:
    """Give half of an instance's flows to a new one; flows that are active stay where they are."""
    request = pb.ChangeRequest(instance=instance, server=server or "", wait=wait)
    done = _ask(lambda ops: ops.split(request), hardware, lab, store, pki, controller)
    typer.echo(f"{instance}: new flows of the upper half of its flow ids go to {done.target}")


@app.command("drain", epilog="Example: e2ctl drain ids.1 --lab co")
def drain_command(
    instance: Annotated[str, typer.Argument(help="Such as ids.1.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    controller: ControllerAddress = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until it has no flow left and is gone.")
    ] = True,
) -> None:
    """Take an instance out of service once its flows have ended; new ones go to a neighbour."""
    request = pb.ChangeRequest(instance=instance, wait=wait)
    done = _ask(lambda ops: ops.drain(request), hardware, lab, store, pki, controller)
    typer.echo(f"{instance}: its flow ids are those of {done.target} now")


@app.command("settle", epilog="Example: e2ctl settle ids.0 --lab co")
def settle_command(
    instance: Annotated[str, typer.Argument(help="That was split or drained.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    controller: ControllerAddress = None,
) -> None:
    """Wait for the end of a split or drain that was begun with --no-wait."""
    request = pb.ChangeRequest(instance=instance)
    _ask(lambda ops: ops.settle(request), hardware, lab, store, pki, controller)
    typer.echo(f"{instance}: settled")


@app.command("status", epilog="Example: e2ctl status --lab co")
def status_command(
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    controller: ControllerAddress = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how servers do, and what runs where. Exit status 3: not all is as it should be."""
    where = hardware, lab, store, pki, controller
    found = _ask(lambda ops: ops.status(), *where, change=False)
    rows = [_row(server, found) for server in found.servers]
    if as_json:
        changes = [
            {"instance": one.instance, "kind": one.kind, "target": one.target, "host": one.host}
            for one in found.changes
        ]
        entries = {"used": found.switch_entries, "table": found.switch_table}
        values = {"policy": found.policy, "servers": rows, "changes": changes, "switch": entries}
        typer.echo(json.dumps({**values, "exceptions": found.exceptions}, indent=2))
    else:
        table = Table(title="Servers", title_justify="left", header_style="bold")
        for name in rows[0]:
            table.add_column(name)
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console().print(table)
        for one in found.changes:
            core = f", on the core of {one.host}" if one.host else ""
            typer.echo(f"{one.kind}: {one.instance} passes new flows on to {one.target}{core}")
    if any(row["state"] != "well" for row in rows):
        raise typer.Exit(3)


def _row(server: pb.ServerStatus, found: pb.ClusterStatus) -> dict[str, object]:
    here = ", ".join(one.name for one in found.instances if one.server == server.name)
    return {
        "server": server.name,
        "state": server.state,
        "restarts": server.restarts,
        "instances": here,
    }
