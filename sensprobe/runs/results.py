"""Checks of results beyond their schemas, wherever a run's `results/` came from.

    sensitivity-METHOD   sites are the run's, schemes (or noise) parse, rows have no other
    search, search-N     names of candidates are told apart, what is chosen is one of them
    confirmation(-N)     as its schema says
    tuned                schemes parse, a plan has one row, folders lead nowhere else
    sites                parts and axes there are

Other names are not known here and are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePath
from typing import Any

from sensprobe.documents import DocumentError, schema, shown
from sensprobe.errors import UsageError
from sensprobe.plans.noise import parse as parse_noise
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Part

Document = Mapping[str, Any]
_NUMBERED = re.compile(r"(search|confirmation)(-\d+)?")
_PROFILE = "sensitivity-"
PROFILES = tuple(_PROFILE + method for method in ("measured", "divergence", "taylor"))
"""Results that are profiles of schemes."""
NOISE_PROFILE = _PROFILE + "noise"


def require_result(name: str, document: Any, sites: Collection[str]) -> None:
    """DocumentError where the result NAME is not what this package writes under that name.

    `sites` are those of the run's model; where it keeps none, any are taken.
    """
    if name in (*PROFILES, NOISE_PROFILE):
        schema("sensitivity").require(document)
        _require_profile(document, name.removeprefix(_PROFILE), sites)
    elif found := _NUMBERED.fullmatch(name):
        schema(found[1]).require(document)
        if found[1] == "search":
            _require_search(document)
    elif name == "tuned":
        schema("tuned").require(document)
        _require_tuned(document)
    elif name == "sites":
        schema("sites").require(document)
        _require_sites(document)


def _require_profile(document: Document, method: str, sites: Collection[str]) -> None:
    if document["method"] != method:
        raise DocumentError(
            f"method: it says {shown(document['method'])!r}, and its name says {method}"
        )
    asked = set(document["schemes"])
    for place, row in enumerate(document["rows"]):
        if row["scheme"] not in asked:
            raise DocumentError(
                f"rows/{place}/scheme: {shown(row['scheme'])!r} is none of its schemes"
            )
        if sites and (unknown := [s for s in row.get("sites") or () if s not in sites]):
            raise DocumentError(
                f"rows/{place}/sites: the model of this run has no site {shown(unknown[0])!r}"
            )
    if method == "noise":
        return _require_texts(asked, parse_noise)
    applied = {text for row in document["rows"] for text in row.get("applied") or ()}
    return _require_texts(asked | applied)


def _require_search(document: Document) -> None:
    found, also = document["candidates"], document.get("also") or ()
    for group in (found, also):
        if len({c["name"] for c in group}) < len(group):
            raise DocumentError("candidates: two of them have one name")
    measured = [*found, *also]
    names = {c["name"] for c in measured}
    for place, choice in enumerate(document["chosen"]):
        for key in ("candidate", "uniform"):
            if (name := choice.get(key)) is not None and name not in names:
                raise DocumentError(f"chosen/{place}/{key}: there is no candidate {shown(name)!r}")
    _require_texts({scheme for c in measured for _, scheme in c["plan"]["schemes"]})


def _require_tuned(document: Document) -> None:
    rows = document["plans"]
    if len({row["asked_fingerprint"] for row in rows}) < len(rows):
        raise DocumentError("plans: two rows are of one plan")
    for place, row in enumerate(rows):
        if ".." in PurePath(row["folder"]).parts:
            raise DocumentError(f"plans/{place}/folder: {shown(row['folder'])!r} leads elsewhere")
    _require_texts({scheme for row in rows for _, scheme in row["plan"]["schemes"]})


def _require_texts(texts: Collection[str], read: Callable[[str], object] = parse) -> None:
    for text in texts:
        try:
            read(text)
        except UsageError as error:
            raise DocumentError(shown(error, 300)) from None


def _require_sites(document: list[Document]) -> None:
    for place, row in enumerate(document):
        if row["part"] not in {*Part} or not {*row["axes"]} <= {*Axis}:
            raise DocumentError(f"{place}: its part or axes are none that models have")
        if len(row["shape"]) != len(row["axes"]):
            raise DocumentError(f"{place}: shape and axes are not of one length")
