"""The solver against every assignment there is."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import milp
from search_problems import every, random_problem

from sensprobe.errors import BudgetError
from sensprobe.search import knapsack
from sensprobe.search.knapsack import check_budget, lightest, solve
from sensprobe.search.problem import Budget, Decision, Option, Problem

limits = st.one_of(st.none(), st.integers(60, 260))


def best_of(problem: Problem, budget: Budget) -> tuple[float, int] | None:
    """Least loss, then fewest bytes, by looking at all."""
    fits = [a for a in every(problem) if budget.admits(problem.size(a))]
    if not fits:
        return None
    least = min(problem.loss(a) for a in fits)
    ties = [problem.size(a).total for a in fits if problem.loss(a) <= least + 1e-9]
    return least, min(ties)


def budget_of_one(budget: Budget, axis: int) -> Budget:
    limits = [budget.total, budget.weight, budget.state]
    return Budget(*(limit if k == axis else None for k, limit in enumerate(limits)))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4), limits, limits, limits)
def test_solve_is_the_best_of_all(
    seed: int, pairs: int, total: int | None, weight: int | None, state: int | None
) -> None:
    problem = random_problem(seed, pairs=pairs)
    budget = Budget(total, weight, state)
    wanted = best_of(problem, budget)
    asked = [limit is not None for limit in (total, weight, state)]
    roomy = any(asked) and all(
        budget_of_one(budget, axis).admits(problem.size(a))
        for axis in range(3)
        for a in every(problem)
    )
    if wanted is None or roomy:
        with pytest.raises(BudgetError, match="nothing to search" if roomy else "no plan"):
            solve(problem, budget)
        return
    got = solve(problem, budget)
    assert problem.loss(got) == pytest.approx(wanted[0], abs=1e-9)
    assert problem.size(got).total == wanted[1]
    assert budget.admits(problem.size(got))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.floats(0.5, 8.0))
def test_lightest_is_the_fewest_bytes_of_all(seed: int, pairs: int, limit: float) -> None:
    problem = random_problem(seed, pairs=pairs)
    fits = [problem.size(a).total for a in every(problem) if problem.loss(a) <= limit + 1e-9]
    if not fits:
        with pytest.raises(BudgetError, match="by prediction"):
            lightest(problem, limit)
        return
    got = lightest(problem, limit)
    assert problem.size(got).total == min(fits)
    assert problem.loss(got) <= limit + 1e-6


def test_gains_change_the_answer_as_scaled_losses_would() -> None:
    problem = random_problem(3)
    factors = [0.1, 7.0, 1.0, 3.0]
    budget = Budget(total=140)
    by_hand = {
        a: sum(f * o.loss for f, o in zip(factors, problem.chosen(a), strict=True))
        for a in every(problem)
        if budget.admits(problem.size(a))
    }
    got = solve(problem, budget, gains=factors)
    assert by_hand[got] == pytest.approx(min(by_hand.values()))
    assert by_hand[solve(problem, budget)] > by_hand[got]


def test_large_odd_byte_counts_stay_within_the_budget_to_the_byte() -> None:
    rng = np.random.default_rng(0)
    rows = tuple(
        Decision(
            f"d{d}",
            "p",
            0.0,
            tuple(
                Option(f"s{k}", int(rng.integers(1, 2**33)) | 1, 0, float(rng.random()))
                for k in range(4)
            ),
        )
        for d in range(6)
    )
    problem = Problem(rows)
    sizes = sorted(problem.size(a).total for a in every(problem))
    for limit in sizes[len(sizes) // 4 :: 700]:
        got = solve(problem, Budget(total=limit))
        best = best_of(problem, Budget(total=limit))
        assert problem.size(got).total <= limit
        assert best is not None
        assert problem.loss(got) == pytest.approx(best[0], abs=1e-9)


def test_an_infinite_loss_is_avoided_where_it_can_be() -> None:
    problem = Problem(
        (
            Decision("a", "A", 0.0, (Option("int2", 1, 0, np.inf), Option("int8", 4, 0, 0.1))),
            Decision("b", "B", 0.0, (Option("int2", 1, 0, 0.5), Option("int8", 4, 0, 0.1))),
        )
    )
    assert solve(problem, Budget(total=5)) == (1, 0)


def test_too_small_a_budget_says_the_smallest_plan() -> None:
    problem = random_problem(0)
    least = min(problem.size(a).total for a in every(problem))
    with pytest.raises(BudgetError, match=f"no plan fits {least - 1} total bytes.*takes {least}"):
        solve(problem, Budget(total=least - 1))
    check_budget(problem, Budget(total=least))


def test_a_budget_every_plan_meets_says_so() -> None:
    problem = random_problem(0)
    most = max(problem.size(a).total for a in every(problem))
    with pytest.raises(BudgetError, match=f"nothing to search.*largest takes {most} total bytes"):
        solve(problem, Budget(total=most))
    check_budget(problem, Budget(total=most - 1))


def test_limits_that_clash_are_named_together() -> None:
    options = (Option("a", 10, 0, 0.0), Option("b", 0, 10, 1.0))
    problem = Problem((Decision("d", "A", 0.0, options),))
    with pytest.raises(BudgetError, match="no plan meets 5 weight bytes, 5 state bytes together"):
        solve(problem, Budget(weight=5, state=5))


SOLVER_LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();"


def test_what_the_solver_prints_from_c_is_dropped_and_nothing_else_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chatty(*args: object, **options: object) -> object:
        ctypes.CDLL(None).puts(SOLVER_LINE)
        os.write(1, b"a line of another thread\n")
        return milp(*args, **options)

    monkeypatch.setattr(knapsack, "milp", chatty)
    solve(random_problem(0), Budget(total=250))
    out, err = capfd.readouterr()
    assert set(out.splitlines()) == {"a line of another thread"}
    assert err == ""


def test_stdout_is_given_back_when_the_solver_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object, **options: object) -> object:
        ctypes.CDLL(None).puts(SOLVER_LINE)
        raise KeyboardInterrupt

    monkeypatch.setattr(knapsack, "milp", failing)
    with pytest.raises(KeyboardInterrupt):
        solve(random_problem(0), Budget(total=250))
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")
