"""Presets where a plan is: listed, priced, scored, measured beside a search, and exported."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selective
from command_line import Shell, evaluations
from safetensors.torch import save_file

from sensprobe.checkpoints.files import METADATA_KEY
from sensprobe.cli import main
from sensprobe.plans.presets import PRESETS
from sensprobe.runs import open_run

CONFIG = selective.MAMBAS["deep"]
SCHEMES = ["--scheme", "fp16", "--scheme", "int8/channel", "--scheme", "int4/channel/hadamard/gptq"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Mamba classifier, data labelled by it and noise, and a plan. Read only."""
    folder = tmp_path_factory.mktemp("presets")
    header = {"format": 1, "family": "mamba", "config": asdict(CONFIG)}
    parameters = selective.parameters(CONFIG)
    save_file(parameters, folder / "m.safetensors", {METADATA_KEY: json.dumps(header)})
    x = selective.inputs(CONFIG, batch=240, length=6)
    y = selective.tiny(CONFIG)(x).argmax(-1).numpy()
    y[::7] = (y[::7] + 1) % CONFIG.d_output
    np.savez(folder / "data.npz", x=x.numpy(), y=y)
    plan = {"sensprobe_plan": 1, "schemes": [["layers.*.state", "int3/head/dynamic"]]}
    (folder / "mine.json").write_text(json.dumps(plan))
    return folder


def model_and_data(place: Path) -> list[str]:
    return [str(place / "m.safetensors"), "--data", f"npz:{place / 'data.npz'}"]


@pytest.fixture(scope="module")
def searched(place: Path) -> Path:
    """A run searched with two plans beside it. Read only."""
    run = place / "run"
    assert main(["profile", *model_and_data(place), *SCHEMES, "--run", str(run)]) == 0
    also = ["--also", "quamba", "--also", str(place / "mine.json")]
    assert main(["search", "--run", str(run), *budgets(), *also]) == 0
    return run


def budgets() -> list[str]:
    return ["--budget", "1200", "--budget", "2000", "--evaluations", "8"]


def test_the_listing_says_what_each_is_and_where_it_differs(shell: Shell, place: Path) -> None:
    rows = shell.ok("presets", "--json").json
    assert [row["name"] for row in rows] == list(PRESETS)
    text = shell.ok("presets").out
    assert all(name in text for name in PRESETS)
    assert "2410.13229" in text
    priced = shell.ok("presets", place / "m.safetensors", "--batch", 4, "--json").json
    assert {row["name"] for row in priced if "why_not" in row} == {
        name for name, preset in PRESETS.items() if "mamba" not in preset.schemes
    }
    for row in (row for row in priced if "cost" in row):
        one = shell.ok(
            "cost", place / "m.safetensors", "--plan", row["name"], "--batch", 4, "--json"
        )
        assert one.json == row["cost"]
    assert "is for mamba and mamba2 models" in " ".join(
        shell.ok("presets", "s4d-digits").out.split()
    )


def test_a_preset_is_scored_and_settings_override_it(shell: Shell, place: Path) -> None:
    asked = ["eval", *model_and_data(place), "--plan", "quamba2"]
    found = shell.ok(*asked, "--json").json
    assert found["plan"]["layers.0.out_proj"] == "int4/group128/gptq/hadamard"
    other = shell.ok(*asked, "--set", "*.out_proj=int8", "--json").json
    assert other["plan"]["layers.1.out_proj"] == "int8"
    assert other["plan_fingerprint"] != found["plan_fingerprint"]


def test_a_name_that_is_nothing_and_a_model_it_is_not_for(shell: Shell, place: Path) -> None:
    wrong = shell("eval", *model_and_data(place), "--plan", "w8a9")
    assert wrong.code == 2
    assert "Did you mean w8a8?" in wrong.err
    other = shell("cost", "s4d-digits", "--plan", "quamba")
    assert other.code == 2
    assert "quamba is for mamba and mamba2 models, and this one is s4d" in other.err


def test_plans_beside_a_search_are_measured_on_its_samples(searched: Path) -> None:
    document: Any = open_run(searched).read_result("search")
    confirmed: Any = open_run(searched).read_result("confirmation")
    assert [row["name"] for row in document["also"]] == ["quamba", "mine"]
    assert {row["n"] for row in document["also"]} == {document["n"]}
    assert [row["name"] for row in confirmed["also"]] == ["quamba", "mine"]
    candidates = {c["name"]: c for c in document["candidates"]}
    assert not {"quamba", "mine"} & set(candidates)
    small, mine = confirmed["also"]
    chosen = [candidates[c["candidate"]] for c in document["chosen"]]
    assert all(c["total_bytes"] > small["total_bytes"] for c in chosen)
    assert small["chosen"] is None
    assert mine["chosen"]["candidate"] in {c["name"] for c in chosen}
    assert mine["chosen"]["total_bytes"] == max(c["total_bytes"] for c in chosen)
    gain = mine["chosen"]["metric"]["value"] - mine["metric"]["value"]
    assert mine["chosen"]["difference"]["value"] == pytest.approx(gain)


def test_the_chosen_plans_are_those_of_a_search_without_them(
    shell: Shell, searched: Path, place: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shell.ok("profile", *model_and_data(place), *SCHEMES, "--run", alone)
    found = shell.ok("search", "--run", alone, *budgets(), "--json").json["search"]
    document: Any = open_run(searched).read_result("search")
    assert found["chosen"] == document["chosen"]
    assert found["candidates"] == document["candidates"]
    assert found["also"] == []


def test_asking_again_measures_nothing_again_and_prints_the_table(
    shell: Shell, searched: Path, place: Path
) -> None:
    before = evaluations(searched)
    also = ["--also", "quamba", "--also", place / "mine.json"]
    done = shell.ok("search", "--run", searched, *budgets(), *also)
    assert evaluations(searched) == before
    assert "Measured beside the search, on the confirmation split" in done.out
    assert "quamba" in done.out


def test_what_was_measured_beside_a_search_is_exported_by_name(
    shell: Shell, searched: Path, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    done = shell.ok("export", "--run", searched, "--plan", "quamba", "--out", out, "--json").json
    confirmed: Any = open_run(searched).read_result("confirmation")
    want = confirmed["also"][0]
    assert done["confirmed"]["metric"] == want["metric"]
    cost = done["cost"]  # no kernel takes this model's few channels: steps hold states in full
    assert cost["weight_bytes"] + cost["held_state_bytes"] == want["total_bytes"]
    assert cost["held_state_bytes"] > cost["state_bytes"]
    assert f"{cost['held_state_bytes']:,} bytes, by which" in (out / "README.md").read_text()
    data = model_and_data(place)[1:]
    scored = shell.ok("eval", out, *data, "--json").json
    assert scored["value"] == pytest.approx(want["metric"]["value"])


def test_a_preset_nobody_measured_is_not_exported(shell: Shell, searched: Path) -> None:
    done = shell("export", "--run", searched, "--plan", "w4a8", "--out", searched / "out")
    assert done.code == 2
    assert "once `sensprobe search --also` has measured it" in done.err


def test_a_plan_beside_an_unconfirmed_search_is_exported(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    (run / "results" / "confirmation.json").unlink()
    shell.ok("export", "--run", run, "--plan", "mine", "--out", tmp_path / "out")
    (metric,) = (row["metric"] for row in also_of(run) if row["name"] == "mine")
    assert f"{100 * metric['value']:.2f}" in (tmp_path / "out" / "README.md").read_text()


def also_of(run: Path) -> list[dict[str, Any]]:
    found = open_run(run).read_result("search")
    assert isinstance(found, dict)
    return found["also"]


def test_the_report_has_them(shell: Shell, searched: Path, tmp_path: Path) -> None:
    done = shell.ok("report", "--run", searched, "--out", tmp_path / "report")
    assert "Measured beside the search, on the confirmation split" in done.out
    assert "Plans measured beside the search" in (tmp_path / "report" / "report.html").read_text()
    lines = (tmp_path / "report" / "beside.csv").read_text(encoding="utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["plan", "quamba", "mine"]


def test_two_plans_of_one_name_are_refused(shell: Shell, searched: Path) -> None:
    also = ["--also", "quamba", "--also", "quamba"]
    done = shell("search", "--run", searched, *budgets(), *also)
    assert done.code == 2
    assert "'quamba' is given twice" in done.err


def test_profiling_in_rotated_and_fed_forward_schemes_calibrates_once(
    shell: Shell, place: Path, tmp_path: Path
) -> None:
    asked = ["--scheme", "int8/hadamard", "--scheme", "int4/gptq", "--scheme", "int8/hadamard/p99"]
    done = shell.ok("profile", *model_and_data(place), *asked, "--run", tmp_path / "run")
    assert done.err.count("calibrating on") == 1


@pytest.mark.parametrize(("scheme", "depends"), [("int4/gptq", True), ("int4/hadamard", False)])
def test_what_gptq_rounds_is_known_by_what_it_was_calibrated_on(
    shell: Shell, place: Path, tmp_path: Path, scheme: str, depends: bool
) -> None:
    run = tmp_path / "run"
    shell.ok("eval", *model_and_data(place), "--set", f"*.out_proj={scheme}", "--run", run)
    marks = [e.key.calibration for e in open_run(run).entries()]
    assert any(marks) == depends
