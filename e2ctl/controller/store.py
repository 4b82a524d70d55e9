# SPDX-License-Identifier: BSD-3-Clause
"""What a controller remembers: what runs, and what it was about to change.

Everything of one change is written before anything is done, so that a controller that is killed in
the middle can be followed by another that finishes the change or takes it back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from e2ctl import hardware as hardwares
from e2ctl import nfs as nf_descriptions
from e2ctl import policy as policies
from e2ctl.plan import Plan, Running, make_plan
from e2ctl.routing import PlanError
from e2ctl.sources import read_source

__all__ = ["Inputs", "SqliteStore", "State", "StoreError"]

Stage = Literal["preparing", "committing", "done"]


class StoreError(Exception):
    """The store can't be read or written; the message says why."""


@dataclass(frozen=True)
class Inputs:
    """All that a plan is made from, so that it can be made again."""

    policy: str
    policy_file: str
    nfs: str
    nfs_file: str
    hardware: str
    hardware_file: str
    running: Running
    counts: dict[str, int]
    lost: tuple[str, ...] = ()  # servers that nothing can be had from

    @classmethod
    def read(
        cls,
        policy: Path,
        nfs: Path,
        hardware: Path,
        running: Running,
        counts: dict[str, int] | None = None,
    ) -> Inputs:
        """Read the files of an operator."""
        return cls(
            read_source(policy, policies.PolicyError),
            str(policy),
            read_source(nfs, nf_descriptions.NfError),
            str(nfs),
            read_source(hardware, hardwares.HardwareError),
            str(hardware),
            running,
            counts or {},
        )

    def plan(self) -> Plan:
        """The plan that follows from them."""
        return make_plan(
            self.parsed(),
            self.catalog(),
            self.cluster(),
            running=self.running,
            counts=self.counts,
        )

    def parsed(self) -> policies.Policy:
        """The policy."""
        return policies.parse_policy(self.policy, self.policy_file)

    def catalog(self) -> nf_descriptions.Catalog:
        """The NF descriptions."""
        return nf_descriptions.loads(self.nfs, self.nfs_file)

    def cluster(self) -> hardwares.Hardware:
        """The hardware that they are about, but for servers that are lost."""
        left = hardwares.loads(self.hardware, self.hardware_file).without(self.lost)
        if not left.servers:
            raise PlanError(f"all servers are lost: {', '.join(self.lost)}")
        return left


@dataclass(frozen=True)
class State:
    """What runs, and the change that was begun and not finished, if there is one."""

    current: Inputs | None = None
    next: Inputs | None = None
    stage: Stage = "done"


_INPUTS = TypeAdapter(Inputs)


def _dump(inputs: Inputs | None) -> bytes | None:
    return None if inputs is None else _INPUTS.dump_json(inputs)


def _load(text: bytes | None) -> Inputs | None:
    return None if text is None else _INPUTS.validate_json(text)


class SqliteStore:
    """A file. One controller at a time may hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.2)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS state "
                "(id INTEGER PRIMARY KEY CHECK (id = 0), current BLOB, next BLOB, stage TEXT)"
            )
            self._db.execute("INSERT OR IGNORE INTO state VALUES (0, NULL, NULL, 'done')")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from None

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Hold the store; a `StoreError` where another controller does."""
        lock = sqlite3.connect(self.path.with_suffix(".lock"), isolation_level=None, timeout=0.2)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            lock.close()
            raise StoreError(f"another controller is at work with {self.path}") from None
        try:
            yield
        finally:
            lock.close()

    def read(self) -> State:
        """What is known."""
        row = self._db.execute("SELECT current, next, stage FROM state").fetchone()
        return State(_load(row[0]), _load(row[1]), row[2])

    def write(self, state: State) -> None:
        """Remember all of it, or nothing."""
        try:
            self._db.execute(
                "UPDATE state SET current = ?, next = ?, stage = ?",
                (_dump(state.current), _dump(state.next), state.stage),
            )
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()
