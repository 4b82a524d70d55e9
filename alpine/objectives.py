# SPDX-License-Identifier: BSD-3-Clause
"""Objectives: policies over classes of traffic and over each other (section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from alpine.graph import Place

__all__ = ["Kind", "Member", "Policy"]


class Kind(StrEnum):
    """What a policy promises its members."""

    PRIORITY = "priority"  # the higher number is served first
    CPU_TIME = "weighted_fair"  # CPU time in the ratio of the shares
    THROUGHPUT = "throughput"  # packets per second in the ratio of the shares


@dataclass(frozen=True)
class Member:
    """A class (by its index among the paths) or a policy; ``value`` is its priority or share."""

    value: float
    child: int | Policy


@dataclass(frozen=True)
class Policy:
    """A node of the tree of objectives.

    ``useful`` counts CPU time only while there are packets: polls of an empty queue don't help to
    meet a ratio then. ``place`` is that of its statement.
    """

    name: str
    kind: Kind
    members: tuple[Member, ...]
    useful: bool = False
    place: Place | None = field(default=None, compare=False)

    @property
    def subject(self) -> str:
        """What a message about it starts with: its place, where that is known, and its name."""
        return f"{f'{self.place}: ' if self.place else ''}policy '{self.name}'"

    def policies(self) -> Iterator[Policy]:
        """It and those below it."""
        yield self
        for member in self.members:
            if isinstance(member.child, Policy):
                yield from member.child.policies()

    def classes(self) -> Iterator[int]:
        """Classes below it, in order."""
        for member in self.members:
            if isinstance(member.child, Policy):
                yield from member.child.classes()
            else:
                yield member.child
