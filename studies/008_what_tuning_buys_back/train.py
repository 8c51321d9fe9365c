"""Tune the cases of study.toml, and keep each finished one.

    python studies/008_what_tuning_buys_back/train.py [--data DIR] [--run DIR] [--only N …]

DIR holds what SENSPROBE_DATA does: har_mamba/, text/, s4d_smnist/, mnist/, s4d_scifar10/,
cifar10/. A plan that is searched is kept in plans/, and searched where it is not there. A finished
case is a line of results.jsonl; one that was stopped goes on. The table of README.md is written
after each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

from sensprobe import api
from sensprobe.cli.study import append_line, data_folder, markdown, read_lines, reported, tell_legs
from sensprobe.documents.files import between, write_whole
from sensprobe.errors import UsageError
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.scores.metrics import info_in
from sensprobe.scores.score import Score

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))
RESULTS, README = HERE / "results.jsonl", HERE / "README.md"
WEIGHTS = "mambalite_har6.safetensors"
KEPT = ("full", "before", "after", "gained", "left")


@reported
def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="folder of the data; default SENSPROBE_DATA")
    options.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / HERE.name)
    options.add_argument("--only", nargs="+", type=int, help="numbers of cases, from 1")
    asked = options.parse_args()
    folder = data_folder(asked.data, [], "give --data DIR, or set SENSPROBE_DATA=DIR.")
    os.environ["SENSPROBE_DATA"] = str(folder)
    for number, case in enumerate(STUDY["case"], start=1):
        done = any(row["case"] == case["name"] for row in read_lines(RESULTS))
        if not done and (not asked.only or number in asked.only):
            row = row_of(case, tuned(case, folder, asked.run, number))
            append_line(RESULTS, row)
            write_readme()
    return 0


def tuned(case: dict[str, Any], folder: Path, run: Path, number: int) -> dict[str, Any]:
    """The document of a tuning."""
    places = {"data": folder, "studies": HERE.parent, "run": run}
    if "{run}" in case["model"]:
        (run / "har").mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parent / "004_selective_models" / "har" / "model.toml", run / "har")
        shutil.copy(folder / "har_mamba" / WEIGHTS, run / "har")
    model, data = (case[key].format(**places) for key in ("model", "data"))
    plan: Plan | Path = Plan(tuple(map(parse_setting, case.get("schemes", ()))))
    if "search" in case:
        plan = searched(case, model, data, run / f"case-{number}-search")
    return api.tune(
        model, data, plan, run / f"case-{number}", norm=case.get("norm"), trained=tell_legs,
        **case["options"],
    )  # fmt: skip


def searched(case: dict[str, Any], model: str, data: str, run: Path) -> Path:
    """The file of a case's plan, as a profile and a search in `run` find it."""
    how, kept = case["search"], HERE / "plans" / f"{case['plan']}.json"
    if not kept.exists():
        api.profile(
            model, data, run, how["schemes"], by=how["by"], method=how["method"],
            limit=how["profiled"], norm=case.get("norm"),
        )  # fmt: skip
        found = api.search(
            run, [how["budget"]], limit=how["limit"], evaluations=how["evaluations"], confirm=False
        )
        choice = found["search"]["chosen"][0]
        if choice["plan_file"] is None:
            raise UsageError(f"{case['name']}: no plan that was evaluated fits.")
        kept.parent.mkdir(exist_ok=True)
        write_whole(kept, (run / choice["plan_file"]).read_bytes())
    return kept


def row_of(case: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The line of a case: scores of the confirmation split in the metric's unit."""
    metric, scores = info_in(document), document["splits"]["confirmation"]
    return {
        "case": case["name"],
        "metric": metric.name,
        "unit": metric.unit,
        "bytes": document["cost"]["total_bytes"],
        "steps": document["steps"],
        "seconds": round(document["seconds"]),
        "n": scores["n"],
        **{key: {k: metric.scale * scores[key][k] for k in ("value", "stderr")} for key in KEPT},
        "date": date.today().isoformat(),
    }


def table() -> str:
    """The table of README.md: scores, and the share of what rounding cost that is left."""
    head = [
        "model and plan",
        "metric",
        "full",
        "plan",
        "tuned",
        "gained",
        "left of the loss",
        "steps",
    ]
    body = []
    for case in STUDY["case"]:
        found = next((row for row in read_lines(RESULTS) if row["case"] == case["name"]), None)
        if found is None:
            body.append([case["name"], *["not run"] * 7])
            continue
        full, before, after = (found[key]["value"] for key in ("full", "before", "after"))
        gained = Score(**found["gained"], n=found["n"], clusters=found["n"])
        differs = gained.differs()
        verdict = "" if differs else " (within the error)"
        shown = [f"{found[k]['value']:.4g} ± {found[k]['stderr']:.2g}" for k in KEPT[:3]]
        name = f"{found['metric']} ({found['unit']})" if found["unit"] else found["metric"]
        body.append([
            case["name"], name, *shown,
            f"{gained.value:+.3g} ± {gained.stderr:.2g}{verdict}",
            f"{(after - full) / (before - full):.0%}" if differs else "", f"{found['steps']:,}",
        ])  # fmt: skip
    return markdown(head, body)


def write_readme() -> None:
    begin, end = "<!-- table: written by train.py -->", "<!-- end of table -->"
    text = README.read_text(encoding="utf-8")
    write_whole(README, between(text, begin, end, table()).encode())


if __name__ == "__main__":
    sys.exit(main())
