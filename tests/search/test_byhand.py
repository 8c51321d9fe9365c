"""The plan a person makes of a budget: uniform, and the best single upgrade that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from search_problems import classifier, every, random_problem

from sensprobe.search import Assignment, Budget, Sample, Size, search
from sensprobe.search.arena import Arena, Asked
from sensprobe.search.byhand import upgraded


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_best_of_all_that_differ_in_one_decision(seed: int) -> None:
    problem = random_problem(seed, pairs=seed % 3)
    start = (0,) * len(problem.decisions)
    size = problem.size(start)
    budget = Budget(total=size.total + 10, state=size.state + 5)

    def differs(plan: tuple[int, ...]) -> int:
        return sum(a != b for a, b in zip(plan, start, strict=True))

    near = [p for p in every(problem) if differs(p) <= 1 and budget.admits(problem.size(p))]
    least = min(problem.loss(p) for p in near)
    found = upgraded(problem, budget, start)
    if least >= problem.loss(start):
        assert found is None
        return
    assert found is not None
    assert problem.loss(found.assignment) == least
    assert differs(found.assignment) == 1 != (found.assignment[found.decision] == 0)


def test_nothing_that_does_not_fit() -> None:
    problem = random_problem(0)
    start = (0,) * len(problem.decisions)
    size = problem.size(start)
    tight = Budget(weight=size.weight, state=size.state)
    found = upgraded(problem, tight, start)
    assert found is None or problem.size(found.assignment).total <= size.total


@pytest.mark.thorough
def test_a_search_measures_it_in_full_beside_what_it_may_spend() -> None:
    """And what is chosen is no worse."""
    problem, evaluate, baseline = classifier(3)
    plain = {o.scheme: (k,) * 5 for k, o in enumerate(problem.decisions[0].options)}
    low, high = (problem.size(a).total for a in (plain["int4"], plain["int6"]))
    budget = Budget(total=(low + high) // 2)
    for evaluations in (len(plain), 30):
        found = search(
            problem, [budget], evaluate, baseline=baseline, evaluations=evaluations, uniform=plain
        )
        (choice,) = found.choices
        assert choice.uniform is not None
        assert choice.hand is not None
        assert choice.candidate is not None
        assert choice.uniform.size.total < choice.hand.size.total <= budget.total
        assert choice.hand.n == sum(piece.n for piece in baseline)
        assert not choice.hand.stopped
        assert choice.candidate.score >= choice.hand.score
        assert " in int" in choice.hand_about
        assert isinstance(choice.hand.size, Size)
        assert found.spent <= evaluations + 1


def test_a_baseline_that_a_race_dropped_is_measured_to_the_end() -> None:
    problem, evaluate, baseline = classifier(1)
    asked: list[int] = []

    def counted(assignments: Sequence[Assignment], piece: int) -> Sequence[Sample]:
        asked.append(piece)
        return evaluate(assignments, piece)

    arena = Arena(problem, counted, baseline, allowed=9, on_event=lambda event: None)
    best = tuple(len(d.options) - 1 for d in problem.decisions)
    worst = (0,) * len(problem.decisions)
    cheap = replace(problem.size(best), weight=1)
    list(arena.measure([Asked(best, "best")], race=False))
    arena.candidates[best] = replace(arena.candidates[best], size=cheap)
    assert next(arena.measure([Asked(worst, "worst")])).stopped
    before, spent = len(asked), arena.spent
    (whole,) = arena.complete([Asked(worst, "hand")])
    assert not whole.stopped
    assert whole.n == arena.baseline.n
    assert asked[before - 1 :] == list(range(asked[before - 1], len(baseline)))
    assert arena.allowed == pytest.approx(9 + arena.spent - spent)
    assert arena.complete([Asked(worst, "again")])[0] is whole
