# SPDX-License-Identifier: BSD-3-Clause
"""Values of a script's variables, as commands take them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import typer

__all__ = ["parse_assignments"]


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Variables by name, from words of the form VAR=value."""
    variables = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise typer.BadParameter(f"{assignment!r} is not of the form VAR=value")
        variables[name] = value
    return variables
