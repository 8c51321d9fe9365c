"""Measure QS4D's questions on sequential MNIST, cell by cell, and keep each finished one.

    python studies/010_qs4d/run.py [--data DIR] [--run DIR] [--train] [--only CELL …] [--seeds S …]
                                   [--list]

DIR holds mnist/, the four IDX files. A finished cell is a line of results.jsonl; a training that
was stopped goes on after its last leg. The tables of README.md are written after each. The model of
width 32 is that of RUN/width-32, which

    sensprobe train studies/010_qs4d/width32.toml --data mnist:DIR/mnist --out RUN/width-32

trains; without it its cells are passed over.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from qs4d_cells import HERE, STUDY, Cell, cells
from qs4d_tables import RESULTS, write_readme

from sensprobe import api
from sensprobe.cli.study import append_line, data_folder, read_lines, reported, tell_legs

HOW_TO_GET = "give --data DIR, or set SENSPROBE_DATA=DIR, where DIR/mnist holds the four IDX files."
SPLIT = "confirmation"


@reported
def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="folder of the data; default SENSPROBE_DATA")
    options.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / HERE.name)
    options.add_argument("--only", nargs="+", metavar="CELL", help="see --list; or patterns: A-*")
    options.add_argument("--train", action="store_true", help="also the cells that are trained")
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--list", action="store_true", help="name the cells, and run none")
    asked = options.parse_args()
    everything = asked.train or asked.list
    chosen = [
        cell
        for cell in cells()
        if any(fnmatch(cell.name, pattern) for pattern in asked.only or ())
        or (not asked.only and (everything or not cell.training))
    ]
    if asked.list:
        sys.stdout.write("".join(f"{cell.name}\n" for cell in chosen))
        return 0
    data = f"mnist:{data_folder(asked.data, ['mnist'], HOW_TO_GET) / 'mnist'}"
    for seed in asked.seeds:
        for cell in chosen:
            measure_missing(cell, seed if cell.training else 0, data, asked.run)
    write_readme()
    return 0


def measure_missing(cell: Cell, seed: int, data: str, run: Path) -> None:
    """Measure a cell unless results.jsonl has it, and add it."""
    wanted = {"cell": cell.name, "seed": seed}
    if any(wanted.items() <= known.items() for known in read_lines(RESULTS)):
        return
    model = STUDY["model"]["name"].replace("64", str(cell.width))
    if cell.width == 32:
        model = str(run / "width-32" / "weights.safetensors")
        if not Path(model).exists():
            sys.stderr.write(f"{cell.name}: passed over, for {model} is not there.\n")
            return
    if cell.training:
        found = trained(cell, seed, model, data, run / f"{cell.name}-{seed}")
    elif cell.schemes:
        found = rounded(cell, model, data)
    else:
        found = {"noise": under_noise(model, data)}
    append_line(RESULTS, {**wanted, **found, "date": date.today().isoformat()})
    write_readme()
    sys.stderr.write(f"{cell.name}, seed {seed}: done\n")


def rounded(cell: Cell, model: str, data: str) -> dict[str, Any]:
    """The accuracy in % under a plan, and the paired difference to full precision in points."""
    images = STUDY["model"]["images"]
    found = api.evaluate(model, data, _plan(cell), limit=images, compare=True)
    scores = {"after": found, "left": found["difference"]}
    return {**_percent(scores), "n": found["n"], "bytes": found["cost"]["total_bytes"]}


def trained(cell: Cell, seed: int, model: str, data: str, out: Path) -> dict[str, Any]:
    """The accuracies in % of a training on all test images, and what it bears of noise: of a cell
    without a plan trained in stages, each from where the one before ended."""
    how: dict[str, Any] = {"seed": seed, "trained": tell_legs, **dict(cell.training)}
    if cell.noise and not cell.schemes:
        for level in cell.noise:
            document = api.tune(
                model, data, None, out / str(level), noise=f"weights={level}", **how
            )
            model = document["weights"]
    else:
        left = None if cell.kernels is None else f"kernels={cell.kernels}"
        document = api.tune(model, data, _plan(cell) or None, out, prune=left, **how)
    scores = document["splits"][SPLIT]
    found = {
        **_percent({key: scores[key] for key in ("full", "before", "after", "gained", "left")}),
        "n": scores["n"],
        "bytes": document["cost"]["total_bytes"],
        "steps": document["steps"],
        "seconds": round(document["seconds"]),
    }
    if cell.noise:
        plan = out / "plan.json" if cell.schemes else None
        levels = list(cell.noise) if cell.schemes else STUDY["noise"]["levels"]
        found["noise"] = under_noise(document["weights"], data, plan, levels)
    return found


def under_noise(
    model: str, data: str, plan: Any = None, levels: list[float] | None = None
) -> list[dict[str, Any]]:
    """The accuracy in % under each level of noise on the weights: the mean over devices."""
    how, rows = STUDY["noise"], []
    for level in levels or how["levels"]:
        perturbed = {"noise": f"weights={level}", "draws": how["draws"]} if level else {}
        found = api.evaluate(model, data, plan, limit=how["images"], **perturbed)
        rows.append({"level": level, "n": found["n"], **_percent({"after": found})["after"]})
    return rows


def _plan(cell: Cell) -> dict[str, str]:
    return dict(text.split("=", 1) for text in cell.schemes)


def _percent(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores as percent, differences as points."""
    return {
        name: {key: round(100 * found[key], 3) for key in ("value", "stderr")}
        for name, found in scores.items()
    }


if __name__ == "__main__":
    sys.exit(main())
