# SPDX-License-Identifier: BSD-3-Clause
"""What commands of all programs share: options, and failures in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from bess_plugins.sources import SourceError

__all__ = ["JsonFlag", "MetricsAddress", "one_line_errors"]

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
def one_line_errors(program: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn expected failures into one line on stderr, after the program's name, and exit code 1."""
    expected: tuple[type[Exception], ...] = (SourceError, *kinds)
    try:
        yield
    except expected as error:
        typer.echo(f"{program}: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None
