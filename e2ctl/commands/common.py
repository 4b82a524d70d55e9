# SPDX-License-Identifier: BSD-3-Clause
"""What several commands share: arguments, and failures in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins.sources import SourceError

__all__ = ["HardwarePath", "JsonFlag", "MetricsAddress", "NfsPath", "PolicyPath", "one_line_errors"]

PolicyPath = Annotated[Path, typer.Argument(metavar="POLICY", help="Policy file (.e2).")]
NfsPath = Annotated[Path, typer.Option("--nfs", metavar="NFS.yaml", help="NF descriptions.")]
HardwarePath = Annotated[
    Path, typer.Option("--hardware", metavar="HW.yaml", help="Hardware description.")
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="ADDRESS",
        help="Serve Prometheus there: PORT of the loopback address, or HOST:PORT.",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn expected failures into one line on stderr and exit code 1."""
    expected: tuple[type[Exception], ...] = (SourceError, *kinds)
    try:
        yield
    except expected as error:
        typer.echo(f"e2ctl: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None
