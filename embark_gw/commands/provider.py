# SPDX-License-Identifier: BSD-3-Clause
"""The provider's side: ``provider apply``, ``provider render``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins.client import DEFAULT_ADDRESS, BessError, Client
from bess_plugins.command_line import JsonFlag
from embark_gw.commands.common import one_line_errors
from embark_gw.provider.expand import ExpansionError
from embark_gw.provider.ip6tables import render_ip6tables
from embark_gw.provider.metadata_match import CLASS, WrongClassError, apply
from embark_gw.provider.nft import render_nft
from embark_gw.rules.document import read_document

__all__ = ["app"]

app = typer.Typer()
_provider = typer.Typer(no_args_is_help=True, help="Filter packets by encrypted rules.")
app.add_typer(_provider, name="provider")

RulesPath = Annotated[Path, typer.Argument(metavar="RULES.json", help="Encrypted rules.")]


@_provider.command("apply", epilog="Example: embark-gw provider apply rules.json --module firewall")
def apply_command(
    rules: RulesPath,
    daemon: Annotated[
        str,
        typer.Option("--daemon", metavar="ADDRESS", help="HOST:PORT or unix:/PATH of the daemon."),
    ] = DEFAULT_ADDRESS,
    module: Annotated[
        str, typer.Option("--module", metavar="NAME", help=f"The {CLASS}, made if it isn't there.")
    ] = "embark_firewall",
    as_json: JsonFlag = False,
) -> None:
    """Have a daemon's classifier decide by encrypted rules, instead of all that it has."""
    with one_line_errors(BessError, WrongClassError):
        document = read_document(rules)
        with Client(daemon) as client:
            done = apply(client, module, document)
    if as_json:
        typer.echo(json.dumps({"module": module, "created": done.created, "rules": done.rules}))
    elif done.created:
        typer.echo(f"made {module} with {done.rules} rules: what they accept leaves by gate 0")
    else:
        typer.echo(f"{module} has {done.rules} rules now")


@_provider.command(
    "render", epilog="Example: embark-gw provider render rules.json --nft | nft -f -"
)
def render_command(
    rules: RulesPath,
    nft: Annotated[bool, typer.Option("--nft", help="For `nft -f`, with sets.")] = False,
    ip6tables: Annotated[
        bool, typer.Option("--ip6tables", help="For `ip6tables-restore`, which has none.")
    ] = False,
    most: Annotated[
        int,
        typer.Option(
            "--max-rules", min=1, help="The most rules with one prefix per field, for ip6tables."
        ),
    ] = 250_000,
) -> None:
    """Print encrypted rules for a kernel's firewall."""
    if nft == ip6tables:
        raise typer.BadParameter("must be one of the two", param_hint="--nft, --ip6tables")
    with one_line_errors(ExpansionError):
        document = read_document(rules)
        text = render_nft(document) if nft else render_ip6tables(document, most)
    typer.echo(text, nl=False)
