# SPDX-License-Identifier: BSD-3-Clause
"""Where a split's new instance goes: as `place_one` would have it on the whole problem."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span, even_spans
from e2ctl.placement import PlacementError, Problem, Room, place_one
from e2ctl.replicas import Replica, Traffic, split_decision

G = 1e9


def chain(counts: tuple[int, ...], servers: int, seed: int, room: Room) -> Traffic:
    """A chain of NFs at random places; every other edge between them is direct."""
    random = Random(seed)
    spans = [(nf, span) for nf, count in enumerate(counts) for span in even_spans(count)]
    edges = []
    for a, (nf, span) in enumerate(spans):
        for b, (other, peer) in enumerate(spans):
            if other != nf + 1:
                continue
            both = span.meets(peer)
            share = (both.share if both else 0.0) if nf % 2 else span.share * peer.share
            if share:
                edges.append((a, b, 8 * G * share, bool(nf % 2)))
    tails, heads, rates, direct = zip(*edges, strict=True)
    outside = np.zeros((2, len(spans)))
    for i, (nf, span) in enumerate(spans):
        outside[0, i] = 8 * G * span.share * (nf == 0)
        outside[1, i] = 8 * G * span.share * (nf == len(counts) - 1)
    return Traffic(
        servers=np.array([random.randrange(servers) for _ in spans]),
        cores=np.ones(len(spans), np.int64),
        starts=np.array([span.start for _, span in spans]),
        ends=np.array([span.end for _, span in spans]),
        tails=np.array(tails),
        heads=np.array(heads),
        rates=np.array(rates),
        direct=np.array(direct),
        outside=outside,
        rooms=(room,) * servers,
        names=tuple(f"s{i}" for i in range(servers)),
    )


def problem_of(traffic: Traffic) -> Problem:
    count = len(traffic.servers)
    return Problem(
        names=tuple(f"u{i}" for i in range(count)),
        cores=tuple(traffic.cores.tolist()),
        edges=tuple(
            zip(
                traffic.tails.tolist(),
                traffic.heads.tolist(),
                traffic.rates.tolist(),
                strict=True,
            )
        ),
        outside=tuple((i, o) for i, o in traffic.outside.T.tolist()),
        servers=traffic.rooms,
        server_names=traffic.names,
    )


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_server_of_the_whole_problem(seed: int) -> None:
    traffic = chain((3, 4, 2, 5), 4, seed, Room(9, 10 * G))
    for unit in range(len(traffic.servers)):
        found = split_decision(traffic, unit)
        after = traffic.split(unit, found)
        placed = [*traffic.servers.tolist(), -1]
        assert place_one(problem_of(after), len(placed) - 1, placed) == found.server


def test_a_split_moves_traffic_and_makes_none() -> None:
    traffic = chain((2, 3, 2), 3, 1, Room(9, 10 * G))
    after = traffic.split(3, split_decision(traffic, 3))
    assert after.rates.sum() == pytest.approx(traffic.rates.sum())
    assert after.outside.sum(axis=1) == pytest.approx(traffic.outside.sum(axis=1))
    assert after.ends[3] == after.starts[-1] and after.ends[-1] == traffic.ends[3]


def test_the_cut_halves_the_load_that_is_seen() -> None:
    traffic = chain((1, 1), 1, 0, Room(4, 10 * G))
    buckets = [0.0] * (ALL_IDS.end // SPAN_STEP)
    buckets[100], buckets[200], buckets[300] = 1.0, 1.0, 2.0
    cut = split_decision(traffic, 0, buckets).span.start
    assert 201 * SPAN_STEP <= cut <= 300 * SPAN_STEP


def test_a_full_cluster_and_a_span_without_inside_are_refused() -> None:
    traffic = chain((2, 2), 2, 0, Room(2, 10 * G))
    with pytest.raises(PlacementError, match="1 core is missing"):
        split_decision(replace(traffic, servers=np.array([0, 0, 1, 1])), 0)
    narrow = replace(traffic, ends=np.array([SPAN_STEP, *traffic.ends[1:]]))
    with pytest.raises(PlacementError, match="can't be divided"):
        split_decision(narrow, 0)


def test_a_lost_instance_goes_where_its_traffic_is() -> None:
    traffic = chain((1, 1, 1), 3, 0, Room(4, 10 * G))
    rooms = (Room(0, 10 * G), *traffic.rooms[1:])
    lost = replace(traffic, servers=np.array([2, 0, 2]), rooms=rooms)
    assert lost.server_again(1) == 2
    assert split_decision(traffic, 1, cut=SPAN_STEP).span == Span(SPAN_STEP, ALL_IDS.end)
    assert isinstance(split_decision(traffic, 1), Replica)
