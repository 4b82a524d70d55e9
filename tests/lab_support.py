# SPDX-License-Identifier: BSD-3-Clause
"""Labs in tests, and who can have one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["EXAMPLES", "lab_file", "needs_lab"]

EXAMPLES = Path(__file__).parents[1] / "examples"
_PROGRAMS = ("ip", "ethtool", "ovs-vswitchd", "ovsdb-server")

needs_lab = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, _PROGRAMS),
    reason="needs root, and Debian's openvswitch-switch, iproute2 and ethtool",
)


def lab_file(folder: Path, letter: str = "t", *, agents: bool = False) -> Path:
    """A description of a lab with the examples' rack; its name is this process's."""
    path = folder / "lab.yaml"
    name = f"{letter}{os.getpid() % 10**7}"
    path.write_text(
        f"name: {name}\nhardware: {EXAMPLES / 'rack.yaml'}\nagents: {str(agents).lower()}\n",
        encoding="utf-8",
    )
    return path
