# SPDX-License-Identifier: BSD-3-Clause
"""Splitting and draining instances without moving a flow, as changes of what runs.

Migration avoidance (section 3.4.4 of the dissertation), in steps that are each a plan to apply:

1. `split`: a new instance gets the upper part of another's flow ids, but upstream knows nothing
   of it: the old instance's own FlowSteer passes new flows on (a detour), and active ones stay.
2. `push`: once few of these are left, upstream gets the new spans, and those few as exceptions.
3. `settle`: once none is left, exceptions and detour go.

Draining is the same the other way: `drain` has an instance pass on all new flows to the one whose
span is next to its own; `push` gives that one the span; `remove` takes the empty instance away.
Upstream, old spans and detours lead a flow to the same instance as new spans and exceptions do, so
that it does not matter in which order servers and switch change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from e2ctl.igraph import SPAN_STEP, Span
from e2ctl.plan import Detour, FlowException, Running

__all__ = ["TransitionError", "drain", "middle", "new_name", "push", "remove", "settle", "split"]


class TransitionError(Exception):
    """An instance can't be split or drained now; the message says why."""


def new_name(running: Running, nf: str) -> str:
    """The name of an NF's next instance: with the lowest number that is free."""
    taken = {name for name in running.servers if name.rpartition(".")[0] == nf}
    return next(name for i in range(len(taken) + 1) if (name := f"{nf}.{i}") not in taken)


def middle(span: Span) -> int:
    """Where to cut a span in two halves; a `TransitionError` where it is too short."""
    cut = (span.start + span.end) // 2 // SPAN_STEP * SPAN_STEP
    if not span.start < cut < span.end:
        raise TransitionError(f"the span {span} can't be divided any further")
    return cut


def split(running: Running, instance: str, cut: int, server: str) -> tuple[Running, str]:
    """Give new flows from ``cut`` on to a new instance on ``server``; returns its name, too."""
    span = _span(running, instance)
    if cut % SPAN_STEP or not span.start < cut < span.end:
        raise TransitionError(
            f"{instance} can't be cut at {cut:#x}; expected a multiple of {SPAN_STEP:#x} within "
            f"its flow ids {span}"
        )
    _check_free(running, instance)
    name = new_name(running, instance.rpartition(".")[0])
    spans = {**running.spans, name: (Span(cut, cut), Span(cut, span.end))}
    return (
        replace(
            running,
            servers={**running.servers, name: server},
            spans=spans,
            detours={**running.detours, instance: Detour(name, cut)},
            types={**running.types, name: running.types[instance]},
        ),
        name,
    )


def drain(running: Running, instance: str) -> Running:
    """Have an instance pass on all new flows to a neighbour of its NF."""
    span = _span(running, instance)
    _check_free(running, instance)
    nf = instance.rpartition(".")[0]
    for name, (other, reach) in running.spans.items():
        is_next = other.end == span.start or other.start == span.end
        if name.rpartition(".")[0] == nf and name != instance and is_next and not span.empty:
            _check_free(running, name)
            return replace(
                running,
                spans={**running.spans, name: (other, reach.joined(span))},
                detours={**running.detours, instance: Detour(name, span.start)},
            )
    raise TransitionError(f"{instance} is the only instance of {nf}; a policy without it ends it")


def push(running: Running, instance: str, exceptions: Iterable[FlowException]) -> Running:
    """Tell upstream of a split or a drain, and which flows stay with ``instance``."""
    detour = _detour(running, instance)
    span, reach = running.spans[instance]
    other, other_reach = running.spans[detour.target]
    moved = Span(max(detour.cut, span.start), span.end)
    joined = other.joined(moved)
    spans = {
        **running.spans,
        instance: (Span(span.start, moved.start), reach),
        detour.target: (joined, other_reach.joined(joined)),
    }
    return replace(running, spans=spans, exceptions=(*running.exceptions, *exceptions))


def settle(running: Running, instance: str) -> Running:
    """End a detour that nothing needs any more, after `push`."""
    _detour(running, instance)
    detours = {name: d for name, d in running.detours.items() if name != instance}
    span, _ = running.spans[instance]
    return replace(
        running,
        spans={**running.spans, instance: (span, span)},
        detours=detours,
        exceptions=tuple(e for e in running.exceptions if e.instance != instance),
    )


def remove(running: Running, instance: str) -> Running:
    """Take away an instance that was drained and has no span left."""
    span, _ = running.spans[instance]
    if not span.empty:
        raise TransitionError(f"{instance} still has the flow ids {span}; drain it first")
    after = settle(running, instance)

    return replace(
        after,
        servers={name: server for name, server in after.servers.items() if name != instance},
        spans={name: spans for name, spans in after.spans.items() if name != instance},
    )


def _span(running: Running, instance: str) -> Span:
    if instance not in running.spans:
        known = ", ".join(running.spans) or "none"
        raise TransitionError(f"there is no instance '{instance}'; running are {known}")
    return running.spans[instance][0]


def _detour(running: Running, instance: str) -> Detour:
    if instance not in running.detours:
        raise TransitionError(f"{instance} is neither being split nor drained")
    return running.detours[instance]


def _check_free(running: Running, instance: str) -> None:
    """One change of an instance at a time."""
    for name, detour in running.detours.items():
        if instance in (name, detour.target):
            raise TransitionError(
                f"{instance} is part of a change that is under way: {name} passes new flows on to "
                f"{detour.target}; wait until it has settled"
            )
