# SPDX-License-Identifier: BSD-3-Clause
"""What several commands share: arguments, and failures in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins.sources import SourceError
from e2ctl.commands.common import JsonFlag, MetricsAddress

__all__ = ["JsonFlag", "MetricsAddress", "SitePath", "one_line_errors"]

SitePath = Annotated[Path, typer.Argument(metavar="GATEWAY.yaml", help="Description of a gateway.")]


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn expected failures into one line on stderr and exit code 1."""
    expected: tuple[type[Exception], ...] = (SourceError, *kinds)
    try:
        yield
    except expected as error:
        typer.echo(f"embark-gw: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None
