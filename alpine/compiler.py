# SPDX-License-Identifier: BSD-3-Clause
"""From a program and its profile to a script that was verified: what all commands do alike."""

from __future__ import annotations

from dataclasses import dataclass

from alpine.emit import emit, names_in_use
from alpine.errors import AlpineError, InfeasibleError
from alpine.graph import build_forest
from alpine.plan import Plan
from alpine.planning import Target, plan
from alpine.profile import Profile
from alpine.program import Program
from alpine.schedule import Problem, Schedule
from alpine.solve import solve
from alpine.verify import TOLERANCE, Verdict, verify

__all__ = ["Compiled", "compile_program", "make_problem"]

_ANYTHING = 2.0  # no error is larger: parts of a whole can't differ more in sum


@dataclass(frozen=True)
class Compiled:
    """A schedule, the script that makes it, and what the verifier found in that."""

    schedule: Schedule
    plan: Plan
    text: str
    verdict: Verdict


def make_problem(program: Program, profile: Profile) -> Problem:
    """What is to be solved for a script."""
    if program.objective is None:
        raise AlpineError(
            f"{program.path}: there is no objective; state one with alpine.add_policy and "
            "alpine.attach_tc"
        )
    forest = build_forest(program.graph, program.paths)
    rates, costs = profile.rates(program), profile.costs()
    return Problem(forest, rates, costs, program.objective, program.workers)


def compile_program(
    program: Program,
    profile: Profile,
    *,
    solver: str = "auto",
    time_limit_s: float = 60.0,
    tolerance: float = TOLERANCE,
    target: Target = "any",
    use_closest: bool = False,
) -> Compiled:
    """Solve, write the script, and verify it.

    ``use_closest`` takes the schedule that misses by the least where none fits. Raises
    ``AlpineError``, ``InfeasibleError`` among them.
    """
    problem = make_problem(program, profile)
    try:
        schedule = solve(problem, solver=solver, time_limit_s=time_limit_s)
    except InfeasibleError as error:
        if not use_closest:
            raise
        schedule, tolerance = error.closest, _ANYTHING
    made = plan(schedule, target=target, names=names_in_use(program))
    text = emit(program, made)
    verdict = verify(program, text, problem.costs, problem.rates, tolerance=tolerance)
    return Compiled(schedule, made, text, verdict)
