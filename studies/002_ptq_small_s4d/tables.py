"""results.json as the tables of README.md: text from numbers alone, no model and no data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.cli.study import Sections, markdown, score
from sensprobe.report.values import Measured, in_bytes, number, plus_minus

HERE = Path(__file__).resolve().parent
THINGS = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))["alone"]["things"]
AUTHORS = HERE.parent / "006_zhao_qat" / "ptq.jsonl"
"""What study 006 measured by the authors' own quantizer."""


def read_results() -> dict[str, Any]:
    """What run.py measured last."""
    return json.loads((HERE / "results.json").read_text(encoding="utf-8"))


def radius(value: float) -> str:
    """max |A|; bold where the recurrence grows."""
    text = number(value, 4)
    return f"**{text}**" if value > 1 else text


def _full(found: Mapping[str, Any], size: str) -> str:
    row = found[size][0]
    total = in_bytes(row["weights"] + row["state"])
    return f"Full precision: {score(row)} % on {row['n']:,} images, {total} of weights and state."


def alone(found: Mapping[str, Any], size: str = "small") -> str:
    """Each thing alone, ours beside theirs."""
    rows = {(r["thing"], r["bits"]): r for r in found[size] if r["section"] == "alone"}
    widths = list(dict.fromkeys(bits for _, bits in rows))
    lines = []
    for thing in THINGS:
        line = [thing["name"]]
        for k, bits in enumerate(widths):
            line.append(score(rows[thing["name"], bits]))
            if size == "small":
                theirs = thing["published"][k : k + 1]
                line.append(str(theirs[0]) if theirs else "–")
        lines.append(line)
    theirs = ["published"] if size == "small" else []
    head = ["rounded alone", *(cell for bits in widths for cell in [f"{bits} bits", *theirs])]
    return f"{_full(found, size)}\n\n{markdown(head, lines)}"


def large(found: Mapping[str, Any]) -> str:
    """The same on the larger model."""
    return alone(found, "large")


def findings(found: Mapping[str, Any]) -> str:
    """Each direction the paper reports, tested on paired differences."""
    head = ["finding", "on", "bits", "published", "ours", "difference (points)", "KL", "verdict"]
    lines, last = [], ""
    for f in found["findings"]:
        theirs = f["published"]
        lines.append(
            [
                f["claim"] if f["claim"] != last else "",
                f["where"],
                str(f["bits"]),
                f"{theirs[0]} → {theirs[1]}" if theirs else "–",
                f"{number(f['worse'], 1)} → {number(f['better'], 1)}",
                score(f["difference"], signed=True),
                score({**f["kl"], "value": -f["kl"]["value"]}, signed=True),
                f["verdict"],
            ]
        )
        last = f["claim"]
    return f"{markdown(head, lines)}\n\n{_tally(found)}"


def _tally(found: Mapping[str, Any]) -> str:
    verdicts = [f["verdict"] for f in found["findings"]]
    counts = {name: verdicts.count(name) for name in ("holds", "reversed", "noise")}
    return (
        f"Of {len(verdicts)} comparisons: {counts['holds']} hold, {counts['reversed']} reversed, "
        f"{counts['noise']} within noise (5 % for all together, Holm)."
    )


def ranks(found: Mapping[str, Any]) -> str:
    """How our accuracies order against theirs."""
    head = ["bits", "figures", "Kendall τ", "median gap (points)"]
    lines = [
        [
            str(r["bits"]),
            str(r["n"]),
            plus_minus(Measured(r["tau"], r["stderr"])),
            str(r["median_gap"]),
        ]
        for r in found["ranks"]
    ]
    return markdown(head, lines)


def choices(found: Mapping[str, Any]) -> str:
    """Every choice of the quantizer against every other."""
    rows = [r for r in found["small"] if r["section"] == "choices"]
    columns = list(dict.fromkeys((r["thing"], r["bits"]) for r in rows))
    cells = {(r["how"], r["thing"], r["bits"]): score(r) for r in rows}
    head = ["quantizer", *(f"{thing}, {bits} bits" for thing, bits in columns)]
    lines = [
        [how, *(cells.get((how, *column), "") for column in columns)]
        for how in dict.fromkeys(r["how"] for r in rows)
    ]
    return markdown(head, lines)


def extras(found: Mapping[str, Any]) -> str:
    """What else the same bits can do."""
    rows = found["small"]
    parts = []
    for part, usual in (("A", {"as the paper": "A"}), ("state", STATES)):
        mine = [r for r in rows if r["section"] == "extras" and r["thing"] == part]
        widths = list(dict.fromkeys(r["bits"] for r in mine))
        base = [
            {**r, "how": how}
            for how, thing in usual.items()
            for r in rows
            if r["section"] == "alone" and r["thing"] == thing and r["bits"] in widths
        ]
        cells = {(r["how"], r["bits"]): r for r in [*base, *mine]}
        extra = "max abs(A)" if part == "A" else "bytes of state"
        head = [part, *(cell for bits in widths for cell in (f"{bits} bits", extra))]
        names = list(dict.fromkeys(how for how, _ in cells))
        lines = [[n, *(c for b in widths for c in _extra(cells[n, b], part))] for n in names]
        parts.append(markdown(head, lines))
    return "\n\n".join(parts)


STATES = {"as the paper, static": "state, static", "as the paper, dynamic": "state, dynamic"}


def _extra(row: Mapping[str, Any], part: str) -> tuple[str, str]:
    return score(row), radius(row["max_abs_A"]) if part == "A" else in_bytes(row["state"])


def authors(found: Mapping[str, Any]) -> str:
    """A state rounded alone: published, by the authors' quantizer on our model, and by ours."""
    lines = [json.loads(line) for line in AUTHORS.read_text(encoding="utf-8").splitlines()]
    exact = {"who": "authors", "H": 16, "weights": 0, "activations": 0, "A": 0, "gelu": "exact"}
    theirs = {(r["time"], r["x"]): r for r in lines if exact.items() <= r.items()}
    ours = {(r["thing"], r["bits"]): r for r in found["small"] if r["section"] == "alone"}
    head = ["state", "bits", "published", "theirs on our model", "ours"]
    rows = []
    for thing, time in (("state, static", "static"), ("state, dynamic", "live")):
        published = next(t["published"] for t in THINGS if t["name"] == thing)
        for k, bits in enumerate(sorted({bits for _, bits in ours}, reverse=True)):
            told = str(published[k]) if k < len(published) else "–"
            row = theirs[time, bits]
            rows.append([thing, str(bits), told, score(row), score(ours[thing, bits])])
    return markdown(head, rows)


# -- README ---------------------------------------------------------------------------------------

SECTIONS: Sections = {
    "alone": alone,
    "authors": authors,
    "ranks": ranks,
    "findings": findings,
    "choices": choices,
    "extras": extras,
    "large": large,
}
