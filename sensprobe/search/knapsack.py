"""Exact answers between the hull's corners: a multiple-choice knapsack, solved by HiGHS.

One binary variable an option, one choice a decision, one row a budget; a pair is linearised with
one variable of its own. The solver works in floats with tolerances (1e-6 on an integer), bytes are
exact integers: a solution that breaks a limit by rounding is cut off and the problem solved again.
A second solve breaks ties toward fewer bytes. Losses are scaled so that the solver's absolute
tolerances mean a relative 1e-12 of the range.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import gcd
from tempfile import TemporaryFile
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from sensprobe.errors import BudgetError, SensprobeError
from sensprobe.search.frontier import scaled_losses
from sensprobe.search.problem import Array, Assignment, Budget, Problem, Size

_SCALE = 1e6  # the losses' range in the solver's units
_TIE = 1e-9  # losses closer than this part of the range are one loss
_CUTS = 50
_STDOUT = Lock()  # the process has one
_SOLVER_SAYS = b"HighsMipSolverData::"
_C = ctypes.CDLL(None if os.name == "posix" else "ucrtbase")

Row = tuple[csr_array, float, float]  # coefficients, lower, upper


def check_budget(problem: Problem, budget: Budget) -> None:
    """BudgetError where no plan fits, or where every plan does."""
    small, large = problem.smallest(), problem.largest()
    limits = [
        ("total", budget.total, *_total_range(problem)),
        ("weight", budget.weight, small.weight, large.weight),
        ("state", budget.state, small.state, large.state),
    ]
    given = [(name, limit, low, high) for name, limit, low, high in limits if limit is not None]
    for name, limit, low, _ in given:
        if limit < low:
            raise BudgetError(
                f"no plan fits {limit} {name} bytes{_asked(budget)}: the smallest one takes {low}. "
                f"Ask for at least {low}, or allow narrower schemes."
            )
    if given and all(limit >= high for _, limit, _, high in given):
        named = " and ".join(f"{limit} {name} bytes" for name, limit, _, _ in given)
        most = " and ".join(f"{high} {name} bytes" for name, _, _, high in given)
        raise BudgetError(
            f"nothing to search: every plan fits {named}{_asked(budget)}; the largest takes "
            f"{most}. "
            "Ask for less, or run the model as it is."
        )


def _asked(budget: Budget) -> str:
    return f" (asked for as {budget.label})" if budget.label else ""


def solve(problem: Problem, budget: Budget, *, gains: Sequence[float] | None = None) -> Assignment:
    """The assignment of least predicted loss whose bytes fit, then of fewest bytes.

    `gains` multiplies each decision's losses; a pair's extra takes the geometric mean of its two.
    BudgetError as `check_budget`, or where the limits cannot be met together.
    """
    check_budget(problem, budget)
    model = _Model(problem, gains)
    best = model.minimise(model.loss, budget, [])
    if best is None:
        raise BudgetError(
            f"no plan meets {budget} together, though each limit alone can be met. "
            "Raise one of them."
        )
    cap: Row = (csr_array(model.loss[None]), -np.inf, float(model.value(best) + _TIE * _SCALE))
    light = model.minimise(model.total, budget, [cap])
    return best if light is None else light


def lightest(
    problem: Problem, max_loss: float, *, gains: Sequence[float] | None = None
) -> Assignment:
    """The assignment of fewest total bytes whose predicted loss (nats) is at most `max_loss`."""
    model = _Model(problem, gains)
    least = model.minimise(model.loss, Budget(), [])
    cap = (max_loss - model.offset) * model.scale
    if least is None or model.value(least) > cap + _TIE * _SCALE:
        low = np.nan if least is None else model.value(least) / model.scale + model.offset
        raise BudgetError(
            f"no plan loses as little as {max_loss:g} nats by prediction: the best loses {low:.3g}."
        )
    row: Row = (csr_array(model.loss[None]), -np.inf, float(cap + _TIE * _SCALE))
    light = model.minimise(model.total, Budget(), [row])
    return least if light is None else light


class _Model:
    """The problem as arrays over variables: options in order, then one variable a pair."""

    def __init__(self, problem: Problem, gains: Sequence[float] | None) -> None:
        self.problem = problem
        self.counts = [len(decision.options) for decision in problem.decisions]
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.options = [o for decision in problem.decisions for o in decision.options]
        self.pairs = _merged(problem, gains)
        self.width = len(self.options) + len(self.pairs)
        losses = scaled_losses(problem, gains)
        self.offset = sum(float(row.min()) for row in losses)
        alone = np.concatenate([row - row.min() for row in losses])
        extra = np.array(list(self.pairs.values()))
        span = sum(float(row.max() - row.min()) for row in losses) + float(np.abs(extra).sum())
        self.scale = _SCALE / span if span > 0 else 1.0
        self.loss = np.concatenate([alone, extra]) * self.scale
        self.total = self._padded([o.total_bytes for o in self.options]).astype(float)
        self.rows = self._structure()

    def value(self, assignment: Assignment) -> float:
        """Scaled loss above the offset."""
        alone = sum(self.loss[self.starts[d] + o] for d, o in enumerate(assignment))
        met = [a in enumerate(assignment) and b in enumerate(assignment) for a, b in self.pairs]
        return float(alone + self.loss[len(self.options) :][np.array(met, bool)].sum())

    def minimise(self, cost: Array, budget: Budget, rows: list[Row]) -> Assignment | None:
        """The cheapest assignment within the budget, or None. Bytes are checked exactly."""
        rows = self.rows + rows + self._limits(budget)
        highest = float(np.abs(cost).max())
        for _ in range(_CUTS):
            found = self._milp(cost * (_SCALE / highest if highest > 0 else 1.0), rows)
            if found is None or budget.admits(self.problem.size(found)):
                return found
            here = [int(self.starts[d]) + o for d, o in enumerate(found)]
            rows.append(self._row(here, [1.0] * len(here), -np.inf, len(here) - 1))
        raise SensprobeError(f"the solver found no exact answer for {budget}; report the problem.")

    def _milp(self, cost: Array, rows: list[Row]) -> Assignment | None:
        matrix = vstack([row[0] for row in rows], format="csr")
        limits = LinearConstraint(matrix, [row[1] for row in rows], [row[2] for row in rows])
        whole = np.zeros(self.width, dtype=np.int64)
        whole[: len(self.options)] = 1
        with _hushed():
            result = milp(
                cost,
                integrality=whole,
                bounds=Bounds(0, 1),
                constraints=limits,
                options={"mip_rel_gap": 0.0},
            )
        if result.x is None:
            return None
        parts = np.split(result.x[: len(self.options)], self.starts[1:-1])
        return tuple(int(np.argmax(part)) for part in parts)

    def _structure(self) -> list[Row]:
        """One choice a decision; a pair's variable is 1 exactly where both its options are."""
        rows = [
            self._row(range(self.starts[d], self.starts[d + 1]), [1.0] * n, 1, 1)
            for d, n in enumerate(self.counts)
        ]
        for k, ((i, a), (j, b)) in enumerate(self.pairs):
            one, other = int(self.starts[i]) + a, int(self.starts[j]) + b
            joint = len(self.options) + k
            if self.loss[joint] > 0:
                rows.append(self._row([one, other, joint], [1, 1, -1], -np.inf, 1))
            else:
                rows.append(self._row([one, joint], [-1, 1], -np.inf, 0))
                rows.append(self._row([other, joint], [-1, 1], -np.inf, 0))
        return rows

    def _limits(self, budget: Budget) -> list[Row]:
        fixed = Size(self.problem.fixed_weight_bytes, self.problem.fixed_state_bytes)
        axes = (
            (budget.total, fixed.total, [o.total_bytes for o in self.options]),
            (budget.weight, fixed.weight, [o.weight_bytes for o in self.options]),
            (budget.state, fixed.state, [o.state_bytes for o in self.options]),
        )
        return [
            self._limit(limit - base, sizes) for limit, base, sizes in axes if limit is not None
        ]

    def _limit(self, room: int, sizes: list[int]) -> Row:
        """A byte row above each decision's least, in its largest common unit, half a unit loose."""
        parts = np.split(np.array(sizes, dtype=np.int64), self.starts[1:-1])
        above = np.concatenate([part - part.min() for part in parts])
        left = room - int(sum(part.min() for part in parts))
        unit = gcd(*above.tolist()) or 1
        return csr_array(self._padded(above // unit)[None]), -np.inf, left // unit + 0.5

    def _padded(self, values: Sequence[int] | NDArray[np.int64]) -> Array:
        return np.concatenate([np.asarray(values, float), np.zeros(len(self.pairs))])

    def _row(
        self, columns: Sequence[int] | range, values: Sequence[float], low: float, high: float
    ) -> Row:
        at = (np.zeros(len(values), int), list(columns))
        return csr_array((np.asarray(values, float), at), shape=(1, self.width)), low, high


@contextmanager
def _hushed() -> Iterator[None]:
    """Drops the debug line HiGHS prints from C on one solve in some hundreds; no option stops it.

    Stdout belongs to the process: what others write there meanwhile is passed on afterwards.
    """
    with _STDOUT, TemporaryFile() as caught:
        _C.fflush(None)
        kept = os.dup(1)
        os.dup2(caught.fileno(), 1)
        try:
            yield
        finally:
            _C.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
            caught.seek(0)
            others = b"".join(line for line in caught if not line.startswith(_SOLVER_SAYS))
            while others:
                others = others[os.write(1, others) :]


def _merged(
    problem: Problem, gains: Sequence[float] | None
) -> dict[tuple[tuple[int, int], tuple[int, int]], float]:
    """Pairs by their two (decision, option) ends, extras added up and scaled."""
    merged: dict[tuple[tuple[int, int], tuple[int, int]], float] = {}
    for pair in problem.pairs:
        first, last = sorted([(pair.i, pair.a), (pair.j, pair.b)])
        factor = 1.0 if gains is None else float(np.sqrt(gains[pair.i] * gains[pair.j]))
        merged[first, last] = merged.get((first, last), 0.0) + factor * pair.extra
    return {ends: extra for ends, extra in merged.items() if extra != 0}


def _total_range(problem: Problem) -> tuple[int, int]:
    """Fewest and most total bytes: one option may hold less weight and more state than another."""
    fixed = problem.fixed_weight_bytes + problem.fixed_state_bytes
    rows = [[option.total_bytes for option in d.options] for d in problem.decisions]
    return fixed + sum(min(row) for row in rows), fixed + sum(max(row) for row in rows)
