"""The user's own model, arrays, groups, metric and recipe, through every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_own
from command_line import Shell, evaluations

from sensprobe.models.s4d import S4DConfig
from sensprobe.runs import open_run
from sensprobe.session.source import open_model

CONFIG = S4DConfig(d_input=2, d_output=1, d_model=4, d_state=3)
RECIPE = """
seed = 0
[model]
d_input = 1
d_output = 10
d_model = 4
d_state = 2
[data]
source = "digits"
[optimizer]
lr = 2e-2
ssm_lr = 5e-3
weight_decay = 0.05
batch = 100
average = 0.9
[schedule]
epochs = 2
warmup = 0.1
"""


@pytest.fixture
def regression(tmp_path: Path) -> Path:
    """A small model of one output, and 200 sequences of 40 patients: model, arrays, code."""
    write_own(tmp_path / "model.safetensors", CONFIG)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 9, 2)).astype(np.float32)
    y = x.mean((1, 2)) + draw.normal(size=200) / 10
    np.savez(tmp_path / "data.npz", x=x, y=y.astype(np.float32), group=np.arange(200) // 5)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        f"    with np.load({str(tmp_path / 'data.npz')!r}) as f:\n"
        "        return {'x': f['x'], 'y': f['y'], 'group': f['group']}\n"
        "def closeness(outputs, targets):\n"
        "    return -(outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1))"
        ".abs().mean(1)\n"
    )
    return tmp_path


def whole_path(shell: Shell, folder: Path, *data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Profile, search, export, report: the profile, and what the search found."""
    run, model = folder / "runs" / "r", folder / "model.safetensors"
    schemes = ["--scheme", "int8/dynamic", "--scheme", "int4/dynamic"]
    profile = shell.ok("profile", model, *data, *schemes, "--run", run, "--json").json
    budget = profile["full_bytes"] // 3
    found = shell.ok("search", "--run", run, "--budget", budget, "--evaluations", 8, "--json").json
    shell.ok("export", "--run", run, "--plan", budget, "--out", folder / "out")
    assert shell.ok("report", "--run", run, "--json").json["images"]
    exported = shell.ok("eval", folder / "out", *data, "--json").json
    confirmed = found["confirmation"]["plans"][0]["metric"]
    assert exported["value"] == confirmed["value"]
    assert exported["stderr"] == confirmed["stderr"]
    return profile, found


def test_regression_with_groups(shell: Shell, regression: Path) -> None:
    profile, found = whole_path(shell, regression, "--data", f"npz:{regression / 'data.npz'}")
    assert profile["task"] == "regression"
    assert profile["metric"] == "mse"
    assert profile["sign"] == -1
    assert 0 < profile["clusters"] < profile["n"]
    assert found["search"]["full"]["metric"]["value"] > 0
    worse = [c for c in found["search"]["candidates"] if c["total_bytes"] < 200]
    assert all(c["loss"]["stderr"] >= 0 for c in worse)


def test_groups_never_lie_in_two_splits(regression: Path) -> None:
    from sensprobe.data import load_data

    splits = load_data(f"npz:{regression / 'data.npz'}").splits
    seen: set[int] = set()
    for name in splits:
        groups = set(splits[name].group.tolist())  # type: ignore[union-attr]
        assert not groups & seen
        seen |= groups


def test_own_code_gives_data_and_metric(shell: Shell, regression: Path) -> None:
    code = regression / "mine.py"
    data = ["--data", f"python:{code}:data", "--metric", f"python:{code}:closeness"]
    profile, _ = whole_path(shell, regression, *data)
    assert profile["metric"] == "closeness"
    assert profile["sign"] == 1
    assert profile["baseline"]["metric"]["value"] < 0


def test_an_edited_metric_is_another_metric(shell: Shell, regression: Path) -> None:
    code, run = regression / "mine.py", regression / "run"
    asked = ["eval", regression / "model.safetensors", "--data", f"python:{code}:data"]
    scored = [*asked, "--metric", f"python:{code}:closeness", "--run", run, "--json"]
    before = shell.ok(*scored).json
    code.write_text(code.read_text().replace("-(outputs", "-2 * (outputs"))
    assert shell.ok(*scored).json["value"] == pytest.approx(2 * before["value"])
    refused = shell(*asked, "--run", run)
    assert refused.code == 1
    assert "was made with metric" in refused.err


def test_regression_is_refused_by_a_metric_of_the_wrong_shape(
    shell: Shell, regression: Path
) -> None:
    code = regression / "bad.py"
    code.write_text("def one(outputs, targets):\n    return outputs.mean()\n")
    asked = ["eval", regression / "model.safetensors", "--data", f"npz:{regression / 'data.npz'}"]
    done = shell(*asked, "--metric", f"python:{code}:one")
    assert done.code == 1
    assert "one" in done.err


def test_train_then_profile_the_result(shell: Shell, tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.toml", tmp_path / "out"
    recipe.write_text(RECIPE)
    done = shell.ok("train", recipe, "--out", out, "--json").json
    assert done["split"] == "confirmation"
    assert done["epochs"] == 2
    source = open_model(done["weights"])
    assert source.recorded == {k: done[k] for k in ("metric", "value", "stderr", "n", "split")}
    scored = shell.ok("eval", done["weights"], "--data", "digits", "--json").json
    assert scored["value"] == done["value"]
    assert scored["warnings"] == []
    again = shell.ok("train", recipe, "--out", out, "--json").json
    assert again == done
    assert shell.ok("train", recipe, "--out", out, "--restart", "--json").json == done
    printed = shell.ok("train", recipe, "--out", out)
    assert "accuracy" in printed.out
    recipe.write_text(RECIPE.replace("epochs = 2", "epochs = 3"))
    other = shell("train", recipe, "--out", out)
    assert other.code == 1
    assert "--restart" in other.err


def test_a_score_far_from_the_recorded_one_is_told(shell: Shell, tmp_path: Path) -> None:
    """Digits shown backwards are not what the model was trained on."""
    from sensprobe.data import load_data

    split = load_data("digits").splits["confirmation"]
    np.savez(tmp_path / "backwards.npz", x=split.x.numpy()[:, ::-1], y=split.y.numpy())
    data = f"npz:{tmp_path / 'backwards.npz'}"
    done = shell.ok("eval", "s4d-digits", "--data", data)
    assert "The checkpoint records 97.25 % accuracy" in " ".join(done.err.split())
    found = shell.ok("profile", "s4d-digits", "--data", data, "--run", tmp_path / "r", "--json")
    assert found.json["warnings"]
    assert evaluations(tmp_path / "r")
    assert open_run(tmp_path / "r").state == "finished"


def test_repeated_samples_are_told_and_groups_keep_them_together(
    shell: Shell, regression: Path
) -> None:
    with np.load(regression / "data.npz") as stored:
        x, y = np.tile(stored["x"], (3, 1, 1)), np.tile(stored["y"], 3)
    np.savez(regression / "twice.npz", x=x, y=y)
    asked = ["eval", regression / "model.safetensors", "--data"]
    done = shell.ok(*asked, f"npz:{regression / 'twice.npz'}")
    assert "confirmation samples repeat samples of other splits" in " ".join(done.err.split())
    np.savez(regression / "grouped.npz", x=x, y=y, group=np.tile(np.arange(len(x) // 3), 3))
    assert "repeat samples" not in shell.ok(*asked, f"npz:{regression / 'grouped.npz'}").err


def test_few_groups_are_told(shell: Shell, regression: Path) -> None:
    asked = ["eval", regression / "model.safetensors", "--data", f"npz:{regression / 'data.npz'}"]
    assert "form only" in shell.ok(*asked).err


def test_of_one_group_no_error_is_told(shell: Shell, regression: Path) -> None:
    with np.load(regression / "data.npz") as stored:
        x, y = stored["x"], stored["y"]
    np.savez(regression / "two.npz", x=x, y=y, group=np.arange(200) // 40)
    asked = ["eval", regression / "model.safetensors", "--data", f"npz:{regression / 'two.npz'}"]
    done = shell.ok(*asked, "--limit", "40", "--compare", "--set", "states=int8")
    told = "all of one group, which tells no error and allows no search: --limit 80 takes two"
    assert told in " ".join(done.err.split())
    assert "one group" not in shell.ok(*asked, "--limit", "80").err
    assert " ± ? " in done.out
    assert "inf" not in done.out
