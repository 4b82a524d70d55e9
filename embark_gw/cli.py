# SPDX-License-Identifier: BSD-3-Clause
"""The command ``embark-gw``."""

from __future__ import annotations

import typer

from embark_gw.commands import gateway, inspect, provider, rules

__all__ = ["app", "main"]

app = typer.Typer(
    name="embark-gw",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Let a provider run middleboxes on traffic that it can't read.",
)
for commands in (gateway, inspect, rules, provider):
    app.add_typer(commands.app)


def main() -> None:
    """Entry point of the command."""
    app(prog_name="embark-gw")


if __name__ == "__main__":
    main()
