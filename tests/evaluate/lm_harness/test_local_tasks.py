"""Tasks from files: what is written of those that are there, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_tasks import PAIRS, write_files

from sensprobe.errors import DataError
from sensprobe.evaluate.lm_harness.local import pairs_of, write_tasks


def test_a_task_is_written_where_its_file_is(tmp_path: Path) -> None:
    data, made = write_files(tmp_path / "data"), tmp_path / "made"
    made.mkdir()
    assert write_tasks(data, made) == [
        "lambada_openai", "arc_easy", "piqa", "blimp_first", "blimp_second", "blimp",
    ]  # fmt: skip
    assert len(list(made.iterdir())) == 6
    (data / "lm_tasks" / "piqa.jsonl").unlink()
    (data / "lm_tasks" / "blimp_data.tar.xz").unlink()
    assert write_tasks(data, made) == ["lambada_openai", "arc_easy"]
    assert write_tasks(tmp_path, made) == []


def test_a_paradigm_is_a_file_of_the_archive(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data")
    found = pairs_of(str(data / "lm_tasks" / "blimp_data.tar.xz"))
    assert list(found) == ["first", "second"]
    assert [(p["sentence_good"], p["sentence_bad"]) for p in found["second"]] == PAIRS["second"]


@pytest.mark.parametrize(
    ("content", "says"), [(b"nothing packed", "copy it again"), (None, "cannot be read")]
)
def test_an_archive_that_cannot_be_read(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "blimp_data.tar.xz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=says):
        pairs_of(str(file))


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", {"broken": None})
    with pytest.raises(DataError, match=r"broken.jsonl is not JSON lines"):
        pairs_of(str(data / "lm_tasks" / "blimp_data.tar.xz"))
    with pytest.raises(DataError, match="where BLiMP has 67"):
        pairs_of(str(write_files(tmp_path / "none", {}) / "lm_tasks" / "blimp_data.tar.xz"))
