"""study.toml as cells: what is rounded to which widths, what was published of it, what it takes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from sensprobe.plans.plan import Plan, parse_setting

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))
PARAMETRIZATIONS = ("continuous", "discrete", "frozen")
PTQ, QAT = HERE / "ptq.jsonl", HERE / "qat.jsonl"
PAIRS = 32


@dataclass(frozen=True, slots=True)
class Widths:
    """Bits of the other weights, the activations, A and the state."""

    weights: int
    activations: int
    A: int
    x: int

    @property
    def text(self) -> str:
        """W4A6 Ā8×x8; of equal widths W8A8."""
        short = f"W{self.weights}A{self.activations}"
        same = {self.weights, self.activations, self.A, self.x}
        return short if len(same) == 1 else f"{short} Ā{self.A}×x{self.x}"

    def plan(self, state: str) -> Plan:
        """This product's plan at these widths; `state` names the range of the state."""
        bits = {"w": self.weights, "a": self.activations, "A": self.A, "x": self.x}
        schemes = STUDY["plan"] | {"layers.*.state": STUDY["states"][state]}
        entries = (f"{name}={text.format(**bits)}" for name, text in schemes.items())
        return Plan(tuple(map(parse_setting, entries)))


@dataclass(frozen=True, slots=True)
class Cell:
    """One trained figure: heads, widths, and how A is trained."""

    H: int
    widths: Widths
    parametrization: str

    @property
    def name(self) -> str:
        """h64-w4a6-A8x8-frozen, as --only takes it."""
        w = self.widths
        return f"h{self.H}-w{w.weights}a{w.activations}-A{w.A}x{w.x}-{self.parametrization}"


def table_cells() -> Iterator[Cell]:
    """The trained cells of Table III, in each parametrization that the study trains them in."""
    for row in STUDY["table"]:
        if row["method"] == "QAT":
            for parametrization in STUDY["tuning"]["table"]:
                yield Cell(row["H"], Widths(*row["widths"]), parametrization)


def grid_cells() -> Iterator[Cell]:
    """The corners of the grid and its middle, in every parametrization."""
    grid = STUDY["grid"]
    for (A, x), parametrization in product(grid["corners"], PARAMETRIZATIONS):
        widths = Widths(grid["weights"], grid["activations"], A, x)
        yield Cell(grid["H"], widths, parametrization)


def cells() -> list[Cell]:
    """Every cell that is trained, each once, small models first."""
    return sorted(dict.fromkeys([*table_cells(), *grid_cells()]), key=lambda cell: cell.H)


def published_grid(kind: str, A: int, x: int) -> float:
    """A figure of the published grid; `kind` is PTQ or a parametrization."""
    grid = STUDY["grid"]
    return grid["published"][kind][grid["A"].index(A)][grid["x"].index(x)]


# -- memory as the paper counts it -----------------------------------------------------------------


def published_bits(H: int, widths: Widths | None) -> int:
    """Bits of memory, at widths or at full precision, in the way that gives every saving the paper
    prints (inferred; the paper has no formula).

    B, C, D and linear weights, A, the state and four activations a head at their widths, biases in
    32 bits, no scales. At full precision there are 32 values a head more.
    """
    A = x = C = B = 2 * PAIRS * H
    others = B + C + H + 2 * H * H + H + 10 * H  # D, out_proj, encoder, head
    biases, activations = H + 2 * H + 10, 4 * H
    if widths is None:
        return 32 * (A + x + others + biases + activations + 32 * H)
    w = widths
    return w.A * A + w.x * x + w.weights * others + w.activations * activations + 32 * biases


def published_saving(H: int, widths: Widths) -> float:
    """The saving in % that the paper prints of a plan."""
    return 100 * (1 - published_bits(H, widths) / published_bits(H, None))


# -- results ---------------------------------------------------------------------------------------


def in_percent(found: dict[str, Any]) -> dict[str, Any]:
    """An accuracy and its standard error in points."""
    return {
        "value": round(100 * found["value"], 3),
        "stderr": round(100 * found["stderr"], 3),
        "n": found["n"],
    }
