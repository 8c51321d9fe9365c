"""Running language models over windows: in any batches, against any baseline, the same numbers."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from language import MAMBA, MAMBA2, write_stories
from selective import tiny

import sensprobe.evaluate.text as evaluating
import sensprobe.models as models
from sensprobe.data import load_data
from sensprobe.evaluate import TextEvaluator, mean
from sensprobe.models.apply import Applier, observe
from sensprobe.models.noisy import noisy_tap
from sensprobe.plans.noise import Draw, Gaussian
from sensprobe.plans.scheme import parse

PLAN = {
    "layers.0.state": parse("int5/head/dynamic/stochastic"),
    "layers.0.y": parse("int5/dynamic/stochastic"),
    "embedding": parse("int4/channel"),
}


@pytest.fixture
def split(tmp_path):
    return load_data(f"text:{write_stories(tmp_path / 's')},length=24,context=4").splits["search"]


@pytest.fixture(params=[MAMBA, MAMBA2], ids=["mamba", "mamba2"])
def make(request, split):
    model = tiny(request.param)
    return lambda **more: TextEvaluator(model, Applier(model), split, **more)


def test_bits_per_byte_is_all_bits_over_all_bytes(make, split):
    evaluator = make()
    logits = evaluator.model(split.x)
    nats = F.cross_entropy(
        logits[:, 4:].double().flatten(0, 1), split.y[:, 4:].long().flatten(), reduction="sum"
    )
    found = evaluator.evaluate({}, 0, len(split))
    total = float(nats) / log(2) / int(split.scored_bytes.sum())
    assert mean(found["bits_per_byte"]).value == pytest.approx(total, rel=1e-6)
    assert mean(found["cross_entropy"]).value == pytest.approx(
        float(nats) / (20 * len(split)), rel=1e-6
    )


def test_bits_per_byte_where_windows_hold_different_bytes(make, split):
    """As tokenizers of words give them."""
    sizes = torch.arange(len(split)) % 7 + 30
    evaluator = make()
    evaluator.split = type(split)(**{**vars_of(split), "scored_bytes": sizes})
    found = evaluator.evaluate(PLAN, 0, len(split))
    bits = found["cross_entropy"].astype(float) * 20 / log(2)
    assert mean(found["bits_per_byte"]).value == pytest.approx(
        bits.sum() / float(sizes.sum()), rel=1e-6
    )


def vars_of(split):
    return {name: getattr(split, name) for name in split.__dataclass_fields__}


@pytest.mark.parametrize("plan", [{}, PLAN], ids=["exact", "rounded"])
@pytest.mark.parametrize(("start", "stop"), [(0, 40), (3, 20), (16, 32), (39, 40)])
def test_a_range_is_that_part_of_the_whole_in_batches_of_any_size(
    make, plan, start, stop, monkeypatch
):
    whole = make().evaluate(plan, 0, 40)
    monkeypatch.setattr(models, "OUTPUT_BYTES", 4 * 24 * 256 * 16)
    evaluator = make()
    assert evaluator.batch == 16
    part = evaluator.evaluate(plan, start, stop)
    assert set(part) == set(whole)
    for name, values in part.items():
        np.testing.assert_allclose(values, whole[name][start:stop], atol=2e-5)


@pytest.mark.parametrize("config", [MAMBA, MAMBA2], ids=["mamba", "mamba2"])
def test_noise_is_that_of_a_window_in_batches_of_any_size(config, split, monkeypatch):
    model = tiny(config)
    applier = Applier(model, observe(model, split.x[:4]))
    names = ["layers.0.state", "layers.0.y", "layers.0.D"]
    for plan, draw in ((PLAN, Draw(dict.fromkeys(names, Gaussian(0.3)))),
                       ({}, Draw({"layers.0.out_proj": Gaussian(0.5)}))):  # fmt: skip
        whole = TextEvaluator(model, applier, split).evaluate(plan, 0, 40, draw)
        direct = model(split.x[:40], noisy_tap(applier, plan, draw))
        assert torch.equal(TextEvaluator(model, applier, split).outputs(plan, 0, 40, draw), direct)
        assert (whole["kl"] > 0).all()
        with monkeypatch.context() as patch:
            patch.setattr(models, "OUTPUT_BYTES", 4 * 24 * 256 * 16)
            part = TextEvaluator(model, applier, split).evaluate(plan, 3, 20, draw)
        for name, values in part.items():
            np.testing.assert_allclose(values, whole[name][3:20], atol=2e-5)


def test_divergence_is_zero_exactly_where_nothing_is_rounded(make):
    assert (make().evaluate({}, 0, 20)["kl"] == 0).all()
    found = make().evaluate(PLAN, 0, 20)
    assert (found["kl"] > 0).all()
    assert "kl" not in make(divergence=False).evaluate(PLAN, 0, 20)


def test_full_precision_is_run_once_while_there_is_room(make, monkeypatch):
    def runs(room: int) -> int:
        monkeypatch.setattr(evaluating, "KEPT_BYTES", room)
        monkeypatch.setattr(models, "OUTPUT_BYTES", 4 * 24 * 256 * 8)
        evaluator, calls = make(), []
        run = TextEvaluator._run
        monkeypatch.setattr(
            TextEvaluator, "_run", lambda self, tap, *at: calls.append(at) or run(self, tap, *at)
        )
        for _ in range(3):
            evaluator.evaluate(PLAN, 0, 20)
        monkeypatch.setattr(TextEvaluator, "_run", run)
        return len(calls)

    assert runs(2**30) == 3 * 3 + 3
    assert runs(4 * 24 * 256 * 8) == 3 * 3 + 1 + 3 * 2  # the first batch is kept, two are not
    assert runs(0) == 3 * 3 + 3 * 3


def test_every_window_is_ticked_once(make):
    ticks = []
    make(tick=ticks.append).evaluate(PLAN, 3, 38)
    assert sum(ticks) == 35


def test_a_metric_sees_outputs_at_every_step(make, split):
    got = make(metric=lambda o, t: o[:, -1, 7] + t[:, -1]).evaluate(PLAN, 0, 20)
    evaluator = make()
    want = evaluator.outputs(PLAN, 0, 20)[:, -1, 7] + split.y[:20, -1]
    np.testing.assert_allclose(got["custom"], want.numpy(), atol=1e-5)


def test_ranges_are_watched_in_batches_that_fit(make, split, monkeypatch):
    model = make().model
    whole = observe(model, split.x[:40])
    monkeypatch.setattr(models, "OUTPUT_BYTES", 4 * 24 * 256 * 8)
    seen, run = [], type(model).__call__
    monkeypatch.setattr(
        type(model), "__call__", lambda self, x, tap: seen.append(len(x)) or run(self, x, tap)
    )
    parts = observe(model, split.x[:40])
    assert seen == [8] * 5
    for name, statistics in whole.items():
        torch.testing.assert_close(parts[name].high, statistics.high)
