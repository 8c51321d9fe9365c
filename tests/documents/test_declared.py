"""Every field that a run's documents have is in their schema: what is not is believed unchecked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shipped_run import EXAMPLE as RUN
from shipped_run import copy_searched

from sensprobe import api
from sensprobe.documents.schemas import schema

DOCUMENTS = [RUN / "run.json", *sorted((RUN / "results").glob("*.json"))]
OURS = ("run", "search", "confirmation", "sensitivity", "sites", "tuned")


def undeclared(node: Any, value: Any, definitions: Any, at: str = "") -> Iterator[str]:
    """The places of fields in a document that its schema does not describe."""
    while "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    if isinstance(value, dict):
        known, others = node.get("properties", {}), node.get("additionalProperties")
        for name, inner in value.items():
            if name in known:
                yield from undeclared(known[name], inner, definitions, f"{at}/{name}")
            elif not isinstance(others, dict):
                yield f"{at}/{name}"
            elif others:
                yield from undeclared(others, inner, definitions, f"{at}/{name}")
    elif isinstance(value, list) and value:
        if "items" not in node and "prefixItems" not in node:
            yield at
        for inner in value if "items" in node else ():
            yield from undeclared(node["items"], inner, definitions, f"{at}/[]")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_field_is_declared(path: Path) -> None:
    require_declared(path)


def test_every_field_of_tuned_models_is_declared(tmp_path: Path) -> None:
    copy_searched(tmp_path / "run")
    api.tune(None, None, "1.5KiB", run=tmp_path / "run", epochs=1, batch=700)
    require_declared(tmp_path / "run" / "results" / "tuned.json")


def test_every_field_of_a_search_under_noise_is_declared(tmp_path: Path) -> None:
    copy_searched(tmp_path / "run")
    noise = {"noise": "weights=0.01", "draws": 2}
    api.search(tmp_path / "run", ["1.5KiB"], evaluations=2, limit=40, confirm=False, **noise)
    found = json.loads((tmp_path / "run" / "results" / "search.json").read_text(encoding="utf-8"))
    assert found["noise"]["draws"] == 2
    require_declared(tmp_path / "run" / "results" / "search.json")


def require_declared(path: Path) -> None:
    name = path.stem.partition("-")[0]
    assert name in OURS
    document = schema(name).document
    found = json.loads(path.read_text(encoding="utf-8"))
    assert set(undeclared(document, found, document.get("$defs", {}))) == set()
