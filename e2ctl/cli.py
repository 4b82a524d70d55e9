# SPDX-License-Identifier: BSD-3-Clause
"""The command ``e2ctl``."""

from __future__ import annotations

import typer

from e2ctl.commands import (
    agent,
    capture,
    controller,
    events,
    lab,
    local,
    operating,
    planning,
    top,
    trace,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="e2ctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Check, plan, draw and run policies: which traffic passes which network functions.",
)
for commands in (
    local,
    planning,
    operating,
    controller,
    events,
    top,
    capture,
    trace,
    agent,
    lab,
):
    app.add_typer(commands.app)


def main() -> None:
    """Entry point of the command."""
    app(prog_name="e2ctl")


if __name__ == "__main__":
    main()
