"""Result documents as typed values.

The JSON a run keeps is read once, here, so that tables and figures need no guards. What is null or
absent becomes NaN or None; a document that lacks what it cannot do without is a RunError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from functools import cache
from math import isnan
from typing import Any, TypeVar

from sensprobe.errors import RunError
from sensprobe.plans.sites import Axis, Kind, Part, Site
from sensprobe.report.results import (
    Candidate,
    Chosen,
    Compared,
    Confirmation,
    Confirmed,
    Entries,
    Rival,
    Row,
    Search,
    Sensitivity,
)
from sensprobe.report.tuned import Tuned, TunedScores, Tuning
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
Found = TypeVar("Found")


@contextmanager
def _whole(name: str, command: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(
            f"the {name} result cannot be read ({type(error).__name__}: {error}); "
            f"`sensprobe {command}` with the same --run writes it again."
        ) from error


def filled(kind: type[Found], document: Document, **given: Any) -> Found:
    """A record of the dataclass `kind`: fields that are not given are read from a document, by
    their names and types.

    A field that has a default may be absent or null. KeyError where another is absent; ValueError
    where a text is none.
    """
    for name, required, reader in _readers(kind):  # type: ignore[arg-type]
        if name in given or not (required or document.get(name) is not None):
            continue
        given[name] = READERS[reader](document[name])
    return kind(**given)


@cache
def _readers(kind: type) -> tuple[tuple[str, bool, str], ...]:
    """The name of every field of a dataclass, whether it has no default, and its type."""
    every = fields(kind)
    return tuple((each.name, each.default is MISSING, str(each.type)) for each in every)


def text(value: Any) -> str:
    """A text of a document; ValueError where it is something else."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where a text is expected")
    return value


def count(value: Any) -> int:
    """A whole number of a document; 0 where it is no number."""
    return int(value) if isinstance(value, (int, float)) and not isnan(value) else 0


READERS: dict[str, Callable[[Any], Any]] = {
    "str": text,
    "str | None": text,
    "int": count,
    "int | None": count,
    "float": real,
    "float | None": real,
    "bool": bool,
    "Measured": measured,
    "tuple[str, ...]": lambda values: tuple(map(text, values)),
}
"""Type of a field -> what makes one of a JSON value."""


def read_sensitivity(document: Document) -> Sensitivity:
    """A `sensitivity-METHOD` document."""
    with _whole("sensitivity", "profile"):
        key = str(document["additive"])
        return filled(
            Sensitivity,
            document,
            metric=quantity_of(info_in(document)),
            additive=additive_named(key),
            baseline=measured((document.get("baseline") or {}).get("metric")),
            schemes=_schemes(document),
            rows=tuple(_row(row, key) for row in document["rows"]),
        )


def _schemes(document: Document) -> tuple[str, ...]:
    """The schemes asked for; ValueError where there are none, or a row has another."""
    asked = tuple(str(scheme) for scheme in document["schemes"])
    others = {str(row["scheme"]) for row in document["rows"]} - set(asked)
    if not asked or others:
        raise ValueError(f"schemes {list(asked)}, rows of {sorted(others)}")
    return asked


def _row(row: Document, additive: str) -> Row:
    change, moved = measured(row.get("metric")), measured(row.get(additive))
    return filled(Row, row, group=text(row["target"]), change=change, additive=moved)


def read_search(document: Document, metric: Quantity = ACCURACY) -> Search:
    """A `search` document; `metric` is what its scores measure where the document does not say."""
    with _whole("search", "search"):
        full = document["full"]
        if "metric_info" in document or isinstance(document.get("metric"), str):
            metric = quantity_of(info_in(document))
        return filled(
            Search,
            document,
            batch=max(count(document.get("batch")), 1),
            quantity=metric,
            full=measured(full["metric"]),
            full_bytes=count(full["total_bytes"]),
            candidates=tuple(
                filled(Candidate, c, change=measured(c.get("loss")), entries=_entries(c))
                for c in document["candidates"]
            ),
            chosen=tuple(filled(Chosen, choice) for choice in document["chosen"]),
            compared=_compared(document),
            full_state_bytes=count(full.get("state_bytes")),
            stored_bytes=_stored_bytes(full),
            stored_dtype=str(full.get("stored_dtype") or "float32"),
        )


def _stored_bytes(full: Document) -> int:
    """Weights as the model's file has them, and the state; of documents that do not say, float32's
    bytes."""
    if "stored_weight_bytes" not in full:
        return count(full["total_bytes"])
    return count(full["stored_weight_bytes"]) + count(full.get("state_bytes"))


def _entries(row: Document) -> Entries:
    """Pattern and scheme of a plan's JSON form, as text."""
    plan = row.get("plan")
    schemes = plan.get("schemes", ()) if isinstance(plan, Mapping) else ()
    return tuple((str(pattern), str(scheme)) for pattern, scheme in schemes)


def _compared(document: Document) -> tuple[Compared, ...]:
    """Plans measured beside a search, each with the chosen plan that it is compared with."""
    found = []
    for row in document.get("also") or ():
        chosen = row.get("chosen") or {}
        compared = {"chosen": chosen.get("candidate"), "gain": measured(chosen.get("difference"))}
        change = measured(row.get("loss"))
        found.append(filled(Compared, row, change=change, entries=_entries(row), **compared))
    return tuple(found)


def read_confirmation(document: Document) -> Confirmation:
    """A `confirmation` document."""
    with _whole("confirmation", "search"):
        return filled(
            Confirmation,
            document,
            quantity=quantity_of(info_in(document)),
            plans=tuple(_confirmed(plan) for plan in document["plans"]),
            compared=_compared(document),
        )


def _confirmed(plan: Document) -> Confirmed:
    return filled(
        Confirmed,
        plan,
        name=str(plan.get("name") or plan["candidate"]),
        change=measured(plan.get("loss")),
        uniform=_rival(plan.get("against_uniform") or {}, "uniform"),
        hand=_rival(plan.get("against_hand") or {}, "about"),
    )


def _rival(against: Document, named: str) -> Rival | None:
    """The plan that a confirmed one stands against; None where the document names none."""
    name = against.get(named)
    return None if name is None else filled(Rival, against, name=str(name))


def read_tuned(document: Document) -> Tuning:
    """A `tuned` document."""
    with _whole("tuned", "tune"):
        plans = [_tuned(row) for row in document["plans"]]
        return filled(
            Tuning,
            document,
            quantity=quantity_of(info_in(document)),
            plans=tuple(sorted(plans, key=lambda plan: plan.total_bytes)),
        )


def _tuned(row: Document) -> Tuned:
    scores = {name: filled(TunedScores, row["splits"][name]) for name in ("search", "confirmation")}
    return filled(Tuned, row, batch=max(count(row.get("batch")), 1), **scores)


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
