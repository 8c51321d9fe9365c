"""A crossbar on the command line: eval on it, export for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sensprobe_app
from command_line import Shell

from sensprobe.runs import open_run

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"
MODEL = ["s5-digits", "--data", "digits"]
PLAN = ["--set", "weights=int6", "--set", "*.A=fp32"]
EVAL = ["eval", *MODEL, "--limit", 100, *PLAN]


def test_few_adc_bits_cost_accuracy_and_many_none(shell: Shell) -> None:
    plain = shell.ok(*EVAL, "--json").json
    fine = shell.ok(*EVAL, "--crossbar", "adc_bits=16,dac_bits=16", "--json").json
    coarse = shell.ok(*EVAL, "--crossbar", "adc_bits=3", "--compare", "--json").json
    assert fine["value"] == plain["value"]
    assert coarse["value"] < plain["value"] - 0.2
    assert coarse["difference"]["value"] == pytest.approx(
        coarse["value"] - coarse["baseline"]["value"]
    )
    assert fine["cost"] == plain["cost"]


def test_eval_says_what_the_plan_takes(shell: Shell) -> None:
    asked = [*EVAL, "--crossbar", "rows=16,columns=36,adc_pj=2"]
    found = shell.ok(*asked, "--json").json["crossbar"]
    # of 3 slices an output takes 6 columns: 16x1, 32x16, 16x32, 32x16 and 10x16 on tiles of 6
    assert found["tiles"] == 3 + 6 + 2 * 3 + 6 + 2
    assert found["adc_conversions"] == 6 * (16 + 32 + 2 * 16 + 32 + 10)
    assert found["energy_pj"] == 2 * found["adc_conversions"]
    said = " ".join(shell.ok(*asked).out.split())
    assert "5 matrices (1,712 weights) on 23 tile(s)" in said
    assert "1,464 pJ, computed from adc_pj=2 as entered" in said
    assert "energy" not in shell.ok(*EVAL, "--crossbar").out


def test_devices_are_cells_under_noise(shell: Shell) -> None:
    asked = [*EVAL, "--crossbar", "adc_bits=12", "--noise", "*.out_proj=0.05", "--draws", 3]
    noise = shell.ok(*asked, "--json").json["noise"]
    assert noise["values"] == shell.ok(*asked, "--json").json["noise"]["values"]
    plain = shell.ok(*[a for a in asked if a not in ("--crossbar", "adc_bits=12")], "--json").json
    assert noise["values"] != plain["noise"]["values"]


def test_a_run_keeps_a_crossbar_apart_from_the_plan(shell: Shell, tmp_path) -> None:
    asked = [*EVAL, "--run", tmp_path / "run", "--json"]
    plain = shell.ok(*asked).json["value"]
    coarse = shell.ok(*asked, "--crossbar", "adc_bits=3").json["value"]
    finer = shell.ok(*asked, "--crossbar", "adc_bits=4").json["value"]
    assert len({plain, coarse, finer}) == 3
    assert shell.ok(*asked).json["value"] == plain
    assert shell.ok(*asked, "--crossbar", "adc_bits=3").json["value"] == coarse
    told = [(key.plan.count("crossbar"), key.analog) for key in open_run(asked[-2]).measured_keys()]
    assert sorted(told) == [(0, False)] * (len(told) - 2) + [(1, True)] * 2


def test_export_writes_cells_and_says_what_stays_digital(shell: Shell, tmp_path) -> None:
    asked = ["export", *MODEL, *PLAN, "--for", "crossbar", "--crossbar", "rows=32,columns=64"]
    document = shell.ok(*asked, "--out", tmp_path / "one", "--json").json
    mapping = json.loads((tmp_path / "one" / "mapping.json").read_text())
    assert {row["site"] for row in document["placed"]} == mapping["matrices"].keys()
    assert sum(row["tiles"] for row in document["placed"]) == document["crossbar"]["tiles"]
    assert mapping["crossbar"]["rows"] == 32
    on_it = shell.ok(*EVAL, "--crossbar", "rows=32,columns=64", "--json").json["crossbar"]
    assert document["crossbar"] == mapping["counts"] == on_it
    said = shell.ok(*asked, "--out", tmp_path / "two").out
    assert "layers.*.state" in said
    assert "carried from step to step" in said


def test_any_plan_of_a_run_is_exported(shell: Shell, tmp_path) -> None:
    run = tmp_path / "run"
    shell.ok(
        "profile", *MODEL, "--scheme", "int6", "--limit", 20, "--method", "taylor", "--run", run
    )
    shell.ok("search", "--run", run, "--budget", "3KiB", "--no-confirm", "--evaluations", 2)
    asked = ["export", "--run", run, "--plan", "3KiB", "--for", "crossbar"]
    assert shell.ok(*asked, "--out", tmp_path / "out", "--json").json["placed"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([*EVAL, "--crossbar", "row=3"], "'row=3' is none of rows=N"),
        ([*EVAL, "--crossbar", "rows=0"], "rows=0: a crossbar has from 1"),
        ([*EVAL, "--crossbar", "rows=65536,columns=257"], "a tile has at most 16,777,216 cells"),
        ([*EVAL, "--crossbar", "columns=4"], "give columns=6 or more"),
        ([*EVAL, "--crossbar", "--dead-band"], "--dead-band counts without a crossbar"),
        (
            ["eval", *MODEL, "--set", "weights=int6/asym", "--crossbar"],
            "encoder: asym: a pair of cells has no zero point",
        ),
        (["eval", *MODEL, "--crossbar"], "encoder: the plan leaves it in full precision"),
        (["eval", "x", "--task", "blimp", "--crossbar"], "--crossbar is for --data"),
        (
            ["export", *MODEL, *PLAN, "--out", "o", "--crossbar", "rows=3"],
            "are for --for crossbar: give both",
        ),
        (["export", *MODEL, *PLAN, "--out", "o", "--for", "crosbar"], "no runtime 'crosbar'"),
    ],
)
def test_what_cannot_be_is_said(shell: Shell, tmp_path, monkeypatch, asked, said) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell(*asked)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "o").exists()


def test_fewer_states_are_counted_as_they_are(shell: Shell, tmp_path) -> None:
    """A tuned model may have fewer states than the run's."""
    run = shutil.copytree(EXAMPLE, tmp_path / "run")
    asked = ["--set", "*.out_proj=int4", "--prune", 2, "--max-steps", 1, "--limit", 10]
    name = shell.ok("tune", "--run", run, *asked, "--json").json["plan_in_run"]
    out = tmp_path / "out"
    asked = ["--plan", name, "--for", "crossbar", "--out", out]
    found = shell.ok("export", "--run", run, *asked, "--json").json
    counts = found["crossbar"]["digital_weights"] + found["crossbar"]["digital_states"]
    assert sum(row["values"] for row in found["digital"]) == counts


def test_an_exported_model_knows_no_ranges(shell: Shell, tmp_path) -> None:
    out = tmp_path / "out"
    shell.ok("export", *MODEL, *PLAN, "--out", out)
    done = shell("eval", out, "--data", "digits", "--crossbar")
    assert done.code == 2
    assert "Evaluate the model it was made from" in " ".join(done.err.split())
