"""Benchmarks as typed values: what ran how fast, and where; and the cases that two share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import inf, isfinite, nan
from typing import Any

from sensprobe.report.read import filled
from sensprobe.report.values import real
from sensprobe.runs import KeptBench, Run

Name = tuple[str, str, str]
"""(operation, model, scheme): the same case has the same name in every benchmark."""


@dataclass(frozen=True, slots=True)
class BenchmarkCase:
    """An operation at a shape in a scheme: median and quartiles in seconds, bytes that must move.

    `of_copy` is the share of the bandwidth of copying in the same benchmark; `ratio` says how many
    times as fast as PyTorch's own operation it ran, `ratio_low` and `ratio_high` the same at the
    quartiles of PyTorch's time, `kernel_ratio` how many times as fast as mamba_ssm's kernel. NaN
    stands for what was not measured.
    """

    operation: str
    scheme: str
    seconds: float
    model: str = ""
    size: str = ""
    low: float = nan
    high: float = nan
    bytes: float = nan
    bandwidth: float = nan
    of_copy: float = nan
    ratio: float = nan
    ratio_low: float = nan
    ratio_high: float = nan
    kernel_ratio: float = nan
    batch: int = 0
    share: float = nan  # of the step that the operation is part of

    @property
    def name(self) -> Name:
        return (self.operation, self.model, self.scheme)

    @property
    def copy_range(self) -> tuple[float, float]:
        """The share of copying at the upper and the lower quartile of the time."""
        return (self.of_copy * self.seconds / self.high, self.of_copy * self.seconds / self.low)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: its cases, where and how they were measured; `problem` says what is damaged.

    What an older one does not say is empty, zero or NaN.
    """

    name: str
    cases: tuple[BenchmarkCase, ...]
    created: str = ""  # UTC, ISO 8601
    machine: str = ""
    device: str = ""
    device_name: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    batch: int = 0
    threads: int = 0
    reference_threads: int = 0
    copied: float = nan  # bytes a second
    load: float = nan  # processes that wanted to run when it began, its own not among them
    cpus: int = 0
    outcome: str = "finished"  # or running, stopped
    problem: str = ""
    subject: str = ""  # the model whose steps were timed; "" of operations at published shapes
    plan_name: str = ""  # of the plan that its steps were timed under
    plan_fingerprint: str = ""

    @property
    def moment(self) -> str:
        """ "2026-03-01 12:30", in UTC; "unknown time" where the benchmark does not say."""
        return self.created[:16].replace("T", " ") or "unknown time"

    @property
    def title(self) -> str:
        """A name that tells it from the other benchmarks of a run."""
        batch = f", batch {self.batch}" if self.batch else ""
        subject = f", {self.subject}" if self.subject else ""
        return f"{self.moment}, {self.device or 'unknown device'}{batch}{subject}"


def benchmarks_of(run: Run) -> list[Benchmark]:
    """Every benchmark a run holds, the latest first; those that cannot be read say why."""
    return [read_kept(kept) for kept in reversed(run.benches())]


def latest(benchmarks: Iterable[Benchmark]) -> list[Benchmark]:
    """The latest benchmark with cases of each machine, device, batch and model; `benchmarks` have
    the latest first."""
    found: dict[tuple[str, str, int, str], Benchmark] = {}
    for benchmark in benchmarks:
        if benchmark.cases:
            found.setdefault(
                (benchmark.machine, benchmark.device, benchmark.batch, benchmark.subject), benchmark
            )
    return list(found.values())


def steps_of(benchmarks: Iterable[Benchmark], plan: str) -> list[tuple[Benchmark, BenchmarkCase]]:
    """What a step takes under the plan of a fingerprint, and every kind of operation in it, by the
    latest benchmark of each machine and batch that timed it."""
    mine = latest(b for b in benchmarks if plan and b.plan_fingerprint == plan)
    return [(b, c) for b in mine for c in b.cases if c.scheme == b.plan_name and c.size == "1 step"]


def read_kept(kept: KeptBench) -> Benchmark:
    """Read a benchmark from disk."""
    return read_benchmark(kept.document, kept.name, kept.outcome, kept.problem)


def read_benchmark(
    document: Mapping[str, Any], name: str = "", outcome: str = "finished", problem: str = ""
) -> Benchmark:
    """Read what `sensprobe bench` returned. Rows that lack a name or a time are left out, and
    counted in `problem`."""
    found = [_case(row) for row in document.get("rows") or ()]
    cases = tuple(case for case in found if case is not None)
    if len(cases) < len(found):
        problem = f"{problem} {len(found) - len(cases)} case(s) have no name or no time.".strip()
    versions = document.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    return filled(
        Benchmark,
        _told(Benchmark, document),
        name=name,
        versions=tuple((str(package), str(version)) for package, version in versions.items()),
        copied=real(document.get("copy_bytes_per_second")),
        cases=cases,
        outcome=outcome,
        problem=problem,
        subject=_subject(document),
    )


def _told(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """The texts and numbers of a document that fit the fields of `kind`: others, which an older or
    damaged document may have, count as absent."""
    fitting = {"str": (str,), "int": (int,), "float": (int, float)}
    types = {field.name: fitting.get(str(field.type), ()) for field in fields(kind)}
    return {key: value for key, value in document.items() if type(value) in types.get(key, ())}


def _subject(document: Mapping[str, Any]) -> str:
    """ "mamba-bytes under w8a8"; "" where a benchmark is not of a model."""
    model, plan = document.get("model"), document.get("plan_name", "")
    if not isinstance(model, str) or not model:
        return ""
    return f"{model} under {plan}" if document.get("plan") else f"{model} at full precision"


def _case(row: Any) -> BenchmarkCase | None:
    """One row; None where it has no name or no time."""
    if not isinstance(row, Mapping):
        return None
    low, high = _quartiles(row.get("quartiles"))
    quick, slow = _quartiles(row.get("reference_quartiles"))
    seconds = real(row.get("seconds"))
    if not (isfinite(seconds) and seconds > 0):
        return None
    try:
        case = filled(
            BenchmarkCase,
            _told(BenchmarkCase, row),
            low=low,
            high=high,
            bandwidth=real(row.get("bytes_per_second")),
            ratio_low=quick / seconds,
            ratio_high=slow / seconds,
            kernel_ratio=real(row.get("mamba_ssm_ratio")),
        )
    except KeyError:
        return None
    return case if case.operation and case.scheme else None


def _quartiles(found: Any) -> tuple[float, float]:
    """Two times in growing order, or NaN and NaN."""
    low, high = map(real, found) if isinstance(found, list) and len(found) == 2 else (nan, nan)
    return (low, high) if 0 < low <= high < inf else (nan, nan)


# -- two of them -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """A case in two benchmarks; `times` is how many times as fast it is in the first."""

    one: BenchmarkCase
    other: BenchmarkCase

    @property
    def times(self) -> float:
        return self.other.seconds / self.one.seconds

    @property
    def apart(self) -> bool:
        """True if the quartiles of the two leave a gap; False where either has none."""
        return self.one.high < self.other.low or self.other.high < self.one.low


def pairs(one: Benchmark, other: Benchmark) -> list[Pair]:
    """Cases that both benchmarks have, in the order of the first."""
    theirs = {case.name: case for case in other.cases}
    return [Pair(case, theirs[case.name]) for case in one.cases if case.name in theirs]
