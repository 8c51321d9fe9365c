"""results.json as the tables of README.md: text from numbers alone, no model and no data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.cli.study import Sections, markdown, score
from sensprobe.report.values import in_bytes, number

HERE = Path(__file__).resolve().parent
COLUMNS = ("s32", "s16")
CLOSE = 1e-6  # points; figures are printed to a tenth, and 0.3 is not a float


def read_results() -> dict[str, Any]:
    """What run.py measured last."""
    return json.loads((HERE / "results.json").read_text(encoding="utf-8"))


# -- what the numbers say -------------------------------------------------------------------------


def difference(row: Mapping[str, Any], column: str) -> float:
    """Ours less the published accuracy, points."""
    return row[column]["value"] - row["published"]


def within(row: Mapping[str, Any], column: str) -> bool:
    """Whether ours lies within the row's bar of the published figure."""
    return abs(difference(row, column)) <= row["bar"] + CLOSE


# -- tables ---------------------------------------------------------------------------------------


def reproduction(found: Mapping[str, Any]) -> str:
    """Ours beside theirs, table by table, on the study's own 1,000 images."""
    head = ["row", "published", "s32", "difference", "s16", "difference", "bar", "± (se)"]
    parts = []
    for title in dict.fromkeys(row["table"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["table"] == title]
        parts.append(f"**{title}**\n\n{markdown(head, map(_reproduced, rows))}")
    return "\n\n".join([*parts, _tally(found)])


def _reproduced(row: Mapping[str, Any]) -> list[str]:
    cells = [row["name"], number(row["published"], 1)]
    for column in COLUMNS:
        mark = "" if within(row, column) else " ✗"
        gap = number(difference(row, column), 1, signed=True)
        cells += [number(row[column]["value"], 1), gap + mark]
    return [*cells, number(row["bar"], 1), number(row["s32"]["stderr"], 2)]


def _tally(found: Mapping[str, Any]) -> str:
    rows = found["rows"]
    lines = []
    for column in COLUMNS:
        good = [row for row in rows if within(row, column)]
        missed = [row["name"] for row in rows if not within(row, column)]
        equal = sum(abs(difference(row, column)) < 0.05 for row in rows)
        which = f" Outside: {', '.join(missed)}." if missed else ""
        lines.append(
            f"`{column}`: {len(good)} of {len(rows)} rows within their bar, {equal} equal to the "
            f"printed digit.{which}"
        )
    return "\n".join(f"- {line}" for line in lines)


def scales(found: Mapping[str, Any]) -> str:
    """What storing scales in 16 bits instead of 32 does, paired on the same images.

    "A off by" is the largest |A as stored - A|.
    """
    head = ["row", "s32", "s16", "s16 less s32", "A off by: s32", "s16", "max abs(A): s32", "s16"]

    def line(row: Mapping[str, Any]) -> list[str]:
        wide, narrow = row["s32_bytes"], row["s16_bytes"]
        return [
            row["name"],
            number(row["s32"]["value"], 1),
            number(row["s16"]["value"], 1),
            score(row["s16"]["change"], signed=True),
            *(number(b["A_off"], 5) for b in (wide, narrow)),
            *(number(b["max_abs_A"], 5) for b in (wide, narrow)),
        ]

    moved = [r for r in found["rows"] if abs(r["s16"]["change"]["value"]) >= 0.05]
    return markdown(head, map(line, moved))


def everything(found: Mapping[str, Any]) -> str:
    """All test images: what the study did not show."""
    head = ["row", "accuracy (%)", "change", "KL (nats)", "max abs(A)", "A", "state", "all"]
    full = found["full_precision"]
    sizes = ["", in_bytes(full["state"]), in_bytes(full["weights"] + full["state"])]
    first = ["full precision", score(full["all"]), "", "", "", *sizes]
    return markdown(head, [first, *map(_all_line, found["rows"])])


def _all_line(row: Mapping[str, Any]) -> list[str]:
    spent = row["s32_bytes"]
    return [
        row["name"],
        score(row["all"]),
        score(row["all"]["change"], signed=True),
        number(row["all"]["kl"], 3),
        radius(spent["max_abs_A"]),
        in_bytes(spent["A"]),
        in_bytes(spent["state"]),
        in_bytes(spent["weights"] + spent["state"]),
    ]


def radius(value: float) -> str:
    """max |A|; bold where the recurrence grows."""
    text = number(value, 4)
    return f"**{text}**" if value > 1 else text


def grid(found: Mapping[str, Any]) -> str:
    """Forms of A down, widths of the state across."""
    widths = list(dict.fromkeys(cell["state_bits"] for cell in found["grid"]))
    forms = list(dict.fromkeys(cell["A"] for cell in found["grid"]))
    cells = {(c["A"], c["state_bits"]): number(c["value"], 1) for c in found["grid"]}
    head = ["A", *(f"x {bits}" if bits else "x exact" for bits in widths)]
    return markdown(head, [[form, *(cells[form, bits] for bits in widths)] for form in forms])


def remedies(found: Mapping[str, Any]) -> str:
    """What helps at the rows that fail, with what it costs."""
    rows = {row["name"]: row for row in found["rows"]}
    parts = []
    for failed in dict.fromkeys(remedy["row"] for remedy in found["remedies"]):
        head = ["", "accuracy (%)", "change", "max abs(A)", "A", "state"]
        mine = [remedy for remedy in found["remedies"] if remedy["row"] == failed]
        lines = [_remedy(f"**{failed}**", rows[failed], ""), *map(_changed, mine)]
        parts.append(markdown(head, lines))
    return "\n\n".join(parts)


def _changed(remedy: Mapping[str, Any]) -> list[str]:
    return _remedy(remedy["name"], remedy, score(remedy["all"]["change"], signed=True))


def _remedy(name: str, found: Mapping[str, Any], change: str) -> list[str]:
    spent = found["s32_bytes"]
    sizes = [in_bytes(spent["A"]), in_bytes(spent["state"])]
    return [name, score(found["all"]), change, radius(spent["max_abs_A"]), *sizes]


# -- README ---------------------------------------------------------------------------------------

SECTIONS: Sections = {
    "reproduction": reproduction,
    "scales": scales,
    "everything": everything,
    "grid": grid,
    "remedies": remedies,
}
