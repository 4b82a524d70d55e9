# SPDX-License-Identifier: BSD-3-Clause
"""Objectives as rows of a linear model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alpine.linear import Model
from alpine.objectives import Kind, Policy

__all__ = ["add_promises", "is_uniform", "must_stay_fed", "parts"]

Terms = Mapping[int, float]
_MISS = 1e4  # what a unit of ratio that is missed costs, against throughput


def must_stay_fed(policy: Policy | None) -> frozenset[int]:
    """Classes whose tasks may not poll empty queues: only packets count for them."""
    if policy is None:
        return frozenset()
    found: set[int] = set()
    if policy.useful or policy.kind is Kind.THROUGHPUT:
        found.update(policy.classes())
    for member in policy.members:
        if isinstance(member.child, Policy):
            found |= must_stay_fed(member.child)
    return frozenset(found)


def parts(policy: Policy | None, kind: Kind) -> dict[int, float]:
    """Part of what the policy divides that each class is promised, down to policies of other kinds.

    Empty where the policy divides something else.
    """
    if policy is None or policy.kind is not kind:
        return {}
    total = sum(member.value for member in policy.members)
    found: dict[int, float] = {}
    for member in policy.members:
        part = member.value / total
        if isinstance(member.child, Policy):
            inner = parts(member.child, kind)
            found.update({path: part * share for path, share in inner.items()})
        else:
            found[member.child] = part
    return found


def is_uniform(policy: Policy | None, kind: Kind) -> bool:
    """Whether it and all policies below it divide the same."""
    return policy is not None and len(parts(policy, kind)) == len(list(policy.classes()))


def _sum(of: Callable[[int], Terms], paths: Policy | int) -> dict[int, float]:
    total: dict[int, float] = {}
    for path in [paths] if isinstance(paths, int) else paths.classes():
        for variable, factor in of(path).items():
            total[variable] = total.get(variable, 0.0) + factor
    return total


def add_promises(
    model: Model,
    policy: Policy | None,
    time_of: Callable[[int], Terms],
    rate_of: Callable[[int], Terms],
    *,
    elastic: bool = False,
) -> None:
    """Bind the classes' CPU time and throughput, given as sums of variables, to the ratios.

    ``elastic`` lets ratios be missed at a price above that of all else.
    """
    if policy is None:
        return
    of = rate_of if policy.kind is Kind.THROUGHPUT else time_of
    total = sum(member.value for member in policy.members)
    whole = model.variable()
    for member in policy.members:
        terms = _sum(of, member.child)
        terms[whole] = terms.get(whole, 0.0) - member.value / total
        if elastic:
            terms[model.variable(cost=-_MISS)] = 1.0
            terms[model.variable(cost=-_MISS)] = -1.0
        model.row(terms, 0.0, 0.0)
        if isinstance(member.child, Policy):
            add_promises(model, member.child, time_of, rate_of, elastic=elastic)
