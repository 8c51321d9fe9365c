"""Tables in narrow terminals: they wrap by columns, and no number is cut or loses digits."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from sensprobe.cli import show_scores
from sensprobe.report.read import read_confirmation, read_search
from sensprobe.report.terminal import confirmed_table, frontier_table

BITS = {
    "metric": "bits_per_byte",
    "sign": -1,
    "metric_info": {
        "name": "bits per byte", "unit": "", "change_unit": "", "scale": 1.0,
        "higher_is_better": False,
    },
}  # fmt: skip
COST = {"total_bytes": 1, "weight_bytes": 1, "state_bytes": 0, "batch": 1}
LONG = "int6/head/asym/dynamic, layers.*.out_proj in int8/head/asym/dynamic"


def score(value: float, stderr: float = 0.0412) -> dict[str, Any]:
    return {"value": value, "stderr": stderr, "n": 2620, "clusters": 16}


def confirmed() -> RenderableType:
    """A language model's, each plan with two rivals."""
    rival = {"total_bytes": 1409286, "radius": 0.9, "metric": score(1.7523)}
    plans = [
        {
            "budget": f"{size}KiB", "candidate": f"p{size}", "name": f"p{size}",
            "total_bytes": 1024 * size, "weight_bytes": 900 * size, "state_bytes": 124 * size,
            "radius": 0.99, "metric": score(1.7634), "loss": score(0.00234, 0.00052),
            "against_uniform": {"uniform": "int6", **rival, "difference": score(-0.0146, 0.0012)},
            "against_hand": {"about": LONG, **rival, "difference": score(0.0008, 0.0011)},
        }
        for size in (1000, 1500)
    ]  # fmt: skip
    document = {"split": "confirmation", "n": 2620, **BITS, "baseline": score(1.76), "plans": plans}
    return confirmed_table(read_confirmation(document))


def tuned() -> list[RenderableType]:
    split = {
        "n": 2620, "full": score(1.8), "before": score(12.8012), "after": score(1.77123),
        "gained": score(-11.0301, 0.0012), "left": score(0.0101, 0.0312),
    }  # fmt: skip
    more = {"pruned_to": None, "cost": COST, "weights": "w", "plan": "p"}
    return [*show_scores.tuned({**BITS, **more, "splits": {"search": split, "end": split}})]


def printed(parts: list[RenderableType], width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), record=True, highlight=False)
    for part in parts:
        console.print(part)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [120, 80, 60, 50])
def test_a_confirmation_of_a_language_model_has_every_digit(width: int) -> None:
    lines = printed([confirmed()], width)
    assert max(map(len, lines)) <= width
    for number in ("1.76 ± 0.04", "+0.0023 ± 0.0005", "−0.0146 ± 0.0012", "· +0.0008 ± 0.0011"):
        assert sum(number in line for line in lines) >= 2, number
    assert sum("1.34" in line for line in lines) == 4


@pytest.mark.parametrize("width", [80, 50])
def test_what_tuning_gained_wraps_by_columns(width: int) -> None:
    text = "\n".join(printed(tuned(), width))
    for number in ("1.800 ± 0.041", "12.801 ± 0.041", "-11.0301 ± 0.0012", "· +0.010 ± 0.031"):
        assert text.count(number) == 2, number
    assert not re.search(r"±\s*$", text, re.MULTILINE)


def test_the_last_column_of_a_front_is_not_lost_below_the_others() -> None:
    plan = {
        "name": "p1", "metric": score(1.7634), "loss": score(0.00234, 0.00052), "weight_bytes": 9,
        "state_bytes": 1, "total_bytes": 1_000_000, "plan": {"schemes": []}, "on_front": True,
    }  # fmt: skip
    full = {"metric": score(1.76), "total_bytes": 6_000_000}
    chosen = [{"budget": "1000KiB", "candidate": "p1", "uniform": None}]
    search = {**BITS, "method": "gains", "batch": 1, "split": "search", "n": 16, "full": full}
    found = read_search({**search, "candidates": [plan], "chosen": chosen})
    text = "\n".join(printed([frontier_table(found)], 60))
    assert "+0.0023 ± 0.0005  for 1000KiB" in text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (-11.0301, 0.0012, "-11.0301 ± 0.0012"),
        (1.8, 0.0412, "1.800 ± 0.041"),
        (1.8, 0.0999, "1.80 ± 0.10"),
        (123.456, 4.2, "123.5 ± 4.2"),
        (12345.6, 420.0, "12346 ± 4.2e+02"),
        (0.5, float("nan"), "0.5 ± ?"),
        (-3e-9, 2e-9, "-3e-09 ± 2e-09"),
    ],
)
def test_a_number_has_the_digits_of_its_error(value: float, stderr: float, text: str) -> None:
    assert show_scores.score(score(value, stderr), show_scores.info_in(BITS)) == text
