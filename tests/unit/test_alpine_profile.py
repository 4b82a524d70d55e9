# SPDX-License-Identifier: BSD-3-Clause
"""Flows from counters of edges, and profile files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from alpine.errors import AlpineError
from alpine.flows import delivered_costs, node_flows
from alpine.graph import build_forest
from alpine.profile import Profile, even_profile, profile_path, read_profile, write_profile
from alpine.profiling import adjusted
from alpine.program import Program
from alpine.sample import Growth, ModuleUse, TaskUse
from live_support import fork, merge


def a_profile(**changes: object) -> Profile:
    program = fork()
    counts = {"in": {0: 400}, "split": {0: 300, 1: 100}, "a": {0: 300}, "b": {0: 100}}
    return even_profile(program).model_copy(update={"packets": counts, **changes})


def written(tmp_path: Path) -> Path:
    path = profile_path(tmp_path / "fw.alpine")
    write_profile(path, a_profile(), "fw.alpine")
    return path


def refusal(path: Path, program: Program) -> str:
    with pytest.raises(AlpineError) as caught:
        read_profile(path, program)
    return str(caught.value).removeprefix(str(path))


def test_rates_of_a_tree_are_those_of_its_last_edges() -> None:
    assert a_profile().rates(fork()) == (300.0, 100.0)


def test_behind_a_merge_packets_part_alike() -> None:
    program = merge()
    forest = build_forest(program.graph, program.paths)
    counts = {("in", 0): 100.0, ("s", 0): 80.0, ("s", 1): 20.0, ("m", 0): 25.0, ("m", 1): 75.0}
    rates = node_flows(forest, counts).rates(forest)
    assert rates == pytest.approx((20.0, 60.0, 5.0, 15.0))


def test_a_full_queue_takes_from_what_arrives_and_not_from_what_is_offered() -> None:
    program = fork()
    forest = build_forest(program.graph, program.paths)
    sent = {("in", 0): 400.0, ("split", 0): 300.0, ("split", 1): 100.0}
    sent |= {("a", 0): 60.0, ("b", 0): 100.0}
    arrived = {**sent, ("split", 0): 60.0}
    assert node_flows(forest, sent, arrived).rates(forest) == (60.0, 100.0)
    assert node_flows(forest, sent, arrived, lossless=True).rates(forest) == (300.0, 100.0)


def test_who_passes_pays_for_packets_that_a_module_drops() -> None:
    program = fork()
    forest = build_forest(program.graph, program.paths)
    flow = node_flows(
        forest,
        {("in", 0): 400.0, ("split", 0): 300.0, ("split", 1): 100.0, ("a", 0): 150.0}
        | {("b", 0): 100.0},
    )
    costs = delivered_costs(forest, {"in": 10.0, "a": 10.0, "a_out": 7.0}, flow)
    assert costs == pytest.approx({"in": 16.0, "a": 20.0, "a_out": 7.0})


def test_even_profiles_have_equal_rates() -> None:
    program = fork()
    profile = even_profile(program)
    assert set(profile.rates(program)) == {1000.0}
    assert profile.taken == "assumed"
    costs = profile.costs()
    assert set(costs.module.values()) == {100.0}
    assert (costs.enqueue, costs.dequeue) == (20.0, 20.0)


def test_a_class_without_packets_is_named() -> None:
    counts = {"in": {0: 400}, "split": {0: 400, 1: 0}, "a": {0: 400}}
    with pytest.raises(AlpineError, match=r"class 'c1' \(in -> split -> b -> b_out\).*--even"):
        a_profile(packets=counts).rates(fork())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert path.name == "fw.alpine.profile.yaml"
    assert path.read_text().startswith("# What the modules of fw.alpine cost")
    assert read_profile(path, fork()) == a_profile()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("digest: d1", "digest: d2", ":4:1: this is the profile of another pipeline than"),
        ("  in: 100.0\n", "", ":14:1: no cost for module 'in'; add it, or run"),
        ("  split: 100.0", "  split: -1", ":16:3: modules.split: input should be greater than"),
        ("  split: 100.0", "  split: fast", ":16:3: modules.split: input should be a valid number"),
        ("seconds: 0.0", "seconds: .nan", ":8:1: seconds:"),
        ("hz: 1000000000.0\n", "", ":1:1: hz: field required"),
        ("    0: 300\n    1: 100", "    0: 300\n    7: 100", ":26:5: 'split' has no connected"),
        ("digest: d1", "digest: d1\nunknown: 1", ":5:1: unknown: extra inputs"),
        ("digest: d1", "digest: [d1", ":"),
    ],
)
def test_wrong_profiles(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert refusal(path, fork()).startswith(message)


def test_files_that_are_no_profiles(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    assert refusal(path, fork()) == (
        ": No such file or directory; run `alpine profile`, or assume costs (--even)"
    )
    path.write_text("- 1\n")
    assert refusal(path, fork()) == ":1:1: expected a mapping, as `alpine profile` writes it"
    path.write_bytes(b"\xff")
    assert "not UTF-8" in refusal(path, fork())


def test_a_profile_of_the_same_modules_in_another_pipeline(tmp_path: Path) -> None:
    other = replace(fork(), digest="d9", path="other.alpine")
    assert "than other.alpine builds now" in refusal(written(tmp_path), other)


def test_costs_add_up_to_what_tasks_use_unprofiled() -> None:
    plain = Growth({}, {}, {"in": TaskUse(1.0, 10, 50_000, 1000)}, {})
    uses = {
        "in": ModuleUse(0, 0, 1000, 10_000, 0, 0),
        "a": ModuleUse(1000, 20_000, overhead_cycles=3000),
        "b": ModuleUse(500, 5000, overhead_cycles=2000),
    }
    costs = adjusted(Growth({}, {}, {}, uses), plain)
    # 15,000 of 50,000 cycles were taken for overhead that was none: 3 for each one so taken.
    assert costs == pytest.approx({"in": 10.0, "a": 29.0, "b": 22.0})
    assert costs["in"] * 1000 + costs["a"] * 1000 + costs["b"] * 500 == pytest.approx(50_000)


def test_costs_stay_as_they_are_where_inputs_ran_idle() -> None:
    plain = Growth({}, {}, {"in": TaskUse(1.0, 10, 50_000, 1000)}, {})
    uses = {
        "in": ModuleUse(0, 0, 1000, 10_000, 9000, 0),
        "a": ModuleUse(1000, 20_000, overhead_cycles=3000),
    }
    assert adjusted(Growth({}, {}, {}, uses), plain) == {"in": 10.0, "a": 20.0}
