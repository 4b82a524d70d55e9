# SPDX-License-Identifier: BSD-3-Clause
"""The errors of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alpine.schedule import Schedule

__all__ = ["AlpineError", "InfeasibleError", "SolverError"]


class AlpineError(Exception):
    """Something is wrong; the message says what, where and what would be right."""


class InfeasibleError(AlpineError):
    """No schedule meets the objectives; the message names the bound and what sets it.

    ``closest`` is the schedule that misses them by the least.
    """

    def __init__(self, message: str, closest: Schedule) -> None:
        super().__init__(message)
        self.closest = closest


class SolverError(AlpineError):
    """A solver is missing, refuses the model's size, or found nothing in time."""
