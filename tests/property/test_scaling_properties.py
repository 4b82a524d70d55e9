# SPDX-License-Identifier: BSD-3-Clause
"""Whatever flows come and go and whatever is decided, no flow changes its instance on the way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import event, given, settings
from hypothesis import strategies as st

from e2ctl.changes import Seen, abandon, entries_of
from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span, even_spans
from e2ctl.scaling import AvoidMigration, Room, Settings, finish, group_of
from twins.hold_twin import Holds

LOADS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0, 1.3])
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, ALL_IDS.end // SPAN_STEP - 1), max_size=6),  # flows that begin
        st.integers(0, 5),  # of those that are active, how many end
        st.lists(LOADS, min_size=1, max_size=8),
        st.booleans(),  # whether pushes are done by now
        st.booleans(),  # whether new instances find a server
    ),
    min_size=1,
    max_size=60,
)
Step = tuple[list[int], int, list[float], bool, bool]


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 5),
    STEPS,
    st.integers(0, 4),
    st.integers(0, 40),
    st.sampled_from([None, 3]),
    st.randoms(use_true_random=False),
)
def test_no_flow_changes_its_instance(
    count: int,
    steps: Sequence[Step],
    few: int,
    spare_entries: int,
    most: int | None,
    random: object,
) -> None:
    spans = dict(enumerate(even_spans(count)))
    chosen = Settings(exceptions=few, spare=0, hold_s=0.5, rest_s=0.5, patience_s=1.0)
    policy, group = AvoidMigration(chosen), group_of("nf", spans)
    table = sum(map(entries_of, spans.values())) + spare_entries
    holds = Holds(dict(spans), table)
    where: dict[int, int] = {}
    flow = 0
    for now_s, (begin, ends, loads, done, placed) in enumerate(steps):
        for bucket in begin:
            flow += 1
            where[flow] = holds.packet(flow, bucket * SPAN_STEP + random.randrange(SPAN_STEP))  # type: ignore[attr-defined]
        for one in random.sample(sorted(where), min(ends, len(where))):  # type: ignore[attr-defined]
            del where[one]
            holds.end(one)
        for one, instance in where.items():
            assert holds.packet(one, holds.ids[one]) == instance
        if done:
            for change in [one for one in group.changes if one.pushing]:
                group = finish(group, change, now_s, chosen)
                holds.push(change, group)
                event(f"{change.kind} done")
        seen = {}
        for number, index in enumerate(sorted(group.instances)):
            change = group.change_of(index)
            left = len(holds.left(change)) if change and change.holder == index else 0
            load = loads[number % len(loads)]
            flows = sum(place == index for place in where.values())
            seen[index] = Seen(load, flows, load >= 0.9, left, server=index % 2)
        promised = sum(len(holds.left(one)) + 24 for one in group.changes if one.pushing)
        room = Room(2, table - holds.entries - promised, most)
        decision = policy.decide(group, seen, room, float(now_s))
        group = decision.group
        involved = [index for one in group.changes for index in one.instances]
        assert len(involved) == len(set(involved))
        assert most is None or len(group.instances) <= max(most, count)
        for act in decision.acts:
            if act.what == "start":
                if act.change.kind == "split" and not placed:
                    group = abandon(group, act.change, now_s, chosen)
                else:
                    holds.start(act.change)
            elif act.change.kind == "drain":
                assert not holds.left(act.change)
        assert all(
            s.start % SPAN_STEP == 0 and s.end % SPAN_STEP == 0 for s in group.spans.values()
        )
        holds.check()


@given(st.lists(st.integers(1, 4095), max_size=12, unique=True))
def test_spans_of_a_group_divide_all_ids(cuts: list[int]) -> None:
    borders = [0, *sorted(cut * SPAN_STEP for cut in cuts), ALL_IDS.end]
    spans = {i: Span(a, b) for i, (a, b) in enumerate(pairwise(borders))}
    assert group_of("nf", spans).ordered == list(range(len(spans)))
