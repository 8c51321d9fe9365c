"""Train a model under Q-S5's configurations, a searched plan, and plans that round A alone.

    python studies/009_qs5/train.py [--on s5-smnist] [--only CELL …] [--seeds S …] [--list]
                                    [--data DIR] [--run DIR] [--weights FILE]

A finished cell is a line of trained.jsonl; one that was stopped goes on after its last leg. The
tables of README.md are written after each. `run.py` says where weights are looked for.
"""

from __future__ import annotations

import sys
from datetime import date
from typing import Any

from shown import write_readme
from subject import STUDY, TRAINED, Cell, Subject, cells, dynamic, options, subject_of

from sensprobe import api
from sensprobe.cli.study import append_line, read_lines, reported, tell_legs
from sensprobe.errors import UsageError

KEPT = ("full", "before", "after", "gained", "left")


@reported
def main() -> int:
    found = options(__doc__.splitlines()[0])
    found.add_argument("--only", nargs="+", choices=[cell.name for cell in cells()])
    found.add_argument("--seeds", nargs="+", type=int, help="default: those of study.toml")
    found.add_argument("--list", action="store_true", help="name the cells, and run none")
    asked = found.parse_args()
    if asked.list:
        sys.stdout.write("".join(f"{cell.name}\n" for cell in cells()))
        return 0
    subject = subject_of(asked)
    for seed in asked.seeds or subject.entry["seeds"]:
        for cell in cells():
            if not asked.only or cell.name in asked.only:
                train_missing(subject, cell, seed, asked)
    write_readme()
    return 0


def train_missing(subject: Subject, cell: Cell, seed: int, asked: Any) -> None:
    """Train a cell unless trained.jsonl has it, and add it."""
    wanted = {"model": subject.name, "cell": cell.name, "seed": seed}
    if any(wanted.items() <= known.items() for known in read_lines(TRAINED)):
        return
    place, how = asked.run / subject.name, "brief" if cell.schemes else "tuning"
    document = api.tune(
        subject.source, subject.data, plan_of(subject, cell, place), place / f"{cell.name}-{seed}",
        seed=seed, trained=tell_legs, **subject.entry[how],
    )  # fmt: skip
    row = wanted | row_of(document)
    append_line(TRAINED, row)
    write_readme()
    sys.stderr.write(f"{wanted}: {row['after']['value']} %\n")


def plan_of(subject: Subject, cell: Cell, place: Any) -> Any:
    """A plan as `api.tune` takes it; a searched one is searched when it is first asked for."""
    if cell.preset:
        return {name: str(scheme) for name, scheme in dynamic(cell.preset, subject.model).items()}
    if cell.schemes:
        return dict(cell.schemes)
    asked, how, run = STUDY["searched"], dict(subject.entry["search"]), place / "search"
    api.profile(
        subject.source, subject.data, run, asked["schemes"], method=how.pop("method"),
        limit=how.pop("profiled", None),
    )  # fmt: skip
    found = api.search(run, [asked["budget"]], freeze=asked["freeze"], confirm=False, **how)
    chosen = found["search"]["chosen"][0]["plan_file"]
    if chosen is None:
        raise UsageError(f"no plan that was evaluated fits {asked['budget']}.")
    return run / chosen


def row_of(document: dict[str, Any]) -> dict[str, Any]:
    """The line of a training: accuracies of the confirmation split in %, differences in points."""
    scores = document["splits"]["confirmation"]
    return {
        "bytes": document["cost"]["total_bytes"],
        "effective_bits": round(document["cost"]["effective_bits"], 2),
        "steps": document["steps"],
        "seconds": round(document["seconds"]),
        "n": scores["n"],
        **{key: {k: round(100 * scores[key][k], 3) for k in ("value", "stderr")} for key in KEPT},
        "date": date.today().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
