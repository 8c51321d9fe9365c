"""Every chosen plan is a file, which every --plan takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.errors import RunError
from sensprobe.jobs.plan_files import file_name, write_plans
from sensprobe.plans.plan import Plan, read
from sensprobe.plans.scheme import parse


def document(*budgets: tuple[str, str | None]) -> dict[str, Any]:
    plans = [Plan((("*.A", parse(scheme)),), scheme) for scheme in ("int8", "int4")]
    return {
        "candidates": [{"name": p.name, "plan": p.to_json(), "total_bytes": 9} for p in plans],
        "chosen": [{"budget": budget, "candidate": name} for budget, name in budgets],
    }


def run(path: Path) -> Any:
    return SimpleNamespace(path=path)


def test_a_plan_that_was_saved_there_stays(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    saved = tmp_path / "plans" / "2KiB.json"
    saved.write_text('{"sensprobe_plan": 1, "schemes": []}')
    before = saved.read_bytes()
    for name in ("2KiB-2", "2KiB-2"):  # and what a search left there is replaced
        assert write_plans(run(tmp_path), document(("2KiB", "int8"))) == {
            "2KiB": f"plans/{name}.json"
        }
    write_plans(run(tmp_path), document(("2KiB", None)))
    assert [path.name for path in (tmp_path / "plans").iterdir()] == ["2KiB.json"]
    assert saved.read_bytes() == before


@given(st.text())
def test_a_label_stays_one_file_of_the_folder(label: str) -> None:
    name = file_name(label)
    assert Path(name).name == name
    assert name.isascii()
    assert name.removesuffix(".json").strip(".")
    assert len(name) < 100


def test_the_plan_of_each_budget_is_read_back(tmp_path: Path) -> None:
    asked = document(("2KiB", "int8"), ("2kib", "int4"), ("25%", "int4"), ("loss<=.5", None))
    files = write_plans(run(tmp_path), asked)
    assert files == {
        "2KiB": "plans/2KiB.json",
        "2kib": "plans/2kib-2.json",
        "25%": "plans/25percent.json",
    }
    assert read(tmp_path / files["2KiB"]).name == "int8"
    assert read(tmp_path / files["2kib"]).entries == (("*.A", parse("int4")),)
    write_plans(run(tmp_path), document(("2KiB", "int4"), ("25%", None)))
    assert read(tmp_path / "plans/2KiB.json").name == "int4"
    assert not (tmp_path / "plans/25percent.json").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plans").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="link"):
        write_plans(run(tmp_path / "run"), document(("2KiB", "int8")))
    assert not list((tmp_path / "elsewhere").iterdir())
