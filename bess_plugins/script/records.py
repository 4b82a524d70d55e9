# SPDX-License-Identifier: BSD-3-Clause
"""What a recorder notes; lines and columns are those of the script, from 1, and 0 is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["EdgeRecord", "ModuleRecord", "PortRecord", "TaskRecord", "TcRecord", "WorkerRecord"]


@dataclass(frozen=True)
class ModuleRecord:
    """``tasks`` counts those that send packets; ``one_worker`` says that no two may run it."""

    name: str
    mclass: str
    arg: dict[str, Any]
    tasks: int
    one_worker: bool
    line: int
    column: int


@dataclass(frozen=True)
class PortRecord:
    """``positional`` in ``arg`` is what was given without a keyword."""

    name: str
    driver: str
    arg: dict[str, Any]
    num_inc_q: int
    num_out_q: int
    line: int
    column: int


@dataclass(frozen=True)
class EdgeRecord:
    """The place is that of the arrow or call; ``made`` counts the connections made there."""

    source: str
    ogate: int
    target: str
    igate: int
    line: int
    column: int
    made: int


@dataclass(frozen=True)
class TcRecord:
    """A traffic class. A ``wid`` of -1 leaves the choice to the daemon."""

    name: str
    policy: str
    parent: str
    wid: int
    resource: str
    priority: int | None
    share: int | None
    limit: Mapping[str, int]
    max_burst: Mapping[str, int]
    line: int
    column: int


@dataclass(frozen=True)
class TaskRecord:
    """Where a module's task was put."""

    module: str
    task_id: int
    parent: str
    wid: int
    priority: int | None
    share: int | None
    line: int
    column: int


@dataclass(frozen=True)
class WorkerRecord:
    """A worker; ``scheduler`` is empty for the daemon's default."""

    wid: int
    core: int
    scheduler: str
    line: int
    column: int
