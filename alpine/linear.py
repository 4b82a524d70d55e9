# SPDX-License-Identifier: BSD-3-Clause
"""Linear models with integer variables, and the solvers that answer them.

HiGHS is the default: open, and without a limit on size. Gurobi is used where it is asked for,
installed, and its licence admits the model; the one in its wheel stops at 2,000 variables.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alpine.errors import SolverError

__all__ = ["Answer", "Model", "available_solvers", "solve_model"]

INF = math.inf
_EXACT = 1e-9  # relative gap at which an answer counts as optimal
_FEASIBLE = 1e-9  # the least that the solvers accept


@dataclass(frozen=True)
class Answer:
    """Values of the variables, and how far the objective may be from the best, as a part of it."""

    values: np.ndarray[Any, np.dtype[np.float64]]
    objective: float
    gap: float


@dataclass
class Model:
    """Maximise ``cost . x`` where ``low <= rows . x <= high`` within the variables' bounds."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    integer: list[bool] = field(default_factory=list)
    rows: list[tuple[list[int], list[float], float, float]] = field(default_factory=list)

    def variable(
        self, lower: float = 0.0, upper: float = INF, *, cost: float = 0.0, integer: bool = False
    ) -> int:
        """Number of a new variable."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.cost.append(cost)
        self.integer.append(integer)
        return len(self.lower) - 1

    def binary(self, *, cost: float = 0.0) -> int:
        """Number of a new variable that is 0 or 1."""
        return self.variable(0.0, 1.0, cost=cost, integer=True)

    def row(self, terms: Mapping[int, float], low: float = -INF, high: float = INF) -> None:
        """Bound a sum of variables times factors."""
        self.rows.append((list(terms), list(terms.values()), low, high))

    def fix(self, variable: int, value: float) -> None:
        """Leave a variable one value."""
        self.lower[variable] = self.upper[variable] = value


def available_solvers() -> list[str]:
    """Solvers that can be called here."""
    try:
        importlib.import_module("gurobipy")
    except ImportError:
        return ["highs"]
    return ["highs", "gurobi"]


def solve_model(model: Model, solver: str = "highs", time_limit_s: float = 60.0) -> Answer | None:
    """The best answer, or None where there is none. Raises ``SolverError``."""
    if solver == "gurobi":
        return _solve_gurobi(model, time_limit_s)
    return _solve_highs(model, time_limit_s)


def _solve_highs(model: Model, time_limit_s: float) -> Answer | None:
    highspy = _import("highspy", "pip install highspy")
    # The class that Highs derives from: making a Highs prints a banner, where scripts may go.
    highs = highspy._core._Highs()
    for option, value in (
        ("output_flag", False),
        ("time_limit", float(time_limit_s)),
        ("mip_rel_gap", _EXACT),
        ("mip_feasibility_tolerance", _FEASIBLE),
        ("primal_feasibility_tolerance", _FEASIBLE),
        ("threads", 1),
    ):
        highs.setOptionValue(option, value)
    highs.passModel(_highs_lp(highspy, model))
    highs.run()
    status = highs.getModelStatus()
    known = highspy.HighsModelStatus
    if status in (known.kInfeasible, known.kUnboundedOrInfeasible):
        return None
    info = highs.getInfo()
    values = np.array(highs.getSolution().col_value)
    in_time = status != known.kTimeLimit
    if status not in (known.kOptimal, known.kTimeLimit):
        raise SolverError(f"HiGHS stopped with: {highs.modelStatusToString(status)}")
    if not in_time and info.primal_solution_status != 2:  # 2: feasible
        raise SolverError(_too_late("HiGHS", time_limit_s))
    objective = float(np.dot(model.cost, values))
    gap = float(info.mip_gap) if any(model.integer) else 0.0
    return Answer(values, objective, gap if math.isfinite(gap) else 1.0)


def _highs_lp(highspy: Any, model: Model) -> Any:
    lp = highspy.HighsLp()
    lp.num_col_ = len(model.lower)
    lp.num_row_ = len(model.rows)
    lp.col_cost_ = np.array(model.cost)
    lp.col_lower_ = np.array(model.lower)
    lp.col_upper_ = np.array(model.upper)
    lp.row_lower_ = np.array([low for _, _, low, _ in model.rows])
    lp.row_upper_ = np.array([high for _, _, _, high in model.rows])
    lp.sense_ = highspy.ObjSense.kMaximize
    matrix = lp.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    counts = [len(columns) for columns, _, _, _ in model.rows]
    matrix.start_ = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int32)
    matrix.index_ = np.array([c for cols, _, _, _ in model.rows for c in cols], dtype=np.int32)
    matrix.value_ = np.array([v for _, vals, _, _ in model.rows for v in vals], dtype=np.float64)
    if any(model.integer):
        kinds = highspy.HighsVarType
        lp.integrality_ = [kinds.kInteger if i else kinds.kContinuous for i in model.integer]
    return lp


def _solve_gurobi(model: Model, time_limit_s: float) -> Answer | None:
    gp = _import("gurobipy", "pip install 'bess-e2[gurobi]'`, or use `--solver highs")
    try:
        with gp.Env(params={"OutputFlag": 0, "Threads": 1}) as env, gp.Model(env=env) as problem:
            problem.Params.TimeLimit = time_limit_s
            problem.Params.MIPGap = _EXACT
            problem.Params.FeasibilityTol = _FEASIBLE
            problem.Params.IntFeasTol = _FEASIBLE
            kinds = [gp.GRB.BINARY if i else gp.GRB.CONTINUOUS for i in model.integer]
            columns = [
                problem.addVar(lb=low, ub=high, obj=cost, vtype=kind)
                for low, high, cost, kind in zip(
                    model.lower, model.upper, model.cost, kinds, strict=True
                )
            ]
            problem.ModelSense = gp.GRB.MAXIMIZE
            for numbers, factors, low, high in model.rows:
                total = gp.LinExpr(factors, [columns[n] for n in numbers])
                if low == high:
                    problem.addLConstr(total, gp.GRB.EQUAL, low)
                    continue
                if low > -INF:
                    problem.addLConstr(total, gp.GRB.GREATER_EQUAL, low)
                if high < INF:
                    problem.addLConstr(total, gp.GRB.LESS_EQUAL, high)
            problem.optimize()
            if problem.Status in (gp.GRB.INFEASIBLE, gp.GRB.INF_OR_UNBD):
                return None
            if problem.SolCount == 0:
                raise SolverError(_too_late("Gurobi", time_limit_s))
            values = np.array([column.X for column in columns])
            gap = float(problem.MIPGap) if any(model.integer) else 0.0
    except gp.GurobiError as error:
        raise SolverError(f"Gurobi: {error}; --solver highs has no licence or limit") from None
    return Answer(values, float(np.dot(model.cost, values)), gap)


def _import(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SolverError(f"{name} is not installed; `{remedy}`") from None


def _too_late(name: str, time_limit_s: float) -> str:
    return (
        f"{name} found no schedule within {time_limit_s:g} s; allow more with --time-limit; "
        "for a tree on one worker --solver auto is quicker"
    )
