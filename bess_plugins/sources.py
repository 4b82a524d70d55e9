# SPDX-License-Identifier: BSD-3-Clause
"""Where something is in a file that an operator wrote, and what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Location", "SourceError", "read_source"]


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SourceError(Exception):
    """A file that an operator wrote is wrong at ``where``."""

    def __init__(self, where: Location, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.message = message


def read_source(path: Path, error_type: type[SourceError]) -> str:
    """The text of an operator's file; what keeps it from being read is an `error_type`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_type(Location(str(path), 1, 1), error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text at byte {error.start}"
        raise error_type(Location(str(path), 1, 1), message) from None
