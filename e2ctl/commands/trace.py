# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl trace``: which way packets would take, by the plan and by what is live."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from e2ctl import hardware as hardwares
from e2ctl.commands.cluster import (
    FAILURES,
    ClusterHardware,
    LabName,
    PkiPath,
    StorePath,
    agents_of,
    make_switch,
    places,
    what_runs,
)
from e2ctl.commands.common import one_line_errors
from e2ctl.controller.live import look
from e2ctl.controller.store import open_store
from e2ctl.filters import FilterError, rule_list
from e2ctl.policy import parse_filter
from e2ctl.switch_rules import spelled_out
from e2ctl.trace import trace

__all__ = ["app"]

app = typer.Typer()


@app.command("trace", epilog='Example: e2ctl trace "tcp dst port 80" --port subscribers --lab co')
def trace_command(
    packets: Annotated[str, typer.Argument(metavar="FILTER", help="What is known of them.")],
    port: Annotated[str, typer.Option("--port", help="Where they come in.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Ask no agent and no switch what they really have.")
    ] = False,
) -> None:
    """Show the way of packets through what runs: rules, instances and servers, and why.

    Each step is held against what switch and daemons have. Exit status 3: they differ.
    """
    hardware_path, store_path = places(hardware, lab, store)

    async def work() -> bool:
        current = what_runs(open_store(store_path, pki))
        cluster = hardwares.load(hardware_path)
        if port not in cluster.switch.ports:
            known = ", ".join(cluster.switch.ports)
            raise typer.BadParameter(f"'{port}' is none of {known}", param_hint="--port")
        expr = parse_filter(packets, current.parsed().addresses)
        plan, catalog = current.plan(), current.catalog()
        ways = [
            terms for rule in rule_list([expr]) if rule.edges for terms in spelled_out(rule.terms)
        ]
        differs = False
        async with agents_of(cluster, pki) as agents:
            switch = make_switch(cluster)
            for terms in ways:
                hop = trace(plan, catalog, cluster, port, terms)
                if plan_only:
                    for line in hop.lines():
                        typer.echo(line)
                    continue
                live = await look(plan, catalog, hop, agents, switch, terms)
                for line in hop.lines(tell=live.about):
                    typer.echo(line)
                for note in live.notes:
                    typer.echo(f"{'warning' if note.differs else 'note'}: {note.text}")
                differs |= live.differs
        return differs

    with one_line_errors(*FAILURES, FilterError):
        differs = asyncio.run(work())
    if differs:
        raise typer.Exit(3)
