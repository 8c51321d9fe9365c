"""A model that reads tokens and names one class a sequence goes through every job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selective
import torch
from checkpoint_files import write_own

from sensprobe import api
from sensprobe.data import Dataset, Splits, load_data
from sensprobe.data.dataset import build_split, loaded
from sensprobe.errors import DataError, UnsupportedError
from sensprobe.jobs.evaluate import evaluate
from sensprobe.jobs.train_under import TuneSettings
from sensprobe.jobs.tune import tune
from sensprobe.models.mamba import MambaConfig
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.session.session import Session
from sensprobe.session.source import open_model

SIZES: dict[str, Any] = {"d_output": 10, "d_model": 6, "dt_rank": 1, "d_state": 2}
CLASSES = MambaConfig(d_input=16, encoder="embedding", pooling="mean", **SIZES)
PLAN = Plan((("*", parse("int8")),))


def saved(path: Path, config: MambaConfig) -> Path:
    params = selective.parameters(config)
    return write_own(path, config, {"family": "mamba"}, params)  # type: ignore[arg-type]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(tmp_path / "m.safetensors", CLASSES)


def few() -> Dataset:
    """Ten classes of tokens in splits of 40; the class is the largest of five tokens, less six."""
    draw, splits = np.random.default_rng(0), {}
    for k, name in enumerate(("train", "calibration", "search", "confirmation")):
        x = draw.integers(0, 16, (40, 5)).astype(np.int32)
        y = np.maximum(x.max(1) - 6, 0).astype(np.int64)
        splits[name] = loaded(build_split(name, x, y, np.arange(40) + 40 * k, "test"))
    return Dataset("tokens", "classification", Splits(splits), 10, 10, 5, 16, tokens=True)


def test_it_is_scored_by_accuracy(weights: Path) -> None:
    data = few()
    session = Session(open_model(weights), data)
    split = data.splits["confirmation"]
    right = session.source.model(split.x).argmax(1) == split.y
    assert evaluate(session, Plan())["value"] == pytest.approx(right.float().mean().item())
    assert 0 <= evaluate(session, PLAN)["value"] <= 1


def test_it_is_profiled(weights: Path, tmp_path: Path) -> None:
    found = api.profile(weights, "listops,length=16", tmp_path / "run", method="taylor", limit=20)
    prices = [row["kl"]["value"] for row in found["rows"] if row["target"] == "embedding"]
    assert len(prices) == 4  # fp16, int8, int6, int4
    assert sorted(prices) == prices
    assert prices[0] > 0


def test_it_is_tuned(weights: Path, tmp_path: Path) -> None:
    session, plan = Session(open_model(weights), few()), Plan((("embedding", parse("int4")),))
    done = tune(session, plan, tmp_path / "t", TuneSettings(epochs=2, batch=10))
    assert done["steps"] == 8
    assert (tmp_path / "t" / "weights.safetensors").exists()


def test_models_and_data_of_another_kind_are_refused(weights: Path, tmp_path: Path) -> None:
    tokens, numbers = load_data("listops,length=16"), load_data("digits")
    with pytest.raises(UnsupportedError, match="reads tokens and gives one output a sequence, and"):
        Session(open_model(weights), numbers)
    with pytest.raises(UnsupportedError, match=r"reads numbers .* listops,length=16 is tokens"):
        Session(open_model("s4d-digits"), tokens)
    with pytest.raises(UnsupportedError, match="predicts the next token of text, and listops"):
        Session(open_model("mamba-bytes"), tokens)
    with pytest.raises(UnsupportedError, match=r"is text, and .* does not predict"):
        Session(open_model(weights), load_data("pydoc"))
    small = saved(tmp_path / "s.safetensors", MambaConfig(
        d_input=9, encoder="embedding", pooling="mean", **SIZES,
    ))  # fmt: skip
    with pytest.raises(DataError, match="has tokens 0 to 15, the model knows 0 to 8"):
        Session(open_model(small), tokens)
    assert torch.equal(tokens.splits["search"].y, load_data("listops,length=16").splits["search"].y)
