# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written all or none, private to their owner (0600)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replaced"]


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
