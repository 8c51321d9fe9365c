"""Documents are read within limits, and schemas say what `jsonschema` says of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sensprobe_app
from damage import edited
from jsonschema import Draft202012Validator

from sensprobe.documents import (
    AbsentError,
    DocumentError,
    content_of,
    json_of,
    read_json,
    read_toml,
    schema,
    schema_of,
)
from sensprobe.plans.plan import EXACT_PLAN

RUN = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"
NAMES = sorted(p.name.removesuffix(".schema.json") for p in files("sensprobe.documents").iterdir()
               if p.name.endswith(".schema.json"))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[" * 100_000, "nested deeper than 64"),
        (b'{"a":' * 100_000, "nested deeper than 64"),
        (b'["' + b"[" * 100 + b'"' + b"]" * 100, "not JSON"),
        (b"[" + b"9" * 5000 + b"]", "a number of 5,000 digits"),
        (b"[1e999]", "which no float holds"),
        (b"[NaN]", "NaN, which JSON does not know"),
        (b'{"a": 1, "a": 2}', "the key a twice"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b'{"a"', "not JSON .* line 1"),
    ],
)
def test_json_that_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        json_of(text)


def test_json_that_is_read() -> None:
    assert json_of(b"\xef\xbb\xbf" + b"[" * 64 + b"]" * 64) is not None
    assert json_of('{"limit": 1000000000000000019884624838656}')["limit"] > 10**30
    assert json_of("[NaN, Infinity]", infinite=True)[1] == float("inf")
    assert json_of(json.dumps(["[" * 500])) == ["[" * 500]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "it is a folder"),
        (_fifo, "a pipe or a device"),
        (lambda p: p.symlink_to("/dev/zero"), "a pipe or a device"),
        (lambda p: p.symlink_to(p.name), "symbolic links"),
        (lambda p: p.write_bytes(b"x" * 11), "11 bytes, and at most 10"),
    ],
)
def test_what_is_no_file(make: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(DocumentError, match=says):
        content_of(tmp_path / "x", 10)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match="no such file"):
        read_json(tmp_path / "x")
    with pytest.raises(DocumentError, match="null byte"):
        read_json(Path("a\0b"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "[" * 5000, "nested deeper"),
        ("a." * 100_000 + "b = 1", "a key of more than 32 parts"),
        ("a = " + "9" * 5000, "digits"),
        ("a = 1\na = 2", "Cannot overwrite"),
    ],
)
def test_toml_that_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(DocumentError, match=says):
        read_toml(tmp_path / "x.toml")


def _documents() -> list[tuple[Any, Any]]:
    found = [(schema("run"), read_json(RUN / "run.json"))]
    for path in sorted((RUN / "results").glob("*.json")):
        document = read_json(path)
        if path.stem == "search":
            document["candidates"] = document["candidates"][:2]
        found.append((schema(path.stem.partition("-")[0]), document))
    return [*found, (schema_of("sensprobe.plans", "plan"), EXACT_PLAN.to_json())]


def test_the_shipped_run_fits_its_schemas() -> None:
    for known, document in _documents():
        known.require(document)


def test_compiled_schemas_say_what_jsonschema_says() -> None:
    random = Random(3)
    for known, document in _documents():
        truth = Draft202012Validator(known.document)
        for _ in range(12):
            damaged = json.loads(edited(document, random))
            assert known.fits(damaged) == truth.is_valid(damaged)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(schema(name).document)


def test_a_misfit_is_named_by_its_place() -> None:
    document = read_json(RUN / "results" / "search.json")
    document["candidates"][3]["plan"]["schemes"][1][0] = 5
    with pytest.raises(DocumentError, match="candidates/3/plan/schemes/1/0: 5 is not of type"):
        schema("search").require(document)
