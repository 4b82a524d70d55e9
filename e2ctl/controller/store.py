# SPDX-License-Identifier: BSD-3-Clause
"""What a controller remembers: what runs, and what it was about to change.

Everything of one change is written before anything is done, so that a controller that is killed in
the middle can be followed by another that finishes the change or takes it back.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter

from bess_plugins.sources import read_source
from e2ctl import hardware as hardwares
from e2ctl import nfs as nf_descriptions
from e2ctl import policy as policies
from e2ctl.plan import Plan, Running, make_plan
from e2ctl.routing import PlanError

__all__ = ["Inputs", "SqliteStore", "State", "Store", "StoreError", "me", "open_store", "pause"]

Stage = Literal["preparing", "committing", "done"]
_POLL_S = 0.2


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
        return _plan(_INPUTS.dump_json(self))

    def parsed(self) -> policies.Policy:
        """The policy."""
        return _policy(self.policy, self.policy_file)

    def catalog(self) -> nf_descriptions.Catalog:
        """The NF descriptions."""
        return _catalog(self.nfs, self.nfs_file)

    def cluster(self) -> hardwares.Hardware:
        """The hardware that they are about, but for servers that are lost."""
        left = _hardware(self.hardware, self.hardware_file).without(self.lost)
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

# One change reads the same files and makes the same plans several times.
_policy = lru_cache(4)(policies.parse_policy)
_catalog = lru_cache(4)(nf_descriptions.loads)
_hardware = lru_cache(4)(hardwares.loads)


@lru_cache(8)
def _plan(dumped: bytes) -> Plan:
    inputs = _INPUTS.validate_json(dumped)
    return make_plan(
        inputs.parsed(),
        inputs.catalog(),
        inputs.cluster(),
        running=inputs.running,
        counts=inputs.counts,
    )


def _dump(inputs: Inputs | None) -> bytes | None:
    return None if inputs is None else _INPUTS.dump_json(inputs)


def _load(text: bytes | None) -> Inputs | None:
    return None if text is None else _INPUTS.validate_json(text)


class Store(Protocol):
    """Where the one controller of a cluster remembers what it does.

    A controller is one for as long as `only_one` or `lead` lasts; others only read.
    """

    @property
    def leads(self) -> bool:
        """Whether this is the one controller, as far as it knows."""

    def read(self) -> State:
        """What is known."""

    def write(self, state: State) -> None:
        """Remember all of it, or nothing; a `StoreError` where another controller took over."""

    def only_one(self) -> AbstractContextManager[None]:
        """Be the one controller; a `StoreError` names the one that is already."""

    def lead(self, stop: asyncio.Event | None = None) -> AbstractAsyncContextManager[None]:
        """Wait to be the one controller. Where ``stop`` is set before, `leads` is false."""

    def close(self) -> None:
        """Let go of file or connections."""


def open_store(where: str, pki: Path | None = None) -> Store:
    """The store at ``etcd://HOST:PORT[,HOST:PORT...]/PREFIX`` or ``etcds://...`` (TLS, with the
    controller's keys in ``pki``), or in a file.
    """
    if not where.startswith(("etcd:", "etcds:")):
        return SqliteStore(Path(where))
    try:
        from e2ctl.controller.etcd_store import EtcdStore
    except ModuleNotFoundError as error:
        raise StoreError(f"{where}: '{error.name}' is missing: pip install bess-e2[etcd]") from None
    return EtcdStore(where, pki)


def me() -> str:
    """This process, as others name it."""
    return f"{socket.gethostname()}, pid {os.getpid()}"


async def pause(seconds: float, stop: asyncio.Event | None) -> bool:
    """Wait, but not beyond the moment when ``stop`` is set; whether to go on."""
    if stop is None:
        await asyncio.sleep(seconds)
        return True
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return not stop.is_set()


class SqliteStore:
    """A file, and one beside it whose lock the one controller holds until it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
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

    @property
    def leads(self) -> bool:
        """Whether this is the one controller."""
        return self._lock is not None

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Hold the store; a `StoreError` names the controller that does."""
        if (holder := self._take()) is not None:
            raise StoreError(f"another controller is at work with {self.path}: {holder}")
        try:
            yield
        finally:
            self._release()

    @asynccontextmanager
    async def lead(self, stop: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Wait to hold the store."""
        while self._take() is not None and await pause(_POLL_S, stop):
            pass
        try:
            yield
        finally:
            self._release()

    def _take(self) -> str | None:
        """Lock; or who has."""
        path = self.path.with_suffix(".lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 256).decode(errors="replace").strip()
            os.close(lock)
            return holder or "it has just begun"
        os.ftruncate(lock, 0)
        os.write(lock, f"{me()}\n".encode())
        self._lock = lock
        return None

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> State:
        """What is known."""
        try:
            row = self._db.execute("SELECT current, next, stage FROM state").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None
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
