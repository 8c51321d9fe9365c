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

RECENT = 4
"""One over the share of the plans by whose gains it is judged whether going on is worth it."""
WORTH = 0.01
"""Growth of the front's hypervolume by the latest plans from which going on is worth it."""
FEWEST = 12
"""Plans below which nothing is said of that."""


@dataclass(frozen=True, slots=True)
class Course:
    """`volume` is the front's hypervolume after each plan; `reference` says from which point."""

    names: tuple[str, ...]
    volume: tuple[float, ...]
    reference: str

    @property
    def last_gain(self) -> int:
        """The number of the last plan that made the front grow; 0 where none did."""
        return 1 + max((k for k, (a, b) in enumerate(self._steps) if b > a), default=-1)

    @property
    def recent(self) -> int:
        """The number of the latest plans by which going on is judged."""
        return len(self.volume) // RECENT

    @property
    def recent_growth(self) -> float:
        """The share of the last hypervolume that the latest plans brought."""
        return self._growth(len(self.volume) - self.recent)

    @property
    def worth(self) -> bool | None:
        """True if the latest plans gained so much that more may gain again; None where too few
        plans, or none better than the reference, were measured."""
        if len(self.volume) < FEWEST or not self.volume[-1] > 0:
            return None
        return self.recent_growth >= WORTH

    def growth_of(self, plan: int) -> float:
        """The share of the last hypervolume that plan number `plan`, from 1, brought."""
        before, after = self._steps[plan - 1]
        return (after - before) / self.volume[-1]

    def _growth(self, since: int) -> float:
        before = self.volume[since - 1] if since else 0.0
        return (self.volume[-1] - before) / self.volume[-1]

    @property
    def _steps(self) -> list[tuple[float, float]]:
        return list(zip((0.0, *self.volume), self.volume, strict=False))


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


def about_course(found: Course, *, going_on: bool = False) -> list[str]:
    """How many plans there are, what the last ones gained, and whether going on is worth it;
    `going_on` where the search has not ended."""
    count = len(found.volume)
    plans = f"{count:,} plan{'s' * (count != 1)}"
    measured = f"{plans} measured so far" if going_on else f"{plans} were measured"
    if not found.last_gain:
        return [f"{measured}; none was better than {found.reference}."]
    grew = f"{digits(100 * found.growth_of(found.last_gain), 2)} %"
    since = count - found.last_gain
    since_then = f"the {since:,} plans" if since > 1 else "the plan"
    after = f"; {since_then} since gained nothing" if since else ", the latest"
    lines = [f"{measured}. The front last grew with plan {found.last_gain:,}, by {grew}{after}."]
    if found.worth is None:
        return [*lines, f"Fewer than {FEWEST} plans say nothing of whether going on is worth it."]
    share = (
        f"The last {found.recent:,} plans brought {digits(100 * found.recent_growth, 2)} % of it"
    )
    return [*lines, f"{share}: going on {'may be' if found.worth else 'is hardly'} worth it."]


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
