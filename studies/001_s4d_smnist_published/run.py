"""Re-run a published study of a published checkpoint, and measure what it left out.

    python studies/001_s4d_smnist_published/run.py [--data DIR] [--run DIR]

Writes results.json and reproduction.png beside this file, and the tables of README.md. What was
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
from plans import ALL, FEW, HERE, ROWS, STUDY, Stored, bar, grid, pieces, remedies, stored
from rich.console import Console

from sensprobe.cli.bar import Bar
from sensprobe.cli.study import data_folder, run_study, write_results
from sensprobe.evaluate import Score, mean, paired
from sensprobe.jobs.cost import cost
from sensprobe.plans.plan import Resolved
from sensprobe.session.executor import Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session

SPLIT = STUDY["model"]["split"]
NEEDED = (STUDY["model"]["data"], STUDY["model"]["checkpoint"])
HOW_TO_GET = f"""this study needs data that does not ship.
Give --data DIR, or set SENSPROBE_DATA=DIR, where DIR holds
  {NEEDED[0]}/  the four MNIST IDX files, from their usual mirrors, .gz or not
  {NEEDED[1]}  from github.com/gevorgyg/ssm-quantization-stability, s4/checkpoint/ckpt.pth"""
ROUNDED = 1.5
"""A rounded state against an exact one, in time: what the estimate is made with."""

Arrays = dict[str, np.ndarray]


# -- measuring ------------------------------------------------------------------------------------


def resolved(session: Session, how: Stored | None) -> Resolved:
    """A way to store, on this model; None is full precision."""
    return how.resolve(session.source.model.sites.values()) if how else {}


def measure_all(session: Session) -> None:
    """Fills the run folder, telling beforehand about how long that takes."""
    assert session.run is not None
    todo = [
        (resolved(session, how), start, stop)
        for how, start, stop in pieces()
        if session.run.missing(session.key(resolved(session, how), Piece(SPLIT, start, stop)))
    ]
    if not todo:
        return
    images = sum(stop - start for _, start, stop in todo)
    seconds = ROUNDED * images * session.seconds_a_sample(SPLIT, FEW)
    session.progress.begin(f"{len(todo)} evaluations, {images:,} images", images, seconds)
    try:
        for plan, start, stop in todo:
            session.measure(plan, SPLIT, start, stop)
    finally:
        session.progress.end()


def arrays(session: Session, how: Stored | None, stop: int) -> Arrays:
    """Per-sample arrays of the first `stop` images, from the run folder."""
    return dict(session.measure(resolved(session, how), SPLIT, 0, stop))


# -- results --------------------------------------------------------------------------------------


def percent(score: Score) -> dict[str, float]:
    """In points, to the digits that mean something."""
    return {"value": round(100 * score.value, 3), "stderr": round(100 * score.stderr, 3)}


def scored(found: Arrays, other: Arrays | None = None) -> dict[str, Any]:
    """Accuracy (points) and KL (nats), and the change against another, paired."""
    out: dict[str, Any] = percent(mean(found["correct"])) | {"n": len(found["correct"])}
    out["kl"] = round(float(found["kl"].mean()), 5)
    if other is not None:
        out["change"] = percent(paired(found["correct"], other["correct"]))
    return out


def weighed(session: Session, how: Stored) -> dict[str, Any]:
    """Bytes of A, of all weights and of one state; max |A| as stored, and how far A is off."""
    plan = resolved(session, how)
    sites = session.source.model.sites.values()
    full = sum(site.full_bytes for site in sites if site.name.endswith(".A"))
    only_A = {name: scheme for name, scheme in plan.items() if name.endswith(".A")}
    others = {name: scheme for name, scheme in plan.items() if name not in only_A}
    kept = session.applier.tap(only_A).weights
    truth = session.source.model.weights
    off = max(float((kept[n] - truth[n]).abs().max()) for n in kept if n.endswith(".A"))
    whole, rest = (cost(session.source.outline, p)["weight_bytes"] for p in (plan, others))
    return {
        "max_abs_A": round(session.local.evaluator(SPLIT).spectral_radius(only_A), 6),
        "A_off": round(off, 5),
        "A": int(whole - (rest - full)),
        "weights": int(whole),
        "state": int(cost(session.source.outline, plan)["state_bytes"]),
    }


def results(session: Session) -> dict[str, Any]:
    """Everything the README and the figure show."""
    full = arrays(session, None, ALL)
    sizes = cost(session.source.outline, {})
    return {
        "study": HERE.name,
        "date": date.today().isoformat(),
        "model_fingerprint": session.source.fingerprint,
        "data_fingerprint": session.dataset.splits.fingerprint(SPLIT),
        "full_precision": {
            "few": scored({name: a[:FEW] for name, a in full.items()}),
            "all": scored(full),
            "weights": sizes["weight_bytes"],
            "state": sizes["state_bytes"],
        },
        "rows": [_row(session, row, full) for row in ROWS.values()],
        "grid": [
            {"A": name, "state_bits": bits, **scored(arrays(session, how, FEW))}
            for name, bits, how in grid()
        ],
        "remedies": [
            {
                "row": row,
                "name": name,
                "A": how.A,
                "state": how.state,
                "all": scored(arrays(session, how, ALL), arrays(session, stored(ROWS[row]), ALL)),
                "s32_bytes": weighed(session, how),
            }
            for row, name, how in remedies()
        ],
    }


def _row(session: Session, row: dict[str, Any], full: Arrays) -> dict[str, Any]:
    wide, narrow = stored(row), stored(row, "s16")
    return {
        "table": row["table"],
        "name": row["name"],
        "A": wide.A,
        "state": wide.state,
        "published": row["published"],
        "bar": bar(wide),
        "s32": scored(arrays(session, wide, FEW)),
        "s16": scored(arrays(session, narrow, FEW), arrays(session, wide, FEW)),
        "all": scored(arrays(session, wide, ALL), full),
        "s32_bytes": weighed(session, wide),
        "s16_bytes": weighed(session, narrow),
    }


# -- command --------------------------------------------------------------------------------------


def open_here(folder: Path, run: Path) -> Session:
    """The published checkpoint on the test images."""
    asked, bar = STUDY["model"], Bar(Console(stderr=True, highlight=False))
    model, data = folder / asked["checkpoint"], f"mnist:{folder / asked['data']}"
    return open_session(model, data, run, norm=asked["norm"], progress=bar)


def study(data: Path | None, run: Path) -> None:
    """Measure what is missing and write everything."""
    session = open_here(data_folder(data, NEEDED, HOW_TO_GET), run)
    measure_all(session)
    found = results(session)
    write_results(HERE, found, tables.SECTIONS, {"reproduction.png": figure.draw(found)})


if __name__ == "__main__":
    sys.exit(run_study(HERE.name, __doc__.splitlines()[0], study))
