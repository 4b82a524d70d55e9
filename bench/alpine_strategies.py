# SPDX-License-Identifier: BSD-3-Clause
"""The four strategies of section 5.5.2: where queues stand; weights are Alpine's in all of them.

run-to-completion has no queue; with two workers it has an input for each. manual has a queue for
each class behind a classifier in front of the pipeline, semi-manual one at each branch.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from alpine.emit import emit, names_in_use
from alpine.errors import InfeasibleError
from alpine.graph import Forest, build_forest
from alpine.objectives import Kind, Member, Policy
from alpine.plan import Plan
from alpine.planning import Target, plan
from alpine.profile import Profile
from alpine.program import Program
from alpine.schedule import Problem, Schedule
from alpine.solve import solve
from alpine_pipelines import CLASSIFIER, Pipeline, without_schedule

__all__ = ["STRATEGIES", "Setup", "objective", "pipeline_cost", "set_up"]

STRATEGIES = ("run-to-completion", "manual", "semi-manual", "alpine")
RTC, MANUAL, SEMI, ALPINE = STRATEGIES


@dataclass(frozen=True)
class Setup:
    """A strategy on a pipeline, ready to be loaded: its script, and what is expected of it."""

    strategy: str
    program: Program
    schedule: Schedule
    plan: Plan
    text: str


def objective(count: int, kind: Kind, seed: int) -> Policy:
    """Random ratios for as many classes (from 0.3 to 1)."""
    numbers = random.Random(seed)
    members = tuple(Member(numbers.uniform(0.3, 1.0), path) for path in range(count))
    return Policy("time", kind, members)


def set_up(
    strategy: str,
    pipeline: Pipeline,
    profile: Profile,
    classifier_cost: float,
    policy: Policy,
    target: Target,
    workers: int = 1,
) -> Setup:
    """``classifier_cost``: cycles per packet of the manual strategy's classifier."""
    base = pipeline.program
    rates = profile.rates(base)
    costs = profile.costs()
    costs = replace(costs, module={**costs.module, CLASSIFIER: classifier_cost})
    program = pipeline.manual if strategy == MANUAL else base
    program = replace(program, objective=policy, workers=workers)
    problem = Problem(build_forest(program.graph, program.paths), rates, costs, policy, workers)
    if strategy == RTC:
        return _to_completion(program, problem)
    cuts = None
    if strategy == MANUAL:
        cuts = _behind_classifier(problem.forest)
    elif strategy == SEMI:
        cuts = problem.forest.branches
    schedule = solve(problem, fixed_cuts=cuts)
    made = plan(schedule, target=target, names=names_in_use(program))
    return Setup(strategy, program, schedule, made, emit(program, made))


def _to_completion(program: Program, problem: Problem) -> Setup:
    workers, alone = problem.workers, replace(problem, workers=1)
    try:
        schedule = solve(alone, fixed_cuts=frozenset())
    except InfeasibleError as error:
        schedule = error.closest
    text = without_schedule(program)
    if workers > 1:
        (first,) = program.graph.inputs()
        (edge,) = program.graph.out_edges(first)
        for worker in range(workers):
            name = f"arrive{worker}" if worker else first
            if worker:
                text += f"{name}::Source(pkt_size=60)\n{name} -> {edge.target}\n"
            text += f"bess.add_worker({worker}, {worker})\n{name}.attach_task(wid={worker})\n"
    return Setup(RTC, program, schedule, plan(schedule), text)


def _behind_classifier(forest: Forest) -> frozenset[int]:
    return frozenset(
        node.index
        for node in forest.nodes
        if node.parent >= 0 and forest.nodes[node.parent].module == CLASSIFIER
    )


def pipeline_cost(problem: Problem) -> float:
    """Cycles per packet offered, without queues and classifier; the traffic's own are in it."""
    nodes = problem.forest.nodes
    whole = sum(problem.rates)
    return sum(
        problem.costs.module[node.module] * sum(problem.rates[c] for c in node.classes) / whole
        for node in nodes
        if node.module != CLASSIFIER
    )
