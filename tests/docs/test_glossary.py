"""The words that docs/glossary.md gives up are not in names or docstrings of the product."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
SOURCES = ("sensprobe", "kernels/sensprobe_kernels", "app/sensprobe_app")
IN_NAMES_ALONE = "## Names of what code does"
DEFINED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def given_up(text: str) -> set[str]:
    """Return the words in code type of the last column of the glossary's tables."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return {word.lower() for row in rows for word in re.findall(r"`([^`]+)`", row[-2])}


def parts_of(name: str) -> str:
    """Return a name as its words: "_liveScale" as "live scale"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return " ".join(words).lower()


def names_in(tree: ast.AST) -> Iterator[str]:
    """Give every name that a file defines or uses."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name"):
            if isinstance(name := getattr(node, field, None), str):
                yield name


def pattern_of(words: set[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of the words, or their plurals."""
    spoken = (re.escape(word.replace("_", " ")) for word in sorted(words))
    return re.compile(rf"\b(?:{'|'.join(spoken)})s?\b")


def found_in(source: str, names: set[str], told: set[str]) -> list[str]:
    """Return where words occur: `names` in names, `told` in names and docstrings."""
    tree = ast.parse(source)
    in_names, in_prose = pattern_of(names | told), pattern_of(told)
    found = [name for name in sorted(set(names_in(tree))) if in_names.search(parts_of(name))]
    for node in ast.walk(tree):
        if isinstance(node, DEFINED) and (said := ast.get_docstring(node)):
            prose = " ".join(re.sub(r"`[^`]*`", "", said.lower()).split())
            found += [f"docstring: {word}" for word in sorted(set(in_prose.findall(prose)))]
    return found


def test_a_word_that_is_given_up_is_found() -> None:
    source = (
        '"""Scales that are live."""\n\ndef put_liveScale(spot): ...\ndef alive(spotted): ...\n'
    )
    assert found_in(source, {"spot"}, {"live"}) == ["put_liveScale", "spot", "docstring: live"]
    assert given_up("| word | says | not |\n| **a** | `b` | c, `d` |\n| e | f | |") == {"d"}


@pytest.mark.parametrize("where", SOURCES)
def test_the_words_are_not_in_the_code(where: str) -> None:
    first, last = GLOSSARY.split(IN_NAMES_ALONE)
    told, names = given_up(first), given_up(last)
    assert told
    assert names
    found = {
        str(path.relative_to(ROOT)): words
        for path in sorted((ROOT / where).rglob("*.py"))
        if (words := found_in(path.read_text(encoding="utf-8"), names, told))
    }
    assert found == {}
