# SPDX-License-Identifier: BSD-3-Clause
"""Commands that change or watch a cluster."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl import hardware as hardwares
from e2ctl.commands.common import JsonFlag, NfsPath, PolicyPath, one_line_errors
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import ApplyError, apply, recover
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import Inputs, StoreError, open_store
from e2ctl.controller.switches import SimulatedSwitch, SwitchDriver, SwitchError
from e2ctl.filters import FilterError, rule_list
from e2ctl.hardware import Hardware
from e2ctl.openflow import OpenFlowSwitch
from e2ctl.pki import CONTROLLER
from e2ctl.placement import PlacementError
from e2ctl.plan import Plan, Running
from e2ctl.policy import parse_filter
from e2ctl.routing import PlanError
from e2ctl.switch_rules import spelled_out
from e2ctl.tls import IdentityError, load_identity
from e2ctl.trace import trace
from e2ctl.transitions import TransitionError

__all__ = ["FAILURES", "ClusterHardware", "LabName", "PkiPath", "agents_of", "app", "places"]

app = typer.Typer()
T = TypeVar("T")

FAILURES = (
    ApplyError,
    AgentError,
    IdentityError,
    OSError,
    PlacementError,
    PlanError,
    StoreError,
    SwitchError,
    TransitionError,
)

ClusterHardware = Annotated[
    Path | None,
    typer.Option("--hardware", metavar="HW.yaml", help="Hardware description."),
]
LabName = Annotated[
    str | None, typer.Option("--lab", metavar="NAME", help="The cluster of `e2ctl lab up`.")
]
StorePath = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="WHERE",
        help="What the controller remembers: a file, or etcd://HOST:PORT[,HOST:PORT...]/PREFIX.",
    ),
]
PkiPath = Annotated[
    Path | None, typer.Option("--pki", metavar="DIR", help="Keys and certificates.")
]


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "e2ctl"


def places(hardware: Path | None, lab: str | None, store: str | None) -> tuple[Path, str]:
    """Where the hardware description and the store are."""
    if (hardware is None) == (lab is None):
        raise typer.BadParameter("give one of them", param_hint="--hardware, --lab")
    if lab is not None:
        from e2ctl.lab import folder_of

        folder = folder_of(lab)
        return folder / "hardware.yaml", store or str(folder / "controller.db")
    assert hardware is not None
    return hardware, store or str(_state_folder() / "controller.db")


def make_switch(hardware: Hardware) -> SwitchDriver:
    """The driver that a hardware description asks for."""
    if hardware.switch.driver == "simulated":
        return SimulatedSwitch(hardware.switch.table)
    return OpenFlowSwitch(Path(hardware.switch.rundir), hardware.switch.bridge)


def agents_of(hardware: Hardware, pki: Path | None) -> Agents:
    return Agents(hardware, None if pki is None else load_identity(pki, CONTROLLER))


def _run(work: Coroutine[Any, Any, T]) -> T:
    with one_line_errors(*FAILURES):
        return asyncio.run(work)


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
    as_json: JsonFlag = False,
) -> None:
    """Make a cluster do what a policy says: all of it or nothing, and without a packet lost."""
    hardware_path, store_path = places(hardware, lab, store)

    simulated = False

    async def work() -> tuple[Plan, bool]:
        nonlocal simulated
        held = open_store(store_path, pki)
        with held.only_one():
            cluster = hardwares.load(hardware_path)
            async with agents_of(cluster, pki) as agents:
                simulated = cluster.switch.driver == "simulated"
                switch = make_switch(cluster)
                if held.read().stage != "done":
                    await recover(held, agents, switch, _say)
                current = held.read().current
                before = None if current is None else current.plan()
                running = Running() if before is None else before.running
                inputs = Inputs.read(policy, nfs, hardware_path, running)
                plan = await apply(inputs, held, agents, switch, _say)
                return plan, before is not None and str(before) == str(plan)

    plan, same = _run(work())
    if as_json:
        typer.echo(json.dumps(plan.to_dict(), indent=2))
        return
    used = len({*plan.layout.servers.values()})
    change = "nothing changed" if same else "applied"
    typer.echo(
        f"{policy}: {change}; {len(plan.igraph.instances)} instances on {used} of "
        f"{len(plan.servers)} servers, {len(plan.switch)} switch entries"
    )
    for note in plan.notes:
        typer.echo(f"note: {note}")
    if simulated:
        typer.echo("note: the switch is simulated; nothing brings packets to the servers")


def _say(step: str) -> None:
    typer.echo(f"e2ctl: {step}", err=True)


@app.command("split", epilog="Example: e2ctl split ids.0 --lab co")
def split_command(
    instance: Annotated[str, typer.Argument(help="Such as ids.0.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    server: Annotated[
        str | None, typer.Option("--server", help="Of the new instance; by default the best one.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until the switch steers new flows by itself.")
    ] = True,
) -> None:
    """Give half of an instance's flows to a new one; flows that are active stay where they are."""

    async def work(scaler: Scaler) -> str:
        name = await scaler.split(instance, server=server)
        if wait:
            await scaler.finish_change(instance)
        return f"{instance}: new flows of the upper half of its flow ids go to {name}"

    typer.echo(_scale(work, hardware, lab, store, pki))


@app.command("drain", epilog="Example: e2ctl drain ids.1 --lab co")
def drain_command(
    instance: Annotated[str, typer.Argument(help="Such as ids.1.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until it has no flow left and is gone.")
    ] = True,
) -> None:
    """Take an instance out of service once its flows have ended; new ones go to a neighbour."""

    async def work(scaler: Scaler) -> str:
        target = await scaler.drain(instance)
        if wait:
            await scaler.finish_change(instance)
        return f"{instance}: its flow ids are those of {target} now"

    typer.echo(_scale(work, hardware, lab, store, pki))


@app.command("settle", epilog="Example: e2ctl settle ids.0 --lab co")
def settle_command(
    instance: Annotated[str, typer.Argument(help="That was split or drained.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
) -> None:
    """Wait for the end of a split or drain that was begun with --no-wait."""

    async def work(scaler: Scaler) -> str:
        await scaler.finish_change(instance)
        return f"{instance}: settled"

    typer.echo(_scale(work, hardware, lab, store, pki))


def _scale(
    work: Callable[[Scaler], Coroutine[Any, Any, str]],
    hardware: Path | None,
    lab: str | None,
    store: str | None,
    pki: Path | None,
) -> str:
    """Do something with a cluster's instances as its one controller."""
    hardware_path, store_path = places(hardware, lab, store)

    async def main() -> str:
        held = open_store(store_path, pki)
        cluster = hardwares.load(hardware_path)
        with held.only_one():
            async with agents_of(cluster, pki) as agents:
                return await work(Scaler(held, agents, make_switch(cluster), _say))

    return _run(main())


@app.command("trace", epilog='Example: e2ctl trace "tcp dst port 80" --port subscribers --lab co')
def trace_command(
    packets: Annotated[str, typer.Argument(metavar="FILTER", help="What is known of them.")],
    port: Annotated[str, typer.Option("--port", help="Where they come in.")],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
) -> None:
    """Show the way of packets through what runs: rules, instances and servers, and why."""
    hardware_path, store_path = places(hardware, lab, store)
    with one_line_errors(*FAILURES, FilterError):
        current = open_store(store_path, pki).read().current
        if current is None:
            raise ApplyError("nothing runs; apply a policy first")
        cluster = hardwares.load(hardware_path)
        if port not in cluster.switch.ports:
            known = ", ".join(cluster.switch.ports)
            raise typer.BadParameter(f"'{port}' is none of {known}", param_hint="--port")
        policy = current.parsed()
        expr = parse_filter(packets, policy.addresses)
        plan, catalog = current.plan(), current.catalog()
        ways = [rule.terms for rule in rule_list([expr]) if rule.edges]
        for terms in (each for way in ways for each in spelled_out(way)):
            for line in trace(plan, catalog, cluster, port, terms).lines():
                typer.echo(line)


@app.command("status", epilog="Example: e2ctl status --lab co")
def status_command(
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how servers do, and what runs where. Exit status 3: not all is as it should be."""
    hardware_path, store_path = places(hardware, lab, store)

    async def work() -> tuple[dict[str, pb.AgentState | AgentError], Plan | None]:
        held = open_store(store_path, pki)
        current = held.read().current
        async with agents_of(hardwares.load(hardware_path), pki) as agents:
            return await agents.states(), current.plan() if current else None

    states, plan = _run(work())
    rows = [_row(server, state, plan) for server, state in states.items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table(title="Servers", title_justify="left", header_style="bold")
        for name in rows[0]:
            table.add_column(name)
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console().print(table)
    if any(row["state"] != "well" for row in rows):
        raise typer.Exit(3)


def _row(server: str, state: pb.AgentState | AgentError, plan: Plan | None) -> dict[str, object]:
    instances = ", ".join(plan.layout.on(server)) if plan else ""
    if isinstance(state, AgentError):
        return {"server": server, "state": str(state), "restarts": "", "instances": instances}
    said = "well"
    if not state.daemon_runs:
        said = "its daemon does not answer"
    elif plan is not None and not state.in_step:
        said = "does not have what the plan says"
    return {"server": server, "state": said, "restarts": state.restarts, "instances": instances}
