"""The plan by hand: what a person makes of a budget without a search, a uniform plan and one
upgrade.

The best uniform plan within a budget is often much smaller than the budget, which flatters whatever
it is compared with. Its best single upgrade, by the sensitivities, that still fits is a baseline of
nearly the same bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from sensprobe.search.problem import Assignment, Budget, Problem


class Upgrade(NamedTuple):
    """A plan, and the one decision in which it differs from the plan it was made from."""

    assignment: Assignment
    decision: int


def upgraded(problem: Problem, budget: Budget, start: Assignment) -> Upgrade | None:
    """The plan of least predicted loss, then of fewest bytes, that differs from `start` in one
    decision and is within the budget; None where none loses less."""
    found = [
        Upgrade((*start[:d], option, *start[d + 1 :]), d)
        for d, decision in enumerate(problem.decisions)
        for option in range(len(decision.options))
    ]
    fits = [u for u in found if budget.admits(problem.size(u.assignment))]

    def merit(upgrade: Upgrade) -> tuple[float, int]:
        return problem.loss(upgrade.assignment), problem.size(upgrade.assignment).total

    best = min(fits, key=merit, default=None)
    if best is None or problem.loss(best.assignment) >= problem.loss(start):
        return None
    return best
