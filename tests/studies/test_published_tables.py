"""Studies 001 and 002: results within the bars set for them, READMEs that show nothing else."""

from __future__ import annotations

import os
import tomllib
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from module_files import STUDIES, module_of

from sensprobe.cli import study
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse

FOLDER = STUDIES / "001_s4d_smnist_published"
BARS = {"exact": 0.3, "int16": 0.3, "int8": 0.5, "int6": 3.0}  # points, by format of the state
EXACT_AS_PUBLISHED = {  # checked apart from this project, to the printed digit
    "A 16": 98.2,
    "A 6": 63.3,
    "log-polar 8": 98.3,
    "log-polar 6": 92.3,
}


tables, plans = (module_of(FOLDER.name, name) for name in ("tables", "plans"))
other_tables = module_of("002_ptq_small_s4d", "tables")
FOUND: dict[str, Any] = tables.read_results()
ROWS = {row["name"]: row for row in FOUND["rows"]}


def test_every_published_row_was_run_in_both_columns_as_the_study_says() -> None:
    assert list(ROWS) == list(plans.ROWS)
    for name, row in plans.ROWS.items():
        how = plans.stored(row)
        found = ROWS[name]
        assert (found["A"], found["state"], found["published"]) == (
            how.A,
            how.state,
            row["published"],
        )
        assert found["s32"]["n"] == found["s16"]["n"] == 1000
        assert found["all"]["n"] == 10_000


@pytest.mark.parametrize("name", ROWS)
def test_with_float32_scales_every_row_lies_within_the_bar_of_its_state(name: str) -> None:
    row = ROWS[name]
    bar = BARS[row["state"].split("/")[0]]
    assert row["bar"] == bar
    assert abs(row["s32"]["value"] - row["published"]) <= bar + 1e-9


@pytest.mark.parametrize(("name", "published"), EXACT_AS_PUBLISHED.items())
def test_rows_checked_independently_are_equal_to_the_digit(name: str, published: float) -> None:
    assert ROWS[name]["s32"]["value"] == pytest.approx(published, abs=0.05)


def test_the_readme_names_the_rows_that_float16_scales_move_out_of_their_bar() -> None:
    missed = [r["name"] for r in ROWS.values() if not tables.within(r, "s16")]
    assert missed
    assert f"Outside: {', '.join(missed)}." in (tables.HERE / "README.md").read_text(
        encoding="utf-8"
    )


def test_within_fails_past_the_bar() -> None:
    row = {"published": 98.0, "bar": 0.3, "s32": {"value": 98.4}}
    assert not tables.within(row, "s32")
    assert tables.within(row | {"s32": {"value": 98.3}}, "s32")


@pytest.mark.parametrize("shown", [tables, other_tables], ids=["001", "002"])
def test_the_readme_shows_what_results_json_holds(shown: ModuleType) -> None:
    text, found = (shown.HERE / "README.md").read_text(encoding="utf-8"), shown.read_results()
    assert study.rendered(text, shown.SECTIONS, found) == text
    for name, section in shown.SECTIONS.items():
        assert section(found) in text, name


def test_a_readme_that_drifted_is_noticed() -> None:
    other = deepcopy(FOUND)
    other["rows"][0]["s32"]["value"] += 0.1
    text = (tables.HERE / "README.md").read_text(encoding="utf-8")
    assert study.rendered(text, tables.SECTIONS, other) != text


def test_a_readme_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"the markers .* are not there"):
        study.rendered("# no markers\n", tables.SECTIONS, FOUND)


@pytest.mark.parametrize("shown", [tables, other_tables], ids=["001", "002"])
def test_results_json_is_written_as_it_is_read(shown: ModuleType) -> None:
    path = shown.HERE / "results.json"
    assert study.dump(shown.read_results()) == path.read_text(encoding="utf-8")


def test_an_unstable_a_is_bold_wherever_it_is_shown() -> None:
    text = (tables.HERE / "README.md").read_text(encoding="utf-8")
    assert "**1.0039**" in text
    assert ROWS["A 6"]["s32_bytes"]["max_abs_A"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A 6", "log-polar 6", "A 8 × x 8"])
def test_a_row_run_again_gives_what_was_committed(name: str) -> None:
    """Exact states to a tenth; a rounded one, chaotic in the order of floats, within the bar."""
    from sensprobe.session.open import open_session

    if "SENSPROBE_DATA" not in os.environ:
        pytest.skip("set SENSPROBE_DATA to a folder with mnist/ and s4d_smnist/ckpt.pth")
    data = Path(os.environ["SENSPROBE_DATA"])
    study = tomllib.loads((FOLDER / "study.toml").read_text(encoding="utf-8"))
    row = ROWS[name]
    texts = study["base"] | {"layers.*.A": row["A"]}
    texts |= {} if row["state"] == "exact" else {"layers.*.state": row["state"]}
    plan = Plan(tuple((pattern, parse(f"{text}/s32")) for pattern, text in texts.items()))
    norm = study["model"]["norm"]
    spec = f"mnist:{data / study['model']['data']}"
    session = open_session(data / study["model"]["checkpoint"], spec, norm=norm)
    resolved = plan.resolve(session.source.model.sites.values())
    first = session.measure(resolved, "confirmation", 0, study["samples"]["published"])
    slack = 0.1 if row["state"] == "exact" else row["bar"]
    value = 100 * first["correct"].mean()
    assert value == pytest.approx(row["s32"]["value"], abs=slack + 1e-9)
    radius = session.applier.spectral_radius(resolved)
    assert radius == pytest.approx(row["s32_bytes"]["max_abs_A"], abs=1e-5)
