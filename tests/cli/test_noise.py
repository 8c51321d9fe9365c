"""Noise on the command line: eval, profile and tune under it."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from command_line import Shell

EVAL = ["eval", "s4d-digits", "--data", "digits", "--limit", "60"]


def test_eval_tells_the_mean_and_the_spread_over_devices(shell: Shell) -> None:
    asked = [*EVAL, "--noise", "weights=0.01", "--noise", "layers.*.A=0", "--draws", 4]
    document = shell.ok(*asked, "--json").json
    noise, values = document["noise"], document["noise"]["values"]
    assert len(values) == noise["draws"] == 4
    assert "layers.0.A" not in noise["sites"]
    assert noise["sites"]["layers.0.B"] == "0.01"
    assert document["value"] == pytest.approx(np.mean(values))
    assert noise["spread"] == pytest.approx(np.std(values, ddof=1))
    assert noise["stderr"] == pytest.approx(noise["spread"] / 2)
    assert document["stderr"] >= noise["stderr"] > 0
    said = " ".join(shell.ok(*asked).out.split())
    assert "weights=0.01, layers.*.A=0 on 4 device(s): standard deviation" in said


def test_devices_are_those_of_the_seed(shell: Shell) -> None:
    asked = [*EVAL, "--noise", "*=0.01", "--json", "--draws"]
    two = shell.ok(*asked, 2).json["noise"]["values"]
    three = shell.ok(*asked, 3).json["noise"]["values"]
    assert three[:2] == two
    assert shell.ok(*asked, 3, "--noise-seed", 1).json["noise"]["values"] != three


def test_one_device_tells_no_spread_and_no_noise_is_full_precision(shell: Shell) -> None:
    one = shell.ok(*EVAL, "--noise", "weights=0.01", "--draws", 1)
    assert "standard deviation ?, of their mean ?" in " ".join(one.out.split())
    full = shell.ok(*EVAL, "--json").json
    none = shell.ok(*EVAL, "--noise", "weights=0", "--draws", 2, "--compare", "--json").json
    assert none["value"] == full["value"]
    assert none["noise"]["spread"] == none["difference"]["value"] == 0


def test_a_run_keeps_every_draw_apart_from_the_plan(shell: Shell, tmp_path) -> None:
    asked = [*EVAL, "--run", tmp_path / "run", "--json"]
    plan = shell.ok(*asked).json
    noisy = shell.ok(*asked, "--noise", "weights=0.02", "--draws", 2).json
    assert shell.ok(*asked).json["value"] == plan["value"]
    assert shell.ok(*asked, "--noise", "weights=0.02", "--draws", 2).json["noise"] == noisy["noise"]
    assert not math.isclose(noisy["value"], plan["value"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--noise", "weights=-1"], "from 0 to 1"),
        (["--noise", "wieghts=0.01"], "the noise names 'wieghts'"),
        (["--noise", "states=pcm"], "pcm is of weights"),
        (["--noise", "weights=0.01", "--draws", "0"], "--draws must be at least 1"),
        (
            ["--noise", "weights=0.01", "--noise-seed", "-1"],
            "--noise-seed -1: give a whole number from 0",
        ),
        (["--draws", "3"], "give it too"),
        (["--noise", "weights=0.01", "--per-class"], "--per-class is of one inference"),
        (["--noise", "weights=0.01", "--dead-band"], "--dead-band is of one inference"),
    ],
)
def test_what_cannot_be_is_said(shell: Shell, options, said) -> None:
    done = shell(*EVAL, *options)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_profile_ranks_parts_by_the_noise_they_bear(shell: Shell, tmp_path) -> None:
    run = tmp_path / "run"
    asked = ["profile", "s4d-digits", "--data", "digits", "--limit", 40, "--run", run]
    noise = ["--noise", "0.02", "--noise", "pcm", "--draws", 3]
    document = shell.ok(*asked, *noise, "--json").json
    rows = {(row["target"], row["scheme"]): row for row in document["rows"]}
    assert document["schemes"] == ["0.02", "pcm"]
    assert ("layers.*.state", "0.02") in rows
    assert ("layers.*.state", "pcm") not in rows  # devices hold weights
    sensitive, robust = (rows[f"layers.*.{part}", "0.02"]["kl"] for part in ("A", "D"))
    assert sensitive["value"] > 10 * robust["value"] > 0
    assert rows["layers.*.A", "0.02"]["radius"] > rows["layers.*.D", "0.02"]["radius"]
    draws = [
        shell.ok(*EVAL[:4], "--split", "search", "--limit", 40, "--noise", "layers.*.A=0.02",
                 "--draws", k, "--compare", "--json").json["difference"]
        for k in (1, 3)
    ]  # fmt: skip
    metric = rows["layers.*.A", "0.02"]["metric"]
    assert metric["value"] == pytest.approx(draws[1]["value"])
    assert metric["stderr"] == pytest.approx(draws[1]["stderr"])
    assert draws[1]["value"] != draws[0]["value"]
    assert "Noise sensitivity of every part" in shell.ok("report", "--run", run).out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--noise", "0"], "changes nothing"),
        (["--noise", "0.01", "--scheme", "int8"], "--noise stands in place of schemes"),
        (["--noise", "0.01", "--method", "taylor"], "--method taylor prices schemes"),
        (["--draws", "3"], "give it too"),
        (["--noise", "weights=0.01"], "no noise 'weights=0.01'"),
    ],
)
def test_what_a_profile_cannot_do(shell: Shell, tmp_path, options, said) -> None:
    done = shell("profile", "s4d-digits", "--data", "digits", "--run", tmp_path / "run", *options)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "run").exists()


def test_tuning_under_noise_keeps_more_of_the_accuracy_under_it(shell: Shell, tmp_path) -> None:
    out, noise = tmp_path / "tuned", ["--noise", "weights=0.05", "--noise", "*.A=0"]
    asked = ["--data", "digits", *noise]
    shell.ok("tune", "s4d-digits", *asked, "--epochs", 10, "--lr", 0.03, "--out", out)
    document = json.loads((out / "tuned.json").read_text())
    assert document["noise"] == [["weights", "0.05"], ["*.A", "0"]]
    judged = [*asked, "--draws", 4, "--json"]
    before = shell.ok("eval", "s4d-digits", *judged).json
    after = shell.ok("eval", out / "weights.safetensors", *judged).json
    assert after["value"] > before["value"] + 0.05
    plain = shell.ok("eval", out / "weights.safetensors", "--data", "digits", "--json").json
    assert plain["value"] == document["splits"]["confirmation"]["after"]["value"]


def test_tune_needs_a_plan_or_noise(shell: Shell, tmp_path) -> None:
    asked = ["tune", "s4d-digits", "--data", "digits", "--out", tmp_path / "out"]
    for options in ([], ["--noise", "weights=0"]):
        done = shell(*asked, *options)
        assert done.code == 2
        assert "this one rounds nothing" in " ".join(done.err.split())
    assert "the noise names 'w'" in " ".join(shell(*asked, "--noise", "w=0.1").err.split())


def test_what_is_tuned_under_noise_alone_is_called_so(shell: Shell, profiled, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(profiled, run)
    noise = ["--noise", "weights=0.05"]
    shell.ok("tune", "--run", run, *noise, "--epochs", 1, "--max-steps", 1, "--limit", 20)
    (row,) = json.loads((run / "results" / "tuned.json").read_text())["plans"]
    assert (row["name"], row["folder"]) == ("noise", "tuned/noise")


def test_a_search_holds_the_noise(shell: Shell, profiled, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(profiled, run)
    noise = ["--noise", "weights=0.03", "--noise", "*.A=0", "--draws", 2]
    asked = ["search", "--run", run, "--budget", "2KiB", "--evaluations", 6, "--limit", 64]
    made = shell.ok(*asked, *noise)
    assert "under noise: weights=0.03, *.A=0 on 2 device(s); confirmed on 2 others" in " ".join(
        made.out.split()
    )
    search, confirmed = (
        json.loads((run / "results" / f"{name}.json").read_text())
        for name in ("search", "confirmation")
    )
    judge = ["eval", "s4d-digits", "--data", "digits", "--json", *noise[:-1]]
    plan = ["--plan", run / "plans" / "2KiB.json"]
    (choice,) = search["chosen"]
    candidate = next(c for c in search["candidates"] if c["name"] == choice["candidate"])
    on_search = shell.ok(*judge, 2, *plan, "--split", "search", "--limit", 64).json
    assert candidate["metric"]["value"] == pytest.approx(on_search["value"])
    full = shell.ok(*judge, 2, "--split", "search", "--limit", 64).json
    assert search["full"]["metric"]["value"] == pytest.approx(full["value"])
    four = shell.ok(*judge, 4, *plan).json["noise"]["values"]
    assert confirmed["plans"][0]["metric"]["value"] == pytest.approx(np.mean(four[2:]))
    shell.ok(*asked)
    assert (run / "results" / "search-1.json").exists()


def test_what_a_search_under_noise_cannot_do(shell: Shell, profiled, tmp_path) -> None:
    asked = ["search", "--run", profiled, "--budget", "2KiB", "--noise", "weights=0.01"]
    assert "a search does one of them" in shell(*asked, "--tune", 1).err
    run = tmp_path / "run"
    shell.ok("profile", "s4d-digits", "--data", "digits", "--run", run, "--metric", "f1",
             "--scheme", "int8", "--limit", 20, "--method", "taylor")  # fmt: skip
    done = shell("search", "--run", run, "--budget", "2KiB", "--noise", "weights=0.01")
    assert done.code == 2
    assert "no score of a sample" in " ".join(done.err.split())
