"""Names that come from documents stay in the folder they are written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensprobe.errors import RunError
from sensprobe.files import inside, require_own_folder


@pytest.mark.parametrize("name", ["../x", "/etc/x", ".x", "", "a/b", "a\0", "x" * 300, "a\n"])
def test_a_name_that_leaves_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot name a file in"):
        inside(tmp_path, name)


def test_links_that_lead_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "report").symlink_to(tmp_path)
    (run / "a.csv").symlink_to(tmp_path / "victim")
    with pytest.raises(RunError, match="a link that leads out"):
        require_own_folder(run, "report")
    with pytest.raises(RunError, match="a link that leads out"):
        inside(run, "a.csv")
    (run / "inner").mkdir()
    (run / "link").symlink_to(run / "inner")
    assert require_own_folder(run, "link") == run / "link"
    assert inside(run, "b.csv") == run / "b.csv"
