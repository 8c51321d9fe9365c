"""results.json as the tables of README.md: text from numbers alone, no model and no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans import STUDY

from sensprobe.cli.study import Sections, markdown, score
from sensprobe.report.values import in_bytes

Found = Mapping[str, Any]
NAMES = list(STUDY["models"])
SURE = 1.96


def change(row: Found, key: str = "change") -> str:
    """A paired difference; in bold what is more than its error."""
    text = score(row[key], signed=True)
    return f"**{text}**" if abs(row[key]["value"]) > SURE * row[key]["stderr"] else text


def alone(found: Found) -> str:
    """Each part of each model alone: what it loses."""
    kept = {
        (name, r["part"], r["bits"]): r for name in NAMES for r in _section(found, name, "alone")
    }
    parts = list(dict.fromkeys(part for _, part, _ in kept))
    widths = STUDY["alone"]["bits"]
    head = ["rounded alone", *(f"{name}, {bits} bits" for name in NAMES for bits in widths)]
    lines = []
    for part in parts:
        rows = [kept.get((name, part, bits)) for name in NAMES for bits in widths]
        lines.append([part, *(change(r) if r else "" for r in rows)])
    bases = [f"{name} {score(_base(found, name))} {_unit(found, name)}" for name in NAMES]
    return f"Full precision: {', '.join(bases)}.\n\n{markdown(head, lines)}"


def ways(found: Found, section: str) -> str:
    """One part in several ways to round it, KL in nats."""
    widths = STUDY[section]["bits"]
    head = ["", *(f"{name}, {bits} bits" for name in NAMES for bits in widths)]
    kept = {
        (name, r["how"], r["bits"]): r for name in NAMES for r in _section(found, name, section)
    }
    lines = [
        [how, *(score(kept[name, how, bits]["kl"]) for name in NAMES for bits in widths)]
        for how, _ in STUDY[section]["ways"]
    ]
    return markdown(head, lines)


def searched(found: Found, name: str) -> str:
    """Plans at the bytes of every preset."""
    head = [
        "batch", "preset", "bytes", "preset loses", "searched loses", "weights, state (bits)",
        "against it", "against the best that fits", "against uniform",
    ]  # fmt: skip
    lines = [
        [
            str(r["batch"]),
            r["preset"] or "–",
            in_bytes(r["budget"]),
            score(r["preset_loss"], signed=True) if r["preset"] else "",
            score(r["searched"], signed=True),
            f"{r['weight_bits']:.1f}, {r['state_bits']:.1f}",
            _judged(r["against_preset"]) if r["preset"] else "",
            f"{r['best']}: {_judged(r['against_best'])}" if r["best"] else "none fits",
            f"{r['uniform']}: {_judged(r['against_uniform'])}"
            if r["against_uniform"]
            else "none fits",
        ]
        for r in found[f"{name} searched"]
    ]
    last = found[f"{name} searched"][-1]
    about = f"In {_unit(found, name)}, on {last['n']:,} windows of {last['groups']} groups."
    return f"{about}\n\n{markdown(head, lines)}\n\n{_verdicts(found, name)}"


def prices(found: Found) -> str:
    """How the cheap prices rank sites."""
    lines = [[f"`{r['scheme']}`", str(r["n"]), score(r)] for r in found["prices"]]
    took, count = found["seconds"], found["samples"]
    return (
        markdown(["scheme", "sites", "Kendall τ"], lines)
        + f"\n\n`taylor`, the whole command's work with its calibration: {took['taylor']:.0f} s. "
        f"One full evaluation of a plan that rounds every part, on all {count['whole']} windows of "
        f"the search split: {took['whole']:.1f} s; on the {count['these']} windows that were "
        f"priced: {took['these']:.2f} s. `measured`: {took['measured']:.0f} s."
    )


def _verdicts(found: Found, name: str) -> str:
    rows = found[f"{name} searched"]
    out = []
    for batch in dict.fromkeys(r["batch"] for r in rows):
        mine = [r for r in rows if r["batch"] == batch]
        words = [
            {(r[key] or {}).get("verdict", "better") for key in ("against_best", "against_uniform")}
            for r in mine
        ]
        both = sum(w == {"better"} for w in words)
        worse = sum("worse" in w for w in words)
        out.append(
            f"Batch {batch}: better than the best preset that fits and than the best uniform plan "
            f"at {both} of {len(mine)} budgets, worse than one of them at {worse}."
        )
    return " ".join(out)


def _judged(found: Found) -> str:
    return score(found, signed=True) + (f" {found['verdict']}" if found["verdict"] else "")


def _section(found: Found, name: str, section: str) -> list[Any]:
    return [row for row in found[name] if row["section"] == section]


def _base(found: Found, name: str) -> dict[str, float]:
    base = found[f"{name} baseline"]
    scale = 100 if base["metric"] == "accuracy" else 1
    return {k: scale * base[k] for k in ("value", "stderr")}


def _unit(found: Found, name: str) -> str:
    return "%" if found[f"{name} baseline"]["metric"] == "accuracy" else "bits a byte"


SECTIONS: Sections = {
    "alone": alone,
    "rotation": lambda found: ways(found, "rotation"),
    "state": lambda found: ways(found, "state"),
    **{f"searched {name}": (lambda found, name=name: searched(found, name)) for name in NAMES},
    "prices": prices,
}
