"""Metrics of one's own that say what they measure, those built in, and samples under a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_own
from command_line import Shell, evaluations
from sklearn.metrics import balanced_accuracy_score, f1_score

import sensprobe
from sensprobe.models.s4d import S4DConfig
from sensprobe.report.gather import sites_of
from sensprobe.report.live import search_so_far
from sensprobe.runs import open_run

SCHEMES = ["--scheme", "int8/dynamic", "--scheme", "int2/dynamic"]
CODE = """
import torch

def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets).float()

def hits(outputs, targets):
    return 100 * accuracy(outputs, targets)
hits.unit = "percent"

def share(outputs, targets):
    return accuracy(outputs, targets)
share.unit = "fraction"
share.name = "accuracy"

def surprise(outputs, targets):
    loss = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    return torch.nan_to_num(loss, 50.0, 50.0), {"unit": "nats", "higher_is_better": False}

def wrong(outputs, targets):
    return accuracy(outputs, targets)
wrong.higher_is_better = "no"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of three outputs, and sequences whose labels are mostly what it says, by class."""
    config = S4DConfig(d_input=2, d_output=3, d_model=4, d_state=3)
    write_own(tmp_path / "m.safetensors", config)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1200, 9, 2)).astype(np.float32)
    y = sensprobe.load(tmp_path / "m.safetensors")(x).argmax(-1).numpy()
    y = np.where(draw.random(1200) < 0.9, y, draw.integers(0, 3, 1200))
    order = np.argsort(y, kind="stable")
    split = np.array(["calibration", "search", "confirmation"])[np.arange(1200) % 3]
    np.savez(tmp_path / "d.npz", x=x[order], y=y[order], split=split)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def asked(folder: Path, command: str, metric: str, *more: object) -> list[object]:
    model, data = folder / "m.safetensors", f"npz:{folder / 'd.npz'}"
    return [command, model, "--data", data, "--metric", metric, *more]


def own(folder: Path, name: str) -> str:
    return f"python:{folder / 'mine.py'}:{name}"


def searched(shell: Shell, folder: Path, metric: str, *limits: object) -> dict[str, Any]:
    run = folder / metric.rpartition(":")[2]
    shell.ok(*asked(folder, "profile", metric, *SCHEMES, "--run", run))
    return shell.ok("search", "--run", run, *limits, "--evaluations", 6, "--json").json


def lost(found: dict[str, Any], which: str = "candidate") -> float:
    plans = {c["name"]: c for c in found["search"]["candidates"]}
    return float(plans[found["search"]["chosen"][0][which]]["loss"]["value"])


def test_a_limit_is_in_the_unit_that_a_metric_declares(shell: Shell, folder: Path) -> None:
    shown = {}
    for name, scale in (("share", 100.0), ("hits", 1.0)):
        found = searched(shell, folder, own(folder, name), "--max-loss", 2)
        assert found["search"]["metric_info"]["unit"] == "%"
        assert found["search"]["metric_info"]["scale"] == scale
        assert found["confirmation"]["metric_info"] == found["search"]["metric_info"]
        assert -lost(found) * scale <= 2 + 1e-9
        shown[name] = [c["loss"]["value"] * scale for c in found["search"]["candidates"]]
    assert shown["share"] == pytest.approx(shown["hits"], abs=1e-4)
    table = shell.ok("report", "--run", folder / "share", "--out", folder / "r").out
    assert "accuracy change" in table
    assert "(points)" in table


def test_without_a_unit_a_limit_that_allows_everything_is_refused(
    shell: Shell, folder: Path
) -> None:
    run = folder / "run"
    profile = shell.ok(*asked(folder, "profile", own(folder, "accuracy"), *SCHEMES, "--run", run))
    assert "declares no unit" in profile.err
    assert "accuracy change" in profile.out
    assert "points" not in profile.out
    refused = shell("search", "--run", run, "--max-loss", 1)
    assert refused.code == 2
    assert "Give 0.01 for what would be 1 points" in refused.err
    found = shell.ok("search", "--run", run, "--max-loss", 0.02, "--evaluations", 4, "--json").json
    assert -lost(found) <= 0.02 + 1e-9
    assert found["confirmation"]["plans"][0]["max_loss"] == 0.02


def test_a_metric_may_say_beside_its_values_that_less_is_better(shell: Shell, folder: Path) -> None:
    found = searched(shell, folder, own(folder, "surprise"), "--max-loss", 0.05)
    info = found["search"]["metric_info"]
    assert (info["unit"], info["higher_is_better"], found["search"]["sign"]) == ("nats", False, -1)
    assert lost(found) <= 0.05 + 1e-9
    worst = max(c["loss"]["value"] for c in found["search"]["candidates"])
    assert worst > 0.05
    scored = shell.ok(*asked(folder, "eval", own(folder, "surprise"))).out
    assert scored.startswith("surprise  ")
    assert " nats" in scored.splitlines()[0]


def test_a_declaration_that_is_none_is_refused(shell: Shell, folder: Path) -> None:
    refused = shell(*asked(folder, "eval", own(folder, "wrong")))
    assert refused.code != 0
    assert "higher_is_better is 'no'; it must be True or False" in refused.err


def test_agreement_needs_no_labels(shell: Shell, folder: Path) -> None:
    found = searched(shell, folder, "agreement", "--budget", 400)
    assert found["search"]["metric"] == "agreement"
    assert found["search"]["full"]["metric"]["value"] == 1
    assert 0 < found["confirmation"]["plans"][0]["metric"]["value"] <= 1
    plan = ["--set", "*.A=int4", "--json"]
    scored = shell.ok(*asked(folder, "eval", "agreement", *plan)).json
    with np.load(folder / "d.npz") as f:
        np.savez(folder / "d.npz", x=f["x"], split=f["split"])
    assert shell.ok(*asked(folder, "eval", "agreement", *plan)).json["value"] == scored["value"]


@pytest.mark.parametrize(
    ("name", "score"), [("balanced-accuracy", balanced_accuracy_score), ("f1", f1_score)]
)
def test_metrics_of_classes_go_the_whole_way(
    shell: Shell, folder: Path, name: str, score: Any
) -> None:
    found = searched(shell, folder, name, "--budget", 400)
    run, more = open_run(folder / name), {"average": "macro"} if name == "f1" else {}
    confirmed = found["confirmation"]["plans"][0]
    mark = next(
        c["plan_fingerprint"]
        for c in found["search"]["candidates"]
        if c["name"] == confirmed["name"]
    )
    kept = next(
        e for e in run.evaluations()
        if e.key.split == "confirmation" and e.key.plan.startswith(mark)
    )  # fmt: skip
    wanted = score(kept.arrays["label"], kept.arrays["predicted"], **more)
    assert confirmed["metric"]["value"] == pytest.approx(wanted)
    assert confirmed["metric"]["stderr"] > 0
    change = confirmed["metric"]["value"] - found["confirmation"]["baseline"]["value"]
    assert confirmed["loss"]["value"] == pytest.approx(change)
    count = evaluations(folder / name)
    again = ["search", "--run", folder / name, "--budget", 400, "--evaluations", 6, "--json"]
    assert shell.ok(*again).json["search"]["candidates"] == found["search"]["candidates"]
    assert evaluations(folder / name) == count


def test_metrics_of_classes_are_refused_where_there_are_none(shell: Shell, tmp_path: Path) -> None:
    write_own(tmp_path / "m.safetensors", S4DConfig(d_input=2, d_output=1, d_model=4, d_state=3))
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=draw.normal(size=(40, 9, 2)), y=draw.normal(size=40))
    for metric in ("f1", "agreement"):
        refused = shell(*asked(tmp_path, "eval", metric))
        assert refused.code == 2
        assert f"--metric {metric} is for classification" in refused.err
    named = shell(*asked(tmp_path, "eval", "accuracy"))
    assert named.code == 2
    assert "no metric is called 'accuracy'" in named.err


def test_the_table_of_classes_is_printed_and_kept(shell: Shell, folder: Path) -> None:
    command = ["eval", folder / "m.safetensors", "--data", f"npz:{folder / 'd.npz'}"]
    assert "precision" not in shell.ok(*command).out
    assert "precision (%)" in shell.ok(*command, "--per-class").out
    rows = shell.ok(*command, "--json").json["per_class"]
    assert [row["class"] for row in rows] == [0, 1, 2]
    assert all(row["f1"]["value"] > 0.5 for row in rows)
    kept = ["--run", folder / "run", "--json"]
    assert "f1" not in shell.ok(*command, *kept).json["per_class"][0]
    assert shell.ok(*command, *kept, "--per-class").json["per_class"] == rows


def test_a_limit_takes_every_class_of_data_that_lies_by_class(shell: Shell, folder: Path) -> None:
    command = ["eval", folder / "m.safetensors", "--data", f"npz:{folder / 'd.npz'}", "--json"]
    part = shell.ok(*command, "--limit", 60).json
    assert part["sample"] == {
        "order": "stratified", "seed": 0, "n": 60, "of": 400, "groups": None, "missing_classes": [],
    }  # fmt: skip
    whole = shell.ok(*command).json
    assert whole["sample"]["order"] == "as it lies"
    shares = [[row["n"] / found["n"] for row in found["per_class"]] for found in (part, whole)]
    assert shares[0] == pytest.approx(shares[1], abs=1 / 60)
    few = shell.ok(*command, "--limit", 2)
    assert "hold nothing of 2 of its classes (0, 1)" in few.err
    other = shell.ok(*command, "--limit", 60, "--data-seed", 1).json
    assert other["scores"] != part["scores"]


def test_a_larger_limit_and_the_whole_are_reused(shell: Shell, folder: Path) -> None:
    run = folder / "run"
    command = ["profile", folder / "m.safetensors", "--data", f"npz:{folder / 'd.npz'}", *SCHEMES]
    command += ["--run", run, "--json"]
    rows = shell.ok(*command, "--limit", 100).json["rows"]
    count = evaluations(run)
    assert shell.ok(*command, "--limit", 60).json["n"] == 60
    assert evaluations(run) == count
    shell.ok(*command)
    whole = evaluations(run)
    assert whole > count
    fresh = [*command[:-2], folder / "fresh", "--json", "--limit", 100]
    assert shell.ok(*fresh).json["rows"] == rows
    assert shell.ok(*command, "--limit", 100).json["rows"] == rows


def test_plans_are_raced_over_all_classes(shell: Shell, folder: Path) -> None:
    run = folder / "run"
    command = [folder / "m.safetensors", "--data", f"npz:{folder / 'd.npz'}", *SCHEMES]
    shell.ok("profile", *command, "--run", run)
    done = shell.ok("search", "--run", run, "--budget", 400, "--evaluations", 6, "--json")
    assert "search lies in an order" in done.err
    assert done.json["search"]["sample"]["order"] == "stratified"
    keys = open_run(run).measured_keys()
    full = [k for k in keys if k.split == "search" and k.plan == keys[0].plan]
    assert {(k.start, k.stop) for k in full} >= {(0, 400), (0, 128), (256, 400)}
    live = search_so_far(open_run(run), sites_of(open_run(run)))
    assert live is not None
    wanted = {c["name"]: c["loss"]["value"] for c in done.json["search"]["candidates"]}
    found = {c.name: c.change.value for c in live.candidates}
    known = wanted.keys() & found.keys()
    assert len(known) >= len(wanted) - 1  # full precision is no candidate there
    assert {name: found[name] for name in known} == pytest.approx({n: wanted[n] for n in known})
