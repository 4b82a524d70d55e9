# SPDX-License-Identifier: BSD-3-Clause
"""What several commands share: arguments, and failures in one line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins import command_line

__all__ = ["SitePath", "one_line_errors"]

SitePath = Annotated[Path, typer.Argument(metavar="GATEWAY.yaml", help="Description of a gateway.")]

one_line_errors = partial(command_line.one_line_errors, "embark-gw")
