"""Selective models: what is sensitive, what known recipes cost, what a searched plan gains.

    python studies/004_selective_models/run.py [--data DIR] [--run DIR]

Writes results.json and pictures beside this file, and the tables of README.md. What was measured
before is found in the run folder: stopped, it goes on where it was.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import figure
import numpy as np
import tables
from plans import HERE, STUDY, Row, rows
from rich.console import Console
from searching import searched

from sensprobe import api
from sensprobe.cli.bar import Bar
from sensprobe.cli.study import data_folder, run_study, write_results
from sensprobe.evaluate import mean, paired
from sensprobe.report.agreement import kendall
from sensprobe.session.open import open_session
from sensprobe.session.plans import as_plan
from sensprobe.session.session import Session

HOW_TO_GET = """this study needs the novels and the activity data, which do not ship (its two
language models do). Give --data DIR, or set SENSPROBE_DATA=DIR, with DIR/text/english_novels.tar.xz
(.txt files, a novel each) and DIR/har_mamba (see har/data.py)."""
WEIGHTS = "mambalite_har6.safetensors"

Arrays = Mapping[str, np.ndarray]


def measure(session: Session, samples: int | None) -> dict[Row | None, Arrays]:
    """Per-sample arrays of every row on the search split; the run folder answers for what is
    known. None is full precision."""
    assert session.run is not None
    count = session.samples.use("search")
    stop = min(samples or count, count)  # the first: as published
    sites = session.source.model.sites
    plans = {row: row.resolve(sites.values()) for row in rows(sites)}
    session.calibration.expect(plans.values())
    seconds = session.seconds_a_sample("search", stop) * stop * len(plans)
    session.progress.begin(f"{session.source.name}: {len(plans)} plans", stop * len(plans), seconds)
    try:
        found = {row: session.measure(plan, "search", 0, stop) for row, plan in plans.items()}
    finally:
        session.progress.end()
    return {None: session.measure({}, "search", 0, stop), **found}


def described(session: Session, row: Row, found: Arrays, full: Arrays) -> dict[str, Any]:
    """One line of results.json: what a row loses against full precision, and KL in nats."""
    groups = session.samples.groups("search", len(full["kl"]))
    change = paired(found[session.headline.primary], full[session.headline.primary], groups)
    kl = mean(found["kl"], groups)
    scale = session.headline.info.scale
    return {
        "section": row.section,
        "part": row.part,
        "how": row.how,
        "bits": row.bits,
        "change": {k: round(scale * getattr(change, k), 6) for k in ("value", "stderr")},
        "kl": {"value": round(kl.value, 7), "stderr": round(kl.stderr, 7)},
    }


def prices(model: str, data: str, run: Path, progress: Bar) -> dict[str, Any]:
    """How `taylor` ranks sites against what is measured, and what each takes."""
    stop = STUDY["prices"]["samples"]
    schemes = STUDY["search"]["language"]["schemes"]
    session = open_session(model, data, run, limits={"search": stop}, progress=progress)
    sites = session.source.model.sites
    plan = as_plan(STUDY["prices"]["timed"], session.source.model).resolve(sites.values())
    session.calibration.ready(plan)
    evaluator = session.local.evaluator("search")
    evaluator.evaluate(plan, 0, stop)  # warm
    seconds = {}
    samples = {"these": stop, "whole": session.samples.use("search")}
    for name, count in samples.items():
        began = time.perf_counter()
        evaluator.evaluate(plan, 0, count)
        seconds[name] = time.perf_counter() - began
    grids = {}
    for method in ("taylor", "measured"):
        began = time.perf_counter()
        document = api.profile(
            model, data, run, schemes, by="site", method=method, limit=stop, progress=progress
        )
        seconds[method] = time.perf_counter() - began
        grids[method] = {(r["target"], r["scheme"]): r["kl"] for r in document["rows"]}
    lines = []
    for scheme in schemes:
        pairs = [
            (found["value"], grids["taylor"][target, s]["value"])
            for (target, s), found in grids["measured"].items()
            if s == scheme and found["value"] > 2 * found["stderr"]
        ]
        tau = kendall(*zip(*pairs, strict=True))
        lines.append(
            {
                "scheme": scheme,
                "n": tau.n,
                "value": round(tau.value, 3),
                "stderr": round(tau.stderr, 3),
            }
        )
    return {
        "prices": lines,
        "samples": samples,
        "seconds": {k: round(v, 2) for k, v in seconds.items()},
    }


# -- command --------------------------------------------------------------------------------------


def opened(name: str, data: Path, run: Path) -> tuple[str, str]:
    """The model and the data of one entry of study.toml, as commands take them."""
    asked = STUDY["models"][name]
    if name != "har":
        return asked["model"], asked["data"].format(data=data)
    run.mkdir(parents=True, exist_ok=True)
    text = (HERE / asked["model"]).read_text(encoding="utf-8")
    path = run / "har.toml"
    path.write_text(text.replace(WEIGHTS, str(data / "har_mamba" / WEIGHTS)), encoding="utf-8")
    return str(path), asked["data"].replace("har/", f"{HERE}/har/")


def study(data: Path | None, run: Path) -> None:
    """Measure what is missing and write everything."""
    folder = data_folder(data, ["text/english_novels.tar.xz", "har_mamba"], HOW_TO_GET)
    os.environ["SENSPROBE_DATA"] = str(folder)  # har/data.py reads it
    progress = Bar(Console(stderr=True, highlight=False))
    out: dict[str, Any] = {"study": HERE.name, "date": date.today().isoformat()}
    for name, asked in STUDY["models"].items():
        model, spec = opened(name, folder, run)
        session = open_session(model, spec, run / name, progress=progress)
        found = measure(session, asked.get("samples"))
        full = found.pop(None)
        groups = session.samples.groups("search", len(full["kl"]))
        base = mean(full[session.headline.primary], groups)
        out[f"{name} baseline"] = {
            "metric": session.headline.label, "value": base.value, "stderr": base.stderr,
            "n": len(full["kl"]), "fingerprint": session.source.fingerprint,
        }  # fmt: skip
        out[name] = [described(session, row, arrays, full) for row, arrays in found.items()]
        out[f"{name} searched"] = [*searched(name, model, spec, run / f"{name}-search", progress)]
    name = STUDY["prices"]["model"]
    model, spec = opened(name, folder, run)
    out |= prices(model, spec, run / f"{name}-prices", progress)
    write_results(HERE, out, tables.SECTIONS, figure.pictures(out))


if __name__ == "__main__":
    sys.exit(run_study(HERE.name, __doc__.splitlines()[0], study))
