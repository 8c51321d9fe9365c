"""From a model that ships to an exported one, by the commands a user types."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import FAST, PROFILE, Shell, evaluations, without_times
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sensprobe
from sensprobe import api, zoo
from sensprobe.data import load_data
from sensprobe.jobs import doctor
from sensprobe.jobs.cost import full_bytes
from sensprobe.jobs.doctor import gpu_kernels
from sensprobe.plans.plan import Plan, from_json
from sensprobe.plans.scheme import parse
from sensprobe.runs import open_run
from sensprobe.session.outline import outline_of

COST = {"weight_bytes", "state_bytes", "total_bytes", "effective_bits"}


def test_sites_lists_every_site_with_its_bytes(shell: Shell) -> None:
    rows = shell.ok("sites", "s4d-digits", "--json").json
    assert [row["site"] for row in rows][:3] == ["input", "encoder", "encoder.bias"]
    state = next(row for row in rows if row["site"] == "layers.0.state")
    assert state["shape"] == [16, 8]
    assert state["full_bytes"] == 16 * 8 * 2 * 4
    table = shell.ok("sites", "s4d-digits").out
    assert all(row["site"] in table for row in rows)


def test_cost_is_the_cost_object(shell: Shell) -> None:
    full = shell.ok("cost", "s4d-digits", "--json").json
    assert full.keys() >= COST
    assert full["total_bytes"] == full["weight_bytes"] + full["state_bytes"]
    less = shell.ok("cost", "s4d-digits", "--set", "layers.*.A=int8/head/asym", "--json").json
    saved = 16 * 8 * 2 * 3 - 16 * (2 + 2)  # a byte for four, less a scale and a zero point a head
    assert full["weight_bytes"] - less["weight_bytes"] == saved
    two = shell.ok("cost", "s4d-digits", "--batch", 2, "--json").json
    assert two["state_bytes"] == 2 * full["state_bytes"]
    assert f"{full['total_bytes']:,} bytes" in shell.ok("cost", "s4d-digits").out


def test_cost_says_what_a_plan_packs_and_what_steps_hold(shell: Shell) -> None:
    asked = ["cost", "s4d-digits", "--batch", 2, "--set"]
    every = shell.ok(*asked, "layers.*.state=int8/head/dynamic/every16", "--json").json
    packed, full = 2 * (16 * 8 * 2 + 16 * 2), 2 * 16 * 8 * 2 * 4
    assert (every["state_bytes"], every["held_state_bytes"]) == (packed, full)
    assert "16 steps" in every["held_why"]
    printed = shell.ok(*asked, "layers.*.state=int8/head/dynamic/every16").out
    assert f"{packed:,} bytes" in printed
    assert f"{full:,} bytes" in printed
    step = shell.ok(*asked, "layers.*.state=int8/head/dynamic", "--json").json
    assert step["held_state_bytes"] == step["state_bytes"]
    assert step["held_why"] == ""


def test_full_precision_is_what_the_file_stores_and_float32_beside_it(
    shell: Shell, tmp_path: Path
) -> None:
    half = {
        name: t.to(torch.bfloat16) for name, t in load_file(zoo.shipped()["s4d-digits"]).items()
    }
    with safe_open(zoo.shipped()["s4d-digits"], "pt") as file:
        save_file(half, tmp_path / "half.safetensors", file.metadata())
    asked = "cost", tmp_path / "half.safetensors", "--set", "layers.*.A=int8"
    found = shell.ok(*asked, "--json").json
    assert 2 * found["stored_weight_bytes"] == found["full_weight_bytes"] == 6120
    assert found["stored_dtype"] == "bfloat16"
    parts = full_bytes(outline_of(tmp_path / "half.safetensors"), batch=2)
    assert parts == {"weight": 3060, "state": 2 * 1024, "total": 3060 + 2 * 1024}
    out = shell.ok(*asked).out
    for label, key in (("stored (bfloat16)", "stored"), ("in float32", "full")):
        size = found[f"{key}_weight_bytes"]
        ratio = f"{size / found['weight_bytes']:.2f} × the plan's"
        assert re.search(rf"weights (as )?{re.escape(label)} +{size:,} bytes +{ratio}", out)
    listed = shell.ok("sites", tmp_path / "half.safetensors").out
    assert re.search(r"encoder\.bias .* bfloat16 +32 B +64 B", listed)
    assert "weights 3,060 B as stored, 6,120 B in float32" in listed


def test_eval_scores_a_plan(shell: Shell, tmp_path: Path) -> None:
    asked = ["eval", "s4d-digits", "--data", "digits", "--limit", 100]
    found = shell.ok(*asked, "--set", "layers.*.state=int4/head", "--json").json
    assert found.keys() >= {"metric", "value", "stderr", "n", "cost", "plan_fingerprint"}
    assert found["n"] == 100
    assert found["metric"] == "accuracy"
    assert found["cost"].keys() >= COST
    assert found["plan"] == {"layers.0.state": "int4/head"}
    file = tmp_path / "plan.json"
    plan = {"layers.*.state": "int4/head"}
    file.write_text(json.dumps(sensprobe.load("s4d-digits", {"*.A": "int8"}).plan.to_json()))
    other = shell.ok(*asked, "--plan", file, "--json").json
    assert other["plan"] == {"layers.0.A": "int8"}
    both = shell.ok(*asked, "--plan", file, "--set", "layers.*.state=int4/head", "--json").json
    assert both["plan"] == {"layers.0.A": "int8", "layers.0.state": "int4/head"}
    assert len({f["plan_fingerprint"] for f in (found, other, both)}) == 3
    assert api.evaluate("s4d-digits", "digits", plan, limit=100) == found


def test_eval_compares_sample_by_sample(shell: Shell) -> None:
    asked = ["eval", "s4d-digits", "--data", "digits", "--limit", 100, "--compare"]
    found = shell.ok(*asked, "--set", "*.state=int2", "--json").json
    assert found["difference"]["value"] == pytest.approx(
        found["value"] - found["baseline"]["value"]
    )
    assert "against full precision" in shell.ok(*asked, "--set", "*.state=int2").out


def test_an_unstable_plan_is_called_so(shell: Shell) -> None:
    done = shell.ok("eval", "s4d-digits", "--data", "digits", "--set", "*.A=int2", "--limit", 20)
    assert "UNSTABLE" in done.out


def test_profile_is_kept_and_prices_every_part(profiled: Path) -> None:
    document: Any = open_run(profiled).read_result("sensitivity-measured")
    parts = {row["part"] for row in document["rows"]}
    assert parts >= {"A", "B", "C", "D", "state", "encoder", "head", "out_proj", "x", "y"}
    by_part = Counter(row["part"] for row in document["rows"])
    by_part.pop("input", 0)  # one number a step under a live scale is not rounded
    assert set(by_part.values()) == {3}
    assert document["n"] == 64
    for row in document["rows"]:
        assert row["metric"]["stderr"] is not None
        assert row["kl"]["value"] >= 0


def test_profile_again_evaluates_nothing(shell: Shell, profiled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    before = evaluations(run)
    shell.ok(*PROFILE, *FAST, "--limit", 64, "--run", run)
    assert evaluations(run) == before
    one, other = (open_run(r).read_result("sensitivity-measured") for r in (profiled, run))
    assert without_times(one) == without_times(other)


def test_a_limit_is_met_from_a_longer_evaluation(
    shell: Shell, profiled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    before = evaluations(run)
    shell.ok(*PROFILE, *FAST, "--limit", 30, "--run", run)
    assert evaluations(run) == before


def test_profile_by_site_and_by_taylor(shell: Shell, tmp_path: Path) -> None:
    asked = [*PROFILE, "--limit", 40, "--scheme", "int6/head/asym/dynamic", "--run", tmp_path / "r"]
    by_site = shell.ok(*asked, "--by", "site", "--json").json
    assert {"layers.0.A", "encoder.bias"} <= {row["target"] for row in by_site["rows"]}
    taylor = shell.ok(*asked, "--by", "site", "--method", "taylor", "--json").json
    assert [row["target"] for row in taylor["rows"]] == [row["target"] for row in by_site["rows"]]
    assert "Kendall" in shell.ok("report", "--run", tmp_path / "r").out


def test_search_builds_on_taylor_alone(shell: Shell, tmp_path: Path) -> None:
    run = tmp_path / "r"
    shell.ok(*PROFILE, *FAST, "--limit", 40, "--method", "taylor", "--run", run)
    found = shell.ok("search", "--run", run, "--budget", "2KiB", "--evaluations", 5, "--json").json
    assert found["search"]["chosen"][0]["candidate"] is not None
    assert found["confirmation"]["n"] == 400


def test_a_run_from_before_the_input_was_a_site_goes_on(
    shell: Shell, profiled: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(profiled, run)
    manifest, kept, profile = (
        run / name
        for name in ("run.json", "results/sites.json", "results/sensitivity-measured.json")
    )
    documents = [json.loads(path.read_bytes()) for path in (manifest, kept, profile)]
    assert documents[0]["sites"].pop("input")
    documents[1] = [row for row in documents[1] if row["site"] != "input"]
    rows = [row for row in documents[2]["rows"] if row["target"] != "input"]
    assert len(rows) < len(documents[2]["rows"])
    documents[2]["rows"] = rows
    for path, document in zip((manifest, kept, profile), documents, strict=True):
        path.write_text(json.dumps(document))
    few = ["--budget", "2KiB", "--evaluations", "4", "--no-confirm", "--json"]
    found = shell.ok("search", "--run", run, *few).json["search"]
    assert found["chosen"][0]["candidate"]
    assert not any(name == "input" for c in found["candidates"] for name, _ in c["plan"]["schemes"])
    assert shell.ok("report", "--run", run, "--json").json


def test_what_is_chosen_fits_and_is_confirmed_on_unseen_samples(searched: Path) -> None:
    run = open_run(searched)
    search: Any = run.read_result("search")
    confirmation: Any = run.read_result("confirmation")
    sizes = {c["name"]: c["total_bytes"] for c in search["candidates"]}
    limits = {"2KiB": 2048, "1600": 1600}
    assert {c["budget"] for c in search["chosen"]} == set(limits)
    for choice in search["chosen"]:
        assert sizes[choice["candidate"]] <= limits[choice["budget"]]
    assert any(c["uniform"] for c in search["candidates"])
    assert confirmation["split"] == "confirmation"
    assert {p["candidate"] for p in confirmation["plans"]} == {
        c["candidate"] for c in search["chosen"]
    }
    splits = load_data("digits").splits
    seen = {row.tobytes() for name in ("search", "calibration") for row in splits[name].x.numpy()}
    confirmed = {row.tobytes() for row in splits["confirmation"].x.numpy()}
    assert not seen & confirmed


def test_a_plan_made_by_hand_stands_beside_what_is_chosen(searched: Path) -> None:
    """Of nearly the bytes of the budget: the best uniform plan, and its best upgrade that fits."""
    run = open_run(searched)
    search: Any = run.read_result("search")
    confirmation: Any = run.read_result("confirmation")
    plans = {c["name"]: c for c in search["candidates"]}
    limits = {"2KiB": 2048, "1600": 1600}
    for choice, confirmed in zip(search["chosen"], confirmation["plans"], strict=True):
        hand, uniform = plans[choice["hand"]], plans[choice["uniform"]]
        assert uniform["total_bytes"] < hand["total_bytes"] <= limits[choice["budget"]]
        assert choice["hand_about"].startswith(f"{uniform['uniform']}, ")
        ours = dict(from_json(uniform["plan"]).resolve(api_sites()))
        theirs = dict(from_json(hand["plan"]).resolve(api_sites()))
        assert len({n.split(".")[-1] for n, _ in ours.items() ^ theirs.items()}) == 1
        assert plans[choice["candidate"]]["metric"]["value"] >= hand["metric"]["value"]
        against = confirmed["against_hand"]
        gain = confirmed["metric"]["value"] - against["metric"]["value"]
        assert against["difference"]["value"] == pytest.approx(gain)
        assert against["total_bytes"] == hand["total_bytes"]


def test_a_budget_out_of_reach_says_what_to_profile(
    shell: Shell, profiled: Path, tmp_path: Path
) -> None:
    """And when that is done, it is found."""
    run = shutil.copytree(profiled, tmp_path / "run")
    asked = ["search", "--run", run, "--budget", "16%", "--evaluations", 4, "--limit", 32]
    refused = shell(*asked)
    assert refused.code == 2
    assert "(asked for as 16%)" in refused.err
    command = refused.err.rpartition(": ")[2].strip().removesuffix(".")
    words = shlex.split(command)
    assert words[:3] == ["sensprobe", "profile", "s4d-digits"]
    assert [word for word in FAST if word in words] == FAST
    shell.ok(*words[1:], "--limit", 64)
    found = shell.ok(*asked, "--json").json["search"]
    chosen = next(c for c in found["candidates"] if c["name"] == found["chosen"][0]["candidate"])
    full = found["full"]["total_bytes"]
    assert chosen["total_bytes"] <= 0.16 * full
    hopeless = shell("search", "--run", run, "--budget", 10)
    assert "Not even int2" in hopeless.err
    wide = shell("search", "--run", run, "--budget", "1x")
    assert "every plan fits" in wide.err
    assert "profile" not in wide.err


def test_no_confirm_leaves_the_split_unseen(shell: Shell, profiled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    asked = ["search", "--run", run, "--evaluations", 4, "--limit", 32, "--no-confirm", "--json"]
    assert shell.ok(*asked).json["confirmation"] is None
    assert {split for _, split, *_ in evaluations(run)} == {"search"}


@pytest.mark.parametrize("method", ["gains", "direct", "frontier"])
def test_every_method_keeps_frozen_and_tied_sites(
    method: str, shell: Shell, profiled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    frozen = "layers.*.A=int8/head/asym"
    asked = ["--method", method, "--freeze", frozen, "--tie", "layers.*.[BC]", "--limit", 32]
    found = shell.ok("search", "--run", run, *asked, "--evaluations", 6, "--json").json
    sites = api_sites()
    for candidate in found["search"]["candidates"]:
        plan = from_json(candidate["plan"]).resolve(sites)
        assert str(plan["layers.0.A"]) == "int8/head/asym"
        assert plan.get("layers.0.B") == plan.get("layers.0.C")


def api_sites() -> list[Any]:
    from sensprobe.session.source import open_model

    return list(open_model("s4d-digits").model.sites.values())


def test_weight_and_state_budgets_hold_apart(shell: Shell, profiled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    asked = ["--weight-budget", 1500, "--state-budget", 200, "--evaluations", 6, "--limit", 32]
    found = shell.ok("search", "--run", run, *asked, "--json").json["search"]
    chosen = found["chosen"][0]["candidate"]
    plan = next(c for c in found["candidates"] if c["name"] == chosen)
    assert plan["weight_bytes"] <= 1500
    assert plan["state_bytes"] <= 200


def test_max_loss_asks_for_the_fewest_bytes(shell: Shell, profiled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    asked = ["--max-loss", 2, "--evaluations", 10, "--limit", 64]
    found = shell.ok("search", "--run", run, *asked, "--json").json["search"]
    plans = {c["name"]: c for c in found["candidates"]}
    chosen = plans[found["chosen"][0]["candidate"]]
    within = [
        c for c in plans.values() if -100 * c["loss"]["value"] <= 2 and not c["stopped_early"]
    ]
    assert chosen["total_bytes"] == min(c["total_bytes"] for c in within)


def test_the_export_scores_what_the_simulation_scored(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    done = shell.ok("export", "--run", searched, "--plan", "2KiB", "--out", out, "--json").json
    assert {"plan.json", "model.safetensors", "config.json", "README.md"} <= {
        p.name for p in out.iterdir()
    }
    search: Any = open_run(searched).read_result("search")
    candidate = next(c for c in search["candidates"] if c["name"] == done["plan"])
    assert done["weight_bytes"] == candidate["weight_bytes"]
    again = shell.ok("eval", out, "--data", "digits", "--json").json
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(candidate["plan"]))
    simulated = shell.ok("eval", "s4d-digits", "--data", "digits", "--plan", plan, "--json").json
    for key in ("value", "stderr", "scores", "plan", "plan_fingerprint", "max_abs_A"):
        assert again[key] == simulated[key], key
    theirs = {k: v for k, v in simulated["cost"].items() if not k.startswith("stored_")}
    assert theirs.items() <= again["cost"].items()  # each is stored as its own file has it
    x = load_data("digits").splits["confirmation"].x[:50]
    assert "by hand: " in (out / "README.md").read_text()
    loaded = sensprobe.load(out)
    calibration = load_data("digits").splits["calibration"].x
    other = sensprobe.load("s4d-digits", plan, calibration=calibration)
    assert np.array_equal(loaded(x).numpy(), other(x).numpy())


def test_a_chosen_plan_is_a_file_that_every_plan_option_takes(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    search: Any = open_run(searched).read_result("search")
    files = {c["budget"]: searched / c["plan_file"] for c in search["chosen"]}
    assert list(files.values()) == [searched / "plans" / f"{b}.json" for b in ("2KiB", "1600")]
    chosen = {c["name"]: c for c in search["candidates"]}[search["chosen"][0]["candidate"]]
    told = shell.ok("cost", "s4d-digits", "--plan", files["2KiB"], "--json").json
    assert told["weight_bytes"] == chosen["weight_bytes"]
    asked = ["export", "--run", searched, "--out", tmp_path / "out", "--plan"]
    done = shell.ok(*asked, files["2KiB"], "--json").json
    assert done["plan"] == chosen["name"]
    assert done["confirmed"] is not None
    strange = tmp_path / "other.json"
    strange.write_text(json.dumps(Plan((("*.A", parse("int3")),)).to_json()))
    refused = shell(*asked, strange)
    assert refused.code == 2
    assert "--also" in refused.err
    missing = shell("cost", "s4d-digits", "--plan", tmp_path / "none.json")
    assert "RUN/plans" in missing.err


def test_report_writes_a_page_pictures_and_tables(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    done = shell.ok("report", "--run", searched, "--out", tmp_path / "report", "--json").json
    assert Path(done["html"]).read_text().startswith("<!doctype html>")
    names = {Path(path).name for path in done["images"]}
    assert {"frontier.png", "bytes-by-part.png", "sensitivity-measured-metric.png"} <= names
    for path in done["images"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert all(Path(path).stat().st_size > 50 for path in done["tables"])
    printed = shell.ok("report", "--run", searched, "--out", tmp_path / "report").out
    assert "Confirmed on" in printed


def test_report_of_a_profile_says_what_is_missing(
    shell: Shell, profiled: Path, tmp_path: Path
) -> None:
    done = shell.ok("report", "--run", profiled, "--out", tmp_path / "r", "--json").json
    assert any("sensprobe search" in missing for missing in done["missing"])


def test_doctor_says_what_is_there(shell: Shell) -> None:
    found = shell.ok("doctor", "--json").json
    assert found["core"]["torch"]
    assert "s4d-digits" in found["models"]
    assert any(row["operation"] == "diagonal_scan" for row in found["implementations"])
    said = " ".join(shell.ok("doctor").out.split())
    assert "diagonal_scan" in said
    kernels = found["gpu_kernels"]
    assert kernels["run_here"] is (not kernels["why_not"])
    assert ("they run here" if kernels["run_here"] else kernels["why_not"]) in said
    assert "planned: GPU" not in said


def test_doctor_says_why_gpu_kernels_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(cuda: str | None, seen: bool, has: tuple[int, int] = (9, 0)) -> str:
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: has)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
        monkeypatch.setattr(doctor, "find_spec", lambda name: name)
        return gpu_kernels()["why_not"]

    assert "without CUDA" in told(None, seen=False)
    assert "sees no CUDA GPU" in told("13.0", seen=False)
    assert "compute capability" in told("13.0", seen=True, has=(7, 5))
    assert told("13.0", seen=True) == ""
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert ".[gpu]" in gpu_kernels()["why_not"]


def test_another_search_sets_the_first_aside(shell: Shell, searched: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    first: Any = open_run(run).read_result("search")
    asked = ["search", "--run", run, "--max-loss", 5, "--evaluations", 12, "--json"]
    second = shell.ok(*asked).json
    assert second["confirmation"]["looks"] > 0
    assert open_run(run).read_result("search-1") == first
    assert open_run(run).read_result("confirmation-1") is not None
    both = {c["name"]: c["plan_fingerprint"] for c in first["candidates"]}
    for candidate in second["search"]["candidates"]:
        name = candidate["name"]
        assert both.get(name, candidate["plan_fingerprint"]) == candidate["plan_fingerprint"]
    for name in ("2KiB", "loss<=5"):
        out = tmp_path / name
        document = shell.ok("export", "--run", run, "--plan", name, "--out", out, "--json").json
        assert document["confirmed"] is not None
    shell.ok(*asked)
    assert "search-2" not in open_run(run).results()


def test_the_confirmation_split_is_new_to_a_first_search(searched: Path) -> None:
    confirmation: Any = open_run(searched).read_result("confirmation")
    assert confirmation["looks"] == 0


def test_max_loss_is_in_the_metrics_own_unit(shell: Shell, profiled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    asked = ["--max-loss", 3, "--evaluations", 8, "--limit", 64, "--json"]
    found = shell.ok("search", "--run", run, *asked).json
    assert found["confirmation"]["plans"][0]["max_loss"] == pytest.approx(0.03)
    plans = {c["name"]: c for c in found["search"]["candidates"]}
    chosen = found["search"]["chosen"][0]
    assert -plans[chosen["candidate"]]["loss"]["value"] <= 0.03 + 1e-9
    assert -plans[chosen["uniform"]]["loss"]["value"] <= 0.03 + 1e-9


def test_an_exported_model_is_not_its_own_full_precision(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    shell.ok("export", "--run", searched, "--plan", "2KiB", "--out", out)
    refused = shell("eval", out, "--data", "digits", "--compare")
    assert refused.code == 2
    assert f"--plan {out}/plan.json --compare" in refused.err
    asked = ["eval", "s4d-digits", "--data", "digits", "--compare", "--plan", out / "plan.json"]
    done = shell.ok(*asked, "--json").json
    confirmed: Any = open_run(searched).read_result("confirmation")
    losses = [p["loss"]["value"] for p in confirmed["plans"] if p["budget"] == "2KiB"]
    assert done["difference"]["value"] == losses[0]
