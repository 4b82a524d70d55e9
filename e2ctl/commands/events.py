# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl events``: what happens on a cluster, as it happens."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Annotated

import typer

from e2ctl import hardware as hardwares
from e2ctl.commands.cluster import (
    FAILURES,
    ClusterHardware,
    LabName,
    PkiPath,
    agents_of,
    places,
)
from e2ctl.commands.common import JsonFlag, one_line_errors
from e2ctl.controller.notices import Notice, listen

__all__ = ["app"]

app = typer.Typer()


@app.command("events", epilog="Example: e2ctl events --lab co")
def events_command(
    hardware: ClusterHardware = None,
    lab: LabName = None,
    pki: PkiPath = None,
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many; 0: never.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Print what agents notice: overload and relief, daemons and NFs that end and come back.

    Ends with Ctrl-C. An agent that goes away is an event, too, and is listened to again.
    """
    hardware_path, _ = places(hardware, lab, None)

    async def work() -> None:
        seen = asyncio.Queue[Notice]()
        async with agents_of(hardwares.load(hardware_path), pki) as agents:
            tasks = [asyncio.create_task(listen(agent, seen.put_nowait)) for agent in agents]
            try:
                number = 0
                while count == 0 or number < count:
                    notice = await seen.get()
                    number += 1
                    typer.echo(_line(notice, as_json))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    with one_line_errors(*FAILURES), suppress(KeyboardInterrupt):
        asyncio.run(work())


def _line(notice: Notice, as_json: bool) -> str:
    if as_json:
        return json.dumps(notice.to_dict())
    return f"{time.strftime('%H:%M:%S', time.localtime(notice.time_s))} {notice}"
