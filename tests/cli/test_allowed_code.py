"""Code runs where the user named it: never because a run, a recipe or a folder beside names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_own
from command_line import Shell, evaluations

from sensprobe.cli.show import run_tables
from sensprobe.models.s4d import S4DConfig
from sensprobe.report.gather import gather
from sensprobe.report.page import render
from sensprobe.runs import open_run
from sensprobe.usercode import trust

REFUSED = "so nothing was run. Read it, and where you trust it give the same command --allow-code"
PLAN = ["--set", "layers.*.A=int8"]
pytestmark = pytest.mark.usefixtures("reference_scan")


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state" / "allowed.json"
    monkeypatch.setenv(trust.VARIABLE, str(path))
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A small model and arrays; code that gives them, and a metric whose helper scales it."""
    config = S4DConfig(d_input=1, d_output=1, d_model=2, d_state=2)
    write_own(tmp_path / "model.safetensors", config)
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=draw.normal(size=(160, 5, 1)), y=draw.normal(size=160))
    (tmp_path / "scale.py").write_text("SCALE = 1\n")
    (tmp_path / "mine.py").write_text(
        "import pathlib\nimport numpy as np\nfrom scale import SCALE\n"
        "pathlib.Path(__file__).with_name('ran').touch()\n"
        "def data():\n"
        f"    with np.load({str(tmp_path / 'data.npz')!r}) as f:\n"
        "        return {'x': f['x'], 'y': f['y']}\n"
        "def closeness(outputs, targets):\n"
        "    return -SCALE * (outputs.reshape(-1) - targets.reshape(-1)).abs()\n"
    )
    return tmp_path


def named(work: Path, *keys: str) -> list[str]:
    """Options that name the code on a command line."""
    code = f"python:{work / 'mine.py'}"
    data = f"{code}:data" if "data" in keys else f"npz:{work / 'data.npz'}"
    metric = ["--metric", f"{code}:closeness"] if "metric" in keys else []
    return ["--data", data, *metric]


def made(shell: Shell, work: Path, *keys: str) -> Path:
    """A run of another user, who named code: profiled, then moved here."""
    run = work / "run"
    asked = ["profile", work / "model.safetensors", *named(work, *keys), "--run", work / "theirs"]
    shell.ok(*asked, "--scheme", "int8", "--scheme", "int4")
    shutil.move(work / "theirs", run)
    trust.store().unlink(missing_ok=True)
    (work / "ran").unlink(missing_ok=True)
    return run


def settings(run: Path, **change: Any) -> None:
    document = json.loads((run / "run.json").read_text())
    document["settings"] |= change
    (run / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize("key", ["data", "metric"])
def test_what_only_a_run_names_is_not_run_until_it_is_allowed(
    shell: Shell, work: Path, key: str
) -> None:
    run = made(shell, work, key)
    search = ["search", "--run", run, "--budget", "120B", "--evaluations", 2, "--no-confirm"]
    commands = [
        search,
        ["export", "--run", run, "--plan", "120B", "--out", work / "out"],
        ["eval", "--run", run, *PLAN],
    ]
    for command in commands:
        done = shell(*command)
        assert done.code == 1
        assert REFUSED in done.err
        assert f"{key if key == 'data' else 'closeness'}() of {work / 'mine.py'}" in done.err
        assert "with it scale.py" in done.err
    assert not (work / "ran").exists()
    shell.ok(*search, "--allow-code")
    assert (work / "ran").exists()
    shell.ok(*commands[2])  # is remembered
    (work / "scale.py").write_text("SCALE = 2\n")
    done = shell(*commands[2])
    assert done.code == 1
    assert "It was allowed before, and since then scale.py changed" in done.err


def test_a_command_line_that_names_it_allows_it(shell: Shell, work: Path) -> None:
    run = made(shell, work, "metric")
    shell.ok("eval", work / "model.safetensors", *named(work, "metric"), "--run", run)
    found = shell.ok("eval", "--run", run, *PLAN, "--json").json
    assert found["metric"] == "closeness"


def test_other_ways_to_write_it_run_nothing(
    shell: Shell, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(shell, work)
    monkeypatch.chdir(work)
    (work / "link.py").symlink_to(work / "mine.py")
    (run / "mine.py").write_bytes((work / "mine.py").read_bytes())
    for file in ("mine.py", "./link.py", "run/mine.py", f"run/../{'mine.py'}"):
        for prefix in ("python:", "PYTHON:", " python:", "python: "):
            settings(run, data=f"{prefix}{file}:data", metric=f"{prefix}{file}:closeness")
            assert shell("eval", "--run", run, *PLAN).code != 0
    assert not (work / "ran").exists()
    assert not (run / "ran").exists()


def test_a_link_is_what_it_leads_to(shell: Shell, work: Path) -> None:
    """A link that leads to allowed code runs it; one that is turned elsewhere does not."""
    run = made(shell, work)
    link, asked = work / "link.py", ["eval", "--run", run, *PLAN]
    link.symlink_to(work / "mine.py")
    settings(run, data=f"python:{link}:data")
    shell.ok(*asked, "--allow-code")
    shell.ok(*asked)
    (run / "mine.py").write_bytes((work / "mine.py").read_bytes())
    link.unlink()
    link.symlink_to(run / "mine.py")
    assert REFUSED in shell(*asked).err
    assert not (run / "ran").exists()


def test_a_recipe_names_code_as_a_run_does(shell: Shell, work: Path) -> None:
    recipe = work / "recipe.toml"
    recipe.write_text(
        "seed = 0\n[model]\nd_input = 1\nd_output = 1\nd_model = 2\nd_state = 2\n"
        f"[data]\nsource = 'python:{work / 'mine.py'}:data'\n"
        "[optimizer]\nlr = 1e-2\nssm_lr = 1e-3\nweight_decay = 0.0\nbatch = 50\naverage = 0.9\n"
        "[schedule]\nepochs = 1\nwarmup = 0.1\n"
    )
    done = shell("train", recipe, "--out", work / "out")
    assert REFUSED in done.err
    assert not (work / "ran").exists()
    shell("train", recipe, "--out", work / "out", "--allow-code")
    assert (work / "ran").exists()


def test_an_edited_helper_is_another_metric_and_is_told(shell: Shell, work: Path) -> None:
    run = work / "run"
    asked = ["eval", work / "model.safetensors", *named(work, "metric"), "--run", run, "--json"]
    before = shell.ok(*asked).json
    assert json.loads((run / "run.json").read_text())["settings"]["code"].keys() == {
        str(work / "mine.py")
    }
    (work / "scale.py").write_text("SCALE = 2\n")
    done = shell.ok(*asked)
    assert done.json["value"] == pytest.approx(2 * before["value"])
    assert "the metric has changed since" in done.err
    assert "(scale.py)" in done.err


def test_eval_of_a_run_takes_its_inputs_from_there(shell: Shell, work: Path) -> None:
    run = made(shell, work)
    asked = ["eval", work / "model.safetensors", *named(work), *PLAN, "--json"]
    found = shell.ok("eval", "--run", run, *PLAN, "--json").json
    assert found["value"] == shell.ok(*asked).json["value"]
    for wrong in (
        ["eval", "--run", run, "--data", "digits"],
        ["eval", work / "model.safetensors", "--run", run],
        ["eval", *named(work)],
        ["eval"],
        ["eval", "--task", "blimp"],
    ):
        assert shell(*wrong).code == 2


def test_evaluations_are_reused_where_they_are_named_and_the_report_says_which(
    shell: Shell, work: Path
) -> None:
    first, beside, run = work / "runs" / "a", work / "runs" / "b", work / "runs" / "c"
    asked = ["profile", work / "model.safetensors", *named(work), "--scheme", "int8"]
    shell.ok(*asked, "--run", first)
    shell.ok(*asked, "--run", beside)
    done = shell.ok(*asked, "--run", run, "--reuse", first)
    assert "evaluations are taken from" in done.err
    opened, count = open_run(run), len(evaluations(run))
    assert open_run(beside).origins == {}
    assert opened.origins == {str(first.resolve()): count}
    said = f"{count} of {count} evaluations were not made in this run: they were taken from {first}"
    assert said in render(gather(opened))
    assert "not made in this run" not in render(gather(open_run(beside)))
    assert said in "".join(str(part) for part in run_tables(opened))
    refused = shell(*asked, "--run", run, "--reuse", work / "none")
    assert refused.code == 1
    assert "there is no run" in refused.err
