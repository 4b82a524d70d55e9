# SPDX-License-Identifier: BSD-3-Clause
"""The version of the package, which daemons, agents and controllers name."""

from __future__ import annotations

import functools
from importlib import metadata

__all__ = ["version"]


@functools.cache
def version() -> str:
    """Return the version of the installed distribution."""
    try:
        return metadata.version("bess-e2")
    except metadata.PackageNotFoundError:
        return "0+unknown"
