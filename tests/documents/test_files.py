"""Names that come from documents stay in the folder they are written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensprobe.documents.files import inside, named_path, require_no_link
from sensprobe.errors import RunError, UsageError


@pytest.mark.parametrize("name", ["../x", "/etc/x", ".x", "", "a/b", "a\0", "x" * 300, "a\n"])
def test_a_name_that_leaves_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot name a file in"):
        inside(tmp_path, name)


def test_links_are_not_written_through(tmp_path: Path) -> None:
    for name, target in {"out": tmp_path.parent, "loop": "loop", "none": "victim"}.items():
        (tmp_path / name).symlink_to(target)
        with pytest.raises(RunError, match=r"is a link to .*nothing is written through links"):
            require_no_link(tmp_path / name)
        with pytest.raises(RunError, match="is a link to"):
            inside(tmp_path, name)
    assert require_no_link(tmp_path / "b") == inside(tmp_path, "b") == tmp_path / "b"


@pytest.mark.parametrize("name", ["x" * 256, "a/" * 3000, "a\0", "\ud800"])
def test_what_no_file_can_be_called(name: str) -> None:
    with pytest.raises(UsageError, match="no file can be called") as refused:
        named_path(name)
    assert len(str(refused.value)) < 200


def test_a_home_of_nobody_is_a_name() -> None:
    assert named_path("~") == Path.home()
    assert named_path("~nosuchuser/x") == Path("~nosuchuser/x")
