"""Where an artefact may be put, and that it is whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tiny_models import NAMES, applier, tiny

from sensprobe.errors import RunError, SchemeError, UsageError
from sensprobe.export import ExportResult, export_model, folder, load_artefact, write
from sensprobe.models.apply import Applier
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import Scheme, parse

PLAN = {"layers.0.A": parse("int6/head")}
OTHER = {"layers.0.A": parse("int4/head")}


def export(out: Path, plan: Resolved = PLAN, overwrite: bool = False) -> ExportResult:
    return export_model(tiny(NAMES[0]), plan, applier(NAMES[0]), out, name="m", overwrite=overwrite)


def test_folders_above_are_made_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    export(tmp_path / "a" / "b" / "m")
    (tmp_path / "empty").mkdir()
    export(tmp_path / "empty")
    assert load_artefact(tmp_path / "empty").plan == PLAN
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "empty"]


def test_an_artefact_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "m"
    export(out)
    with pytest.raises(UsageError, match="holds an exported model already"):
        export(out, OTHER)
    assert dict(load_artefact(out).tap.plan) == PLAN
    export(out, OTHER, overwrite=True)
    assert dict(load_artefact(out).tap.plan) == OTHER
    assert list(tmp_path.iterdir()) == [out]


def test_what_others_put_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(notes.txt\)"):
        export(tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        export(tmp_path / "notes.txt", overwrite=True)
    export(tmp_path / "m")
    (tmp_path / "m" / "log.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"did not write \(log.csv\)"):
        export(tmp_path / "m", OTHER, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "m" / "log.csv").read_text()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_everything_as_it_was(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m"
    if overwrite:
        export(out)
    written = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder.os, "fsync", full)
    with pytest.raises(RunError, match="disk is full; free some space"):
        export(out, OTHER, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == ([out] if overwrite else [])
    if overwrite:
        assert dict(load_artefact(out).tap.plan) == PLAN


def test_a_failing_move_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path / "m")
    rename = os.rename

    def fails_into_place(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target)

    monkeypatch.setattr(folder.os, "rename", fails_into_place)
    with pytest.raises(RunError, match="choose a folder you can write to"):
        export(tmp_path / "m", OTHER, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert dict(load_artefact(tmp_path / "m").tap.plan) == PLAN


def test_a_folder_that_reads_back_as_another_model_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path / "other", OTHER)
    other = load_artefact(tmp_path / "other")
    monkeypatch.setattr(write, "load_artefact", lambda draft: other)
    with pytest.raises(RunError, match="does not read back"):
        export(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_scheme_that_its_text_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match=r"layers.0.A: .* holds more than its text 'int6' says"):
        export(tmp_path / "m", {"layers.0.A": Scheme(parse("int6").format, given=(-1.0, 1.0))})
    assert list(tmp_path.iterdir()) == []


def test_a_static_state_without_calibration_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    model = tiny(NAMES[0])
    with pytest.raises(SchemeError, match="needs calibrated ranges"):
        export_model(
            model, {"layers.0.state": parse("int8")}, Applier(model), tmp_path / "m", name=""
        )
    assert list(tmp_path.iterdir()) == []
