# SPDX-License-Identifier: BSD-3-Clause
"""What the policy decides, seen from outside: observations in, acts and reasons out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from e2ctl.changes import Change, Decision, Group, Room, Seen, Settings, cut_at, due, entries_of
from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span, even_spans
from e2ctl.scaling import (
    AlwaysMigrate,
    AvoidMigration,
    NeverMigrate,
    abandon,
    decide_all,
    finish,
    group_of,
    lost,
)

SETTINGS = Settings(hold_s=2.0, rest_s=1.0, patience_s=5.0, exceptions=10, spare=0)
POLICY = AvoidMigration(SETTINGS)
ROOM = Room(4, 1000)
HALF = ALL_IDS.end // 2


def group(count: int) -> Group:
    return group_of("nf", dict(enumerate(even_spans(count))))


def hot(load: float = 1.0, flows: int = 100) -> Seen:
    return Seen(load, flows, True)


def decide(at: Group, seen: Mapping[int, Seen], now_s: float = 0.0, room: Room = ROOM) -> Decision:
    return POLICY.decide(at, seen, room, now_s)


def started(decision: Decision) -> list[Change]:
    return [act.change for act in decision.acts if act.what == "start"]


def pushed(decision: Decision) -> list[Change]:
    return [act.change for act in decision.acts if act.what == "push"]


def split(now_s: float = 0.0) -> Group:
    """One instance, and a split of it that runs."""
    return decide(group(1), {0: hot()}, now_s).group


def test_a_split_ends_with_a_push_and_new_spans() -> None:
    begun = decide(group(1), {0: hot()})
    (change,) = started(begun)
    assert (change.kind, change.holder, change.gets) == ("split", 0, 1)
    assert change.ids == Span(HALF, ALL_IDS.end)
    waiting = decide(begun.group, {0: Seen(0.8, 90, left=11), 1: Seen(0.2, 10)}, 1.0)
    assert not waiting.acts
    told = decide(begun.group, {0: Seen(0.5, 50, left=10), 1: Seen(0.5, 50)}, 2.0)
    assert pushed(told) == [replace(change, pushing=True)]
    done = finish(told.group, pushed(told)[0], 3.0, SETTINGS)
    assert done.spans == {0: Span(0, HALF), 1: Span(HALF, ALL_IDS.end)}
    assert not done.changes


def test_an_instance_has_one_change_at_a_time_and_rests_after_it() -> None:
    again = decide(split(), {0: replace(hot(), left=100), 1: Seen(0.1, 1)}, 1.0)
    assert not again.acts and "a split is running" in again.events[-1]
    told = decide(split(), {0: Seen(1.0, 50), 1: Seen(0.9, 50)}, 1.0)
    done = finish(told.group, pushed(told)[0], 1.0, SETTINGS)
    seen = {0: hot(), 1: hot()}
    assert "rests" in decide(done, seen, 1.5).events[0]
    later = decide(done, seen, 2.0)
    assert [change.holder for change in started(later)] == [0]
    assert "others have room" in later.events[-1]  # with the third instance


@pytest.mark.parametrize(
    ("room", "why"),
    [
        (Room(0, 1000), "no core is free"),
        (Room(4, 1000, most=1), "allows 1 instances"),
    ],
)
def test_why_there_is_no_split(room: Room, why: str) -> None:
    decision = decide(group(1), {0: hot()}, room=room)
    assert not decision.acts and why in decision.events[0]


def test_cores_are_not_given_twice() -> None:
    at = {"a": group_of("a", {0: ALL_IDS}), "b": group_of("b", {0: ALL_IDS})}
    seen = {"a": {0: hot(1.0)}, "b": {0: hot(1.2)}}
    rooms = dict.fromkeys(at, ROOM)
    first, second = decide_all(POLICY, at, seen, rooms, 1, 0.0)
    assert first.group.nf == "b" and len(started(first)) == 1
    assert not second.acts and "no core is free" in second.events[0]


@pytest.mark.parametrize(("entries", "waits"), [(21, False), (20, True), (0, True)])
def test_a_push_keeps_within_the_table(entries: int, waits: bool) -> None:
    """Ten exceptions are half of what is free once the span has its entry."""
    seen = {0: Seen(0.5, 50, left=10), 1: Seen(0.5, 50)}
    decision = decide(split(), seen, 1.0, Room(4, entries))
    assert bool(decision.acts) != waits
    assert not waits or "the switch's table has room" in decision.events[0]


def test_an_overloaded_instance_gives_to_a_neighbour_with_room() -> None:
    decision = decide(group(2), {0: hot(1.4), 1: Seen(0.2, 10)}, 0.0)
    assert [change.kind for change in started(decision)] == ["split"]  # both are due 0.8
    skewed = group_of("nf", {0: Span(0, 3 * HALF // 2), 1: Span(3 * HALF // 2, ALL_IDS.end)})
    (change,) = started(decide(skewed, {0: hot(0.96), 1: Seen(0.32, 10)}))
    assert (change.kind, change.gets, change.ids.end) == ("shift", 1, 3 * HALF // 2)
    after = decide(skewed, {0: hot(0.96), 1: Seen(0.32, 10)}).group
    assert due(after, {0: hot(0.96), 1: Seen(0.32, 10)})[0] == pytest.approx(0.64, abs=0.01)


def test_flows_that_belong_elsewhere_are_waited_for() -> None:
    seen = {0: hot(1.0), 1: Seen(0.5, 10)}
    waiting = decide(group(2), seen)
    assert not waiting.acts and "belong elsewhere" in waiting.events[0]
    assert started(decide(waiting.group, seen, 5.0))


def idle(at: Group, seen: Mapping[int, Seen]) -> Decision:
    assert not decide(at, seen, 0.0).acts
    assert not decide(decide(at, seen, 0.0).group, seen, 1.9).acts
    return decide(decide(at, seen, 0.0).group, seen, 2.0)


def test_idle_neighbours_are_joined_after_a_while() -> None:
    seen = {0: Seen(0.3, 30), 1: Seen(0.3, 20)}
    begun = idle(group(2), seen)
    (change,) = started(begun)
    assert (change.kind, change.holder, change.gets) == ("drain", 1, 0)
    left = {0: Seen(0.5, 49), 1: Seen(0.1, 1, left=1)}
    assert not decide(begun.group, left, 3.0).acts  # a drain leaves none
    told = decide(begun.group, {0: Seen(0.5, 49), 1: Seen(0.0, 0)}, 4.0)
    assert finish(told.group, pushed(told)[0], 4.0, SETTINGS).spans == {0: ALL_IDS}


def test_load_in_between_begins_the_wait_anew() -> None:
    low, high = {0: Seen(0.3, 1), 1: Seen(0.3, 1)}, {0: Seen(0.6, 1), 1: Seen(0.6, 1)}
    at = decide(group(2), low, 0.0).group
    at = decide(at, high, 1.0).group
    at = decide(at, low, 2.0).group
    assert not decide(at, low, 3.0).acts and decide(at, low, 4.0).acts


def test_others_make_room_where_a_pair_has_too_much() -> None:
    seen = {0: Seen(0.5, 1), 1: Seen(0.5, 1), 2: Seen(0.5, 1)}
    assert {change.kind for change in started(idle(group(3), seen))} == {"shift"}


def settled(at: Group, total: float, seconds: int) -> tuple[Group, list[Change]]:
    """A group whose flows are where their ids belong each second, and the changes begun in it."""
    begun: list[Change] = []
    for second in range(seconds):
        for change in [one for one in at.changes if one.pushing]:
            at = finish(at, change, second, SETTINGS)
        loads = due(at, {index: Seen(total / len(at.spans), 1) for index in at.instances})
        decision = decide(at, {index: Seen(load, 1) for index, load in loads.items()}, second)
        at = decision.group
        begun += started(decision)
    return at, begun


def test_one_of_several_is_emptied_to_both_sides_and_goes() -> None:
    """No two have room for a third; five have room for what the sixth has."""
    at, begun = settled(group(6), 4.2, 60)
    assert len(at.spans) == 5
    assert [change.kind for change in begun].count("drain") == 1
    assert len(begun) < 12
    loads = due(at, {index: Seen(4.2 / 5, 1) for index in at.spans})
    assert max(loads.values()) < 0.95


def test_nobody_goes_where_all_are_needed() -> None:
    at, begun = settled(group(6), 4.7, 60)
    assert at.spans == group(6).spans and not begun


def test_a_drained_instance_stays_if_the_other_is_overloaded() -> None:
    begun = idle(group(2), {0: Seen(0.3, 30), 1: Seen(0.3, 20)})
    decision = decide(begun.group, {0: hot(), 1: Seen(0.2, 9, left=9)}, 3.0)
    (change,) = started(decision)
    assert (change.kind, change.holder, change.stays, change.gets) == ("resume", 1, 0, 1)
    told = decide(decision.group, {0: Seen(0.6, 9), 1: Seen(0.6, 9, left=3)}, 4.0)
    assert finish(told.group, pushed(told)[0], 5.0, SETTINGS).spans == group(2).spans


def test_a_change_whose_holder_is_lost_is_pushed_at_once() -> None:
    (act,) = lost(split(), 0, 1.0).acts
    assert act.what == "push" and act.change.pushing
    assert not lost(split(), 1, 1.0).acts  # its place is taken by another of its number
    assert not lost(group(2), 0, 1.0).acts


def test_a_split_without_a_server_is_taken_back() -> None:
    begun = decide(group(1), {0: hot()})
    at = abandon(begun.group, started(begun)[0], 0.0, SETTINGS)
    assert at.spans == group(1).spans and not at.changes
    assert not decide(at, {0: hot()}, 0.5).acts


def test_strawmen_only_split() -> None:
    (change,) = started(NeverMigrate(SETTINGS).decide(group(1), {0: hot(1, 1000)}, Room(1, 250), 0))
    assert change.ids.share == pytest.approx(0.25, abs=0.001)
    (change,) = started(AlwaysMigrate(SETTINGS).decide(group(1), {0: hot()}, Room(1, 0), 0))
    assert change.ids.share == 0.5
    idle_pair = {0: Seen(0.0, 0), 1: Seen(0.0, 0)}
    assert not AlwaysMigrate(SETTINGS).decide(group(2), idle_pair, ROOM, 9.0).acts


def test_cuts() -> None:
    span = Span(0, 8 * SPAN_STEP)
    assert cut_at(span, ()) == 4 * SPAN_STEP
    assert cut_at(span, [9, 1, 1, 1, 1, 1, 1, 3]) == SPAN_STEP
    assert cut_at(span, [1, 0, 0, 0, 0, 0, 2, 7]) == 7 * SPAN_STEP
    assert cut_at(span, (), 0.99) == 7 * SPAN_STEP
    assert cut_at(Span(0, SPAN_STEP), ()) is None


def test_entries_are_prefixes() -> None:
    assert entries_of(ALL_IDS) == entries_of(Span(0, HALF)) == 1
    assert entries_of(Span(0, 3 * SPAN_STEP)) == 2


def test_spans_have_to_divide_all_ids() -> None:
    with pytest.raises(ValueError, match="don't divide"):
        group_of("nf", {0: Span(0, HALF)})


def test_nfs_of_one_switch_share_its_table() -> None:
    at = {}
    for nf in ("a", "b"):
        at[nf] = POLICY.decide(group_of(nf, {0: ALL_IDS}), {0: hot()}, ROOM, 0.0).group
    seen = {0: Seen(0.5, 50, left=10), 1: Seen(0.5, 50)}
    for switches, most in ((("s", "s"), 1), (("s", "t"), 2)):
        rooms = {nf: Room(0, 25, switch=s) for nf, s in zip(at, switches, strict=True)}
        decisions = decide_all(POLICY, at, dict.fromkeys(at, seen), rooms, 0, 1.0)
        assert sum(len(pushed(decision)) for decision in decisions) == most


def test_a_drain_that_is_being_pushed_is_not_resumed() -> None:
    begun = idle(group(2), {0: Seen(0.3, 30), 1: Seen(0.3, 20)})
    told = decide(begun.group, {0: Seen(0.5, 49), 1: Seen(0.0, 0)}, 4.0)
    assert not decide(told.group, {0: hot(), 1: Seen(0.0, 0)}, 5.0).acts
