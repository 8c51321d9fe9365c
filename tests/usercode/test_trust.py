"""What may run: remembered for one user, for a function of a file as it was, and nowhere else."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sensprobe.errors import CodeError, UsageError
from sensprobe.usercode import trust
from sensprobe.usercode.code import Code
from sensprobe.usercode.trust import Named, Remembered, allowed, check_settings, store


@pytest.fixture(autouse=True)
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state" / "deep" / "allowed.json"
    monkeypatch.setenv(trust.VARIABLE, str(path))
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("V = 1\n")
    path = tmp_path / "mine.py"
    path.write_text("import helper\ndef f(): ...\ndef g(): ...\n")
    return path


def test_what_was_named_for_a_run_may_run_later(mine: Path, remembered: Path) -> None:
    with pytest.raises(CodeError, match=r"runs/x names code to run: f\(\) of .*mine.py \(sha256 "):
        Remembered("runs/x").check(mine, "f")
    Named().ran(Code(mine), "f")
    assert allowed(mine, "f") is None
    Named(remember=True).ran(Code(mine), "f")
    assert Remembered("runs/x").check(mine, "f") == Code(mine).files
    with pytest.raises(CodeError, match=r"g\(\) of .*mine.py .*, and with it helper.py. This user"):
        Remembered("runs/x").check(mine, "g")
    assert stat.S_IMODE(remembered.stat().st_mode) == 0o600
    assert [p.name for p in remembered.parent.iterdir() if p.suffix != ".lock"] == ["allowed.json"]


def test_what_changed_is_said_and_must_be_allowed_again(mine: Path) -> None:
    Named(remember=True).ran(Code(mine), "f")
    (mine.parent / "helper.py").write_text("import more\nV = 2\n")
    (mine.parent / "more.py").write_text("")
    asked = Remembered("r")
    with pytest.raises(
        CodeError, match=r"before, and since then helper.py changed and more.py is new, so nothing"
    ):
        asked.check(mine, "f")
    gate = Remembered("r", allow=True)
    assert gate.check(mine, "f") is None
    gate.ran(Code(mine), "f")
    assert asked.check(mine, "f") == Code(mine).files


def test_another_place_is_another_file(mine: Path, tmp_path: Path) -> None:
    Named(remember=True).ran(Code(mine), "f")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("mine.py", "helper.py"):
        (other / name).write_bytes((tmp_path / name).read_bytes())
    with pytest.raises(CodeError, match="has not named or allowed it"):
        Remembered("r").check(other / "mine.py", "f")
    with pytest.raises(CodeError, match=r"cannot be read \(No such file or directory\)"):
        Remembered("r").check(tmp_path / "gone.py", "f")


@pytest.mark.parametrize("spec", ["python:/dev/zero:f", "python:/dev:f", "python:a\0.py:f"])
def test_what_is_no_file_of_python_is_not_read(spec: str) -> None:
    with pytest.raises(
        (CodeError, UsageError),
        match=r"not a Python file|does not name a file|no file can be called",
    ):
        check_settings({"metric": None, "data": spec}, Remembered("r"))


@pytest.mark.parametrize("body", ["", "[" * 100_000, "[]", '{"version": 9}', '{"allowed": [1]}'])
def test_a_damaged_memory_allows_nothing_and_is_replaced(
    mine: Path, remembered: Path, body: str
) -> None:
    remembered.parent.mkdir(parents=True)
    remembered.write_text(body)
    assert allowed(mine, "f") is None
    trust.allow(Code(mine), "f")
    assert allowed(mine, "f") == Code(mine).files


def test_a_memory_that_others_can_write_allows_nothing(mine: Path, remembered: Path) -> None:
    trust.allow(Code(mine), "f")
    remembered.chmod(0o622)
    assert allowed(mine, "f") is None


def test_several_are_remembered(mine: Path, remembered: Path) -> None:
    trust.allow(Code(mine), "f")
    trust.allow(Code(mine), "g")
    assert set(json.loads(remembered.read_text())["allowed"]) == {f"{mine}:f", f"{mine}:g"}


def test_without_a_place_to_remember_the_work_goes_on(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trust.VARIABLE, str(mine / "below" / "a.json"))
    said: list[str] = []

    class Told(type(trust.SILENT)):
        def note(self, text: str) -> None:
            said.append(text)

    Named(remember=True, progress=Told()).ran(Code(mine), "f")
    assert "later commands on this run need --allow-code" in said[0]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert store() == Path("/state/sensprobe/allowed-code.json")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # which the standard says to ignore
    assert store() == Path(os.path.expanduser("~/.local/state/sensprobe/allowed-code.json"))


def test_a_name_moves_no_cursor(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2K.py"
    path.write_text("def f(): ...\n")
    with pytest.raises(CodeError, match=r"a\\x1b\[2K.py'"):
        Remembered("r").check(path, "f")
