"""Results as numbers: one row an observation, with flags, for CSV files and further work.

Values are in the unit of their heading, not rounded; `is a difference` says whether the error bar
tells a value from zero.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from sensprobe.report.agreement import ALL, Agreement
from sensprobe.report.results import Candidate, Confirmation, Row, Search, Sensitivity
from sensprobe.report.tables import mark_of


def sensitivity_rows(found: Sensitivity) -> pd.DataFrame:
    """One row a target and scheme: numbers, error bars, and what they allow to say."""
    return pd.DataFrame(_observation(found, row) for row in found.rows)


def _observation(found: Sensitivity, row: Row) -> dict[str, Any]:
    change = found.metric.shown(row.change)
    moved = found.additive.shown(row.additive)
    numbers: dict[str, Any] = {}
    if found.has_metric:
        numbers |= {
            found.metric.change_heading: change.value,
            f"± {found.metric.change_heading}": change.stderr,
            "is a difference": change.differs,
        }
    return {
        "target": row.target,
        "part": row.part,
        "kind": row.kind,
        "layer": row.layer,
        "scheme": row.scheme,
        "applied": " ".join(row.applied),
        **numbers,
        found.additive.heading: moved.value,
        f"± {found.additive.heading}": moved.stderr,
        found.radius_name: row.radius,
        "unstable": row.unstable,
        "weights (bytes)": row.weight_bytes,
        "state (bytes)": row.state_bytes,
    }


def frontier_rows(search: Search) -> pd.DataFrame:
    """Every candidate with its numbers."""
    return pd.DataFrame(_candidate_row(c, search) for c in search.candidates)


def _candidate_row(c: Candidate, search: Search) -> dict[str, Any]:
    metric, change = search.quantity.shown(c.metric), search.quantity.shown(c.change)
    return {
        "plan": c.name,
        "source": c.source,
        "uniform scheme": c.uniform or "",
        "total (bytes)": c.total_bytes,
        "weights (bytes)": c.weight_bytes,
        "state (bytes)": c.state_bytes,
        "effective bits": c.effective_bits,
        search.quantity.heading: metric.value,
        f"± {search.quantity.heading}": metric.stderr,
        search.quantity.change_heading: change.value,
        f"± {search.quantity.change_heading}": change.stderr,
        "is a difference": change.differs,
        "predicted loss": c.predicted,
        "samples": c.n,
        search.radius_name: c.radius,
        "front": c.on_front,
        "note": mark_of(c, search),
    }


def confirmation_rows(found: Confirmation) -> pd.DataFrame:
    """Confirmed plans with their numbers."""
    q = found.quantity
    rows = []
    for plan in found.plans:
        row: dict[str, Any] = {
            "budget": plan.budget,
            "plan": plan.candidate,
            "total (bytes)": plan.total_bytes,
            "weights (bytes)": plan.weight_bytes,
            "state (bytes)": plan.state_bytes,
            "samples": found.n,
            found.radius_name: plan.radius,
            "uniform scheme": plan.uniform or "",
            "uniform total (bytes)": plan.uniform_bytes if plan.uniform else None,
            "by hand": plan.hand or "",
            "by hand total (bytes)": plan.hand_bytes if plan.hand else None,
        }
        for heading, value in (
            (q.heading, plan.metric),
            (q.change_heading, plan.change),
            (f"uniform {q.heading}", plan.uniform_metric),
            (f"against uniform ({q.change_unit or q.name})", plan.difference),
            (f"by hand {q.heading}", plan.hand_metric),
            (f"against by hand ({q.change_unit or q.name})", plan.hand_difference),
        ):
            shown = q.shown(value)
            row |= {heading: shown.value, f"± {heading}": shown.stderr}
        rows.append(row)
    return pd.DataFrame(rows)


def beside_rows(found: Search | Confirmation) -> pd.DataFrame:
    """Plans measured beside the search, with their numbers."""
    q = found.quantity
    rows = []
    for plan in found.also:
        row: dict[str, Any] = {
            "plan": plan.name,
            "total (bytes)": plan.total_bytes,
            "weights (bytes)": plan.weight_bytes,
            "state (bytes)": plan.state_bytes,
            "split": found.split,
            "samples": found.n,
            found.radius_name: plan.radius,
            "chosen of no more bytes": plan.chosen or "",
        }
        for heading, value in (
            (q.heading, plan.metric),
            (q.change_heading, plan.change),
            (f"chosen gains ({q.change_unit or q.name})", plan.gain),
        ):
            shown = q.shown(value)
            row |= {heading: shown.value, f"± {heading}": shown.stderr}
        rows.append(row)
    return pd.DataFrame(rows)


def agreement_rows(found: Agreement) -> pd.DataFrame:
    """τ of every scheme and over all."""
    rows = [*found.by_scheme.items(), (ALL, found.overall)]
    return pd.DataFrame(
        {"scheme": s, "Kendall τ": tau.value, "± Kendall τ": tau.stderr, "observations": tau.n}
        for s, tau in rows
    )
