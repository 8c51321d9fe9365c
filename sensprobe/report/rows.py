"""Results as numbers: one row an observation, with flags, for CSV files and further work.

Values are in the unit of their heading, not rounded; `is a difference` says whether the error bar
tells a value from zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sensprobe.report.agreement import ALL, Agreement
from sensprobe.report.dataframes import pd
from sensprobe.report.results import (
    Candidate,
    Compared,
    Confirmation,
    Confirmed,
    Search,
    Sensitivity,
)
from sensprobe.report.tables import mark_of
from sensprobe.report.tuned import Tuned, Tuning
from sensprobe.report.values import UNKNOWN, Measured, Quantity


def sensitivity_rows(found: Sensitivity) -> pd.DataFrame:
    """One row a group and scheme: numbers, error bars, and what they allow to say."""
    rows = []
    for row in found.rows:
        change = found.metric.shown(row.change)
        metric: dict[str, Any] = {}
        if found.has_metric:
            metric = _numbers(found.metric.change_heading, change)
            metric["is a difference"] = change.differs
        rows.append(
            {
                "target": row.group,
                "part": row.part,
                "kind": row.kind,
                "layer": row.layer,
                "scheme": row.scheme,
                "applied": " ".join(row.applied),
                **metric,
                **_numbers(found.additive.heading, found.shown(row, "additive")),
                found.radius_name: row.radius,
                "unstable": row.unstable,
                "weights (bytes)": row.weight_bytes,
                "state (bytes)": row.state_bytes,
            }
        )
    return pd.DataFrame(rows)


def frontier_rows(search: Search) -> pd.DataFrame:
    """Every candidate with its numbers."""
    q = search.quantity
    return pd.DataFrame(
        {
            "plan": c.name,
            "source": c.source,
            "uniform scheme": c.uniform or "",
            **_bytes(c),
            "effective bits": c.effective_bits,
            **_scores(q, c),
            "is a difference": q.shown(c.change).differs,
            "predicted loss": c.predicted,
            "measured loss": c.extra_nats,
            "samples": c.n,
            search.radius_name: c.radius,
            "front": c.on_front,
            "note": mark_of(c, search),
        }
        for c in search.candidates
    )


def confirmation_rows(found: Confirmation) -> pd.DataFrame:
    """Confirmed plans with their numbers, and those of what they stand against."""
    q = found.quantity
    rows = []
    for plan in found.plans:
        row: dict[str, Any] = {
            "budget": plan.budget,
            "plan": plan.candidate,
            **_bytes(plan),
            "samples": found.n,
            found.radius_name: plan.radius,
        }
        scores = _scores(q, plan)
        for what, heading, rival in (
            ("uniform", "uniform scheme", plan.uniform),
            ("by hand", "by hand", plan.hand),
        ):
            row[heading] = rival.name if rival else ""
            row[f"{what} total (bytes)"] = rival.total_bytes if rival else None
            level, gain = (rival.metric, rival.difference) if rival else (UNKNOWN, UNKNOWN)
            scores |= _numbers(f"{what} {q.heading}", q.shown(level))
            scores |= _numbers(f"against {what} ({_unit(q)})", q.shown(gain))
        rows.append(row | scores)
    return pd.DataFrame(rows)


def compared_rows(found: Search | Confirmation) -> pd.DataFrame:
    """Plans measured beside the search, with their numbers."""
    q = found.quantity
    return pd.DataFrame(
        {
            "plan": plan.name,
            **_bytes(plan),
            "split": found.split,
            "samples": found.n,
            found.radius_name: plan.radius,
            "chosen of no more bytes": plan.chosen or "",
            **_scores(q, plan),
            **_numbers(f"chosen gains ({_unit(q)})", q.shown(plan.gain)),
        }
        for plan in found.compared
    )


def tuned_rows(found: Tuning) -> pd.DataFrame:
    """A row a tuned plan and split, with its numbers."""
    q = found.quantity
    rows = []
    for plan in found.plans:
        for split in ("confirmation", "search"):
            scores = getattr(plan, split)
            rows.append(
                {
                    "plan": plan.name,
                    **_bytes(plan),
                    "split": split,
                    "samples": scores.n,
                    **_numbers(f"untuned {q.heading}", q.shown(scores.before)),
                    **_numbers(f"tuned {q.heading}", q.shown(scores.after)),
                    **_numbers(f"gained ({_unit(q)})", q.shown(scores.gained)),
                    "is a difference": q.shown(scores.gained).differs,
                    **_numbers(f"to full precision ({_unit(q)})", q.shown(scores.left)),
                    found.radius_name: plan.radius,
                    "epochs": plan.epochs,
                    "seconds": plan.seconds,
                    "folder": plan.folder,
                }
            )
    return pd.DataFrame(rows)


def agreement_rows(found: Agreement) -> pd.DataFrame:
    """τ of every scheme and over all."""
    rows: Iterable[tuple[str, Measured]] = [*found.by_scheme.items(), (ALL, found.overall)]
    return pd.DataFrame(
        {"scheme": s, **_numbers("Kendall τ", tau), "observations": tau.n} for s, tau in rows
    )


def _numbers(heading: str, shown: Measured) -> dict[str, float]:
    """Two columns: the value and its standard error."""
    return {heading: shown.value, f"± {heading}": shown.stderr}


def _scores(q: Quantity, plan: Candidate | Compared | Confirmed) -> dict[str, float]:
    change = _numbers(q.change_heading, q.shown(plan.change))
    return _numbers(q.heading, q.shown(plan.metric)) | change


def _bytes(plan: Candidate | Compared | Confirmed | Tuned) -> dict[str, int]:
    return {
        "total (bytes)": plan.total_bytes,
        "weights (bytes)": plan.weight_bytes,
        "state (bytes)": plan.state_bytes,
    }


def _unit(q: Quantity) -> str:
    return q.change_unit or q.name
