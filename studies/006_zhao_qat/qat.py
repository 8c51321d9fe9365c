"""Train the cells of the study under their plans, and keep each finished one.

    python studies/006_zhao_qat/qat.py [--data DIR] [--run DIR] [--only CELL …] [--seeds S …]
                                       [--epochs N] [--lr RATE] [--ssm-lr RATE]
                                       [--state RANGE] [--list]

DIR holds mnist/, the four IDX files. A finished cell is a line of qat.jsonl; one that was stopped
goes on after its last leg. The tables of README.md are written after each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import tables
from cells import HERE, QAT, STUDY, Cell, cells, in_percent

from sensprobe import api
from sensprobe.cli.study import append_line, data_folder, read_lines, reported, tell_legs

HOW_TO_GET = "give --data DIR, or set SENSPROBE_DATA=DIR, where DIR/mnist holds the four IDX files."


@reported
def main() -> int:
    asked = _asked()
    if asked.list:
        print("\n".join(cell.name for cell in cells()))
        return 0
    folder = data_folder(asked.data, [STUDY["data"]["folder"]], HOW_TO_GET)
    for cell, settings in missing(asked):
        row = trained(cell, settings, folder / STUDY["data"]["folder"], asked.run)
        append_line(QAT, row)
        tables.write_readme()
        print(f"{cell.name} seed {settings['seed']}: {row['test']['value']} %", flush=True)
    return 0


def _asked() -> argparse.Namespace:
    usual = STUDY["tuning"]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="folder of the data; default SENSPROBE_DATA")
    options.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / HERE.name)
    options.add_argument("--only", nargs="+", metavar="CELL", help="see --list; a part is enough")
    options.add_argument("--seeds", nargs="+", type=int, default=usual["seeds"])
    options.add_argument("--epochs", type=int, default=usual["epochs"])
    options.add_argument("--lr", type=float, default=usual["lr"])
    options.add_argument("--ssm-lr", type=float, default=usual["ssm_lr"])
    options.add_argument("--state", choices=STUDY["states"], default=usual["state"])
    options.add_argument("--list", action="store_true", help="list the cells, and train none")
    return options.parse_args()


def missing(asked: argparse.Namespace) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """The cells that were asked for and are not in qat.jsonl, seed by seed."""
    chosen = [c for c in cells() if not asked.only or any(part in c.name for part in asked.only)]
    if not chosen:
        raise SystemExit(f"no cell is called {' or '.join(asked.only)}: see --list")
    for seed in asked.seeds:
        for cell in chosen:
            settings = {
                "seed": seed,
                "epochs": asked.epochs,
                "lr": asked.lr,
                "ssm_lr": asked.ssm_lr,
                "batch": STUDY["tuning"]["batch"],
                "state": asked.state,
            }
            wanted = {"cell": cell.name, **settings}
            if not any(wanted.items() <= line.items() for line in read_lines(QAT)):
                yield cell, settings


def trained(cell: Cell, settings: dict[str, Any], mnist: Path, run: Path) -> dict[str, Any]:
    """The line of a cell: what it was trained by, how long, and what it scores."""
    words = [cell.name, *(f"{name}{value}" for name, value in settings.items())]
    out, began = run / "-".join(words), time.monotonic()
    state = settings["state"]
    choices = {name: value for name, value in settings.items() if name != "state"}
    more = {} if cell.parametrization == "continuous" else {"parametrization": cell.parametrization}
    document = api.tune(
        STUDY["models"][str(cell.H)], f"mnist:{mnist}", cell.widths.plan(state), out,
        trained=tell_legs, **choices, **more,
    )  # fmt: skip
    test, search = (document["splits"][name] for name in ("confirmation", "search"))
    return {
        "cell": cell.name,
        **settings,
        "steps": document["steps"],
        "seconds": round(time.monotonic() - began),
        "test": in_percent(test["after"]),
        "before": in_percent(test["before"]),
        "search": in_percent(search["after"]),
        "bytes": document["cost"]["total_bytes"],
        "date": date.today().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
