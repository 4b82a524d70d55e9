# SPDX-License-Identifier: BSD-3-Clause
"""Splitting and draining instances without moving a flow, as changes of what runs.

Migration avoidance (section 3.4.4 of the dissertation), in steps that are each a plan to apply:

1. A *change* begins: an instance's own FlowSteer passes new flows of some ids on to another (a
   detour), and active ones stay. Upstream knows nothing of it. `split` gives them to a new
   instance, `shift` and `drain` to a neighbour, and `resume` takes back what `drain` gave away.
2. `push`: once few flows are left that stay, upstream gets the new spans, and these few as
   exceptions.
3. `settle`: the detour goes, for upstream knows by now; `remove` takes an instance away whose
   span another has. As flows end, `forget` takes away the exceptions that kept them.

Upstream, old spans and detours lead a flow to the same instance as new spans and exceptions do, so
that it does not matter in which order servers and switch change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from e2ctl.igraph import SPAN_STEP, Span
from e2ctl.plan import Detour, FlowException, Running

__all__ = [
    "TransitionError",
    "drain",
    "forget",
    "is_pushed",
    "middle",
    "new_name",
    "push",
    "remove",
    "resume",
    "settle",
    "share",
    "shift",
    "split",
]


T = TypeVar("T")


class TransitionError(Exception):
    """An instance can't be changed so now; the message says why."""


def new_name(running: Running, nf: str) -> str:
    """The name of an NF's next instance: with the lowest number that is free."""
    taken = {name for name in running.servers if _nf(name) == nf}
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
    _check_cut(instance, span, cut)
    _check_free(running, instance)
    name = new_name(running, _nf(instance))
    ids = Span(cut, span.end)
    after = replace(
        running,
        servers={**running.servers, name: server},
        spans={**running.spans, name: (Span(cut, cut), ids)},
        types={**running.types, name: running.types[instance]},
    )
    return _with_detour(after, instance, Detour("split", name, ids)), name


def shift(running: Running, instance: str, target: str, ids: Span) -> Running:
    """Give new flows of ``ids``, at one end of a span, to the instance that has what is next."""
    span, other = _span(running, instance), _span(running, target)
    at_end = ids.start == other.end == span.start or ids.end == other.start == span.end
    if _nf(instance) != _nf(target) or not at_end or other.empty:
        raise TransitionError(
            f"{instance} can't give {ids} of {span} to {target}, which has {other}"
        )
    _check_cut(instance, span, ids.end if ids.start == span.start else ids.start)
    _check_free(running, instance, target)
    return _with_detour(running, instance, Detour("shift", target, ids))


def drain(running: Running, instance: str, target: str | None = None) -> Running:
    """Have an instance pass on all new flows to a neighbour of its NF."""
    span = _span(running, instance)
    _check_free(running, instance)
    for name, (other, _) in running.spans.items():
        is_next = (other.end == span.start or other.start == span.end) and not other.empty
        if _nf(name) == _nf(instance) and name != instance and is_next and target in (None, name):
            _check_free(running, name)
            return _with_detour(running, instance, Detour("drain", name, span))
    if target is not None:
        raise TransitionError(f"{instance} and {target} have no flow ids that are next to another")
    raise TransitionError(
        f"{instance} is the only instance of {_nf(instance)}; it can't be drained"
    )


def resume(running: Running, instance: str) -> Running:
    """Have an instance that is being drained take new flows again.

    Those that its neighbour got meanwhile stay there.
    """
    detour = _detour(running, instance)
    if detour.kind != "drain" or is_pushed(running, instance):
        raise TransitionError(f"{instance} is not being drained, or its flow ids are gone already")
    return _with_detour(running, instance, replace(detour, kind="resume", host=""))


def share(running: Running, instance: str, host: str) -> Running:
    """Have an instance that is being drained run on the core of another on its server."""
    detour = _detour(running, instance)
    if detour.kind != "drain":
        raise TransitionError(f"{instance} is not being drained, and needs its core")
    if running.servers.get(host) != running.servers[instance]:
        raise TransitionError(f"{instance} can't share the core of {host}, on another server")
    if host in running.detours and running.detours[host].kind == "drain":
        raise TransitionError(f"{instance} can't share the core of {host}, which is being drained")
    guests = {name for name, other in running.detours.items() if other.host == instance}
    detours = {
        name: replace(other, host=host) if name in guests | {instance} else other
        for name, other in running.detours.items()
    }
    return replace(running, detours=detours)


def is_pushed(running: Running, instance: str) -> bool:
    """Whether upstream knows of the change that an instance is in."""
    detour = _detour(running, instance)
    return detour.kind != "resume" and running.spans[instance][0].meets(detour.ids) is None


def push(running: Running, instance: str, exceptions: Iterable[FlowException]) -> Running:
    """Tell upstream of a change, and which flows stay though their ids are another's."""
    detour = _detour(running, instance)
    spans = dict(running.spans)
    if detour.kind != "resume" and not is_pushed(running, instance):
        (span, reach), (other, far) = spans[instance], spans[detour.target]
        below = detour.ids.start > span.start
        rest = Span(span.start, detour.ids.start) if below else Span(detour.ids.end, span.end)
        spans[instance] = (rest, reach)
        spans[detour.target] = (other.joined(detour.ids), far)
    return replace(
        running,
        spans=spans,
        exceptions=tuple(dict.fromkeys((*running.exceptions, *exceptions))),
    )


def settle(running: Running, instance: str) -> Running:
    """End the detour of a change that upstream knows of."""
    detour = _detour(running, instance)
    after = replace(running, detours=_without(running.detours, instance))
    return _within_reach(after, {instance, detour.target})


def forget(running: Running, ended: Collection[FlowException]) -> Running:
    """Take away the exceptions of flows that have ended."""
    left = tuple(e for e in running.exceptions if e not in ended)
    return _within_reach(replace(running, exceptions=left), {e.instance for e in ended})


def remove(running: Running, instance: str) -> Running:
    """Take away an instance that was drained, once another has its span."""
    span = _span(running, instance)
    if not span.empty:
        raise TransitionError(f"{instance} still has the flow ids {span}; drain it first")
    after = _with_core_of(settle(running, instance), instance)
    return replace(
        after,
        servers=_without(after.servers, instance),
        spans=_without(after.spans, instance),
        types=_without(after.types, instance),
        exceptions=tuple(e for e in after.exceptions if e.instance != instance),
    )


def _with_core_of(running: Running, gone: str) -> Running:
    """The first guest of an instance that goes gets its core, and others are that one's guests."""
    guests = [name for name, detour in running.detours.items() if detour.host == gone]
    hosts = {name: "" if name == guests[0] else guests[0] for name in guests}
    return replace(
        running,
        detours={
            name: replace(detour, host=hosts.get(name, detour.host))
            for name, detour in running.detours.items()
        },
    )


def _nf(instance: str) -> str:
    return instance.rpartition(".")[0]


def _without(values: Mapping[str, T], instance: str) -> dict[str, T]:
    return {name: value for name, value in values.items() if name != instance}


def _with_detour(running: Running, instance: str, detour: Detour) -> Running:
    """With a change of ``instance``; flows of its ids may be at both ends from now on."""
    span, reach = running.spans[detour.target]
    return replace(
        running,
        spans={**running.spans, detour.target: (span, reach.joined(detour.ids))},
        detours={**running.detours, instance: detour},
    )


def _within_reach(running: Running, names: Collection[str]) -> Running:
    """Flows of other ids than an instance's own are there only while changes or exceptions last."""
    kept = {exception.instance for exception in running.exceptions}
    spans = dict(running.spans)
    for name in names:
        if name not in kept and name in spans:
            reach = spans[name][0]
            for holder, detour in running.detours.items():
                if name in (holder, detour.target):
                    reach = reach.joined(detour.ids)
            spans[name] = (spans[name][0], reach)
    return replace(running, spans=spans)


def _span(running: Running, instance: str) -> Span:
    if instance not in running.spans:
        known = ", ".join(running.spans) or "none"
        raise TransitionError(f"there is no instance '{instance}'; running are {known}")
    return running.spans[instance][0]


def _detour(running: Running, instance: str) -> Detour:
    if instance not in running.detours:
        raise TransitionError(f"{instance} is not part of a change that goes out from it")
    return running.detours[instance]


def _check_cut(instance: str, span: Span, cut: int) -> None:
    if cut % SPAN_STEP or not span.start < cut < span.end:
        raise TransitionError(
            f"{instance} can't be cut at {cut:#x}; expected a multiple of {SPAN_STEP:#x} within "
            f"its flow ids {span}"
        )


def _check_free(running: Running, *instances: str) -> None:
    """One change of an instance at a time."""
    for name, detour in running.detours.items():
        for instance in instances:
            if instance in (name, detour.target):
                raise TransitionError(
                    f"{instance} is part of a change that is under way: {name} passes new flows "
                    f"on to {detour.target}; wait until it has settled"
                )
