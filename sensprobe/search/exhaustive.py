"""Every assignment there is, for spaces small enough; the yardstick of the other methods."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sensprobe.errors import UsageError
from sensprobe.search.problem import Assignment, Problem
from sensprobe.units import duration


def every_assignment(problem: Problem) -> Iterator[Assignment]:
    """All assignments in lexicographic order; the last decision changes fastest."""
    return product(*(range(len(decision.options)) for decision in problem.decisions))


def check_count(problem: Problem, allowed: float, *, seconds_each: float | None = None) -> None:
    """UsageError where plans outnumber the evaluations allowed; says how long all would take."""
    if problem.count <= allowed:
        return
    took = "" if seconds_each is None else f" (about {duration(problem.count * seconds_each)})"
    raise UsageError(
        f"there are {problem.count:,} plans{took} and {allowed:g} evaluations are allowed. "
        f"Allow {problem.count}, tie or freeze sites, or search with `gains`."
    )
