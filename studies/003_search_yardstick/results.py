"""The curves as numbers: a table for people, a CSV for whoever asks again."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

MARKS = (50, 100)  # evaluations at which the table looks
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
QUARTILES = ("q25", "q50", "q75")
FIVE = 5  # seeds a median is promised for
DRAWS = 2000


def median_of_five(values: np.ndarray, bar: float) -> float:
    """How often the median of five seeds, drawn without return, reaches the bar."""
    rng = np.random.default_rng(0)
    count = min(FIVE, len(values))
    drawn = [rng.choice(values, count, replace=False) for _ in range(DRAWS)]
    return float(np.mean(np.median(drawn, axis=1) >= bar))


def reached(curve: np.ndarray, bar: float) -> int | None:
    """Evaluations after which the median over seeds stays at the bar; None if it never does."""
    median = np.median(curve, axis=0)
    above = np.flatnonzero(median >= bar)
    return int(above[0]) if len(above) else None


def table(found: Mapping[str, np.ndarray], bar: float) -> str:
    """Markdown: % of the true hypervolume by method."""
    heads = [f"at {mark}" for mark in MARKS]
    lines = [
        f"| method | {' | '.join(heads)} | worst and best of {_seeds(found)} seeds "
        f"| median of 5 seeds ≥ {100 * bar:g} % | evaluations to {100 * bar:g} % |",
        "|---|" + "---|" * (len(MARKS) + 3),
    ]
    for name, curve in found.items():
        medians = [f"{100 * np.median(curve[:, mark]):.2f}" for mark in MARKS]
        last = curve[:, MARKS[-1]]
        lines.append(
            f"| {name} | {' | '.join(medians)} | {100 * last.min():.2f} to {100 * last.max():.2f} "
            f"| {100 * median_of_five(last, bar):.0f} % | {reached(curve, bar) or 'never'} |"
        )
    return "\n".join(lines)


def write_result(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """One row a method and evaluation: quantiles over the seeds."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["method", "evaluations", "seeds", *(f"q{100 * q:g}" for q in QUANTILES)])
        for name, curve in found.items():
            for at, values in enumerate(curve.T):
                row = np.quantile(values, QUANTILES)
                out.writerow([name, at, len(values), *(f"{v:.5f}" for v in row)])


def read_quartiles(path: Path) -> dict[str, np.ndarray]:
    """Method -> (evaluations + 1, 3): the quartiles `write_result` kept."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        name: np.array(
            [[row[q] for q in QUARTILES] for row in rows if row["method"] == name], float
        )
        for name in methods
    }


def _seeds(found: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(found.values())))
