# SPDX-License-Identifier: BSD-3-Clause
"""Shares in a plan, and how to get from one plan to another that differs in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from alpine.plan import Plan, TcNode, TcTask
from bess_plugins.client import Client

__all__ = ["Move", "apply_moves", "moves", "with_shares"]

Tc = TcNode | TcTask
Leaves = frozenset[str]


@dataclass(frozen=True)
class Move:
    """A child of a traffic class whose share changes; parts are those of the class's whole."""

    parent: str
    child: Tc
    share: int
    part_before: float
    part: float

    @property
    def name(self) -> str:
        """Of the child, for people."""
        return self.child.module if isinstance(self.child, TcTask) else self.child.name

    @property
    def drift(self) -> float:
        """By how much the part changes, of what it was."""
        return abs(self.part / self.part_before - 1)


def _leaves(tc: Tc) -> Leaves:
    if isinstance(tc, TcTask):
        return frozenset({tc.module})
    return frozenset().union(*(_leaves(child) for _, child in tc.children))


def _groups(tc: Tc) -> Iterator[tuple[frozenset[Leaves], TcNode]]:
    """Inner nodes by what is below each child: names may differ between plans."""
    if isinstance(tc, TcNode):
        yield frozenset(_leaves(child) for _, child in tc.children), tc
        for _, child in tc.children:
            yield from _groups(child)


def _by_shape(plan: Plan) -> dict[frozenset[Leaves], TcNode]:
    return {key: node for root in plan.roots for key, node in _groups(root)}


def _shares(node: TcNode) -> dict[Leaves, int]:
    return {_leaves(child): share or 1 for share, child in node.children}


def moves(now: Plan, then: Plan) -> list[Move] | None:
    """Shares that differ, with the names of ``now``; None where more than shares differs."""
    old, new = _by_shape(now), _by_shape(then)
    if old.keys() != new.keys() or {_leaves(r) for r in now.roots} != {
        _leaves(r) for r in then.roots
    }:
        return None
    found = []
    for key, node in old.items():
        if node.policy != new[key].policy or node.resource != new[key].resource:
            return None
        if node.policy != "weighted_fair":
            continue
        before, after = _shares(node), _shares(new[key])
        for _, child in node.children:
            leaves = _leaves(child)
            part_before = before[leaves] / sum(before.values())
            part = after[leaves] / sum(after.values())
            if before != after:
                found.append(Move(node.name, child, after[leaves], part_before, part))
    return found


def with_shares(now: Plan, changes: list[Move]) -> Plan:
    """The plan after these moves."""
    wanted = {(move.parent, _leaves(move.child)): move.share for move in changes}

    def changed(tc: Tc) -> Tc:
        if isinstance(tc, TcTask):
            return tc
        children = tuple(
            (wanted.get((tc.name, _leaves(child)), value), changed(child))
            for value, child in tc.children
        )
        return replace(tc, children=children)

    return replace(now, roots=tuple(changed(root) for root in now.roots))


def apply_moves(client: Client, changes: list[Move]) -> None:
    """Change shares on the daemon while traffic flows."""
    for move in changes:
        if isinstance(move.child, TcTask):
            client.attach_task(move.child.module, move.parent, share=move.share)
        else:
            client.update_tc_parent(move.child.name, parent=move.parent, share=move.share)
