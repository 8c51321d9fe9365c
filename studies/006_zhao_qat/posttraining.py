"""Rounding after training: the authors' quantizer, and this product's at the same widths."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from authors import Bits, Network, Range, calibrated, correct
from cells import PTQ, STUDY, Widths, in_percent

from sensprobe import api
from sensprobe.cli.study import append_line, read_lines
from sensprobe.data import load_data
from sensprobe.evaluate import mean
from sensprobe.models.s4d_layers import S4D
from sensprobe.session.source import open_model

HEADS = (16, 64)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: whose quantizer, of which model, at which widths (0 keeps exact).

    `time` is the range of the state: of theirs "static" or "live", of ours one of [states].
    """

    who: str  # "authors" | "ours"
    H: int
    weights: int = 0
    activations: int = 0
    A: int = 0
    x: int = 0
    time: str = "static"
    gelu: str = "exact"


def rows() -> Iterator[Row]:
    """Every measurement of the study that trains nothing."""
    grid = STUDY["grid"]
    w, a = grid["weights"], grid["activations"]
    for H in HEADS:
        yield Row("authors", H)
        yield Row("authors", H, gelu="theirs")
        for bits, when in product(STUDY["state"]["bits"], ("static", "live")):
            yield Row("authors", H, x=bits, time=when)
        yield Row("authors", H, w, a, 16, 16)
        for A, x in product(grid["A"], grid["x"]):
            yield Row("authors", H, w, a, A, x, gelu="theirs")
            for state in STUDY["states"]:
                yield Row("ours", H, w, a, A, x, state)
        yield Row("authors", H, 8, 8, 8, 8, gelu="theirs")
        for state in STUDY["states"]:
            yield Row("ours", H, 8, 8, 8, 8, state)


@dataclass(frozen=True)
class Measured:
    """A model, the images it is measured on, and static ranges of the authors' quantizer."""

    H: int
    folder: Path

    @property
    def spec(self) -> str:
        return f"mnist:{self.folder}"

    @cached_property
    def model(self) -> S4D:
        return cast(S4D, open_model(STUDY["models"][str(self.H)]).model)

    @cached_property
    def splits(self) -> Any:
        return load_data(self.spec).splits

    @cached_property
    def ranges(self) -> dict[str, Range]:
        return calibrated(self.model, self.splits["train"].x[: STUDY["data"]["calibration"]])

    def measure(self, row: Row) -> dict[str, Any]:
        """Accuracy in %, its standard error and n."""
        if row.who == "ours":
            plan = Widths(row.weights, row.activations, row.A, row.x).plan(row.time)
            return in_percent(api.evaluate(STUDY["models"][str(self.H)], self.spec, plan))
        names = ("weights", "activations", "A")
        bits = Bits(
            *(getattr(row, name) or None for name in names), row.x or None, row.time, row.gelu
        )
        test = self.splits["confirmation"]
        network = Network(self.model, bits, self.ranges)
        hits: np.ndarray = correct(network, test.x, test.y, STUDY["data"]["batch"])
        found = mean(hits)
        return in_percent({"value": found.value, "stderr": found.stderr, "n": len(hits)})


def measure_missing(folder: Path) -> Iterator[str]:
    """Measure the rows that ptq.jsonl lacks, add each to it, and tell of it."""
    names = tuple(asdict(Row("", 0)))
    known = {tuple(line[name] for name in names) for line in read_lines(PTQ)}
    models = {H: Measured(H, folder) for H in HEADS}
    for row in rows():
        if tuple(asdict(row).values()) in known:
            continue
        began = time.monotonic()
        found = models[row.H].measure(row)
        seconds = round(time.monotonic() - began, 1)
        append_line(
            PTQ, asdict(row) | found | {"seconds": seconds, "date": date.today().isoformat()}
        )
        yield f"{row}: {found['value']} ± {found['stderr']} % in {seconds} s"
