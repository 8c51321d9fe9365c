"""JSON Schemas as functions that say where a document does not fit.

`jsonschema` words what is wrong, but takes long to find that nothing is: for a search of 10,000
plans 12 to 14 times as long as the functions here, 6 to 7 s instead of half a second (two cores of
an Intel Xeon, 2026-11-29; `python studies/000_speed/documents.py`). Every reading of a run checks
its search, so that would be waited for at each command and each page of the dashboard. So a schema
is compiled once into closures, which find the place; the words are then asked for that place alone.
Only the keywords in `_CHECKS`, `$ref` and the notes of people are compiled, and a schema that has
another is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sensprobe.documents.reading import DocumentError, shown

Check = Callable[[Any], None]
"""Raises `_Misfit` where a value does not fit."""
NOTES = frozenset({"$schema", "$defs", "title", "description", "$comment"})
LONGEST = 200
"""Characters of a message that quotes the document."""


class _Misfit(Exception):  # noqa: N818 - it never leaves this file
    """`node` has the keywords that a value breaks; `path` runs from it up to the root."""

    def __init__(self, node: Any, value: Any) -> None:
        self.node, self.value, self.path = node, value, list[str | int]()


class Schema:
    """A compiled schema."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._references: dict[str, Check] = {}
        self._check = self._compiled(document)

    def require(self, document: Any) -> None:
        """DocumentError that says where `document` does not fit, and how."""
        try:
            self._check(document)
        except _Misfit as misfit:
            place = "/".join(shown(part, 60) for part in reversed(misfit.path)) or "the document"
            raise DocumentError(f"{place}: {self._words(misfit)}") from None

    def fits(self, document: Any) -> bool:
        try:
            self._check(document)
        except _Misfit:
            return False
        return True

    def _words(self, misfit: _Misfit) -> str:
        from jsonschema import Draft202012Validator

        found = next(Draft202012Validator(misfit.node).iter_errors(misfit.value), None)
        return shown(found.message if found else "it does not fit", LONGEST)

    def _compiled(self, node: Any) -> Check:
        if "$ref" in node:
            return self._reference(node["$ref"])
        if unknown := set(node) - NOTES - set(_CHECKS):
            raise ValueError(f"schema keywords that are not compiled: {sorted(unknown)}")
        makers = dict.fromkeys(make for word, make in _CHECKS.items() if word in node)
        checks = [make(node, self._compiled) for make in makers]
        if len(checks) == 1:
            return checks[0]

        def check(value: Any) -> None:
            for one in checks:
                one(value)

        return check

    def _reference(self, name: str) -> Check:
        """The definition that `#/$defs/NAME` names, looked up when used: definitions may recur."""
        if name not in self._references:
            target = self.document["$defs"][name.removeprefix("#/$defs/")]
            self._references[name] = lambda value: self._references[name](value)
            self._references[name] = self._compiled(target)
        return self._references[name]


@cache
def schema_of(package: str, name: str) -> Schema:
    """The schema NAME.schema.json that lies in a package."""
    spec = find_spec(package)  # imports what stands above the package, and not the package
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / f"{name}.schema.json"
    return Schema(json.loads(file.read_text(encoding="utf-8")))


def schema(name: str) -> Schema:
    """A schema of this folder."""
    return schema_of("sensprobe.documents", name)


# -- keywords -------------------------------------------------------------------------------------

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
"""The types that a reader of JSON makes; a float may be an "integer" too, see `_type`."""


def _test(node: Any, words: str, holds: Callable[[Any], bool]) -> Check:
    broken = {word: node[word] for word in words.split() if word in node}

    def check(value: Any) -> None:
        if not holds(value):
            raise _Misfit(broken, value)

    return check


def _type(node: Any, compiled: Any) -> Check:
    names = [node["type"]] if isinstance(node["type"], str) else node["type"]
    kinds = frozenset(kind for name in names for kind in _TYPES[name])
    if "integer" not in names or float in kinds:
        return _test(node, "type", lambda v: type(v) in kinds)
    return _test(node, "type", lambda v: type(v) in kinds or (type(v) is float and v.is_integer()))


def _enum(node: Any, compiled: Any) -> Check:
    known = node["enum"] if "enum" in node else [node["const"]]
    kinds = [(type(k), k) for k in known]
    return _test(
        node, "enum const", lambda v: (type(v), v) in kinds or (type(v) is float and v in known)
    )


def _range(node: Any, compiled: Any) -> Check:
    low, high = node.get("minimum", -float("inf")), node.get("maximum", float("inf"))
    return _test(
        node, "minimum maximum", lambda v: type(v) not in (int, float) or not (v < low or v > high)
    )


def _text(node: Any, compiled: Any) -> Check:
    low, high = node.get("minLength", 0), node.get("maxLength", float("inf"))
    search = re.compile(node.get("pattern", "")).search
    return _test(
        node,
        "minLength maxLength pattern",
        lambda v: type(v) is not str or (low <= len(v) <= high and search(v) is not None),
    )


def _required(node: Any, compiled: Any) -> Check:
    names = node["required"]
    return _test(
        node, "required", lambda v: type(v) is not dict or all(name in v for name in names)
    )


def _properties(node: Any, compiled: Callable[[Any], Check]) -> Check:
    known = {name: compiled(inner) for name, inner in node.get("properties", {}).items()}
    more = node.get("additionalProperties", True)
    others = compiled(more) if isinstance(more, dict) else None
    closed = {"properties": dict.fromkeys(known, True), "additionalProperties": False}

    def check(value: Any) -> None:
        if type(value) is not dict:
            return
        for name, inner in value.items():
            one = known.get(name, others)
            if one is None:
                if name not in known and more is False:
                    raise _Misfit(closed, value)
                continue
            try:
                one(inner)
            except _Misfit as misfit:
                misfit.path.append(name)
                raise

    return check


def _keys(node: Any, compiled: Callable[[Any], Check]) -> Check:
    one = compiled(node["propertyNames"])

    def check(value: Any) -> None:
        for name in value if type(value) is dict else ():
            one(name)

    return check


def _count(node: Any, compiled: Any) -> Check:
    low, high = node.get("minItems", 0), node.get("maxItems", float("inf"))
    return _test(node, "minItems maxItems", lambda v: type(v) is not list or low <= len(v) <= high)


def _items(node: Any, compiled: Callable[[Any], Check]) -> Check:
    first = [compiled(inner) for inner in node.get("prefixItems", ())]
    rest = compiled(node["items"]) if "items" in node else None
    shortest, longest = _short_texts(node)

    def check(value: Any) -> None:
        if type(value) is not list:
            return
        if longest and set(map(type, value)) == {str}:  # most of a large document is such lists
            lengths = [*map(len, value)]
            if min(lengths) >= shortest and max(lengths) <= longest:
                return
        for place, inner in enumerate(value):
            one = first[place] if place < len(first) else rest
            if one is None:
                break
            try:
                one(inner)
            except _Misfit as misfit:
                misfit.path.append(place)
                raise

    return check


def _short_texts(node: Any) -> tuple[int, float]:
    """Lengths that every item may have, of lists of texts; the longest is 0 for other lists."""
    item = node.get("items", {})
    if item.get("type") != "string" or "prefixItems" in node or {*item} & {"pattern", "enum"}:
        return 0, 0
    return item.get("minLength", 0), item.get("maxLength", float("inf"))


_CHECKS: dict[str, Callable[[Any, Callable[[Any], Check]], Check]] = {
    "type": _type,
    "enum": _enum,
    "const": _enum,
    "minimum": _range,
    "maximum": _range,
    "minLength": _text,
    "maxLength": _text,
    "pattern": _text,
    "required": _required,
    "propertyNames": _keys,
    "properties": _properties,
    "additionalProperties": _properties,
    "minItems": _count,
    "maxItems": _count,
    "prefixItems": _items,
    "items": _items,
}
