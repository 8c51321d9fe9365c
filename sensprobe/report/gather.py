"""Everything a run has found, read once; and what it has not, with the command that finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any, TypeVar

from sensprobe.errors import RunError
from sensprobe.plans.sites import Kind, Site
from sensprobe.report.agreement import Agreement, agreement
from sensprobe.report.benchmarks import Benchmark, benchmarks_of
from sensprobe.report.read import (
    read_confirmation,
    read_search,
    read_sensitivity,
    read_sites,
    read_tuned,
)
from sensprobe.report.results import Candidate, Confirmation, Entries, Search, Sensitivity
from sensprobe.report.tuned import Tuning
from sensprobe.report.values import ACCURACY
from sensprobe.runs import Run
from sensprobe.runs.results import NOISE_PROFILE, PROFILES

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a run; None for what there is not. `missing` says what, and how to get it."""

    run: str
    model: str
    data: str
    created: str
    tool: str
    names: tuple[str, ...]  # of the model's sites
    sites: tuple[Site, ...]  # empty where the run did not keep them
    measured: Sensitivity | None = None
    taylor: Sensitivity | None = None
    search: Search | None = None
    confirmation: Confirmation | None = None
    tuned: Tuning | None = None
    missing: tuple[str, ...] = ()
    divergence: Sensitivity | None = None
    noise: Sensitivity | None = None  # of noise in place of schemes
    benchmarks: tuple[Benchmark, ...] = ()  # the latest first
    evaluations: int = 0
    origins: Mapping[str, int] = field(default_factory=dict)  # see `Run.origins`

    @property
    def profiles(self) -> tuple[Sensitivity, ...]:
        """Every profile there is, the one to trust most first, and that of noise last."""
        every = (self.measured, self.divergence, self.taylor, self.noise)
        return tuple(profile for profile in every if profile is not None)

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The measured profile, else that of divergence, else the estimated one."""
        return self.measured or self.divergence or self.taylor

    @property
    def agreement(self) -> Agreement | None:
        if self.measured is None or self.taylor is None:
            return None
        return agreement(self.measured, self.taylor)

    @property
    def plans(self) -> dict[str, Entries]:
        """Chosen plans and the uniform plans they stand against, by the names a reader knows."""
        if self.search is None:
            return {}
        return self._titled([name for c in self.search.chosen for name in (c.candidate, c.uniform)])

    @property
    def chosen(self) -> dict[str, Entries]:
        """The chosen plans alone, by the names a reader knows."""
        if self.search is None:
            return {}
        return self._titled([choice.candidate for choice in self.search.chosen])

    def _titled(self, names: Sequence[str | None]) -> dict[str, Entries]:
        assert self.search is not None
        found = (self.search.candidate(name) for name in names)
        return {_plan_title(c, self.search): c.entries for c in found if c is not None}


def _plan_title(candidate: Candidate, search: Search) -> str:
    """ "p17 (12KiB)", "uniform int6/head/asym"."""
    budgets = ", ".join(search.picks.get(candidate.name, ()))
    return (
        f"{candidate.title} ({budgets})" if budgets and not candidate.uniform else candidate.title
    )


def gather(run: Run, sites: Sequence[Site] = ()) -> Results:
    """Reads what a run holds. A result that is damaged counts as missing, with the reason.

    `sites` are the model's; without them the run's own result `sites`, or the search's, is used.
    RunError where the run holds no result at all.
    """
    names, benchmarks = set(run.results()), tuple(benchmarks_of(run))
    if not (
        names & {*PROFILES, NOISE_PROFILE, "search", "confirmation", "tuned"}
        or any(b.cases for b in benchmarks)
    ):
        raise RunError(
            f"{run.path} holds no results to report. Run `sensprobe profile MODEL --data DATA "
            f"--run {run.path}` first."
        )
    missing: list[str] = []
    model, data, where = map(quote, (run.manifest.model, run.manifest.data, str(run.path)))
    profile = f"sensprobe profile {model} --data {data} --run {where}"
    searching = f"sensprobe search --run {where} --budget …"

    def read(name: str, reader: Callable[[Mapping[str, Any]], Found], command: str) -> Found | None:
        """A result; where it is not there or damaged, what is missing."""
        try:
            document = run.read_result(name)
            if document is not None:
                return reader(document)
            missing.append(f"No {name.replace('-', ' ')} yet: {command}")
        except RunError as error:
            missing.append(str(error))
        return None

    found = Results(
        run=str(run.path),
        model=run.manifest.model,
        data=run.manifest.data,
        created=run.manifest.created,
        tool=run.manifest.tool,
        names=tuple(run.manifest.sites),
        sites=tuple(sites) or sites_of(run),
        measured=read("sensitivity-measured", read_sensitivity, profile),
        taylor=read("sensitivity-taylor", read_sensitivity, f"{profile} --method taylor"),
        confirmation=read("confirmation", read_confirmation, searching),
        benchmarks=benchmarks,
        evaluations=run.count,
        origins=run.origins,
    )
    if "sensitivity-divergence" in names:
        again = f"{profile} --method divergence"
        other = read("sensitivity-divergence", read_sensitivity, again)
        found = replace(found, divergence=other)
    if NOISE_PROFILE in names:
        again = f"{profile} --noise 0.01"
        found = replace(found, noise=read(NOISE_PROFILE, read_sensitivity, again))
    if "tuned" in names:
        tuning = f"sensprobe tune --run {where} --plan …"
        found = replace(found, tuned=read("tuned", read_tuned, tuning))
    best = found.sensitivity
    metric = ACCURACY if best is None else best.metric  # where a search does not say itself
    search = read("search", lambda document: read_search(document, metric), searching)
    if search is not None and not found.sites:
        missing.append("Bytes by part need the model's sites, which this run did not keep.")
    if search is not None and not search.full_state_bytes:  # an older run's
        states = sum(4 * site.reals for site in found.sites if site.kind is Kind.STATE)
        search = replace(search, full_state_bytes=search.batch * states)
    missing += [benchmark.problem for benchmark in benchmarks if benchmark.problem]
    return replace(found, search=search, missing=tuple(missing))


def sites_of(run: Run) -> tuple[Site, ...]:
    """The sites a run kept; none where it did not, or they cannot be read."""
    try:
        rows = run.read_result("sites")
        if rows is None:
            search = run.read_result("search")
            rows = search.get("sites") if isinstance(search, dict) else None
        return read_sites(rows) if rows else ()
    except RunError:
        return ()
