"""Tags and notes of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensprobe.errors import RunError, UsageError
from sensprobe.runs.notes import MOST_TAGS, NAME, TAG, TEXT, Notes, read_notes, tags_of, write_notes


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == Notes()
    longest = Notes(tuple(f"{k:02}" + "t" * (TAG - 2) for k in range(MOST_TAGS)), "x" * TEXT)
    for notes in (Notes(("a", "b"), "two\nlines"), longest, Notes()):
        write_notes(tmp_path, notes)
        assert read_notes(tmp_path) == notes
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_tags_are_parted_by_commas_and_lines_and_told_once() -> None:
    assert tags_of(" one,two words ,, one\nthree") == ("one", "two words", "three")


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        (Notes(("t",) * (MOST_TAGS + 1)), "at most 12 tags"),
        (Notes(("t" * (TAG + 1),)), "at most 40 characters"),
        (Notes((), "x" * (TEXT + 1)), "at most 2,000 characters, not 2,001"),
    ],
)
def test_too_much_is_neither_written_nor_read(tmp_path: Path, notes: Notes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        write_notes(tmp_path, notes)
    assert not (tmp_path / NAME).exists()
    document = {"tags": list(notes.tags), "text": notes.text}
    (tmp_path / NAME).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(RunError, match=why):
        read_notes(tmp_path)


@pytest.mark.parametrize(
    "document",
    [7, [], {}, {"tags": [], "text": 1}, {"tags": [1], "text": ""}, {"tags": 1, "text": ""}],
)
def test_what_is_no_note_is_said(tmp_path: Path, document: Any) -> None:
    (tmp_path / NAME).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(RunError, match=r"notes\.json cannot be read"):
        read_notes(tmp_path)


def test_control_characters_of_a_stranger_are_not_kept(tmp_path: Path) -> None:
    document = {"tags": ["a\u001b[2Jb"], "text": "x\u202ey\nz"}
    (tmp_path / NAME).write_text(json.dumps(document), encoding="utf-8")
    assert read_notes(tmp_path) == Notes(("a�[2Jb",), "x�y\nz")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "away").write_text("mine", encoding="utf-8")
    (tmp_path / NAME).symlink_to(tmp_path / "away")
    with pytest.raises(RunError, match="is a link"):
        write_notes(tmp_path, Notes(("a",)))
    assert (tmp_path / "away").read_text(encoding="utf-8") == "mine"
