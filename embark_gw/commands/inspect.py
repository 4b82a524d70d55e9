# SPDX-License-Identifier: BSD-3-Clause
"""``embark-gw inspect``: what a provider sees."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins.captures import CaptureError, read_packets
from bess_plugins.command_line import JsonFlag
from embark_gw.commands.common import one_line_errors
from embark_gw.inspecting import Seen, inspect, summarize

__all__ = ["app"]

app = typer.Typer()


@app.command("inspect", epilog="Example: embark-gw inspect provider.pcap --packets 5")
def inspect_command(
    capture: Annotated[
        Path, typer.Argument(metavar="CAPTURE", help="Taken at the provider; pcap or pcapng.")
    ],
    packets: Annotated[
        int, typer.Option("--packets", min=0, help="How many to show one by one.")
    ] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Show what a provider can read of encrypted packets. Exit status 3: something is in clear."""
    with one_line_errors(CaptureError):
        seen = list(inspect(read_packets(capture)))
    found = summarize(seen)
    encrypted = [one for one in seen if isinstance(one, Seen)]
    if as_json:
        shown = [asdict(one) | {"clear": one.clear.hex()} for one in encrypted[:packets]]
        typer.echo(json.dumps({"summary": asdict(found), "packets": shown}, indent=2))
    else:
        for one in encrypted[:packets]:
            typer.echo(str(one))
        typer.echo(
            f"{found.packets:,} encrypted packets, {found.size:,} bytes, {found.flows:,} flows; "
            + ", ".join(f"{count:,} {name}" for name, count in found.protocols.items())
        )
        typer.echo(
            "kinds, by the option's length: "
            + (", ".join(f"{count:,} {name}" for name, count in found.kinds.items()) or "none")
        )
        for why, count in found.other.items():
            typer.echo(f"{count:,} frames: {why}")
        if found.in_clear:
            typer.echo(f"{found.in_clear:,} packets have payload IN CLEAR")
    if found.in_clear or found.other:
        raise typer.Exit(3)
