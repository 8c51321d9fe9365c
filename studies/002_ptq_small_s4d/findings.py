"""The paper's findings as paired comparisons on our model, and ranks against its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import erfc, inf, sqrt
from typing import Any, NamedTuple

import numpy as np
from plans import STUDY, WHOLE, Row

from sensprobe.evaluate import Score, paired
from sensprobe.report.agreement import kendall

Arrays = Mapping[str, np.ndarray]
LEVEL = 0.05
"""Of all findings together, by Holm's correction."""
SENSITIVE = ("A", "state, static")
ROBUST = ("B", "C", "D", "other weights", "activations, static")


class Comparison(NamedTuple):
    """Says that `better` scores more than `worse`; published: their accuracies, where given."""

    claim: str
    where: str
    bits: int
    better: Row
    worse: Row
    published: tuple[float, float] | None = None


def comparisons(measured: Mapping[Row, Arrays]) -> list[Comparison]:
    """Every direction the paper reports, as two rows of ours."""
    return [*_sensitive(measured), *_choices(list(measured))]


def _sensitive(measured: Mapping[Row, Arrays]) -> Iterator[Comparison]:
    """A and the state against whichever other thing suffers most at the same bits."""
    alone = {(row.thing, row.bits): row for row in measured if row.section == "alone"}
    for thing in SENSITIVE:
        for bits in STUDY["alone"]["bits"][:3]:
            others = [alone[name, bits] for name in ROBUST]
            worst = min(others, key=lambda row: float(measured[row]["correct"].mean()))
            name = thing.split(",")[0]
            yield Comparison(
                f"{name} more sensitive than anything else",
                f"{name} against {worst.thing}",
                bits,
                worst,
                alone[thing, bits],
            )


def _choices(rows: list[Row]) -> Iterator[Comparison]:
    """One choice of the quantizer against the other, everything else as the paper has it."""
    found = {(r.thing, *r.how.split(), r.bits): r for r in rows if r.section == "choices"}
    options: list[tuple[str, str, int]] = [
        ("per head better than per tensor", "granularity", 0),
        ("asymmetric better than symmetric", "symmetry", 1),
        ("dynamic better than static", "time", 2),
    ]
    usual = ["head", "asym", "static"]
    for claim, choice, place in options:
        worse, better = STUDY["choices"][choice]
        for thing, *_, bits in dict.fromkeys((key[0], key[-1]) for key in found):
            low, high = ([*usual[:place], v, *usual[place + 1 :]] for v in (worse, better))
            pair = [found.get((thing, *kind, bits)) for kind in (low, high)]
            if pair[0] is None or pair[1] is None:
                continue
            printed = STUDY["choices"]["published"].get(choice) if thing == WHOLE else None
            yield Comparison(
                claim, thing, bits, pair[1], pair[0], tuple(printed) if printed else None
            )


def judged(measured: Mapping[Row, Arrays]) -> list[dict[str, Any]]:
    """Every comparison with its paired difference and whether the direction holds."""
    listed = comparisons(measured)
    gaps = [paired(measured[c.better]["correct"], measured[c.worse]["correct"]) for c in listed]
    nats = [paired(measured[c.worse]["kl"], measured[c.better]["kl"]) for c in listed]
    sure = holm([p_value(gap) for gap in gaps])
    return [
        {
            "claim": c.claim,
            "where": c.where,
            "bits": c.bits,
            "published": list(c.published) if c.published else None,
            "better": round(100 * float(measured[c.better]["correct"].mean()), 2),
            "worse": round(100 * float(measured[c.worse]["correct"].mean()), 2),
            "difference": {
                "value": round(100 * gap.value, 3),
                "stderr": round(100 * gap.stderr, 3),
            },
            "kl": {"value": round(kl.value, 5), "stderr": round(kl.stderr, 5)},
            "verdict": ("holds" if gap.value > 0 else "reversed") if certain else "noise",
        }
        for c, gap, kl, certain in zip(listed, gaps, nats, sure, strict=True)
    ]


def p_value(score: Score) -> float:
    """Two-sided, of a difference being zero, by the normal law."""
    z = abs(score.value) / score.stderr if score.stderr > 0 else (inf if score.value else 0.0)
    return erfc(z / sqrt(2))


def holm(p: list[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses fall when all must be right together (Holm 1979)."""
    out = [False] * len(p)
    for k, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] > level / (len(p) - k):
            break
        out[i] = True
    return out


def ranks(measured: Mapping[Row, Arrays]) -> list[dict[str, Any]]:
    """Kendall's τ between published accuracies and ours, at each width and over all."""
    pairs: list[tuple[int, float, float]] = []
    ours = {
        (row.thing, row.bits): 100 * float(a["correct"].mean())
        for row, a in measured.items()
        if row.section == "alone"
    }
    for thing in STUDY["alone"]["things"]:
        for bits, published in zip(STUDY["alone"]["bits"], thing["published"], strict=False):
            pairs.append((bits, float(published), ours[thing["name"], bits]))
    out = []
    for bits in [*STUDY["alone"]["bits"], 0]:
        kept = [(p, o) for b, p, o in pairs if bits in (0, b)]
        tau = kendall([p for p, _ in kept], [o for _, o in kept])
        gap = float(np.median([abs(p - o) for p, o in kept]))
        row = {"bits": bits or "all", "n": len(kept), "tau": round(tau.value, 3)}
        out.append(row | {"stderr": round(tau.stderr, 3), "median_gap": round(gap, 1)})
    return out
