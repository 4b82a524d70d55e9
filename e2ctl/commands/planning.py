# SPDX-License-Identifier: BSD-3-Clause
"""Commands that think and change nothing: ``check``, ``graph``, ``plan``, ``diff``, ``schema``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from bess_plugins.command_line import JsonFlag
from e2ctl import hardware as hardwares
from e2ctl import nfs as nf_descriptions
from e2ctl import plan as plans
from e2ctl import policy as policies
from e2ctl.commands.common import HardwarePath, NfsPath, PolicyPath, one_line_errors
from e2ctl.lab import LabFile
from e2ctl.nfs import Catalog, NfType
from e2ctl.pgraph import PGraph, build, format_rate
from e2ctl.placement import STRATEGIES, PlacementError
from e2ctl.plan import Plan, make_plan
from e2ctl.routing import PlanError
from e2ctl.wiring import wire

__all__ = ["app"]

app = typer.Typer()

_FIGURE = "examples/figure-3.1.e2 --nfs examples/nfs.yaml"
_OFFICE = "examples/central_office.e2 --nfs examples/nfs.yaml --hardware examples/rack.yaml"

MaybeHardware = Annotated[
    Path | None,
    typer.Option("--hardware", metavar="HW.yaml", help="Hardware description."),
]
Strategy = Annotated[
    str, typer.Option("--strategy", help=f"How to place instances: {', '.join(STRATEGIES)}.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the placement.")]


class SchemaKind(StrEnum):
    """Files that have a schema."""

    NFS = "nfs"
    HARDWARE = "hardware"
    LAB = "lab"


def _load(policy: Path, nfs: Path) -> tuple[PGraph, Catalog]:
    catalog = nf_descriptions.load(nfs)
    return build(policies.load(policy), catalog), catalog


def _plan(policy: Path, nfs: Path, hardware: Path, strategy: str = "e2", seed: int = 0) -> Plan:
    if strategy not in STRATEGIES:
        message = f"'{strategy}' is none of {', '.join(STRATEGIES)}"
        raise typer.BadParameter(message, param_hint="--strategy")
    with one_line_errors(PlacementError, PlanError):
        return make_plan(
            policies.load(policy),
            nf_descriptions.load(nfs),
            hardwares.load(hardware),
            strategy=strategy,
            seed=seed,
        )


@app.command("check", epilog=f"Example: e2ctl check {_FIGURE}")
def check_command(policy: PolicyPath, nfs: NfsPath, hardware: MaybeHardware = None) -> None:
    """Check a policy, and whether a cluster can carry it; say what it takes."""
    with one_line_errors():
        graph, catalog = _load(policy, nfs)
        local = wire(graph, catalog)
    count = sum(node.kind == "nf" for node in graph.nodes)
    if hardware is None:
        rules = sum(len(module.args.get("rules", ())) for module in local.modules)
        typer.echo(
            f"{policy}: correct; {count} NFs, {len(graph.edges)} edges, "
            f"{len(local.modules)} modules, {rules} rules"
        )
        return
    plan = _plan(policy, nfs, hardware)
    used = len({*plan.layout.servers.values()})
    typer.echo(
        f"{policy}: correct; {count} NFs, {len(plan.igraph.instances)} instances on {used} of "
        f"{len(plan.servers)} servers, {len(plan.switch)} switch entries"
    )
    for note in plan.notes:
        typer.echo(f"note: {note}")


@app.command("graph", epilog=f"Example: e2ctl graph {_FIGURE} -o figure.svg")
def graph_command(
    policy: PolicyPath,
    nfs: NfsPath,
    hardware: MaybeHardware = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.svg", help="Draw into this file.")
    ] = None,
) -> None:
    """Print or draw the policy graph; with a hardware description, its instances and servers."""
    with one_line_errors(OSError):
        if hardware is None:
            graph, _ = _load(policy, nfs)
            text, picture = str(graph), graph.to_svg()
        else:
            plan = _plan(policy, nfs, hardware)
            text = f"{plan.igraph}{plan.layout}"
            picture = plan.igraph.to_svg(plan.layout.servers)
        if output is None:
            typer.echo(text, nl=False)
        else:
            output.write_text(picture, encoding="utf-8")


@app.command("plan", epilog=f"Example: e2ctl plan {_OFFICE}")
def plan_command(
    policy: PolicyPath,
    nfs: NfsPath,
    hardware: HardwarePath,
    strategy: Strategy = "e2",
    seed: Seed = 0,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every module, link and switch entry.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what would run where, without touching anything."""
    plan = _plan(policy, nfs, hardware, strategy, seed)
    if as_json:
        typer.echo(json.dumps(plan.to_dict(), indent=2))
    elif everything:
        typer.echo(str(plan), nl=False)
    else:
        _render(plan, Console())


@app.command("diff", epilog=f"Example: e2ctl diff examples/figure-3.1.e2 {_OFFICE}")
def diff_command(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Policy file that runs.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Policy file to run instead.")],
    nfs: NfsPath,
    hardware: HardwarePath,
) -> None:
    """Show what a change of policy would take away and add; instances keep their servers."""
    before = _plan(old, nfs, hardware)
    with one_line_errors(PlacementError, PlanError):
        after = make_plan(
            policies.load(new),
            nf_descriptions.load(nfs),
            hardwares.load(hardware),
            running=before.running,
        )
    for line in plans.diff(before, after):
        typer.echo(line)


@app.command("schema", epilog="Example: e2ctl schema hardware > hardware.schema.json")
def schema_command(
    kind: Annotated[SchemaKind, typer.Argument(help="Which file it describes.")],
) -> None:
    """Print the JSON Schema of a file, for editors."""
    if kind is SchemaKind.NFS:
        schema: dict[str, Any] = TypeAdapter(dict[str, NfType]).json_schema()
    elif kind is SchemaKind.HARDWARE:
        schema = hardwares.Hardware.model_json_schema()
    else:
        schema = LabFile.model_json_schema()
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    typer.echo(json.dumps({**draft, **schema}, indent=2))


def _render(plan: Plan, console: Console) -> None:
    instances = Table(title="Instances", title_justify="left", header_style="bold")
    for name in ("server", "instance", "type", "flow ids", "load"):
        instances.add_column(name, justify="right" if name == "load" else "left")
    for instance in sorted(plan.igraph.instances, key=lambda i: plan.layout.servers[i.name]):
        instances.add_row(
            plan.layout.servers[instance.name],
            instance.name,
            instance.type,
            str(instance.span),
            format_rate(instance.load_bps),
        )
    console.print(instances)
    edges = Table(title="Edges", title_justify="left", header_style="bold")
    for name in ("from", "to", "filter", "flow ids", "rate"):
        edges.add_column(name, justify="right" if name == "rate" else "left")
    for edge in plan.igraph.edges:
        ids = str(edge.span) if edge.span else ""
        edges.add_row(edge.source, edge.target, edge.edge.label, ids, format_rate(edge.rate))
    console.print(edges)
    modules = sum(len(server.modules) for server in plan.servers.values())
    lines = [
        f"between servers {format_rate(plan.layout.cross_bps)}, "
        f"busiest link {100 * plan.layout.saturation:.0f} %; "
        f"{len(plan.switch)} switch entries, {modules} modules",
        *(f"the switch does {name}" for name in plan.offloaded),
        *(f"note: {note}" for note in plan.notes),
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
