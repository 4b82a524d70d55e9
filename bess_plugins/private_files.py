# SPDX-License-Identifier: BSD-3-Clause
"""Files that are private to their owner (0600) from the start: keys, and what has some in it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

__all__ = ["create_private"]


def create_private(path: Path, text: str) -> None:
    """Write a file that must not be there (`FileExistsError`); it appears as a whole."""
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)  # which, other than a renaming, replaces nothing
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    finally:
        Path(name).unlink()
