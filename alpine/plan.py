# SPDX-License-Identifier: BSD-3-Clause
"""A schedule in the dataplane's terms: queues on edges, and a tree of traffic classes."""

from __future__ import annotations

from dataclasses import dataclass

from alpine.graph import Edge

__all__ = ["QUEUE_PACKETS", "NewQueue", "Plan", "TcNode", "TcTask"]

QUEUE_PACKETS = 1024  # that a Queue holds, unless told otherwise


@dataclass(frozen=True)
class NewQueue:
    """A Queue to put on an edge."""

    name: str
    edge: Edge


@dataclass(frozen=True)
class TcTask:
    """The task of a module (a queue or an input) as a leaf of the tree."""

    module: str
    comment: str  # what it runs, in a few words


@dataclass(frozen=True)
class TcNode:
    """A traffic class; ``children`` are pairs of a priority or share (None: neither) and a child.

    Priorities are the dataplane's: the lower number is served first.
    """

    name: str
    policy: str  # priority, weighted_fair or round_robin
    resource: str  # cycle or packet for weighted_fair, else empty
    children: tuple[tuple[int | None, TcNode | TcTask], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that goes into the script: queues, and the root class of each worker in turn.

    ``polling`` says that the ratio is met by polls of queues that are empty for a while, so that
    workers must not pass those by.
    """

    queues: tuple[NewQueue, ...]
    roots: tuple[TcNode | TcTask, ...]
    polling: bool
