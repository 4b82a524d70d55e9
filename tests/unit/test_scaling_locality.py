# SPDX-License-Identifier: BSD-3-Clause
"""What the policy decides where servers matter: two of them, and NFs before and behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from e2ctl.changes import Change, Decision, Group, Host, Room, Seen, Settings, hosts_of
from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span
from e2ctl.locality import Locality
from e2ctl.placement import Room as ServerRoom
from e2ctl.replicas import Traffic
from e2ctl.scaling import AvoidMigration, group_of

SETTINGS = Settings(hold_s=2.0, patience_s=5.0)
POLICY = AvoidMigration(SETTINGS)


def at(part: float) -> int:
    return round(part * ALL_IDS.end / SPAN_STEP) * SPAN_STEP


def case(
    cuts: tuple[float, ...],
    servers: tuple[int, ...],
    border: float,
    cores: tuple[int, int] = (9, 9),
) -> tuple[Group, Room]:
    """An NF behind one whose ids up to the border are on server 0, and the others on server 1."""
    ends = [0, *map(at, cuts), ALL_IDS.end]
    spans = [Span(a, b) for a, b in pairwise(ends)]
    before = [Span(0, at(border)), Span(at(border), ALL_IDS.end)]
    edges = [
        (side, 2 + i, both.share)
        for side, one in enumerate(before)
        for i, span in enumerate(spans)
        if (both := one.meets(span))
    ]
    tails, heads, rates = zip(*edges, strict=True)
    everyone = [*before, *spans]
    traffic = Traffic(
        servers=np.array([0, 1, *servers]),
        cores=np.ones(len(everyone), np.int64),
        starts=np.array([span.start for span in everyone]),
        ends=np.array([span.end for span in everyone]),
        tails=np.array(tails),
        heads=np.array(heads),
        rates=np.array(rates),
        direct=np.ones(len(edges), np.bool_),
        outside=np.zeros((2, len(everyone))),
        rooms=tuple(ServerRoom(count, 1e10) for count in cores),
        names=("s0", "s1"),
    )
    units = {i: 2 + i for i in range(len(spans))}
    room = Room(sum(cores) - len(everyone), locality=Locality(traffic, units))
    return group_of("nf", dict(enumerate(spans))), room


def seen(servers: tuple[int, ...], loads: tuple[float, ...], hot: int = -1) -> dict[int, Seen]:
    return {
        i: Seen(load, 100, i == hot, server=server)
        for i, (server, load) in enumerate(zip(servers, loads, strict=True))
    }


def decide(group: Group, ones: Mapping[int, Seen], room: Room, now_s: float = 9.0) -> Decision:
    return POLICY.decide(group, ones, room, now_s)


def started(decision: Decision) -> list[Change]:
    return [act.change for act in decision.acts if act.what == "start"]


def test_ids_go_to_the_server_where_their_neighbours_are() -> None:
    group, room = case((0.5,), (0, 1), 0.4)
    (change,) = started(decide(group, seen((0, 1), (0.5, 0.5)), room))
    assert (change.kind, change.holder, change.gets) == ("shift", 0, 1)
    assert change.ids == Span(at(0.4), at(0.5))


def test_no_more_go_than_there_is_room_for() -> None:
    """0.95 of what it carries is where the taker ends."""
    group, room = case((0.5,), (0, 1), 0.4)
    (change,) = started(decide(group, seen((0, 1), (0.82, 0.88)), room))
    assert change.ids.share == pytest.approx((0.95 - 0.88) / 1.7, abs=0.001)


def test_room_is_made_within_the_server_first() -> None:
    group, room = case((0.4, 0.78), (0, 1, 1), 0.3)
    (change,) = started(decide(group, seen((0, 1, 1), (0.96, 0.95, 0.52)), room))
    assert (change.holder, change.gets) == (1, 2)


def test_borders_in_their_place_stay() -> None:
    group, room = case((0.4,), (0, 1), 0.4)
    assert not decide(group, seen((0, 1), (0.3, 0.9)), room).acts


def test_it_is_tidied_now_and_then_and_not_under_overload() -> None:
    group, room = case((0.5,), (0, 1), 0.4)
    ones = seen((0, 1), (0.5, 0.5))
    assert not decide(replace(group, tidied_s=8.5), ones, room).acts
    kinds = [one.kind for one in started(decide(group, seen((0, 1), (1.0, 0.95), hot=0), room))]
    assert kinds == ["split"]


def test_an_overloaded_instance_rather_splits_than_gives_to_a_server_that_is_far() -> None:
    group, room = case((0.75,), (0, 1), 0.75)
    ones = seen((0, 1), (1.06, 0.35), hot=0)  # too much for patience
    assert [one.kind for one in started(decide(group, ones, room))] == ["split"]
    group, full = case((0.75,), (0, 1), 0.75, cores=(2, 9))
    (change,) = started(decide(group, ones, full))
    assert (change.kind, change.gets) == ("shift", 1)  # there is no core


def test_where_its_server_is_full_the_next_one_on_another_is_split() -> None:
    group, room = case((0.34, 0.67), (0, 0, 1), 0.67, cores=(3, 9))
    decision = decide(group, seen((0, 0, 1), (1.0, 0.95, 0.95), hot=0), room)
    (change,) = started(decision)
    assert (change.kind, change.holder) == ("split", 2)
    assert "nf.0 is overloaded: split of nf.2" in decision.events[0]
    resting = replace(group, rest_until_s={2: 99.0})
    waits = decide(resting, seen((0, 0, 1), (1.0, 0.95, 0.95), hot=0), room)
    assert not started(waits)
    assert "its server is full; nf.2 is next to grow" in waits.events[0]


def test_an_instance_goes_only_if_little_crosses_the_switch_then() -> None:
    group, room = case((0.4,), (0, 1), 0.4)
    ones = seen((0, 1), (0.4, 0.4))
    idle = decide(group, ones, room, 0.0).group
    assert not started(decide(idle, ones, room, 3.0))
    group, room = case((0.4,), (0, 0), 0.4)
    ones = seen((0, 0), (0.4, 0.4))
    idle = decide(group, ones, room, 0.0).group
    assert [one.kind for one in started(decide(idle, ones, room, 3.0))] == ["drain"]


def test_much_may_cross_the_switch_once_there_is_hardly_anything_or_after_long() -> None:
    group, room = case((0.4,), (0, 1), 0.4)
    for load, seconds in ((0.4, 3.0), (0.4, 240.0), (0.01, 1.0)):
        ones = seen((0, 1), (load, load))
        idle = decide(group, ones, room, 0.0).group
        assert not started(decide(idle, ones, room, seconds))
    for load, seconds in ((0.4, 1500.0), (0.01, 3.0), (0.0, 3.0)):
        ones = seen((0, 1), (load, load))
        idle = decide(group, ones, room, 0.0).group
        assert [one.kind for one in started(decide(idle, ones, room, seconds))] == ["drain"]


def drained(room: Room) -> Decision:
    group, _ = case((0.4,), (0, 0), 0.4)
    ones = seen((0, 0), (0.4, 0.4))
    idle = decide(group, ones, room, 0.0).group
    return decide(idle, ones, room, 3.0)


def test_an_instance_with_little_left_shares_a_core() -> None:
    _, room = case((0.4,), (0, 0), 0.4)
    group = drained(room).group
    (change,) = group.changes
    host = replace(room, hosts={0: Host(0.7, "other.3"), 1: Host(0.1, "other.4")})
    for load, shares in ((0.35, False), (0.26, False), (0.2, True)):
        ones = seen((0, 0), (load, 0.5) if change.holder == 0 else (0.5, load))
        ones = {i: replace(one, left=9) for i, one in ones.items()}
        decision = decide(group, ones, host, 4.0)
        acts = [(act.what, act.host) for act in decision.acts]
        assert acts == ([("share", "other.3")] if shares else [])
    (guest,) = decision.group.changes
    assert guest == replace(change, guest=True)
    assert not decide(decision.group, ones, host, 4.1).acts


def test_a_guest_stays_only_if_there_is_a_core_for_it() -> None:
    _, room = case((0.4,), (0, 0), 0.4)
    group = drained(room).group
    (change,) = group.changes
    group = replace(group, changes=(replace(change, guest=True),))
    ones = seen((0, 0), (1.0, 0.2) if change.gets == 0 else (0.2, 1.0), hot=change.gets)
    ones = {i: replace(one, left=9) for i, one in ones.items()}
    assert [one.kind for one in started(decide(group, ones, room, 4.0))] == ["resume"]
    _, full = case((0.4,), (0, 0), 0.4, cores=(3, 1))
    decision = decide(group, ones, full, 4.0)
    assert "resume" not in [one.kind for one in started(decision)]
    assert "its server has no core for it" in " ".join(decision.events)


def test_hosts_are_those_with_the_least_to_do() -> None:
    group, _ = case((0.4,), (0, 1), 0.4)
    guest = Change("drain", 1, 1, 0, group.spans[1], 0.0, guest=True)
    groups = {"a": group, "b": replace(group, changes=(guest,))}
    ones = {"a": seen((0, 1), (0.5, 0.6)), "b": seen((0, 1), (0.4, 0.1))}
    hosts = hosts_of(ones, groups)
    assert hosts == {0: Host(0.4, "b.0"), 1: Host(pytest.approx(0.7), "a.1")}
