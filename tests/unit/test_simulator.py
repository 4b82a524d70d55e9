# SPDX-License-Identifier: BSD-3-Clause
"""The simulation is the same under a seed, and loses no flow and no traffic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2ctl import scaling
from e2ctl.changes import Change, Settings, after, group_of
from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span, even_spans
from e2ctl.placement import Room
from e2ctl.simulator import (
    Cluster,
    Nf,
    Pipeline,
    VirtualSwitch,
    Workload,
    dynamic_load,
    generate,
    racks,
    split_once,
)
from e2ctl.simulator.steering import Steering

UNTIMED = ("controller_s", "simulation_s", "placement_s")


def cluster(seconds: float = 20.0, seed: int = 3, table: int = 2048) -> Cluster:
    flows = generate(Workload(200, 2.0, 1e6), seconds, seed, ((0, 0.3), (10, 1.5), (20, 0.2)))
    nfs = (Nf("a", 2e8), Nf("b", 1.5e8, 6))
    groups = [group_of(nf.name, dict(enumerate(even_spans(2)))) for nf in nfs]
    pipeline = Pipeline("p", nfs, flows, groups, VirtualSwitch(table, seed))
    places = {(0, n, i): i for n in range(2) for i in range(2)}
    return Cluster([pipeline], [Room(6, 1e9)] * 3, places, settings=Settings(spare=0))


def test_flows_are_as_the_workload_says() -> None:
    flows = generate(Workload(2000, 5.0, 1e5), 20.0, 1)
    for at in (0.0, 10.0, 20.0):
        active = (flows.start_s <= at) & (flows.end_s > at)
        assert active.sum() == pytest.approx(10_000, rel=0.05)
        assert flows.rate_bps[active].sum() == pytest.approx(1e9, rel=0.05)
    assert (np.diff(flows.start_s) >= 0).all() and (flows.end_s >= flows.start_s).all()


def test_it_is_the_same_under_a_seed() -> None:
    first, second = (
        split_once("migration avoidance", seconds=6),
        split_once("migration avoidance", seconds=6),
    )
    assert first == second
    assert first != split_once("migration avoidance", seconds=6, seed=2)


def test_every_active_flow_has_one_instance_that_runs() -> None:
    model = cluster()
    pipeline = model.pipelines[0]

    def check() -> None:
        now = model.now_s
        active = np.flatnonzero((pipeline.flows.start_s <= now) & (pipeline.flows.end_s > now))
        assert sorted(pipeline.alive.tolist()) == active.tolist()
        for steering, group in zip(pipeline.steering, pipeline.groups, strict=True):
            assert set(steering.owner[active].tolist()) <= group.instances
            assert sum(span.end - span.start for span in group.spans.values()) == ALL_IDS.end

    for at in np.arange(0.05, 20, 0.5):
        model.at(float(at), check)
    model.run(20.0)
    assert model.decisions > 4 and model.broken == 0
    for sample in model.samples:
        for nf in pipeline.nfs:
            assert sum(sample[f"loads_{nf.name}"]) == pytest.approx(sample["load_bps"])


def test_flows_stay_where_they_began_unless_a_server_is_lost() -> None:
    model = cluster()
    pipeline = model.pipelines[0]
    seen: dict[tuple[int, int], int] = {}

    def check() -> None:
        for n, steering in enumerate(pipeline.steering):
            for flow in pipeline.alive.tolist():
                owner = int(steering.owner[flow])
                assert seen.setdefault((n, flow), owner) == owner

    for at in np.arange(0.05, 20, 0.25):
        model.at(float(at), check)
    model.run(20.0)


@pytest.mark.parametrize("table", [8, 24, 2048])
def test_the_switch_never_has_more_entries_than_its_table(table: int) -> None:
    model = cluster(table=table)
    model.run(20.0)
    switch = model.pipelines[0].switch
    assert switch.most_used <= table
    assert switch.used(1e9) == switch.spans


def test_lost_instances_are_placed_again_elsewhere() -> None:
    model = cluster()
    model.at(5.0, lambda: model.fail(0))
    model.run(20.0)
    assert model.flows_lost > 0 and model.broken == 0
    assert any(text == "all instances run again" for _, text in model.events)
    assert model.samples[-1]["dropped_bps"] == 0.0


def test_flows_led_to_an_instance_that_is_down_are_not_broken_by_others_changes() -> None:
    flows = generate(Workload(50, 2.0, 1e6), 1.0, 1)
    group = group_of("nf", dict(enumerate(even_spans(4))))
    steering, alive = Steering(group, flows), np.arange(len(flows))
    drain = Change("drain", 0, 0, 1, group.spans[0], 0.0)
    steering.start(drain)
    steering.begin(0, len(flows))
    owners = steering.owner.copy()
    assert 0 not in owners
    assert steering.lose(0, alive) == 0
    shift = Change("shift", 3, 3, 2, Span(group.spans[3].start, at(0.8)), 0.0)
    moved = replace(group, spans=after(group.spans, shift))
    steering.exception[steering.staying(shift, alive)] = 3
    steering.push(shift, moved, alive)
    assert steering.broken == 0
    steering.push(drain, replace(moved, spans=after(moved.spans, drain)), alive)
    assert steering.broken == 0 and (steering.owner == owners).all()


def test_flows_led_past_their_instance_are_broken() -> None:
    flows = generate(Workload(50, 2.0, 1e6), 1.0, 1)
    group = group_of("nf", dict(enumerate(even_spans(2))))
    steering, alive = Steering(group, flows), np.arange(len(flows))
    steering.begin(0, len(flows))
    shift = Change("shift", 1, 1, 0, Span(group.spans[1].start, at(0.8)), 0.0)
    stays = len(steering.staying(shift, alive))
    steering.push(shift, replace(group, spans=after(group.spans, shift)), alive)
    assert steering.broken == stays > 0  # nobody has made exceptions of them


def at(part: float) -> int:
    return int(part * ALL_IDS.end) // SPAN_STEP * SPAN_STEP


def test_the_switch_does_one_update_at_a_time() -> None:
    switch = VirtualSwitch(4, 1, idle_s=1.0)
    times = [switch.update(0.0) for _ in range(200)]
    steps = np.diff([0.0, *times])
    assert steps.min() >= 0.001 and steps.max() <= 0.008
    assert steps.mean() == pytest.approx(0.003, rel=0.15)
    switch.set_spans(0.0, 2)
    switch.add(0.0, 1.0, 2)
    with pytest.raises(OverflowError):
        switch.add(0.0, 1.0)
    assert switch.used(1.9) == 4 and switch.used(2.0) == 2


def test_strategies_differ_as_in_the_dissertation() -> None:
    ours = split_once("migration avoidance", seconds=12, duration_sigma=0.0)
    assert ours["final_imbalance"] < 0.1 and ours["broken"] == ours["moved"] == 0
    never = split_once("never migrate", seconds=12, duration_sigma=0.0)
    assert never["final_imbalance"] > 0.6 and never["most_entries"] > 2000
    always = split_once("always migrate", seconds=12, duration_sigma=0.0)
    assert always["final_imbalance"] < 0.1 and always["moved"] > 500


def test_scenarios_say_that_they_are_simulated_and_repeat() -> None:
    first, second = (dynamic_load(seconds=10, flow_bps=5e6) for _ in range(2))
    for name in UNTIMED[:2]:
        del first[name], second[name]
    assert first == second and "simulated" in first["origin"]
    small = racks(count=1, seconds=8, failures=1, per_rack=12)
    assert small["broken"] == 0 and small["recovery_s"][0] is not None
    assert set(scaling.POLICIES) == {"migration avoidance", "always migrate", "never migrate"}
