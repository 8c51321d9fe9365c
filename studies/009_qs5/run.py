"""Measure what Q-S5's configurations cost a model that is not trained under them.

    python studies/009_qs5/run.py [--on s5-smnist] [--data DIR] [--weights FILE]

A finished row is a line of rounded.jsonl; the same command measures what lacks, and writes the
tables of README.md. The weights of s5-smnist lie beside this file;

    sensprobe train studies/009_qs5/smnist.toml --data mnist:DIR/mnist --out OUT

trains them anew, and --weights OUT/weights.safetensors measures what it made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import torch
from shown import write_readme
from subject import (
    ALL_THREE,
    CONFIGURATIONS,
    FUNCTIONS,
    ROUNDED,
    Subject,
    dynamic,
    options,
    static,
    subject_of,
    without,
)
from tree import Bits, TreeS5

from sensprobe.cli.study import append_line, read_lines, reported
from sensprobe.evaluate import mean
from sensprobe.models.apply import Applier, needs_calibration, observe, wanted_by
from sensprobe.plans.sites import Part

WAYS = ("tree", "exact state", "rounded state", "preset")
ACTIVATION_BITS = 8


@reported
def main() -> int:
    subject = subject_of(options(__doc__.splitlines()[0]).parse_args())
    measure_missing(subject)
    return 0


def rows() -> Iterator[dict[str, str]]:
    """Every measurement of a model: its functions, the configuration, and how it is computed."""
    for functions in ("as trained", ALL_THREE):
        yield {"functions": functions, "configuration": "full precision", "way": "exact state"}
    for name in CONFIGURATIONS:
        if name != "full precision":
            for way in WAYS:
                yield {"functions": ALL_THREE, "configuration": name, "way": way}
    for functions in FUNCTIONS:
        if functions != ALL_THREE:
            for way in ("tree", "rounded state"):
                yield {"functions": functions, "configuration": "W8A8", "way": way}


def measure_missing(subject: Subject) -> None:
    """Measure the rows of a model that rounded.jsonl lacks, and add each to it."""
    for row in rows():
        wanted = {"model": subject.name, **row}
        if any(wanted.items() <= known.items() for known in read_lines(ROUNDED)):
            continue
        began = time.monotonic()
        found = accuracy(subject, **row)
        seconds = round(time.monotonic() - began, 1)
        append_line(
            ROUNDED, {**wanted, **found, "seconds": seconds, "date": date.today().isoformat()}
        )
        write_readme()
        sys.stderr.write(f"{wanted}: {found['value']} ± {found['stderr']} %, {seconds} s\n")
    write_readme()


@torch.inference_mode()
def accuracy(subject: Subject, functions: str, configuration: str, way: str) -> dict[str, Any]:
    """The accuracy in % of the confirmation split, its standard error and n.

    `way` is "tree" (the authors' scan), "exact state" or "rounded state" (at every step), all three
    with dynamic ranges, or "preset": as it stands, with static ones and a state rounded at every
    step.
    """
    model, chosen = subject.with_functions(functions), CONFIGURATIONS[configuration]
    plan = {}
    if preset := chosen.get("preset"):
        plan = static(preset, model) if way == "preset" else dynamic(preset, model)
    if way in ("tree", "exact state"):
        plan = without(plan, model, Part.STATE, *([Part.A] if way == "tree" else []))
    watched = needs_calibration(plan, model.sites)
    calibration = subject.splits["calibration"].x
    seen = observe(model, calibration, wanted_by(plan, model)) if watched else {}
    tap = Applier(model, seen).tap(plan)
    if way == "tree":
        bits = Bits(chosen["A"], ACTIVATION_BITS)
        model = TreeS5(model.config, model.weights, bits=bits)
    test, batch = subject.splits["confirmation"], subject.entry["batch"]
    hits = torch.cat([
        model(x, tap).argmax(1) == y
        for x, y in zip(test.x.split(batch), test.y.split(batch), strict=True)
    ])  # fmt: skip
    found = mean(hits.double().numpy())
    return {
        "value": round(100 * found.value, 3),
        "stderr": round(100 * found.stderr, 3),
        "n": len(hits),
    }


if __name__ == "__main__":
    sys.exit(main())
