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

from sensprobe.documents import schema
from sensprobe.documents.files import plain
from sensprobe.errors import RunError

JSON = Any  # null, bool, int, float, str, list or dict of these
DTYPES = ("<f4", "<f8", "<i4", "<i8", "|i1", "|u1", "|b1")
FROM_RUN = "from_run"
"""The key in `meta` of the folder of the run that an evaluation was taken from, where it was not
made here."""
_SEAL = b',"crc":"'
_DECODER = json.JSONDecoder()  # `json.loads` of bytes guesses their encoding first

Base = tuple[str, str, str, str, str, int]
Span = tuple[int, int]


def now() -> str:
    """UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


NOISE = "+noise:"
"""What the fingerprint of a draw of noise stands behind, in the plan of a key."""
CROSSBAR = "+crossbar:"
"""What the sizes of a crossbar stand behind there."""


@dataclass(frozen=True, slots=True)
class EvaluationKey:
    """All that an evaluation depends on; equal keys mean equal numbers.

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
    def analog(self) -> bool:
        """True where the plan was run under a draw of noise or on a crossbar (`Session.key`)."""
        return NOISE in self.plan or CROSSBAR in self.plan

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
    """The array as it is stored: contiguous and little-endian."""
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
        document = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):  # sealed by somebody who wrote no evaluations
        return None
    if not isinstance(document, dict):
        return None
    return None if kind and not schema(kind).fits(document) else document


def is_whole(document: Mapping[str, JSON]) -> bool:
    """True if a line is a whole description of an evaluation. Its seal shows damage, not who wrote
    it, so every field is checked before it is used."""
    key, arrays, end = document.get("key"), document.get("arrays"), document.get("end")
    if not (isinstance(key, list) and len(key) == 8 and isinstance(arrays, dict)):
        return False
    if not (isinstance(end, int) and _count(end)):
        return False
    *names, semantics, start, stop = key
    if not (all(isinstance(n, str) for n in names) and _count(start) and _count(stop)):
        return False
    if not (isinstance(semantics, int) and start < stop):
        return False
    if not (isinstance(document.get("meta"), dict) and isinstance(document.get("created"), str)):
        return False
    return all(_is_stored(row, stop - start, end) for row in arrays.values())


def _is_stored(row: JSON, count: int, end: int) -> bool:
    """True if a row says where the `count` values of an array lie, before byte `end`."""
    if not (isinstance(row, list) and len(row) == 4 and row[1] in DTYPES):
        return False
    offset, dtype, size, checksum = row
    if not (_count(offset) and _count(size) and _count(checksum) and size == count):
        return False
    return bool(offset + size * np.dtype(dtype).itemsize <= end)


def _count(value: JSON) -> bool:
    """True if a value of a line is a whole number that can count something."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


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
    """The key under which the index files a line; strings that repeat are shared."""
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
