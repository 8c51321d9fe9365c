"""Post-training quantization of a small S4D: what is sensitive, and which choices matter.

    python studies/002_ptq_small_s4d/run.py [--data DIR] [--run DIR]

Writes results.json and sensitivity.png beside this file, and the tables of README.md. What was
measured before is found in the run folder: stopped, it goes on where it was.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import figure
import numpy as np
import tables
from findings import judged, ranks
from plans import HERE, STUDY, Row, rows
from rich.console import Console

from sensprobe.cli.bar import Bar
from sensprobe.cli.study import data_folder, run_study, write_results
from sensprobe.evaluate import mean, paired
from sensprobe.jobs.cost import cost
from sensprobe.plans.plan import Resolved
from sensprobe.session.executor import Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session

SPLIT = STUDY["model"]["split"]
HOW_TO_GET = f"""this study needs MNIST, which does not ship (its two models do).
Give --data DIR, or set SENSPROBE_DATA=DIR, where DIR/{STUDY["model"]["data"]} holds the four
MNIST IDX files, from their usual mirrors, .gz or not."""
ROUNDED = 1.5
"""A rounded state against an exact one, in time: what the estimate is made with."""

Arrays = dict[str, np.ndarray]


def resolved(session: Session, row: Row | None) -> Resolved:
    """A row on this model; None is full precision."""
    return row.resolve(session.source.model.sites.values()) if row else {}


def measure(session: Session, size: str) -> dict[Row | None, Arrays]:
    """Per-sample arrays of every row; the run folder answers for what is known."""
    assert session.run is not None
    stop = STUDY["samples"][size]
    wanted = [None, *rows(size)]
    plans = {row: resolved(session, row) for row in wanted}
    piece = Piece(SPLIT, 0, stop)
    missing = {str(p): p for p in plans.values() if session.run.missing(session.key(p, piece))}
    session.calibration.expect(missing.values())
    if missing:
        images = stop * len(missing)
        seconds = ROUNDED * images * session.seconds_a_sample(SPLIT, stop)
        title = f"{session.source.name}: {len(missing)} evaluations on {stop:,} images"
        session.progress.begin(title, images, seconds)
    try:
        for plan in missing.values():
            session.measure(plan, SPLIT, 0, stop)
    finally:
        session.progress.end()
    return {row: dict(session.measure(plan, SPLIT, 0, stop)) for row, plan in plans.items()}


def described(session: Session, row: Row | None, found: Arrays, full: Arrays) -> dict[str, Any]:
    """One line of results.json. Accuracies in points, KL in nats."""
    plan = resolved(session, row)
    sizes = cost(session.source.outline, plan)
    accuracy, change = mean(found["correct"]), paired(found["correct"], full["correct"])
    kl = mean(found["kl"])
    name = {"section": "full precision", "thing": "", "how": "", "bits": 32}
    if row is not None:
        name = {"section": row.section, "thing": row.thing, "how": row.how, "bits": row.bits}
    return name | {
        "value": round(100 * accuracy.value, 3),
        "stderr": round(100 * accuracy.stderr, 3),
        "n": accuracy.n,
        "change": {
            "value": round(100 * change.value, 3),
            "stderr": round(100 * change.stderr, 3),
        },
        "kl": {"value": round(kl.value, 5), "stderr": round(kl.stderr, 5)},
        "max_abs_A": round(session.applier.spectral_radius(plan), 5),
        "weights": sizes["weight_bytes"],
        "state": sizes["state_bytes"],
    }


def results(sessions: dict[str, Session]) -> dict[str, Any]:
    """Everything the README and the figure show."""
    out: dict[str, Any] = {"study": HERE.name, "date": date.today().isoformat()}
    for size, session in sessions.items():
        measured = measure(session, size)
        full = measured[None]
        out[f"{size}_model"] = session.source.name
        out[f"{size}_fingerprint"] = session.source.fingerprint
        out[size] = [described(session, row, found, full) for row, found in measured.items()]
        if size == "small":
            known = {row: found for row, found in measured.items() if row is not None}
            out["findings"] = judged(known)
            out["ranks"] = ranks(known)
    return out


# -- command --------------------------------------------------------------------------------------


def open_sessions(folder: Path, run: Path) -> dict[str, Session]:
    """Both models on the test images, a run folder each."""
    progress = Bar(Console(stderr=True, highlight=False))
    return {
        size: open_session(STUDY["model"][size], f"mnist:{folder}", run / size, progress=progress)
        for size in ("small", "large")
    }


def study(data: Path | None, run: Path) -> None:
    """Measure what is missing and write everything."""
    mnist = STUDY["model"]["data"]
    found = results(open_sessions(data_folder(data, [mnist], HOW_TO_GET) / mnist, run))
    write_results(HERE, found, tables.SECTIONS, {"sensitivity.png": figure.draw(found)})


if __name__ == "__main__":
    sys.exit(run_study(HERE.name, __doc__.splitlines()[0], study))
