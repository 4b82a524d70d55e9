# SPDX-License-Identifier: BSD-3-Clause
"""What is written down about an update of rules or key while it is under way.

Beside a gateway's maps are its lock, whose owner is the only one to change keys, maps or pipelines;
the journal; and the new maps, until they take the place of the old ones. A journal that nobody owns
is an update whose process was killed. A new key stays where it is: a file says that it counts
(`embark_gw.site.InForce`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from embark_gw.files import replaced
from embark_gw.rules.kept import kept_file
from embark_gw.site import Gateway, InForce, Key, beside, in_force_file, load_in_force

__all__ = [
    "Journal",
    "JournalError",
    "Phase",
    "Swap",
    "from_hex",
    "journal_of",
    "note_in_force",
    "owned",
    "put_in_place",
    "stage",
    "staged_maps",
    "to_hex",
    "unstage",
]

Config = Mapping[str, Any]


class JournalError(Exception):
    """A journal can't be read; the message says which, and what to do."""


class Phase(StrEnum):
    """How far an update has come."""

    HOLD = "hold"  # nothing is changed yet
    FORWARD = "forward"  # the provider may have old rules, new ones, or some of each
    BACK = "back"  # the same, on the way to the old ones
    DONE = "done"  # all have the new rules or the new key, only files are left
    DRAIN = "drain"  # packets of the old key are still taken, for a while


@dataclass(frozen=True)
class Swap:
    """What is to change: maps or the key, and the middleboxes of the provider's daemon.

    ``config`` is what each of the MetadataMatch modules named ``firewalls`` gets, in hexadecimal
    where it has bytes; ``nats`` and ``lbs`` are NATs and L4LBs. ``pool`` has the encrypted
    addresses that the provider writes, as rules come with them. ``settle_s`` is the longest that a
    packet is on its way between gateway and provider, in seconds. No ``maps``: they stay. No
    ``key``: it stays; else packets of the one ``instead`` of which it comes, by its epoch, are
    taken for ``drain_s`` more. A ``way``: only flows that begin from now on change, and go that
    way. No ``provider``: it has nothing that depends on either.
    """

    provider: str = ""
    maps: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    pool: list[str] = field(default_factory=list)
    firewalls: list[str] = field(default_factory=list)
    nats: list[str] = field(default_factory=list)
    lbs: list[str] = field(default_factory=list)
    settle_s: float = 0.02
    key: dict[str, Any] | None = None
    instead: int = 0
    drain_s: float = 0.0
    way: int | None = None

    @property
    def new_key(self) -> Key | None:
        """The key, if another one is to be used."""
        return None if self.key is None else Key.model_validate(self.key)


@dataclass(frozen=True)
class Journal:
    """An update under way.

    ``before`` is what the provider's MetadataMatches had that change, in hexadecimal. ``moved`` are
    old encryptions of the pool's addresses with the new ones.
    """

    swap: Swap
    phase: Phase
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)

    def write(self, gateway: Gateway) -> None:
        """As a whole, for the gateway's owner only."""
        path = journal_of(gateway)
        fresh = path.with_name(path.name + ".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)

    @classmethod
    def read(cls, gateway: Gateway) -> Journal | None:
        """The journal, if there is one."""
        path = journal_of(gateway)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            phase = Phase(found["phase"])
            return cls(Swap(**found["swap"]), phase, found["before"], found["moved"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise JournalError(
                f"{path} can't be read ({error}); remove it, and update the rules again"
            ) from None

    def drain_left_s(self, gateway: Gateway) -> float:
        """How much longer packets of the old key are to be taken, since that was noted."""
        since = time.time() - journal_of(gateway).stat().st_mtime
        return min(max(self.swap.drain_s - since, 0.0), self.swap.drain_s)


def journal_of(gateway: Gateway) -> Path:
    """Where it is written that an update is under way."""
    return beside(gateway, ".swap")


def staged_maps(gateway: Gateway) -> Path:
    """The new maps until they are in use."""
    return beside(gateway, ".next")


@contextmanager
def owned(gateway: Gateway) -> Iterator[bool]:
    """Be the only one who changes a gateway; false where another process is."""
    lock = os.open(beside(gateway, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(lock)


def note_in_force(gateway: Gateway, key: Key, accept: Sequence[Key]) -> None:
    """Have this key count instead of the description's, until that changes."""
    path = in_force_file(gateway)
    known = load_in_force(gateway)
    again = known is not None and known.key in (gateway.key, key)
    instead = known.instead if known is not None and again else gateway.key
    text = InForce(instead=instead, key=key, accept=tuple(accept)).model_dump_json()
    with replaced([path]) as (fresh,):
        fresh.write_text(text, encoding="utf-8")


def stage(gateway: Gateway, maps: Path) -> None:
    """Keep a copy of new maps, which nobody else takes away, and of what belongs to them."""
    staged = staged_maps(gateway)
    _copy_private(maps, staged)
    if kept_file(maps).exists():
        _copy_private(kept_file(maps), kept_file(staged))
    else:
        kept_file(staged).unlink(missing_ok=True)


def put_in_place(gateway: Gateway) -> None:
    """Have the new maps be the gateway's; may be done again."""
    staged = staged_maps(gateway)
    if not staged.exists():
        return
    if kept_file(staged).exists():
        kept_file(staged).rename(kept_file(gateway.maps))
    staged.rename(gateway.maps)


def unstage(gateway: Gateway) -> None:
    """Forget the new maps."""
    staged = staged_maps(gateway)
    for path in (staged, kept_file(staged)):
        path.unlink(missing_ok=True)


def _copy_private(source: Path, target: Path) -> None:
    """A file for its owner only, as a whole or not at all."""
    fresh = target.with_name(target.name + ".new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    shutil.copyfile(source, fresh)
    fresh.rename(target)


def to_hex(config: Config) -> dict[str, Any]:
    """What MetadataMatch is given, with hexadecimal digits for bytes."""
    return _converted(config, lambda _, value: value.hex() if isinstance(value, bytes) else value)


def from_hex(config: Config) -> dict[str, Any]:
    """The way back."""
    return _converted(
        config, lambda name, value: bytes.fromhex(value) if name.endswith("_bin") else value
    )


def _converted(config: Config, convert: Callable[[str, Any], Any]) -> dict[str, Any]:
    def inside(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _converted(value, convert)
        if isinstance(value, list):
            return [inside(name, one) for one in value]
        return convert(name, value)

    return {name: inside(name, value) for name, value in config.items()}
