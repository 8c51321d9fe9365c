"""The course of a search: how its front grew, and what each evaluation took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from sensprobe.errors import RunError
from sensprobe.report.results import Search
from sensprobe.report.values import digits, in_bytes, real
from sensprobe.runs import Run
from sensprobe.scores.pareto import hypervolume


@dataclass(frozen=True, slots=True)
class Course:
    """`volume` is the front's hypervolume after each plan; `reference` says from which point."""

    names: tuple[str, ...]
    volume: tuple[float, ...]
    reference: str


def course(search: Search) -> Course:
    """Plans in the order they were evaluated; those stopped early add nothing.

    The reference point is chance (else the worst score measured) at the bytes of full precision.
    """
    sign = search.quantity.sign
    scores = [sign * c.metric.value for c in search.candidates if isfinite(c.metric.value)]
    floor = sign * search.chance if isfinite(search.chance) else min(scores, default=0.0)
    names, grown = [], []
    front: list[tuple[float, float]] = []  # (bytes, score), and what it covers
    volume = 0.0
    for c in search.candidates:
        point = (c.total_bytes, sign * c.metric.value)
        whole = not c.stopped_early and isfinite(c.metric.value) and c.total_bytes > 0
        if whole and not any(size <= point[0] and score >= point[1] for size, score in front):
            front = [p for p in front if p[0] < point[0] or p[1] > point[1]] + [point]
            volume = hypervolume(
                *zip(*front, strict=True), reference_bytes=search.full_bytes, reference_score=floor
            )
        names.append(c.uniform or c.name)
        grown.append(volume)
    q = search.quantity
    what = f"{q.name} {digits(q.scale * sign * floor, 3)} {q.unit}".rstrip()
    return Course(tuple(names), tuple(grown), f"{what}, {in_bytes(search.full_bytes)}")


def seconds(run: Run) -> list[float]:
    """Seconds that each evaluation of a run took, in the order of writing; evaluations that do not
    say are left out."""
    told = (real(entry.meta.get("seconds")) for entry in run.entries())
    return [value for value in told if isfinite(value)]


@dataclass(frozen=True, slots=True)
class Going:
    """The course of a run's last search, with the seconds of every evaluation of the run and the
    share of the loss's variance that each multiplier of its largest study explains."""

    course: Course
    seconds: tuple[float, ...]
    importance: Mapping[str, float]
    problem: str = ""  # why the storage could not be read


def going(run: Run, search: Search) -> Going:
    """Read it from the search's result, the ledger and Optuna's storage. A storage that cannot be
    read is named in `problem`."""
    from sensprobe.search.history import histories  # Optuna: the dashboard starts without

    try:
        studies, problem = histories(run.optuna_path), ""
    except RunError as error:
        studies, problem = [], str(error)
    importance = studies[0].importance if studies else {}
    return Going(course(search), tuple(seconds(run)), importance, problem)
