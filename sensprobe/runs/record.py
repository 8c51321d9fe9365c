"""One evaluation, what identifies it, and its line in a segment.

A line is JSON in Python's dialect (NaN and Infinity stand for themselves: an unstable plan has
them) and ends with a checksum of the rest, so that damage anywhere in it is noticed.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from sensprobe.documents import DocumentError, json_of, schema
from sensprobe.errors import RunError
from sensprobe.files import plain

JSON = Any  # null, bool, int, float, str, list or dict of these
DTYPES = ("<f4", "<f8", "<i4", "<i8", "|i1", "|u1", "|b1")
_SEAL = b',"crc":"'

Base = tuple[str, str, str, str, str, int]
Span = tuple[int, int]


def now() -> str:
    """UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class EvaluationKey:
    """What an evaluation depends on; equal keys mean equal numbers.

    Fingerprints of model, data (the split's own, so that other splits do not matter), plan and
    calibration ("" where none is used); samples [start, stop) of the split; `semantics` is raised
    when this package would compute other numbers.
    """

    model: str
    data: str
    split: str
    start: int
    stop: int
    plan: str
    calibration: str
    semantics: int

    @property
    def base(self) -> Base:
        """All but the samples."""
        return (self.model, self.data, self.split, self.plan, self.calibration, self.semantics)

    @property
    def span(self) -> Span:
        return (self.start, self.stop)

    def over(self, start: int, stop: int) -> EvaluationKey:
        """The same evaluation on other samples."""
        return replace(self, start=start, stop=stop)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Per-sample results of one plan on samples [start, stop): each array has stop - start values.

    `meta` is for people and reports (the plan's text, a label, seconds, max|A|): plain JSON values.
    """

    key: EvaluationKey
    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, JSON] = field(default_factory=dict)
    created: str = field(default_factory=now)

    def __post_init__(self) -> None:
        count = self.key.stop - self.key.start
        if self.key.start < 0 or count < 1:
            raise RunError(f"samples [{self.key.start}, {self.key.stop}) are none; give 0 <= a < b")
        if not all(isinstance(name, str) for name in self.key.base[:-1]):
            raise RunError(f"every fingerprint of a key is a string, not {self.key.base[:-1]}")
        for name, array in self.arrays.items():
            if array.shape != (count,):
                raise RunError(
                    f"array {name!r} has shape {array.shape}; samples [{self.key.start}, "
                    f"{self.key.stop}) need ({count},)"
                )
            if little(array).dtype.str not in DTYPES:
                raise RunError(
                    f"array {name!r} has dtype {array.dtype}; the ledger keeps {', '.join(DTYPES)}"
                )


class Entry(NamedTuple):
    """An evaluation without its arrays: what lists and tables need."""

    key: EvaluationKey
    names: tuple[str, ...]
    meta: Mapping[str, JSON]
    created: str


def little(array: np.ndarray) -> np.ndarray:
    """Contiguous and little-endian, as it is stored."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def seal(document: Mapping[str, JSON]) -> bytes:
    """One line, newline included, that proves its own wholeness."""
    body = json.dumps(document, separators=(",", ":"), default=plain).encode()
    return body[:-1] + _SEAL + b'%08x"}\n' % zlib.crc32(body)


def unseal(line: bytes, kind: str = "") -> dict[str, JSON] | None:
    """The document of a line (without its newline), or None where the line is damaged, or does not
    fit the schema of that kind."""
    head, mark, tail = line.rpartition(_SEAL)
    body = head + b"}"  # what was sealed
    if not mark or tail != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        document: dict[str, JSON] = json_of(body, infinite=True)
    except DocumentError:
        return None
    if kind and not (schema(kind).fits(document) and _holds(document)):
        return None
    return document


def _holds(document: Mapping[str, JSON]) -> bool:
    """What a line's schema cannot say: what each kind of line needs, and that counts agree."""
    needed = {"evaluation": ("key", "end", "arrays", "meta", "created"), "close": ("outcome",)}
    if not all(name in document for name in needed.get(document["kind"], ())):
        return False
    if document["kind"] != "evaluation":
        return True
    *_, start, stop = document["key"]
    return start < stop and all(
        count == stop - start and offset + count * np.dtype(dtype).itemsize <= document["end"]
        for offset, dtype, count, _ in document["arrays"].values()
    )


def pack(evaluation: Evaluation, offset: int) -> tuple[bytes, bytes]:
    """The arrays' bytes, to be put at `offset` of the segment's .bin, and the line that says so."""
    chunks, arrays = [], {}
    for name, array in evaluation.arrays.items():
        stored = little(array)
        chunks.append(stored.tobytes())
        arrays[name] = [offset, stored.dtype.str, stored.size, zlib.crc32(chunks[-1])]
        offset += stored.nbytes
    key = evaluation.key
    document = {
        "kind": "evaluation",
        "key": [*key.base, *key.span],
        "end": offset,  # the size the .bin has at least
        "arrays": arrays,
        "meta": dict(evaluation.meta),
        "created": evaluation.created,
    }
    return b"".join(chunks), seal(document)


def address_of(document: Mapping[str, JSON]) -> tuple[Base, Span]:
    """Where the index files a line; strings that repeat line after line are shared."""
    *names, semantics, start, stop = document["key"]
    model, data, split, plan, calibration = map(sys.intern, names)
    return (model, data, split, plan, calibration, semantics), (start, stop)


def key_from(base: Base, span: Span) -> EvaluationKey:
    """The inverse of `EvaluationKey.base` and `.span`."""
    (model, data, split, plan, calibration, semantics), (start, stop) = base, span
    return EvaluationKey(model, data, split, start, stop, plan, calibration, semantics)


def key_of(document: Mapping[str, JSON]) -> EvaluationKey:
    """The key of an evaluation's line."""
    return key_from(*address_of(document))


def entry_of(document: Mapping[str, JSON]) -> Entry:
    return Entry(key_of(document), tuple(document["arrays"]), document["meta"], document["created"])
