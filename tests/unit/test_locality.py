# SPDX-License-Identifier: BSD-3-Clause
"""What crosses the switch when flow ids change hands, against counting ids one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span
from e2ctl.locality import Locality
from e2ctl.placement import Room
from e2ctl.replicas import Traffic

# Two servers. A: ids up to 40 % on the first; B: up to 60 %, in two instances there; C as A.
STEPS = ALL_IDS.end // SPAN_STEP
A, B, C = (0.4,), (0.3, 0.6), (0.4,)
SERVERS = (0, 1, 0, 0, 1, 0, 1)
LOAD_BPS = 1e9


def spans(cuts: tuple[float, ...]) -> list[Span]:
    borders = [0, *(round(cut * STEPS) * SPAN_STEP for cut in cuts), ALL_IDS.end]
    return [Span(a, b) for a, b in pairwise(borders)]


def traffic(*, direct: bool = True) -> Traffic:
    nfs = [spans(cuts) for cuts in (A, B, C)]
    flat = [span for nf in nfs for span in nf]
    first = [0, 2, 5]
    edges = []
    for nf in (0, 1):
        for i, tail in enumerate(nfs[nf]):
            for j, head in enumerate(nfs[nf + 1]):
                both = tail.meets(head)
                share = both.share if both and direct else 0 if direct else tail.share * head.share
                if share:
                    edges.append((first[nf] + i, first[nf + 1] + j, LOAD_BPS * share))
    tails, heads, rates = zip(*edges, strict=True)
    outside = np.zeros((2, len(flat)))
    outside[0, :2] = [LOAD_BPS * span.share for span in nfs[0]]
    return Traffic(
        servers=np.array(SERVERS),
        cores=np.ones(len(flat), np.int64),
        starts=np.array([span.start for span in flat]),
        ends=np.array([span.end for span in flat]),
        tails=np.array(tails),
        heads=np.array(heads),
        rates=np.array(rates),
        direct=np.full(len(edges), direct),
        outside=outside,
        rooms=(Room(4, 1e10), Room(4, 1e10)),
        names=("s0", "s1"),
    )


def of_b(**how: bool) -> Locality:
    return Locality(traffic(**how), {0: 2, 1: 3, 2: 4})


def at(part: float) -> int:
    return round(part * STEPS) * SPAN_STEP


@pytest.mark.parametrize(
    ("giver", "taker", "ids", "more"),
    [
        (1, 2, (0.4, 0.6), -0.4),  # both neighbours have these ids over there
        (1, 2, (0.5, 0.6), -0.2),
        (1, 2, (0.35, 0.6), -0.3),  # five parts of a hundred too many, two ways
        (2, 1, (0.6, 0.7), 0.2),
        (1, 0, (0.3, 0.4), 0.0),  # on one server
    ],
)
def test_what_more_crosses(giver: int, taker: int, ids: tuple[float, float], more: float) -> None:
    found = of_b().crossing(giver, taker, Span(at(ids[0]), at(ids[1])))
    assert found == pytest.approx(more, abs=1e-3)


def test_a_border_goes_where_those_of_others_are() -> None:
    ids, gain = of_b().border(1, 2, Span(at(0.3), at(0.6)), ALL_IDS.end)
    assert ids == Span(at(0.4), at(0.6))
    assert gain == pytest.approx(0.4, abs=1e-3)


def test_a_border_goes_as_far_as_there_is_room() -> None:
    ids, gain = of_b().border(1, 2, Span(at(0.3), at(0.6)), at(0.05) + SPAN_STEP // 2)
    assert ids == Span(at(0.6) - at(0.05), at(0.6))
    assert gain == pytest.approx(0.1, abs=1e-3)


def test_a_border_that_had_better_stay() -> None:
    ids, gain = of_b().border(2, 1, Span(at(0.6), ALL_IDS.end), ALL_IDS.end)
    assert (ids.empty, gain) == (True, 0.0)
    none, gain = of_b().border(1, 2, Span(at(0.3), at(0.6)), 0)
    assert (none.empty, gain) == (True, 0.0)


def test_where_functions_to_flow_ids_differ_all_ids_are_alike() -> None:
    """B.1 has 30 % of the ids; of its traffic either way, 40 % is with server 0."""
    some, more = (of_b(direct=False).crossing(1, 2, Span(at(0.5), at(b))) for b in (0.55, 0.6))
    assert some == pytest.approx(2 * 0.05 * (0.4 - 0.6), abs=1e-3)
    assert more == pytest.approx(2 * some, abs=1e-3)


def test_free_cores_are_of_the_instance_s_server() -> None:
    assert [of_b().free(index) for index in (0, 1, 2)] == [0, 0, 1]
