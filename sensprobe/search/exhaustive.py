"""Every assignment there is, for spaces small enough; the yardstick of the other methods."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sensprobe.errors import UsageError
from sensprobe.search.problem import Assignment, Problem


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


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
