# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl events``: what happens on a cluster, as it happens."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Annotated

import typer

from bess_plugins.pb import e2_agent_pb2 as pb
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
from e2ctl.controller.agents import Agent, AgentError

__all__ = ["app"]

app = typer.Typer()

_AGAIN_S = 0.5


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
        seen = asyncio.Queue[tuple[str, pb.AgentNotice]]()
        async with agents_of(hardwares.load(hardware_path), pki) as agents:
            tasks = [asyncio.create_task(_listen(agent, seen)) for agent in agents]
            try:
                number = 0
                while count == 0 or number < count:
                    server, notice = await seen.get()
                    number += 1
                    typer.echo(_line(server, notice, as_json))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    with one_line_errors(*FAILURES), suppress(KeyboardInterrupt):
        asyncio.run(work())


async def _listen(agent: Agent, seen: asyncio.Queue[tuple[str, pb.AgentNotice]]) -> None:
    """Pass on an agent's notices for ever."""
    missed = False
    while True:
        try:
            await agent.state()
            if missed:
                seen.put_nowait((agent.server, pb.AgentNotice(kind="agent up")))
            missed = False
            async for notice in agent.watch():
                seen.put_nowait((agent.server, notice))
        except AgentError:
            if not missed:
                seen.put_nowait((agent.server, pb.AgentNotice(kind="agent down")))
            missed = True
        await asyncio.sleep(_AGAIN_S)


def _line(server: str, notice: pb.AgentNotice, as_json: bool) -> str:
    values = dict(notice.values)
    if as_json:
        event = {"time": time.time(), "server": server, "subject": notice.subject}
        return json.dumps({**event, "kind": notice.kind, "values": values})
    about = f" {notice.subject}" if notice.subject else ""
    numbers = "".join(f" {name}={value}" for name, value in values.items())
    return f"{time.strftime('%H:%M:%S')} {server}{about}: {notice.kind}{numbers}"
