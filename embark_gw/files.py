# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written all or none, private to their owner (0600)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["create_private", "replaced"]


@contextmanager
def replaced(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """New files to write in place of `paths`, which they replace when the block ends well."""
    written: list[Path] = []
    try:
        for path in paths:
            handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
            os.close(handle)
            written.append(Path(name))
        yield written
        for new, path in zip(written, paths, strict=True):
            new.replace(path)
    finally:
        for new in written:
            new.unlink(missing_ok=True)


def create_private(path: Path, text: str) -> None:
    """Write a file that must not be there; it appears as a whole."""
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)  # which, other than a renaming, replaces nothing
    finally:
        Path(name).unlink()
