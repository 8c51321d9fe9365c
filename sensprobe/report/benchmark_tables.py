"""Benchmarks as tables for people, and in sentences; headings carry the units."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan

from sensprobe.report.benchmarks import Benchmark, BenchmarkCase, Pair
from sensprobe.report.dataframes import pd
from sensprobe.report.values import MISSING, NOISE, digits, number

GIGA, MICRO, PERCENT = 1e-9, 1e6, 100
KERNELS = "× mamba_ssm"
BUSY = 0.25
"""Share of the processors that others may want before a reader is told."""


def about_benchmark(found: Benchmark) -> list[str]:
    """Sentences that say where and when it was made, what each number is measured against, and what
    is missing."""
    when = f"{found.moment} UTC" if found.created else "At an unknown time"
    lines = [f"{when} on {found.device_name or found.machine or 'an unknown machine'}"]
    lines.append(_steps(found) if found.subject else _operations(found))
    if found.load > BUSY * found.cpus:
        lines.append(
            f"About {digits(found.load, 2)} other processes wanted its {found.cpus} CPUs when it "
            "began: times and ratios bear less."
        )
    if found.outcome != "finished":
        state = "It is still running" if found.outcome == "running" else "It was stopped"
        lines.append(f"{state}, after {len(found.cases)} cases.")
    return lines + ([found.problem] if found.problem else [])


def _steps(found: Benchmark) -> str:
    """The sentence about a model's steps, all of which have the same threads."""
    return f"Steps of {found.subject}, {_threads(found.threads)}, PyTorch's too. Medians."


def _operations(found: Benchmark) -> str:
    return f"{_how(found)}. Medians; PyTorch has {_torch(found.reference_threads)}."


def _how(found: Benchmark) -> str:
    copied = digits(GIGA * found.copied, 3)
    batch = f"Batch {found.batch}, " if found.batch else "Unknown batch, "
    return f"{batch}{_threads(found.threads)}; copying a large array reaches {copied} GB/s"


def _threads(count: int) -> str:
    return {0: "an unknown number of threads", 1: "one thread"}.get(count, f"{count} threads")


def _torch(most: int) -> str:
    return f"one thread or {most}, whichever is faster" if most > 1 else _threads(most)


def versions_of(found: Benchmark) -> str:
    """ "sensprobe 0.1.0, torch 2.9.0"."""
    return ", ".join(f"{package} {version}" for package, version in found.versions)


def benchmark_table(found: Benchmark) -> pd.DataFrame:
    """A row a case; beside mamba_ssm where that was there."""
    table = pd.DataFrame(_case(case) for case in found.cases)
    return table if _beside_kernels(found) else table.drop(columns=KERNELS, errors="ignore")


def _beside_kernels(found: Benchmark) -> bool:
    """Return whether any case was timed beside mamba_ssm's kernel."""
    return any(isfinite(case.kernel_ratio) for case in found.cases)


def _case(c: BenchmarkCase) -> dict[str, str]:
    middle = f"{digits(MICRO * c.low, 3)}–{digits(MICRO * c.high, 3)}" if c.low > 0 else MISSING
    return {
        "operation": c.operation,
        "shape": c.model,
        "size": c.size,
        "scheme": c.scheme,
        "µs": digits(MICRO * c.seconds, 3),
        "25–75 % (µs)": middle,
        "GB/s": digits(GIGA * c.bandwidth, 3),
        "% of copy": number(PERCENT * c.of_copy, 0),
        "× PyTorch": number(c.ratio, 2),
        KERNELS: number(c.kernel_ratio, 2),
    }


def pair_table(found: Sequence[Pair]) -> pd.DataFrame:
    """Cases of one benchmark and of another, and how many times as fast they are in the one; where
    their quartiles overlap, behind a dot."""
    rows = [
        {
            "operation": p.one.operation,
            "shape": p.one.model,
            "scheme": p.one.scheme,
            "µs": digits(MICRO * p.one.seconds, 3),
            "other (µs)": digits(MICRO * p.other.seconds, 3),
            "% of copy": number(PERCENT * p.one.of_copy, 0),
            "other (% of copy)": number(PERCENT * p.other.of_copy, 0),
            "times as fast": f"{'' if p.apart else f'{NOISE} '}{number(p.times, 2)}",
        }
        for p in found
    ]
    return pd.DataFrame(rows)


def answer(found: Benchmark) -> str:
    """How fast packed operations are beside PyTorch, in one sentence."""
    timed = [case for case in found.cases if isfinite(case.ratio)]
    if not timed:
        return f"{len(found.cases)} cases were timed; none has PyTorch's time beside it."
    best = max(timed, key=lambda case: case.ratio)
    faster = sum(case.ratio > 1 for case in timed)
    return (
        f"{faster} of {len(timed)} cases are faster than PyTorch; at best "
        f"{best.operation} in {best.scheme}, {number(best.ratio, 1)} times as fast."
    )


def benchmark_rows(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Every case of every benchmark as numbers, for CSV."""
    return pd.DataFrame(
        {
            "measured (UTC)": b.moment,
            "machine": b.machine,
            "device": b.device_name,
            "versions": versions_of(b),
            "batch": b.batch,
            "copy (bytes/s)": b.copied,
            "operation": c.operation,
            "shape": c.model,
            "size": c.size,
            "scheme": c.scheme,
            "seconds": c.seconds,
            "25 % (seconds)": c.low,
            "75 % (seconds)": c.high,
            "moved (bytes)": c.bytes,
            "bandwidth (bytes/s)": c.bandwidth,
            "share of copy": c.of_copy,
            "times as fast as PyTorch": c.ratio,
            "times as fast as mamba_ssm": c.kernel_ratio,
        }
        for b in benchmarks
        for c in b.cases
    )


def step_table(found: Sequence[tuple[Benchmark, BenchmarkCase]]) -> pd.DataFrame:
    """What a step of one plan takes, and what each kind of operation in it does: they sum to it."""
    rows = [
        {
            "batch": str(case.batch or benchmark.batch or MISSING),
            "operation": case.operation,
            "µs": digits(MICRO * case.seconds, 3),
            "% of the step": MISSING if isnan(case.share) else digits(PERCENT * case.share, 2),
            "× PyTorch": MISSING if isnan(case.ratio) else digits(case.ratio, 3),
            "where": f"{benchmark.device_name or benchmark.machine}, {benchmark.moment}",
        }
        for benchmark, case in found
    ]
    return pd.DataFrame(rows)
