"""Running plans over a split: which samples, in which batches, against which baseline."""

import numpy as np
import pytest
import torch
from builders import CONFIGS, inputs, tiny

import sensprobe.evaluate as evaluating
from sensprobe.data import load_data
from sensprobe.evaluate import Evaluator
from sensprobe.models.apply import Applier
from sensprobe.plans.scheme import parse

CONFIG = CONFIGS["pre"]
PLAN = {
    "layers.0.state": parse("int6/head/dynamic/stochastic"),
    "layers.1.y": parse("int5/dynamic/stochastic"),
    "head": parse("int4/channel"),
}


@pytest.fixture
def make(tmp_path, monkeypatch, reference_scan):
    """An evaluator of 40 or more samples, in batches of 16."""
    monkeypatch.setattr(evaluating, "BATCH", 16)
    n = 100
    x = inputs(CONFIG, n, 5).numpy()
    y = np.arange(n) % CONFIG.d_output
    np.savez(tmp_path / "d.npz", x=x, y=y)
    split = load_data(f"npz:{tmp_path / 'd.npz'}").splits["search"]
    model = tiny(CONFIG)
    return lambda **more: Evaluator(model, Applier(model), split, "classification", **more)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 40), (0, 1), (3, 20), (16, 32), (17, 18), (39, 40)]
)
@pytest.mark.parametrize("plan", [{}, PLAN], ids=["exact", "rounded"])
def test_a_range_is_that_part_of_the_whole(make, plan, start, stop):
    """Also where rounding is stochastic: its noise belongs to the sample, not to the batch."""
    whole, part = make().evaluate(plan, 0, 40), make().evaluate(plan, start, stop)
    assert set(whole) == set(part) == {"correct", "cross_entropy", "kl"}
    for name, values in part.items():
        assert values.shape == (stop - start,)
        np.testing.assert_allclose(values, whole[name][start:stop], atol=1e-5)
    if plan:
        assert (part["kl"] > 0).all()


def test_the_baseline_is_the_model_itself_and_computed_once(make):
    evaluator = make()
    want = evaluator.model(evaluator.split.x[:40])
    calls = []
    model, evaluator.model = evaluator.model, lambda *a: calls.append(1) or model(*a)
    evaluator.model.config = model.config  # type: ignore[attr-defined]
    for _ in range(2):
        torch.testing.assert_close(evaluator.baseline(0, 40), want, rtol=0, atol=1e-6)
    assert len(calls) == 3  # 16 + 16 + 8
    assert torch.equal(evaluator.baseline(10, 20), evaluator.baseline(0, 40)[10:20])


def test_full_precision_does_not_diverge_from_itself(make):
    got = make().evaluate({}, 0, 40)
    assert (got["kl"] == 0).all()


def test_no_divergence_where_none_was_asked_for(make):
    got = make(divergence=False).evaluate(PLAN, 0, 20)
    assert set(got) == {"correct", "cross_entropy"}
    np.testing.assert_array_equal(
        got["cross_entropy"], make().evaluate(PLAN, 0, 20)["cross_entropy"]
    )


@pytest.mark.parametrize("plan", [{}, PLAN], ids=["exact", "rounded"])
@pytest.mark.parametrize("divergence", [True, False])
def test_every_sample_is_ticked_once(make, plan, divergence):
    ticks = []
    make(divergence=divergence, tick=ticks.append).evaluate(plan, 3, 38)
    assert sum(ticks) == 35


@pytest.mark.parametrize("plan", [{}, PLAN], ids=["exact", "rounded"])
def test_no_samples_give_no_outcomes(make, plan):
    got = make(metric=lambda o, t: o[:, 0]).evaluate(plan, 7, 7)
    assert set(got) == {"correct", "cross_entropy", "kl", "custom"}
    assert all(v.shape == (0,) for v in got.values())
    assert make().outputs(plan, 7, 7).shape == (0, CONFIG.d_output)


def test_a_metric_sees_the_outputs_and_targets_of_its_samples(make):
    got = make(metric=lambda o, t: o[:, 1] + 10 * t).evaluate(PLAN, 5, 25)
    evaluator = make()
    want = evaluator.outputs(PLAN, 5, 25)[:, 1] + 10 * evaluator.split.y[5:25]
    np.testing.assert_array_equal(got["custom"], want.numpy())


def test_the_radius_is_that_of_the_stored_matrix(make):
    evaluator = make()
    exact = max(float(evaluator.model.weights[f"layers.{i}.A"].abs().max()) for i in range(2))
    assert evaluator.spectral_radius({}) == pytest.approx(exact, rel=1e-6)
    pushed = {"layers.1.A": parse("int2/range1.5")}
    assert evaluator.spectral_radius(pushed) >= 1.5 * 0.999
    static = pushed | {"layers.0.x": parse("int8")}  # needs calibration, which the radius does not
    assert evaluator.spectral_radius(static) == evaluator.spectral_radius(pushed)
