"""`sensprobe tune`: a model and a plan in, a checkpoint that evaluates as it says out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import Shell

import sensprobe
from sensprobe.data import load_data
from sensprobe.jobs import step_ram
from sensprobe.models import family_of
from sensprobe.models.s4d import S4DConfig
from sensprobe.plans.plan import read
from sensprobe.runs import lease
from sensprobe.train.snapshot import write_weights

COARSE = ["--set", "*.out_proj=int3", "--set", "*.C=int3", "--set", "*.state=int6/head/dynamic"]
FAST = ["--epochs", 3, "--lr", 0.01, "--ssm-lr", 0.002]


def test_the_tuned_checkpoint_scores_what_was_said(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    made = shell.ok("tune", "s4d-digits", "--data", "digits", *COARSE, *FAST, "--out", out)
    assert "gained by tuning" in made.out
    assert "3 legs" in made.err
    document = json.loads((out / "tuned.json").read_text())
    found = document["splits"]["confirmation"]
    assert found["after"]["value"] > found["before"]["value"] + 0.2
    assert not document["warnings"]
    plan = ["--plan", out / "plan.json"]
    scored = shell.ok("eval", out / "weights.safetensors", *plan, "--data", "digits", "--json").json
    for key in ("value", "stderr", "n"):
        assert scored[key] == found["after"][key]
    assert scored["plan_fingerprint"] == document["plan_fingerprint"]
    assert "sensprobe export " in made.err
    model, to = [out / "weights.safetensors", "--data", "digits"], tmp_path / "exported"
    written = shell.ok("export", *model, *plan, "--out", to, "--json").json
    assert written["cost"]["total_bytes"] == document["cost"]["total_bytes"]
    assert shell.ok("eval", to, "--data", "digits", "--json").json["value"] == scored["value"]


def test_every_choice_at_once_is_evaluated_as_it_was_scored(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    words = ["--set", "*.A=int5", "--set", "*.x=int4", "--set", "*.state=int8/head"]
    ways = ["--parametrization", "discrete", "--stable", "--ranges", "learned", "--progressive"]
    more = ["--average", 0.9, "--warmup", 0.1, "--clip", 2, "--epochs", 2]
    made = shell.ok("tune", "s4d-digits", "--data", "digits", *words, *ways, *more, "--out", out)
    assert "; tuned: 0 of " in made.out
    assert "2 range(s) are learned" in made.err
    document = json.loads((out / "tuned.json").read_text())
    assert document["stability"]["after"]["above"] == 0
    assert document["stability"]["after"]["largest"] <= 1
    schemes = dict(json.loads((out / "plan.json").read_text())["schemes"])
    assert "/range" in schemes["layers.0.x"]
    plan = ["--plan", out / "plan.json"]
    scored = shell.ok("eval", out / "weights.safetensors", *plan, "--data", "digits", "--json").json
    assert scored["plan_fingerprint"] == document["plan_fingerprint"]
    assert scored["value"] == document["splits"]["confirmation"]["after"]["value"]


def test_weights_start_from_what_gptq_makes_of_them(shell: Shell, tmp_path: Path) -> None:
    """In a range that is given they are codes: trained at no rate, they score what gptq does."""
    words = ["--set", "*.out_proj=int3/range0.4/gptq", "--out", tmp_path / "t"]
    still = ["--lr", 1e-30, "--ssm-lr", 1e-30, "--epochs", 1, "--batch", 300]
    made = shell.ok("tune", "s4d-digits", "--data", "digits", *words, *still)
    assert "1 weight(s) start from what gptq makes of them" in made.err
    found = json.loads((tmp_path / "t" / "tuned.json").read_text())["splits"]["search"]
    assert found["after"]["value"] == found["before"]["value"]
    nearest = ["--set", "*.out_proj=int3/range0.4", "--data", "digits", "--split", "search"]
    plain = shell.ok("eval", "s4d-digits", *nearest, "--json").json
    assert plain["value"] != found["before"]["value"]
    schemes = dict(json.loads((tmp_path / "t" / "plan.json").read_text())["schemes"])
    assert schemes == {"*.out_proj": "int3/range0.4"}


def test_an_unstable_recurrence_is_warned_of(shell: Shell, tmp_path: Path) -> None:
    words = ["--set", "*.A=int3", "--epochs", 1, "--batch", 700, "--out", tmp_path / "t"]
    document = shell.ok("tune", "s4d-digits", "--data", "digits", *words, "--json").json
    after = document["stability"]["after"]
    assert after["above"] > 0
    assert any("--stable keeps them inside" in text for text in document["warnings"])


def test_a_plan_of_a_run(shell: Shell, searched: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched, tmp_path / "run")  # it gets a row of what is tuned
    search = json.loads((run / "results" / "search.json").read_text())
    budget = search["chosen"][0]["budget"]
    asked = ["tune", "--run", run, "--plan", budget, "--epochs", 1, "--out", tmp_path / "t"]
    document = shell.ok(*asked, "--json").json
    plans = {c["plan_fingerprint"] for c in search["candidates"]}
    assert document["plan_fingerprint"] in plans
    confirmation = json.loads((run / "results" / "confirmation.json").read_text())
    full = document["splits"]["confirmation"]["full"]
    assert full["value"] == confirmation["baseline"]["value"]


def test_a_divergence_is_from_the_model_before_tuning(shell: Shell, tmp_path: Path) -> None:
    """Not from the full precision of the tuned model, which has moved."""
    asked = ["tune", "s4d-digits", "--data", "digits", *COARSE, *FAST, "--teacher", "self"]
    document = shell.ok(*asked, "--metric", "divergence", "--out", tmp_path / "t", "--json").json
    found = document["splits"]["search"]["after"]["value"]
    data = load_data("digits").splits["search"]
    plan = read(tmp_path / "t" / "plan.json")
    tuned = sensprobe.load(tmp_path / "t" / "weights.safetensors", plan=plan)(data.x)
    told = sensprobe.load("s4d-digits")(data.x).log_softmax(-1)
    divergence = (told.exp() * (told - tuned.log_softmax(-1))).sum(-1).mean()
    assert found == pytest.approx(float(divergence), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["s4d-digits", "--data", "digits"], "give --plan PLAN, --set"),
        (["s4d-digits", "--data", "digits", *COARSE, "--epochs", 0], "--epochs must be at least 1"),
        (["s4d-digits", "--data", "digits", *COARSE, "--lr", -1], "--lr and --ssm-lr"),
        (
            ["s4d-digits", "--data", "digits", *COARSE, "--max-steps", 0],
            "--max-steps must be at least 1",
        ),
        (["s4d-digits", "--data", "digits", *COARSE, "--limit", 0], "--limit 0 leaves no samples"),
        (["s4d-digits", "--data", "digits", *COARSE, "--ranges", "some"], "--ranges is one of"),
        (["s4d-digits", "--data", "digits", *COARSE, "--average", 1], "--average must be"),
        (["s4d-digits", "--data", "digits", *COARSE, "--warmup", 1], "--warmup must be"),
        (["s4d-digits", "--data", "digits", *COARSE, "--teacher", "mamba-bytes"], "teacher"),
        (["s4d-digits", "--data", "digits", "--set", "nothing=int4"], "nothing"),
    ],
)
def test_bad_input(words: list[object], says: str, shell: Shell, tmp_path: Path) -> None:
    done = shell("tune", *words, "--out", tmp_path / "out")
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_not_replaced(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    fast = [*COARSE, "--epochs", 1, "--batch", 700]
    shell.ok("tune", "s4d-digits", "--data", "digits", *fast, "--out", out)
    weights = out / "weights.safetensors"
    before = weights.read_bytes()
    done = shell("tune", weights, "--data", "digits", *fast, "--out", out, "--restart")
    assert done.code == 2
    assert "holds the model that is tuned" in done.err
    (out / "snapshot.safetensors").unlink()
    done = shell("tune", "s4d-digits", "--data", "digits", *fast, "--out", out)
    assert done.code == 2
    assert "is of no training" in done.err
    assert weights.read_bytes() == before


def test_layers_are_recomputed_where_ram_is_scarce_and_nothing_else_changes(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model = S4DConfig(1, 10, 4, 4, layers=2), tmp_path / "weights.safetensors"
    write_weights(model, family_of(config).initial(config, (0.01, 0.1), 3), config, {})
    asked = ["tune", model, "--data", "digits", *COARSE, "--batch", 50]
    asked += ["--max-steps", 3, "--json"]
    plenty = shell.ok(*asked, "--out", tmp_path / "plenty")
    assert plenty.json["ram"]["layers"] == "kept"
    assert "a step of 50 × 64 takes about" in plenty.err
    assert "recomputed" not in plenty.err
    needed = plenty.json["ram"]["step_bytes"]
    monkeypatch.setattr(step_ram, "free_bytes", lambda: needed)
    scarce = shell.ok(*asked, "--out", tmp_path / "scarce")
    assert scarce.json["ram"]["layers"] == "recomputed"
    assert "; layers are recomputed" in scarce.err
    one, other = (tmp_path / name / "weights.safetensors" for name in ("plenty", "scarce"))
    assert one.read_bytes() == other.read_bytes()


def test_a_step_that_finds_no_room_is_said_before_anything_runs(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["tune", "s4d-digits", "--data", "digits", *COARSE, "--batch", 50]
    asked += ["--out", tmp_path / "out"]
    monkeypatch.setattr(step_ram, "free_bytes", lambda: 2_000_000)
    done = shell(*asked)
    assert done.code == 1
    says = r"50 × 64: that needs [\d,]+ bytes, and 2,000,000 are free. A batch of (\d+) would fit"
    said = re.search(says, done.err)
    assert said, done.err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(step_ram, "free_bytes", lambda: 1000)
    assert "No batch fits" in shell(*asked).err
    monkeypatch.setattr(step_ram, "free_bytes", lambda: 2_000_000)
    fits = shell.ok(*asked, "--batch", said[1], "--max-steps", 1, "--json").json
    assert fits["ram"]["step_bytes"] <= 2_000_000


def test_so_many_steps_and_so_many_samples(shell: Shell, tmp_path: Path) -> None:
    asked = ["tune", "s4d-digits", "--data", "digits", *COARSE, "--out", tmp_path / "t"]
    document = shell.ok(*asked, "--max-steps", 5, "--limit", 60, "--json").json
    assert document["steps"] == 5
    assert 0 < document["epochs"] < 1
    assert [found["n"] for found in document["splits"].values()] == [60, 60]
    scored = shell.ok(
        "eval", tmp_path / "t/weights.safetensors", "--plan", tmp_path / "t/plan.json", "--data",
        "digits", "--limit", 60, "--json",
    ).json  # fmt: skip
    assert scored["value"] == document["splits"]["confirmation"]["after"]["value"]
    done = shell(*asked, "--max-steps", 6)
    assert done.code == 1
    assert "differs in max_steps" in done.err


def test_trials_choose_the_rates(shell, tmp_path):
    words = ["s4d-digits", "--data", "digits", *COARSE, "--epochs", 1, "--batch", 128]
    short = ["--max-steps", 2, "--limit", 50, "--out", tmp_path / "t", "--json"]
    found = shell.ok("tune", *words, *short, "--trials", 3).json
    tried = found["trials"]
    assert len(tried) == 3
    assert [row["value"] for row in tried] == sorted((r["value"] for r in tried), reverse=True)
    assert (found["lr"], found["ssm_lr"]) == (tried[0]["lr"], tried[0]["ssm_lr"])
    assert any(row["lr"] == 0.01 for row in tried)  # what it would do without
    assert len(list((tmp_path / "t" / "trials").iterdir())) == 3


def test_a_budget_that_the_plan_breaks_is_said(shell, tmp_path):
    words = ["s4d-digits", "--data", "digits", *COARSE, "--out", tmp_path / "t"]
    said = shell("tune", *words, "--budget", "1KiB").err
    assert "more than the budget of 1KiB (1,024)" in said
    assert not (tmp_path / "t").exists()


def test_two_processes_do_not_train_into_one_folder(shell, tmp_path):
    out = tmp_path / "t"
    out.mkdir()
    words = ["tune", "s4d-digits", "--data", "digits", *COARSE, "--epochs", 1, "--batch", 700]
    with lease.held(out, "training", lambda: None):
        said = shell(*words, "--out", out).err
    assert f"another process trains into {out}" in said.replace("\n", " ")
    assert not (out / "weights.safetensors").exists()
    shell.ok(*words, "--out", out)
    assert not (out / "leases").exists()
