"""Documents that someone else may have made: read within limits, then held against a schema.

    content_of(path)              bytes of a regular file, of a limited size
    read_json(path), read_toml    what it holds, within limits of nesting and of numbers
    schema("search").require(x)   the schema `search.schema.json` of this folder
    npz.read_npz(path)            arrays of numpy.savez

Whatever is wrong is a `DocumentError` in a few words, without the file's name: the caller says
which document it is, what it is for and what to do about it.
"""

from sensprobe.documents.reading import (
    LARGE,
    SMALL,
    AbsentError,
    DocumentError,
    content_of,
    json_of,
    printable,
    read_json,
    read_toml,
    shown,
)
from sensprobe.documents.schemas import Schema, schema, schema_of

__all__ = [
    "LARGE",
    "SMALL",
    "AbsentError",
    "DocumentError",
    "Schema",
    "content_of",
    "json_of",
    "printable",
    "read_json",
    "read_toml",
    "schema",
    "schema_of",
    "shown",
]
