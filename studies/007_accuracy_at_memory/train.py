"""Train the plans of study.toml, seed by seed, and keep each finished one.

    python studies/007_accuracy_at_memory/train.py [--data DIR] [--run DIR] [--only PLAN …]
                                                 [--seeds S …] [--epochs N] [--lr RATE]

DIR holds mnist/, the four IDX files. A finished plan is a line of results.jsonl; one that was
stopped goes on after its last leg. The table of README.md is written after each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from sensprobe import api
from sensprobe.cli.study import (
    append_line,
    data_folder,
    markdown,
    over_seeds,
    read_lines,
    reported,
    tell_legs,
)
from sensprobe.documents.files import between, write_whole
from sensprobe.models import family_of
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan, fingerprint, parse_setting, read
from sensprobe.session.outline import Outline, outline_of

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))
RESULTS, README = HERE / "results.jsonl", HERE / "README.md"
EIGHT = {"eight": "value", "eight_stderr": "stderr"}
HOW_TO_GET = "give --data DIR, or set SENSPROBE_DATA=DIR, where DIR/mnist holds the four IDX files."


@reported
def main() -> int:
    asked = _asked()
    chosen = [p for p in STUDY["plan"] if not asked.only or p["name"] in asked.only]
    folder = data_folder(asked.data, [STUDY["data"]["folder"]], HOW_TO_GET)
    for seed in asked.seeds:
        for plan in chosen:
            how = {"seed": seed, "epochs": asked.epochs, "lr": asked.lr}
            wanted = {"plan": plan["name"], "fingerprint": mark_of(plan), **how}
            if not any(wanted.items() <= row.items() for row in read_lines(RESULTS)):
                row = trained(plan, wanted, folder / STUDY["data"]["folder"], asked.run)
                append_line(RESULTS, row)
                write_readme()
                print(f"{plan['name']} seed {seed}: {row['test']} %", flush=True)
    write_readme()
    return 0


def _asked() -> argparse.Namespace:
    usual = STUDY["tuning"]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="folder of the data; default SENSPROBE_DATA")
    options.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / HERE.name)
    options.add_argument("--only", nargs="+", choices=[p["name"] for p in STUDY["plan"]])
    options.add_argument("--seeds", nargs="+", type=int, default=usual["seeds"])
    options.add_argument("--epochs", type=int, default=usual["epochs"])
    options.add_argument("--lr", type=float, default=usual["lr"], help="decays learn at a fifth")
    return options.parse_args()


def outline(plan: dict[str, Any]) -> Outline:
    """What a plan is for: a model that ships, or one with fewer `states` of every head."""
    whole = outline_of(plan["model"])
    if "states" not in plan:
        return whole
    config, family = replace(whole.config, d_state=plan["states"]), family_of(whole.config)
    sites, products = family.sites(config), family.products(config)
    return replace(whole, config=config, sites=sites, products=products, stored={})


def model_of(plan: dict[str, Any], mnist: Path, run: Path) -> str | Path:
    """The model of a plan; one with fewer states is pruned and trained when it is first asked
    for."""
    if "states" not in plan:
        return str(plan["model"])
    name = f"{plan['model']}-{plan['states']}"
    pruned, data = run / f"{name}.safetensors", f"mnist:{mnist}"
    if not pruned.exists():
        run.mkdir(parents=True, exist_ok=True)
        api.prune(plan["model"], data, plan["states"], pruned)
    if not (run / name / "tuned.json").exists():
        how = STUDY["pruned"]
        api.tune(
            pruned, data, {"weights": "fp16"}, run / name, epochs=how["epochs"], lr=how["lr"],
            ssm_lr=how["lr"] / 5, trained=tell_legs,
        )  # fmt: skip
    return run / name / "weights.safetensors"


def plan_of(plan: dict[str, Any]) -> Plan:
    """The plan by hand, or the one that `search.py` found."""
    if "schemes" in plan:
        return Plan(tuple(map(parse_setting, plan["schemes"])))
    return read(HERE / "plans" / f"{plan['name']}.json")


def mark_of(plan: dict[str, Any]) -> str:
    """The fingerprint of what a plan says, so that a result is known to be of it."""
    found = fingerprint(plan_of(plan).resolve(outline(plan).sites.values()))
    return f"{found} of {plan['states']} states" if "states" in plan else found


def bytes_of(plan: dict[str, Any]) -> tuple[int, int]:
    """Bytes of a plan at batch 1, and of the model that ships at full precision."""
    sites = outline(plan).sites.values()
    return cost(sites, plan_of(plan).resolve(sites)).total_bytes, bytes_of_model(plan["model"])


def bytes_of_model(name: str) -> int:
    """Bytes of a model that ships at full precision, with the state of one sequence."""
    return cost(outline_of(name).sites.values(), {}).total_bytes


def trained(plan: dict[str, Any], asked: dict[str, Any], mnist: Path, run: Path) -> dict[str, Any]:
    """The line of a plan: how it was trained, and what it scores on the 10,000 test images."""
    out, usual = run / folder_of(asked), STUDY["tuning"]["batch"]
    found = api.tune(
        model_of(plan, mnist, run), f"mnist:{mnist}", plan_of(plan), out, epochs=asked["epochs"],
        seed=asked["seed"], lr=asked["lr"], ssm_lr=asked["lr"] / 5, batch=usual,
        trained=tell_legs,
    )  # fmt: skip
    scores = found["splits"]["confirmation"]
    in_percent = {
        key: round(100 * scores[part][kind], 3)
        for key, part, kind in (
            ("test", "after", "value"),
            ("stderr", "after", "stderr"),
            ("before", "before", "value"),
            ("full", "full", "value"),
        )
    }
    return {
        **asked,
        "batch": usual,
        "bytes": found["cost"]["total_bytes"],
        "seconds": round(found["seconds"]),
        **in_percent,
        **in_eight_bits(out, mnist),
        "n": scores["n"],
        "date": date.today().isoformat(),
    }


def folder_of(asked: dict[str, Any]) -> str:
    """The folder of a training, within that of all."""
    return "-".join(map(str, asked.values())).replace(" ", "-")


def in_eight_bits(out: Path, mnist: Path) -> dict[str, float]:
    """What a trained plan scores, in percent, when activations are in 8 bits too."""
    plan = [str(out / "plan.json"), {"activations": "int8/dynamic"}]
    found = api.evaluate(out / "weights.safetensors", f"mnist:{mnist}", plan)
    return {key: round(100 * found[kind], 3) for key, kind in EIGHT.items()}


def table() -> str:
    """The table of README.md: of each plan the mean over seeds of the longest training at the usual
    rate, and its error."""
    head = [
        "plan",
        "bytes",
        "times smaller",
        "full",
        "before",
        "after",
        "activations too",
        "seeds",
        "epochs",
        "wanted",
    ]
    body = []
    for plan in STUDY["plan"]:
        spent, full = bytes_of(plan)
        cells = [plan["name"], f"{spent:,}", f"{full / spent:.2f}"]
        own = {"fingerprint": mark_of(plan), "lr": STUDY["tuning"]["lr"]}
        found = [row for row in read_lines(RESULTS) if own.items() <= row.items()]
        if found:
            epochs = max(row["epochs"] for row in found)
            found = [row for row in found if row["epochs"] == epochs]
            cells += [f"{found[0]['full']:.2f}", f"{found[0]['before']:.1f}"]
            eight = [row for row in found if "eight" in row]
            cells += [_mean(found, "test", "stderr"), _mean(eight, *EIGHT) if eight else "not run"]
            cells += [str(len(found)), str(epochs)]
        else:
            cells += ["not run"] * 6
        body.append([*cells, f"{plan['wanted']:.1f}" if "wanted" in plan else ""])
    return markdown(head, body)


def _mean(found: list[dict[str, Any]], value: str, error: str) -> str:
    """The mean with its standard error: of the test images, and of seeds where there are some."""
    mean = over_seeds([{"value": row[value], "stderr": row[error]} for row in found])
    return f"{mean['value']:.2f} ± {mean['stderr']:.2f}"


def write_readme() -> None:
    text = README.read_text(encoding="utf-8")
    begin, end = "<!-- table: written by train.py -->", "<!-- end of table -->"
    write_whole(README, between(text, begin, end, table()).encode())


if __name__ == "__main__":
    sys.exit(main())
