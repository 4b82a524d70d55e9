# SPDX-License-Identifier: BSD-3-Clause
"""Service level objectives: policies over classes of traffic and each other (section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

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
    meet a ratio then.
    """

    name: str
    kind: Kind
    members: tuple[Member, ...]
    useful: bool = False

    def classes(self) -> Iterator[int]:
        """Classes below it, in order."""
        for member in self.members:
            if isinstance(member.child, Policy):
                yield from member.child.classes()
            else:
                yield member.child
