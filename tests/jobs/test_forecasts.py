"""Regression with a target at every step goes through every job, scored by nrmse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import selective
from checkpoint_files import write_own

from sensprobe import api
from sensprobe.data import Dataset, load_data
from sensprobe.errors import DataError, UnsupportedError
from sensprobe.jobs.evaluate import evaluate
from sensprobe.jobs.train_under import TuneSettings
from sensprobe.jobs.tune import tune
from sensprobe.models.mamba import MambaConfig
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.report.live import search_so_far
from sensprobe.runs import open_run
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.session.source import open_model
from sensprobe.train import SampleTask, recipe_from, train_task

SIZES: dict[str, Any] = {"d_input": 1, "d_output": 1, "d_model": 6, "dt_rank": 1, "d_state": 2}
EVERY_STEP = MambaConfig(pooling="none", **SIZES)
SPEC = "lorenz,length=24,ahead=2"
PLAN = Plan((("encoder", parse("int3")),))


def saved(path: Path, config: MambaConfig) -> Path:
    params = selective.parameters(config)
    return write_own(path, config, {"family": "mamba"}, params)  # type: ignore[arg-type]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(tmp_path / "m.safetensors", EVERY_STEP)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data(SPEC)


def test_it_is_scored_by_the_root_of_a_sequences_mean_squared_error(
    weights: Path, data: Dataset
) -> None:
    session, split = Session(open_model(weights), data), data.splits["confirmation"]
    errors = session.source.model(split.x) - split.y
    each = errors.flatten(1).square().mean(1).sqrt().double().detach()
    found = evaluate(session, Plan())
    assert found["metric"] == "nrmse"
    assert found["value"] == pytest.approx(each.mean().item(), rel=1e-5)
    assert found["stderr"] == pytest.approx(each.std().item() / 128**0.5, rel=1e-4)
    compared = evaluate(session, PLAN, compare=True, limit=30)
    assert compared["n"] == 30
    assert compared["ratio"]["value"] == pytest.approx(
        compared["value"] / compared["baseline"]["value"], rel=1e-5
    )


def test_taylor_prices_what_rounding_moves(weights: Path, tmp_path: Path) -> None:
    prices = {}
    for method in ("taylor", "divergence"):
        run = tmp_path / method
        rows = api.profile(weights, SPEC, run, ["int8"], method=method, by="site")["rows"]
        prices[method] = {row["target"]: row["distance"]["value"] for row in rows}
    for name in ("encoder", "head", "layers.0.out_proj", "layers.0.state"):
        assert prices["taylor"][name] == pytest.approx(prices["divergence"][name], rel=0.5), name


def test_a_run_of_it_is_read_while_it_grows(weights: Path, tmp_path: Path) -> None:
    session = open_session(weights, SPEC, tmp_path / "run")
    sites = [*session.source.model.sites.values()]
    full, rounded = (session.measure(p, "search", 0, 20) for p in ({}, PLAN.resolve(sites)))
    found = search_so_far(open_run(tmp_path / "run"), sites)
    assert found is not None
    assert found.quantity.name == "nrmse"
    assert found.full.value == pytest.approx(full["nrmse"].mean(), rel=1e-6)
    (candidate,) = found.candidates
    assert candidate.metric.value == pytest.approx(rounded["nrmse"].mean(), rel=1e-6)


def test_it_is_tuned(weights: Path, data: Dataset, tmp_path: Path) -> None:
    session = Session(open_model(weights), data)
    done = tune(session, PLAN, tmp_path / "t", TuneSettings(epochs=4, batch=64))
    scores = done["splits"]["confirmation"]
    assert done["metric"] == "nrmse"
    assert scores["after"]["value"] < scores["before"]["value"]


def test_it_is_trained(data: Dataset, tmp_path: Path) -> None:
    recipe = recipe_from(
        {
            "family": "mamba",
            "model": {**SIZES, "pooling": "none"},
            "data": {"source": SPEC},
            "optimizer": {
                "lr": 0.02, "ssm_lr": 0.01, "weight_decay": 0.0, "batch": 64, "average": 0.5,
            },
            "schedule": {"epochs": 3, "warmup": 0.1},
        },
        "test",
    )  # fmt: skip
    train, validation = ((data.splits[n].x, data.splits[n].y) for n in ("train", "search"))
    result = train_task(SampleTask(recipe, train, validation), tmp_path)
    assert result.value < 0.5  # the mean scores 1
    with pytest.raises(DataError, match=r"needed int64 classes \(n,\) or .* targets \(n, 24, 1\)"):
        SampleTask(recipe, (train[0], train[1][:, -1]), validation)
    with pytest.raises(DataError, match="needed int64 classes"):
        SampleTask(recipe, (train[0], train[1][:, 0, 0].long()), validation)


def test_models_of_one_output_are_refused(data: Dataset, tmp_path: Path) -> None:
    mean = saved(tmp_path / "m.safetensors", MambaConfig(pooling="mean", **SIZES))
    says = r"gives one output a sequence, and lorenz.* is numbers with a target at every step"
    with pytest.raises(UnsupportedError, match=says):
        Session(open_model(mean), data)
    two = MambaConfig(pooling="none", **{**SIZES, "d_output": 2})
    with pytest.raises(DataError, match=r"has 1 target\(s\) a step, the model gives 2"):
        Session(open_model(saved(tmp_path / "2.safetensors", two)), data)
