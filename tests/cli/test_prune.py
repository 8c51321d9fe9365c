"""`sensprobe prune`: a smaller model that scores what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Shell

from sensprobe.checkpoints import parameters as read_parameters
from sensprobe.checkpoints import read_checkpoint
from sensprobe.documents import read_json
from sensprobe.models.s4d_layers import kept_kernels
from sensprobe.train.snapshot import write_weights


@pytest.mark.parametrize(("model", "states"), [("s4d-digits", 6), ("s5-digits", 12)])
def test_a_pruned_model_is_smaller_and_scores_what_is_said(
    shell: Shell, tmp_path: Path, model: str, states: int
) -> None:
    out = tmp_path / "small.safetensors"
    made = shell.ok("prune", model, "--data", "digits", "--states", states, "--out", out, "--json")
    found = made.json
    assert found["states"]["after"] == states
    assert found["bytes"]["after"] < found["bytes"]["before"]
    assert all(0 <= row["removed"] < row["kept"] for row in found["layers"])
    scored = shell.ok("eval", out, "--data", "digits", "--json").json
    after = found["splits"]["confirmation"]["after"]
    assert scored["value"] == after["value"]
    _, header = read_checkpoint(out)
    assert header["recorded"]["value"] == after["value"]
    assert shell.ok("cost", out, "--json").json["total_bytes"] == found["bytes"]["after"]


def test_kernels_go_whole_with_states_or_without(shell: Shell, tmp_path: Path) -> None:
    sizes = []
    for more in ([], ["--states", 6]):
        out = tmp_path / f"{len(more)}.safetensors"
        words = ["--data", "digits", "--kernels", 13, *more, "--limit", 60, "--out", out, "--json"]
        found = shell.ok("prune", "s4d-digits", *words).json
        (row,) = found["layers"]
        assert (row["kernels"]["before"], row["kernels"]["after"]) == (16, 13)
        assert 0 <= row["kernels"]["removed"] < row["kernels"]["kept"]
        assert ("kept" in row) == bool(more)
        model, _ = read_checkpoint(out)
        pairs = found["states"]["after"]
        assert model.sites["layers.0.A"].shape == (13, pairs)
        # A head has log_dt, and a pair of A, B, C and the state: 4 bytes, and 32 a complex pair.
        sizes.append(found["bytes"]["before"] - found["bytes"]["after"])
        assert sizes[-1] == 32 * (16 * 8 - 13 * pairs)
        assert shell.ok("cost", out, "--json").json["total_bytes"] == found["bytes"]["after"]
    assert sizes[0] < sizes[1]


def test_a_model_without_some_kernels_is_exported_and_scores_the_same(
    shell: Shell, tmp_path: Path
) -> None:
    out, folder = tmp_path / "small.safetensors", tmp_path / "exported"
    plan = ["--data", "digits", "--set", "weights=int8/head", "--set", "states=int8/head/dynamic"]
    words = ["--data", "digits", "--kernels", 9, "--limit", 40, "--out", out]
    assert "9 of 16 kernels; prices" in shell.ok("prune", "s4d-digits", *words).out
    cost = shell.ok("cost", out, *plan[2:], "--json").json
    shell.ok("export", out, *plan, "--out", folder)
    tensors = (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(tensors[:8], "little")
    assert len(tensors) - header == cost["weight_bytes"]
    scores = [
        shell.ok("eval", *which, "--limit", 100, "--json").json["value"]
        for which in ((folder, "--data", "digits"), (out, *plan))
    ]
    assert scores[0] == scores[1]


def test_what_a_plan_rounds_to_nothing_goes_for_nothing(shell: Shell, tmp_path: Path) -> None:
    """In two bits with one scale the C of one head is zero: under that plan its kernel does
    nothing, at full precision it does."""
    out, plan = tmp_path / "small.safetensors", ["--set", "layers.*.C=int2"]
    words = ["prune", "s4d-digits", "--data", "digits", "--kernels", 15, "--out", out]
    found = shell.ok(*words, *plan, "--json").json
    (row,) = found["layers"]
    assert (row["kernels"]["free"], row["kernels"]["removed"]) == (1, 0)
    assert all(split["change"]["value"] == 0 for split in found["splits"].values())
    cost = shell.ok("cost", out, *plan, "--json").json
    assert cost["total_bytes"] == found["bytes"]["after"] < found["bytes"]["before"]
    assert not read_checkpoint(out)[1]["recorded"]  # which is of full precision
    out.unlink()
    exact = shell.ok(*words, "--limit", 40, "--json").json["layers"][0]["kernels"]
    assert exact["free"] == 0 < exact["removed"]
    out.unlink()
    made = shell.ok(*words, *plan, "--limit", 40)
    assert "1 of them worth nothing" in " ".join(made.out.split())
    assert f"tune {out} --data digits --set 'layers.*.C=int2' --out tuned" in made.err


def test_outputs_are_compared_with_those_of_the_model_before(shell: Shell, tmp_path: Path) -> None:
    words = ["prune", "s4d-digits", "--data", "digits", "--states", 2, "--limit", 40, "--json"]
    words += ["--metric", "divergence", "--out", tmp_path / "small.safetensors"]
    found = shell.ok(*words).json["splits"]["confirmation"]
    assert found["before"]["value"] == 0
    assert found["after"]["value"] == found["change"]["value"] > 0


@pytest.mark.parametrize("words", [["--limit", 0], ["--plan", "w8a8"], ["--set", "layers.0.A"]])
def test_what_means_nothing_writes_nothing(shell: Shell, tmp_path: Path, words: list) -> None:
    out = tmp_path / "small.safetensors"
    usual = ["prune", "s4d-digits", "--data", "digits", "--states", 4, "--out", out]
    assert shell(*usual, *words).code != 0
    assert not out.exists()


def test_it_says_what_went_and_what_to_do_next(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    made = shell.ok("prune", "s4d-digits", "--data", "digits", "--states", 7, "--out", out)
    assert "7 of 8 states" in made.out
    assert "points" in made.out
    assert f"next: sensprobe tune {out} --data digits --set weights=fp16" in made.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["s4d-digits", "--states", 8], "s4d-digits has 8; give a number from 1 to 7."),
        (["s4d-digits", "--states", 0], "give a number from 1 to 7."),
        (["s4d-digits"], "say what is kept: --states N, --kernels N, or both."),
        (["s4d-digits", "--kernels", 16], "has 16 in 1 layer(s), each of which keeps one; give a"),
        (["s4d-digits", "--kernels", 0], "give a number from 1 to 15."),
        (["s5-digits", "--kernels", 3], "the heads of s5 models have none of their own"),
        (["s5-digits", "--states", 7], "from 2 to 14 in steps of 2, its blocks."),
        (["mamba-bytes", "--states", 8], "of s4d and s5 models they are."),
    ],
)
def test_what_cannot_be_pruned_is_said(
    shell: Shell, tmp_path: Path, words: list[str], says: str
) -> None:
    data = "pydoc" if words[0] == "mamba-bytes" else "digits"
    done = shell("prune", *words, "--data", data, "--out", tmp_path / "x.safetensors")
    assert done.code != 0
    assert says in " ".join(done.err.split())
    assert not (tmp_path / "x.safetensors").exists()


def test_no_file_is_written_over(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("mine")
    words = ["prune", "s4d-digits", "--data", "digits", "--states", 4, "--out"]
    assert "exists: name another file" in shell(*words, tmp_path / "x.safetensors").err
    assert (tmp_path / "x.safetensors").read_text() == "mine"
    assert "name a .safetensors file" in shell(*words, tmp_path / "x").err


def test_tuning_takes_states_away_before_it_trains(shell: Shell, tmp_path: Path) -> None:
    words = ["--set", "*.out_proj=int4", "--set", "*.state=int8/head/dynamic", "--prune", 4]
    words += ["--epochs", 1, "--out", tmp_path / "small"]
    made = shell.ok("tune", "s4d-digits", "--data", "digits", *words)
    assert "plan, 4 states, tuned" in made.out
    document = read_json(tmp_path / "small" / "tuned.json")
    assert document["pruned_to"] == "4 states"
    model = shell.ok("eval", "s4d-digits", "--data", "digits", "--json").json
    found = document["splits"]["confirmation"]
    assert found["full"]["value"] == model["value"]  # of the model with all states
    weights = tmp_path / "small" / "weights.safetensors"
    plan = ["--plan", tmp_path / "small" / "plan.json", "--data", "digits"]
    scored = shell.ok("eval", weights, *plan, "--json").json
    assert scored["value"] == found["after"]["value"]
    assert scored["cost"]["total_bytes"] == document["cost"]["total_bytes"]
    pruned = tmp_path / "small" / "pruned.safetensors"
    assert shell.ok("eval", pruned, *plan, "--json").json["value"] == found["before"]["value"]


@pytest.mark.parametrize(("asked", "pairs"), [("kernels=12", 8), ("4,kernels=12", 4)])
def test_tuning_takes_kernels_away_before_it_trains(
    shell: Shell, tmp_path: Path, asked: str, pairs: int
) -> None:
    out = tmp_path / "small"
    words = ["--set", "*.C=int4", "--max-steps", 1, "--prune", asked, "--out", out]
    made = shell.ok("tune", "s4d-digits", "--data", "digits", "--limit", 60, *words)
    left = "12 kernels" if pairs == 8 else "4 states, 12 kernels"
    assert f"plan, {left}" in " ".join(made.out.split())
    model, _ = read_checkpoint(out / "weights.safetensors")
    assert model.sites["layers.0.A"].shape == (12, pairs)
    again = shell("tune", "s4d-digits", "--data", "digits", *words[:-4], "--prune", "kernels=11",
                  "--out", out)  # fmt: skip
    assert again.code == 2
    assert "or to other than 11 kernels" in again.err


def test_a_pruned_model_without_a_plan_is_trained(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "small"
    shell.ok("tune", "s4d-digits", "--data", "digits", "--prune", 2, "--epochs", 2, "--out", out)
    gained = read_json(out / "tuned.json")["splits"]["search"]["gained"]
    assert gained["value"] > 3 * gained["stderr"]


def test_what_was_pruned_of_another_model_is_not_trained(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "small"
    words = ["--set", "*.out_proj=int4", "--max-steps", 1, "--out", out]
    shell.ok("tune", "s4d-digits", "--data", "digits", *words, "--prune", 2)
    failed = shell("tune", "s4d-digits", "--data", "digits", *words, "--prune", 4)
    assert failed.code == 2
    assert "to other than 4 states: name another folder, or replace it with --restart" in failed.err
    shell.ok("tune", "s4d-digits", "--data", "digits", *words, "--prune", 4, "--restart")
    assert read_json(out / "tuned.json")["pruned_to"] == "4 states"
    # of so many states, and it says that it is of that model, but has other sizes
    found = read_parameters(out / "pruned.safetensors")
    chosen = [torch.arange(9)]
    small = kept_kernels(found.tensors, found.config, chosen)
    write_weights(out / "pruned.safetensors", *small, found.header["recorded"])
    failed = shell("tune", "s4d-digits", "--data", "digits", *words, "--prune", 4)
    assert failed.code == 2
    assert "was pruned of another model" in failed.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tune", "s4d-digits", "--data", "digits", "--prune", 8], "give a number from 1 to 7."),
        (["tune", "s4d-digits", "--data", "digits", "--prune", 0], "give a number from 1 to 7."),
        (["tune", "s4d-digits", "--data", "digits", "--prune", "few"], "both, 8,kernels=48."),
        (["tune", "s4d-digits", "--data", "digits", "--prune", "kernels=16"], "from 1 to 15."),
        (["tune", "mamba-bytes", "--data", "pydoc", "--prune", 2], "mamba models are not pruned"),
    ],
)
def test_what_cannot_be_pruned_is_not_trained(
    shell: Shell, tmp_path: Path, words: list, says: str
) -> None:
    failed = shell(*words, "--set", "*.out_proj=int4", "--out", tmp_path / "out")
    assert failed.code == 2
    assert says in failed.err
    assert not (tmp_path / "out").exists()
