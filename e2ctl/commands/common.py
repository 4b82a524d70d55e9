# SPDX-License-Identifier: BSD-3-Clause
"""What several commands share: arguments, and failures in one line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bess_plugins import command_line

__all__ = ["HardwarePath", "NfsPath", "PolicyPath", "one_line_errors"]

PolicyPath = Annotated[Path, typer.Argument(metavar="POLICY", help="Policy file (.e2).")]
NfsPath = Annotated[Path, typer.Option("--nfs", metavar="NFS.yaml", help="NF descriptions.")]
HardwarePath = Annotated[
    Path, typer.Option("--hardware", metavar="HW.yaml", help="Hardware description.")
]

one_line_errors = partial(command_line.one_line_errors, "e2ctl")
