# SPDX-License-Identifier: BSD-3-Clause
"""Instances of an NF and the changes among them, as values; `e2ctl.scaling` decides on changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span
from e2ctl.switch_rules import id_terms

if TYPE_CHECKING:
    from e2ctl.locality import Locality

__all__ = [
    "Act",
    "Change",
    "Decision",
    "Group",
    "Host",
    "Kind",
    "Room",
    "Seen",
    "Settings",
    "abandon",
    "after",
    "cut_at",
    "due",
    "ended",
    "entries_of",
    "finish",
    "group_of",
    "hosts_of",
    "lost",
    "with_change",
]


@dataclass(frozen=True)
class Settings:
    """Loads are parts of what an instance can carry, and grow with traffic.

    An overloaded instance gives to one below ``shift_below``, on its server if there is one. It is
    split where the mean of all is above ``full``, or it has been overloaded for ``patience_s``.
    Where one fewer would have less than ``packed`` each, for ``hold_s``, one goes that others side
    by side with it can do without, with less than ``joined`` each. No instance changes for
    ``rest_s`` after a change, and an overloaded one is left alone for ``patience_s`` where its part
    of all flow ids is due less than ``due_most``: it waits for flows to end that belong elsewhere
    by now. Above ``too_much`` there is no patience. A push leaves ``exceptions`` at most, and to
    others ``spare`` entries of the switch's table and half of what else is free there.

    Parts of an NF's traffic: a shift may have ``crosses_shift`` more of it cross the switch, and
    what makes an instance go ``crosses_drain``, more of little traffic, and as many times more as
    the NF could do with one fewer for times of ``crosses_s``; every ``tidy_s``, spans' ends move
    where at least ``tidy`` less crosses then. An instance that is being drained shares a core once
    it has less load than ``guest``, where both together have less than ``joined``.
    """

    full: float = 0.93
    shift_below: float = 0.94
    joined: float = 0.95
    packed: float = 0.93
    hold_s: float = 2.0
    rest_s: float = 1.0
    patience_s: float = 30.0
    due_most: float = 0.9
    too_much: float = 1.05
    exceptions: int = 1024
    spare: int = 16
    crosses_shift: float = 0.0
    crosses_drain: float = 0.015
    crosses_s: float = 90.0
    tidy: float = 0.002
    tidy_s: float = 1.0
    guest: float = 0.3


@dataclass(frozen=True)
class Seen:
    """An instance now: its load as a part of what it can carry, by ids too where that is known.

    ``left`` is how many flows a running change that it holds still keeps. ``buckets`` is load (on
    any scale) for each `SPAN_STEP` ids of its span. ``server`` is any number of its own.
    """

    load: float
    flows: int
    overloaded: bool = False
    left: int = 0
    buckets: Sequence[float] = ()
    server: int = 0


class Host(NamedTuple):
    """An instance on whose core there may be room for one that is being drained."""

    load: float
    name: str


@dataclass(frozen=True)
class Room:
    """What an NF may still take. ``most`` instances; None: any number.

    ``entries`` are free in the switch's table, those that pushes still install counted as taken;
    None: servers steer, whose tables have room. An exception takes ``per_exception`` of them. NFs
    with the same ``switch`` share its table. ``locality`` tells what crosses the switch; without
    it, all servers are alike. ``hosts`` of servers are for instances that are being drained.
    """

    cores: int
    entries: int | None = None
    most: int | None = None
    per_exception: int = 1
    switch: str = ""
    locality: Locality | None = None
    hosts: Mapping[int, Host] = field(default_factory=dict)


Kind = Literal["split", "shift", "drain", "resume"]


@dataclass(frozen=True)
class Change:
    """New flows of ``ids`` that reach ``holder`` go to ``gets``; active ones stay with ``stays``.

    ``pushing``: upstream is being told. ``guest``: the holder, which is being drained, has no core
    of its own any more.
    """

    kind: Kind
    holder: int
    stays: int
    gets: int
    ids: Span
    began_s: float
    pushing: bool = False
    guest: bool = False

    @property
    def instances(self) -> frozenset[int]:
        """Whom it is about."""
        return frozenset((self.holder, self.stays, self.gets))


@dataclass(frozen=True)
class Group:
    """The instances of an NF, by number, and where upstream sends which ids."""

    nf: str
    spans: Mapping[int, Span]
    changes: tuple[Change, ...] = ()
    rest_until_s: Mapping[int, float] = field(default_factory=dict)
    idle_since_s: float | None = None
    hot_since_s: Mapping[int, float] = field(default_factory=dict)
    tidied_s: float = 0.0

    @property
    def instances(self) -> frozenset[int]:
        """Those that run, with or without a span."""
        return frozenset(self.spans).union(*(change.instances for change in self.changes))

    @property
    def ordered(self) -> list[int]:
        """Those with a span, by its start."""
        return sorted(self.spans, key=lambda index: self.spans[index].start)

    def change_of(self, index: int) -> Change | None:
        """The change that an instance is in."""
        return next((change for change in self.changes if index in change.instances), None)


@dataclass(frozen=True)
class Act:
    """To be carried out. To "share" is to make the holder a guest on the core of ``host``."""

    what: Literal["start", "push", "share"]
    change: Change
    host: str = ""


@dataclass(frozen=True)
class Decision:
    """The group from now on, what to do for it, and why that or nothing."""

    group: Group
    acts: tuple[Act, ...] = ()
    events: tuple[str, ...] = ()


def group_of(nf: str, spans: Mapping[int, Span]) -> Group:
    """A group at rest. Raises ValueError unless spans divide all ids."""
    ordered = sorted(spans.values())
    borders = [0, *(span.end for span in ordered)]
    if [span.start for span in ordered] != borders[:-1] or borders[-1] != ALL_IDS.end:
        raise ValueError(f"{nf}: spans don't divide all flow ids: {', '.join(map(str, ordered))}")
    return Group(nf, dict(spans))


@lru_cache(1 << 14)
def entries_of(span: Span) -> int:
    """Entries of a switch for a span."""
    return len(id_terms(span))


def cut_at(span: Span, buckets: Sequence[float], part: float = 0.5) -> int | None:
    """The id below which ``part`` of the load of a span is, inside of it; None: it has no inside.

    Without buckets, load is taken to be even.
    """
    steps = (span.end - span.start) // SPAN_STEP
    if steps < 2:
        return None
    total = sum(buckets) if len(buckets) == steps else 0.0
    if total <= 0:
        step = round(part * steps)
    else:
        sums = list(accumulate(buckets, initial=0.0))
        step = min(range(1, steps), key=lambda i: abs(sums[i] - part * total))
    return span.start + min(max(step, 1), steps - 1) * SPAN_STEP


def after(spans: Mapping[int, Span], change: Change) -> dict[int, Span]:
    """Spans once upstream knows of a change."""
    result = dict(spans)
    if change.kind == "resume":
        return result
    held, ids = result.pop(change.holder), change.ids
    rest = Span(held.start, ids.start) if ids.start > held.start else Span(ids.end, held.end)
    if rest.start < rest.end:
        result[change.holder] = rest
    result[change.gets] = result.get(change.gets, ids).joined(ids)
    return result


def due(group: Group, seen: Mapping[int, Seen]) -> dict[int, float]:
    """The load of each instance once all flows are where their ids belong after all changes."""
    ids = {index: span.end - span.start for index, span in group.spans.items()}
    for change in group.changes:
        if change.kind != "resume":
            moved = change.ids.end - change.ids.start
            ids[change.holder] -= moved
            ids[change.gets] = ids.get(change.gets, 0) + moved
    total = sum(one.load for one in seen.values()) / ALL_IDS.end
    return {index: total * ids.get(index, 0) for index in seen}


def finish(group: Group, change: Change, now_s: float, settings: Settings | None = None) -> Group:
    """Upstream knows: the change is over."""
    return replace(ended(group, change, now_s, settings), spans=after(group.spans, change))


def abandon(group: Group, change: Change, now_s: float, settings: Settings | None = None) -> Group:
    """A change could not start."""
    return ended(group, change, now_s, settings)


def ended(group: Group, change: Change, now_s: float, settings: Settings | None) -> Group:
    until = now_s + (settings or Settings()).rest_s
    rest = {index: end for index, end in group.rest_until_s.items() if end > now_s}
    changes = tuple(one for one in group.changes if one.instances != change.instances)
    return replace(
        group, changes=changes, rest_until_s={**rest, **dict.fromkeys(change.instances, until)}
    )


def hosts_of(
    seen: Mapping[str, Mapping[int, Seen]], groups: Mapping[str, Group]
) -> dict[int, Host]:
    """For each server, the instance that is not being drained and has the least to do.

    The guests that its server has already count as its own.
    """
    hosts: dict[int, Host] = {}
    guests: dict[int, float] = {}
    for nf, ones in seen.items():
        leaving = {change.holder: change for change in groups[nf].changes if change.kind == "drain"}
        for index, one in ones.items():
            if index not in leaving:
                host = Host(one.load, f"{nf}.{index}")
                hosts[one.server] = min(host, hosts.get(one.server, host))
            elif leaving[index].guest:
                guests[one.server] = guests.get(one.server, 0.0) + one.load
    return {
        server: host._replace(load=host.load + guests.get(server, 0.0))
        for server, host in hosts.items()
    }


def lost(group: Group, index: int, now_s: float) -> Decision:
    """An instance is gone with all its flows.

    Unless it was being drained, it is to be replaced under its number. A change that it held is
    pushed at once: there is nothing left to stay, and what `gets` has needs no detour any more.
    """
    change = group.change_of(index)
    if change is None or change.holder != index or change.pushing:
        return Decision(group)
    if change.kind == "resume":
        return Decision(ended(group, change, now_s, None))
    pushed = replace(change, pushing=True)
    group = with_change(group, change, pushed)
    text = f"{group.nf}.{index} is lost: its {change.kind} ends at once"
    return Decision(group, (Act("push", pushed),), (text,))


def with_change(group: Group, old: Change | None, new: Change) -> Group:
    kept = (change for change in group.changes if change != old)
    return replace(group, changes=(*kept, new))
