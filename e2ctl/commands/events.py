# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl events``: what happens on a cluster, as it happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Annotated

import typer

from bess_plugins.command_line import JsonFlag
from e2ctl import hardware as hardwares
from e2ctl.commands.cluster import (
    FAILURES,
    ClusterHardware,
    ControllerAddress,
    LabName,
    PkiPath,
    agents_of,
    controller_at,
    operator_identity,
    places,
)
from e2ctl.commands.common import one_line_errors
from e2ctl.controller.northbound import ControllerError, RemoteOperations, remote
from e2ctl.controller.notices import Notice, listen

__all__ = ["app"]

app = typer.Typer()


@app.command("events", epilog="Example: e2ctl events --lab co")
def events_command(
    hardware: ClusterHardware = None,
    lab: LabName = None,
    pki: PkiPath = None,
    controller: ControllerAddress = None,
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many; 0: never.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Print what happens: overload and relief, daemons and NFs that end and come back.

    A controller that stays tells what it does, too. Ends with Ctrl-C, or with the controller. Where
    there is none, an agent that goes away is an event, and is listened to again.
    """
    hardware_path, _ = places(hardware, lab, None)
    address = controller_at(hardware, lab, controller)

    async def work() -> None:
        seen = asyncio.Queue[Notice]()
        async with AsyncExitStack() as stack:
            if address is not None:
                operations = await stack.enter_async_context(
                    remote(address, operator_identity(pki))
                )
                works = [_all_of(operations, seen.put_nowait)]
            else:
                agents = agents_of(hardwares.load(hardware_path), pki)
                await stack.enter_async_context(agents)
                works = [listen(agent, seen.put_nowait) for agent in agents]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in works]
                number = 0
                while count == 0 or number < count:
                    typer.echo(_line(await seen.get(), as_json))
                    number += 1
                for task in tasks:
                    task.cancel()

    with one_line_errors(*FAILURES), suppress(KeyboardInterrupt):
        try:
            asyncio.run(work())
        except* ControllerError as group:
            raise group.exceptions[0] from None


async def _all_of(operations: RemoteOperations, tell: Callable[[Notice], None]) -> None:
    async for notice in operations.watch():
        tell(notice)


def _line(notice: Notice, as_json: bool) -> str:
    if as_json:
        return json.dumps(notice.to_dict())
    return f"{time.strftime('%H:%M:%S', time.localtime(notice.time_s))} {notice}"
