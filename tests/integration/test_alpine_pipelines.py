# SPDX-License-Identifier: BSD-3-Clause
"""The pipelines of Alpine's evaluation do what they are said to, and so do their classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alpine.emit import emit
from alpine.objectives import Kind
from alpine.plan import Plan
from alpine.profile import even_profile
from alpine.program import Program
from alpine.sample import read_sample
from alpine.verify import verify
from alpine_pipelines import CLASSIFIER, PIPELINES, Pipeline, example, fork, tree
from alpine_strategies import STRATEGIES, objective, set_up
from bess_plugins.client import Client
from bess_plugins.script.api import Bess
from bess_plugins.script.runner import execute
from harness import wait_until

RTC = STRATEGIES[0]
Maker = Callable[[Path], Pipeline]
MAKERS: dict[str, Maker] = {
    "router": lambda folder: example("router", folder),
    "filter": lambda folder: example("filter", folder),
    "proxy": lambda folder: example("proxy", folder),
    "fork": lambda folder: fork(10, folder),
    "tree": lambda folder: tree(4, 10, folder),
}


@pytest.fixture(params=MAKERS)
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
    return MAKERS[request.param](tmp_path)


def counts(client: Client, program: Program) -> dict[tuple[str, int], int]:
    """Packets at each output gate, after every class has got some; nothing is on the way."""
    nothing = Plan((), (), polling=False)
    execute(program.path, emit(program, nothing), Bess(client), {}, {})
    last = [path.edges[-1].key for path in program.paths]

    def counted() -> dict[tuple[str, int], int]:
        sample = read_sample(client, [*program.graph.modules])
        return {key: count for key, (count, _) in sample.edges.items()}

    wait_until(lambda: min(counted()[key] for key in last) > 5000)
    client.pause()
    return counted()


def test_the_three_pipelines_are_all_there() -> None:
    assert set(PIPELINES) <= set(MAKERS)


def test_every_class_brings_as_many_packets_and_none_is_lost(
    pipeline: Pipeline, client: Client
) -> None:
    program = pipeline.program
    found = counts(client, program)
    exits = [found[path.edges[-1].key] for path in program.paths]
    (first,) = {path.edges[0].key for path in program.paths}
    assert sum(exits) == found[first]
    assert max(exits) < 1.1 * min(exits)


def test_the_classifier_knows_what_the_pipeline_will_do(pipeline: Pipeline, client: Client) -> None:
    program = pipeline.manual
    found = counts(client, program)
    exits = [found[path.edges[-1].key] for path in program.paths]
    assert [found[CLASSIFIER, gate] for gate in range(len(exits))] == exits


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_strategy_with_queues_keeps_the_ratios(
    pipeline: Pipeline, strategy: str, seed: int
) -> None:
    profile = even_profile(pipeline.program)
    policy = objective(len(pipeline.program.paths), Kind.CPU_TIME, seed)
    setup = set_up(strategy, pipeline, profile, 150.0, policy, "any")
    problem = setup.schedule.problem
    verdict = verify(setup.program, setup.text, problem.costs, problem.rates)
    assert verdict.worst < 0.01


def test_run_to_completion_does_not(pipeline: Pipeline) -> None:
    profile = even_profile(pipeline.program)
    policy = objective(len(pipeline.program.paths), Kind.CPU_TIME, 1)
    setup = set_up(RTC, pipeline, profile, 150.0, policy, "any")
    assert len(setup.schedule.tasks) == 1 and "Queue" not in setup.text
    assert sum(setup.schedule.time) == pytest.approx(1)
