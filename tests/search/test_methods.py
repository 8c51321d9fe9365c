"""Every method of the search on a made-up classifier whose plans can all be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from search_problems import classifier, every

from sensprobe.errors import BudgetError, UsageError
from sensprobe.scores.pareto import hypervolume
from sensprobe.search import Assignment, Budget, Evaluate, Problem, Sample, SearchResult, search

METHODS = ("gains", "direct", "frontier")
SPENT = 16
PROBLEM, EVALUATE, BASELINE = classifier()
UNIFORM = {f"int{b}": (k,) * len(PROBLEM.decisions) for k, b in enumerate((3, 4, 6, 8))}
MIDDLE = (PROBLEM.smallest().total + PROBLEM.largest().total) // 2


def accuracy(assignment: Assignment) -> float:
    return float(
        Sample.join([EVALUATE([assignment], k)[0] for k in range(len(BASELINE))]).score.mean()
    )


def run(method: str, *budgets: Budget, **options: Any) -> SearchResult:
    given = {"evaluations": SPENT, "uniform": UNIFORM, "chance": 0.1} | options
    evaluate = given.pop("evaluate", EVALUATE)
    return search(PROBLEM, budgets, evaluate, baseline=BASELINE, method=method, **given)  # type: ignore[arg-type]


def counted(calls: Counter[tuple[Assignment, int]]) -> Evaluate:
    def evaluate(assignments: Sequence[Assignment], piece: int) -> Sequence[Sample]:
        calls.update((assignment, piece) for assignment in assignments)
        return EVALUATE(assignments, piece)

    return evaluate


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budgets", [(), (Budget(total=MIDDLE),), (Budget(max_loss=0.02),)])
def test_it_pays_for_what_it_uses_and_asks_nothing_twice(
    method: str, budgets: tuple[Budget, ...]
) -> None:
    calls: Counter[tuple[Assignment, int]] = Counter()
    found = run(method, *budgets, evaluate=counted(calls))
    samples = sum(BASELINE[piece].n for _, piece in calls)
    assert max(calls.values()) == 1
    assert found.spent == pytest.approx(samples / sum(piece.n for piece in BASELINE))
    assert found.spent <= SPENT + sum(budget.limits_bytes for budget in budgets)
    assert {c.assignment for c in found.candidates} == {assignment for assignment, _ in calls}


@pytest.mark.parametrize("method", METHODS)
def test_the_choice_fits_and_is_the_best_of_what_was_seen(method: str) -> None:
    budgets = [Budget(total=MIDDLE), Budget(total=MIDDLE * 3 // 4), Budget(max_loss=0.05)]
    found = run(method, *budgets)
    finished = [c for c in found.candidates if not c.stopped]
    for choice in found.choices[:2]:
        fits = [c for c in finished if choice.budget.admits(c.size)]
        plain = [c for c in fits if c.assignment in UNIFORM.values()]
        assert choice.candidate is not None
        assert choice.candidate.score == max(c.score for c in fits)
        assert choice.candidate.score == accuracy(choice.candidate.assignment)
        assert choice.uniform is not None
        assert choice.uniform.score == max(c.score for c in plain)
    light = found.choices[2].candidate
    base = np.mean(np.concatenate([piece.score for piece in BASELINE]))
    kept = [c.size.total for c in finished if 100 * (base - accuracy(c.assignment)) <= 5.0 + 1e-9]
    assert light is not None
    assert light.size.total == min(kept)


def test_exhaustive_evaluates_all_and_its_front_is_the_true_one() -> None:
    found = run("exhaustive", evaluations=PROBLEM.count)
    assert sorted(c.assignment for c in found.candidates) == every(PROBLEM)
    scores = [accuracy(a) for a in every(PROBLEM)]
    sizes = [PROBLEM.size(a).total for a in every(PROBLEM)]
    for candidate in found.front:
        better = np.array(scores) >= candidate.score
        assert min(np.array(sizes)[better]) == candidate.size.total


def test_exhaustive_refuses_more_plans_than_allowed() -> None:
    with pytest.raises(UsageError, match=r"1,024 plans.*100 evaluations are allowed.*`gains`"):
        run("exhaustive", evaluations=100)


@pytest.mark.thorough
def test_gains_nears_the_true_front_where_direct_is_further() -> None:
    reference = {"reference_bytes": PROBLEM.largest().total, "reference_score": 0.1}
    sizes = [PROBLEM.size(a).total for a in every(PROBLEM)]
    truth = hypervolume(sizes, [accuracy(a) for a in every(PROBLEM)], **reference)

    def share(method: str, seed: int) -> float:
        front = run(method, seed=seed, evaluations=40).front
        return (
            hypervolume([c.size.total for c in front], [c.score for c in front], **reference)
            / truth
        )

    gains, direct = ([share(method, seed) for seed in range(2)] for method in ("gains", "direct"))
    assert min(gains) > 0.99
    assert np.median(direct) < np.median(gains)


@pytest.mark.parametrize(
    ("method", "known"),
    [pytest.param("gains", 20, marks=pytest.mark.thorough), ("direct", 20), ("frontier", 13)],
)
def test_a_search_stopped_and_run_again_ends_where_one_run_does(
    method: str, known: int, tmp_path: Path
) -> None:
    whole = run(method, Budget(total=MIDDLE))
    cache: dict[tuple[Assignment, int], Sample] = {}

    def killed(assignments: Sequence[Assignment], piece: int) -> list[Sample]:
        for assignment in assignments:
            if (assignment, piece) not in cache:
                if len(cache) == known:
                    raise KeyboardInterrupt
                cache[assignment, piece] = EVALUATE([assignment], piece)[0]
        return [cache[assignment, piece] for assignment in assignments]

    storage = tmp_path / "optuna.db"
    first = run(method, Budget(total=MIDDLE), evaluate=killed, storage=storage)
    assert first.interrupted
    assert 0 < len(first.candidates) < len(whole.candidates)
    again = run(method, Budget(total=MIDDLE), storage=storage)
    assert [c.assignment for c in again.candidates] == [c.assignment for c in whole.candidates]


@pytest.mark.parametrize("method", ["gains", "direct"])
def test_the_storage_holds_each_evaluated_plan_once_however_often_it_runs(
    method: str, tmp_path: Path
) -> None:
    storage = tmp_path / "optuna.db"
    for _ in range(2):
        found = run(method, storage=storage)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{storage}")
    kept = [tuple(trial.user_attrs["assignment"]) for trial in study.trials]
    searched = [c.assignment for c in found.candidates if c.assignment not in UNIFORM.values()]
    assert kept == searched


def test_gains_samples_its_multipliers_jointly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trial without parameters in the study would make TPE treat each on its own for good."""
    alone: list[str] = []
    original = TPESampler.sample_independent

    def spy(self: TPESampler, study: Any, trial: Any, name: str, range_: Any) -> Any:
        alone.append(name)
        return original(self, study, trial, name, range_)

    monkeypatch.setattr(TPESampler, "sample_independent", spy)
    found = run("gains", evaluations=24)
    assert any(c.name.startswith("swap") for c in found.candidates)
    assert alone == []  # the openers are given, and they are enough to start from


def test_seeds_differ_and_repeat() -> None:
    one, again, other = (run("direct", seed=seed) for seed in (0, 0, 1))
    assert [c.assignment for c in one.candidates] == [c.assignment for c in again.candidates]
    assert [c.assignment for c in one.candidates] != [c.assignment for c in other.candidates]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(total=PROBLEM.smallest().total - 1), "the smallest one takes"),
        (Budget(total=PROBLEM.largest().total), "every plan fits"),
    ],
)
def test_a_budget_out_of_reach_is_told_before_anything_is_evaluated(
    budget: Budget, message: str
) -> None:
    calls: Counter[tuple[Assignment, int]] = Counter()
    with pytest.raises(BudgetError, match=message):
        run("gains", budget, evaluate=counted(calls))
    assert not calls


def test_unknown_methods_and_samplers_name_what_exists() -> None:
    with pytest.raises(UsageError, match="no method 'annealing'; there are gains, direct"):
        run("annealing")
    with pytest.raises(UsageError, match="no sampler 'cma'; there are tpe, nsga2, random"):
        run("direct", sampler="cma")


def test_an_empty_problem_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to search"):
        Problem(())
