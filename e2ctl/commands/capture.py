# SPDX-License-Identifier: BSD-3-Clause
"""``e2ctl capture``: packets of an edge, as pcap."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
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
    places,
    what_runs,
)
from e2ctl.commands.common import one_line_errors
from e2ctl.controller.captures import Capture, PcapWriter
from e2ctl.controller.store import open_store
from e2ctl.edges import pcap_filter, taps_of
from e2ctl.filters import FilterError
from e2ctl.policy import parse_filter

__all__ = ["app"]

app = typer.Typer()


@app.command(
    "capture", epilog='Example: e2ctl capture "ids -> cache" --lab co -w - | tcpdump -nr -'
)
def capture_command(
    edge: Annotated[
        str, typer.Argument(metavar="EDGE", help="Such as 'ids -> cache', or 'ids.0 -> cache'.")
    ],
    write: Annotated[
        Path, typer.Option("-w", "--write", metavar="FILE", help="A pcap file; -: standard output.")
    ],
    hardware: ClusterHardware = None,
    lab: LabName = None,
    store: StorePath = None,
    pki: PkiPath = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="End after so many packets.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", min=0, help="End after that time.")
    ] = None,
    packets: Annotated[
        str, typer.Option("--filter", metavar="FILTER", help="Only these, in the policy's words.")
    ] = "any",
) -> None:
    """Write the packets of an edge to a file, from all servers that see them, ordered by time.

    Ctrl-C ends it, and the file is whole. Workers never wait for a capture: packets that it is too
    slow for are counted and left out.
    """
    hardware_path, store_path = places(hardware, lab, store)

    async def work(stack: ExitStack) -> None:
        current = what_runs(open_store(store_path, pki))
        words = pcap_filter(parse_filter(packets, current.parsed().addresses))
        taps = taps_of(current.plan(), edge)
        writer: PcapWriter | None = None

        def make() -> PcapWriter:
            nonlocal writer
            out = sys.stdout.buffer if str(write) == "-" else stack.enter_context(write.open("wb"))
            writer = PcapWriter(out)
            _say(f"{edge}: watching {', '.join(taps)}")
            return writer

        async with agents_of(hardwares.load(hardware_path), pki) as agents:
            capture = Capture(agents, taps, words, _say)
            try:
                await capture.run(make, count, seconds)
            finally:
                if writer is not None:
                    lost = f"; {capture.lost:,} more could not be recorded" if capture.lost else ""
                    _say(f"{writer.packets:,} packets{lost}")

    with one_line_errors(*FAILURES, FilterError), ExitStack() as stack, suppress(KeyboardInterrupt):
        try:
            asyncio.run(work(stack))
        except BrokenPipeError:
            # Who read it has enough. Nothing may be left to write when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    typer.echo(f"e2ctl: {line}", err=True)
