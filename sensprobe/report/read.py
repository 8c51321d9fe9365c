"""Result documents as typed values.

The JSON a run keeps is read once, here, so that tables and figures need no guards. What is null or
absent becomes NaN or None; a document that lacks what it cannot do without is a RunError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import Any

from sensprobe.errors import RunError
from sensprobe.plans.sites import Axis, Kind, Part, Site
from sensprobe.report.results import (
    RADIUS,
    Beside,
    Candidate,
    Chosen,
    Confirmation,
    Confirmed,
    Entries,
    Row,
    Search,
    Sensitivity,
)
from sensprobe.report.values import (
    ACCURACY,
    Quantity,
    additive_named,
    measured,
    quantity_of,
    real,
)
from sensprobe.scores.metrics import info_in

Document = Mapping[str, Any]


@contextmanager
def _whole(name: str, command: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(
            f"the {name} result cannot be read ({type(error).__name__}: {error}); "
            f"`sensprobe {command}` with the same --run writes it again."
        ) from error


def read_sensitivity(document: Document) -> Sensitivity:
    """A `sensitivity-METHOD` document."""
    with _whole("sensitivity", "profile"):
        key = str(document["additive"])
        baseline = document.get("baseline") or {}
        return Sensitivity(
            str(document["method"]),
            str(document["by"]),
            str(document["split"]),
            _count(document.get("n")),
            _count(document.get("clusters")),
            str(document["task"]),
            quantity_of(info_in(document)),
            additive_named(key),
            measured(baseline.get("metric")),
            _schemes(document),
            tuple(_row(row, key) for row in document["rows"]),
            _radius_name(document),
        )


def _schemes(document: Document) -> tuple[str, ...]:
    """Those asked for; ValueError where there are none, or a row has another."""
    asked = tuple(str(scheme) for scheme in document["schemes"])
    others = {str(row["scheme"]) for row in document["rows"]} - set(asked)
    if not asked or others:
        raise ValueError(f"schemes {list(asked)}, rows of {sorted(others)}")
    return asked


def _row(row: Document, additive: str) -> Row:
    return Row(
        str(row["target"]),
        str(row["part"]),
        str(row["kind"]),
        None if row.get("layer") is None else int(row["layer"]),
        str(row["scheme"]),
        tuple(str(scheme) for scheme in row.get("applied") or ()),
        _count(row.get("weight_bytes")),
        _count(row.get("state_bytes")),
        measured(row.get("metric")),
        measured(row.get(additive)),
        real(row.get("radius")),
        tuple(str(site) for site in row.get("sites") or ()),
    )


def read_search(document: Document, metric: Quantity = ACCURACY) -> Search:
    """A `search` document; `metric` is what its scores measure where the document does not say."""
    with _whole("search", "search"):
        full = document["full"]
        quantity = metric
        if "metric_info" in document or isinstance(document.get("metric"), str):
            quantity = quantity_of(info_in(document))
        return Search(
            str(document["method"]),
            max(_count(document.get("batch")), 1),
            str(document["split"]),
            _count(document.get("n")),
            real(document.get("evaluations")),
            real(document.get("spent")),
            quantity,
            measured(full["metric"]),
            _count(full["total_bytes"]),
            real(document.get("chance")),
            {str(b["label"]): real(b.get("total")) for b in document.get("budgets") or ()},
            tuple(_candidate(c) for c in document["candidates"]),
            tuple(
                Chosen(
                    str(c["budget"]),
                    c.get("candidate"),
                    c.get("uniform"),
                    c.get("hand"),
                    str(c.get("hand_about") or ""),
                )
                for c in document["chosen"]
            ),
            tuple(_beside(row) for row in document.get("also") or ()),
            _count(full.get("state_bytes")),
            _stored_bytes(full),
            str(full.get("stored_dtype") or "float32"),
            _radius_name(document),
        )


def _radius_name(document: Document) -> str:
    return str(document.get("radius_name") or RADIUS)


def _stored_bytes(full: Document) -> int:
    """Weights as the model's file has them, and the state; of documents that do not say, float32's
    bytes."""
    if "stored_weight_bytes" not in full:
        return _count(full["total_bytes"])
    return _count(full["stored_weight_bytes"]) + _count(full.get("state_bytes"))


def _candidate(c: Document) -> Candidate:
    uniform = c.get("uniform")
    return Candidate(
        str(c["name"]),
        str(c.get("label") or c["name"]),
        str(c.get("source") or ""),
        None if uniform is None else str(uniform),
        _entries(c.get("plan")),
        _count(c["weight_bytes"]),
        _count(c["state_bytes"]),
        _count(c["total_bytes"]),
        real(c.get("effective_bits")),
        measured(c["metric"]),
        measured(c.get("loss")),
        real(c.get("predicted")),
        _count(c.get("n")),
        bool(c.get("stopped_early")),
        real(c.get("radius")),
        bool(c.get("on_front")),
    )


def _entries(plan: Any) -> Entries:
    """Pattern and scheme of a plan's JSON form, as text."""
    schemes = plan.get("schemes", ()) if isinstance(plan, Mapping) else ()
    return tuple((str(pattern), str(scheme)) for pattern, scheme in schemes)


def read_confirmation(document: Document) -> Confirmation:
    """A `confirmation` document."""
    with _whole("confirmation", "search"):
        return Confirmation(
            str(document["split"]),
            _count(document.get("n")),
            quantity_of(info_in(document)),
            measured(document["baseline"]),
            tuple(_confirmed(plan) for plan in document["plans"]),
            _count(document.get("looks")),
            tuple(_beside(row) for row in document.get("also") or ()),
            _radius_name(document),
        )


def _beside(row: Document) -> Beside:
    chosen = row.get("chosen") or {}
    return Beside(
        str(row["name"]),
        _count(row["weight_bytes"]),
        _count(row["state_bytes"]),
        _count(row["total_bytes"]),
        measured(row["metric"]),
        measured(row.get("loss")),
        real(row.get("radius")),
        chosen.get("candidate"),
        measured(chosen.get("difference")),
        _entries(row.get("plan")),
    )


def _confirmed(plan: Document) -> Confirmed:
    against, by_hand = plan.get("against_uniform") or {}, plan.get("against_hand") or {}
    return Confirmed(
        str(plan["budget"]),
        str(plan["candidate"]),
        str(plan.get("name") or plan["candidate"]),
        _count(plan["weight_bytes"]),
        _count(plan["state_bytes"]),
        _count(plan["total_bytes"]),
        measured(plan["metric"]),
        measured(plan.get("loss")),
        against.get("uniform"),
        _count(against.get("total_bytes")),
        measured(against.get("metric")),
        measured(against.get("difference")),
        real(plan.get("radius")),
        real(against.get("radius")),
        plan.get("max_loss"),
        by_hand.get("about"),
        _count(by_hand.get("total_bytes")),
        measured(by_hand.get("metric")),
        measured(by_hand.get("difference")),
        real(by_hand.get("radius")),
    )


def read_sites(rows: Sequence[Document]) -> tuple[Site, ...]:
    """Sites from their JSON form: name, part, kind, shape, axes, complex."""
    with _whole("sites", "search"):
        return tuple(_site(row) for row in rows)


def _site(row: Document) -> Site:
    shape, axes = tuple(map(int, row["shape"])), tuple(Axis(axis) for axis in row["axes"])
    if len(shape) != len(axes):
        raise ValueError(f"{row['site']} has shape {shape} and axes {axes}")
    part, kind = Part(row["part"]), Kind(row["kind"])
    return Site(str(row["site"]), part, kind, shape, axes, bool(row["complex"]))


def _count(value: Any) -> int:
    """A whole number of a document; 0 where it is null or absent."""
    return int(value) if isinstance(value, (int, float)) and not isnan(value) else 0
