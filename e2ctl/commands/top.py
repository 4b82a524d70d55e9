# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl top``: what passes instances, edges and servers, as it does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bess_plugins.command_line import JsonFlag
from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl import hardware as hardwares
from e2ctl.commands.cluster import (
    FAILURES,
    ClusterHardware,
    LabName,
    PkiPath,
    StorePath,
    agents_of,
    places,
    what_runs,
)
from e2ctl.commands.common import one_line_errors
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.store import Inputs, Store, open_store
from e2ctl.pgraph import format_rate
from e2ctl.rates import Rate, Rates, measure

__all__ = ["app"]

app = typer.Typer()


@dataclass(frozen=True)
class _Shown:
    """Rates of an interval, and why some servers have no part in them."""

    rates: Rates
    missing: Mapping[str, str]


@app.command("top", epilog="Example: e2ctl top --lab co")
def top_command(
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="S", min=0.1, help="Seconds between readings.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="End after one interval.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what instances, edges and servers carry: packets, bits, drops, queues and CPUs.

    Ends with Ctrl-C. Servers whose agent does not answer are named below the tables. JSON is a line
    for each interval.
    """
    hardware_path, store_path = places(hardware, lab, store)

    async def work() -> None:
        console = Console()
        held = open_store(store_path, pki)
        async with agents_of(hardwares.load(hardware_path), pki) as agents:
            shown = _measured(agents, held, interval)
            live = console.is_terminal and not once and not as_json
            with Live(console=console, auto_refresh=False) if live else nullcontext() as screen:
                async for one in shown:
                    if as_json:
                        typer.echo(json.dumps(_plain(one)))
                    elif screen is not None:
                        screen.update(_tables(one), refresh=True)
                    else:
                        console.print(_tables(one))
                    if once:
                        return

    with one_line_errors(*FAILURES), suppress(KeyboardInterrupt):
        asyncio.run(work())


async def _measured(agents: Agents, held: Store, interval: float) -> AsyncIterator[_Shown]:
    """Rates of one interval after the other. The plan may change: it is made anew when it has."""
    known: Inputs | None = None
    before = _answers(await agents.counters())[0]
    while True:
        await asyncio.sleep(interval)
        current = what_runs(held)
        if current != known:
            known, plan = current, current.plan()
        after, missing = _answers(await agents.counters())
        yield _Shown(measure(plan, before, after), missing)
        before = after


def _answers(
    found: Mapping[str, pb.AgentCounters | AgentError],
) -> tuple[dict[str, pb.AgentCounters], dict[str, str]]:
    counters: dict[str, pb.AgentCounters] = {}
    missing: dict[str, str] = {}
    for server, answer in found.items():
        if isinstance(answer, AgentError):
            missing[server] = str(answer)
        else:
            counters[server] = answer
    return counters, missing


def _plain(shown: _Shown) -> dict[str, Any]:
    return {"time": time.time(), **asdict(shown.rates), "missing": dict(shown.missing)}


_RATES = ("in packet/s", "in", "out packet/s", "out", "drops/s")


def _tables(shown: _Shown) -> Group:
    rates = shown.rates
    instances = _table("Instances", ("instance", "server"), (*_RATES, "queue", "CPU"))
    for i in rates.instances:
        cpu = "-" if i.cpu is None else f"{i.cpu:.0%}"
        carried = (*_both(i.received), *_both(i.sent), f"{i.drops:,.0f}")
        instances.add_row(i.instance, i.server, *carried, f"{i.queue:.0%}", cpu)
    edges = _table("Edges", ("edge", "filter"), ("packet/s", "rate"))
    for e in rates.edges:
        edges.add_row(f"{e.source} -> {e.target}", e.label, *_both(e.rate))
    nics = _table("Servers", ("server",), (*_RATES, "CPU"))
    for n in rates.nics:
        drops = f"{n.drops:,.0f}"
        nics.add_row(n.server, *_both(n.received), *_both(n.sent), drops, f"{n.cpu:.0%}")
    missing = [Text(message, style="red") for message in shown.missing.values()]
    return Group(instances, edges, nics, *missing)


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in names:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _both(rate: Rate) -> tuple[str, str]:
    return f"{rate.packets:,.0f}", format_rate(float(f"{rate.bits:.3g}"))
