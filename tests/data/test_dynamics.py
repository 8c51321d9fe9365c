"""Chaotic systems: the order of their solvers, what is predicted, the same values everywhere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from sensprobe.data import dynamics, load_data
from sensprobe.data.dynamics import LORENZ_STEP, lorenz, mackey_glass
from sensprobe.errors import UsageError

STARTS = np.random.default_rng(0).random((4, 3))
Solver = Callable[[float], np.ndarray]
SOLVERS: dict[str, Solver] = {
    "mackey-glass": lambda h: mackey_glass(STARTS[:, :1], 40, round(1 / h)),  # over two delays
    "lorenz": lambda h: lorenz(STARTS, 30, h * LORENZ_STEP * 10),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_half_the_step_leaves_a_sixteenth_of_the_error(name: str) -> None:
    solve = SOLVERS[name]
    exact = solve(0.1 / 16)
    errors = [np.abs(solve(h) - exact).max() for h in (0.2, 0.1, 0.05)]
    for coarse, fine in pairwise(errors):
        assert 12 < coarse / fine < 30
    assert errors[1] < 1e-3


def test_mackey_glass_obeys_its_equation() -> None:
    x = mackey_glass(STARTS[:, :1], 1200)
    fine = mackey_glass(STARTS[:1, :1], 60, 100)[0]
    assert np.allclose(fine, x[0, :60], atol=1e-6)
    t, before = 40, 40 - 17  # x[k] is the value at time k + 1
    delayed = x[:, before]
    slope = 0.2 * delayed / (1 + delayed**10) - 0.1 * x[:, t]
    measured = (x[:, t + 1] - x[:, t - 1]) / 2
    assert np.allclose(slope, measured, atol=0.01)
    assert x[:, 1000:].min() > 0.2
    assert x[:, 1000:].max() < 1.5  # the attractor's range


@pytest.mark.parametrize(("name", "ahead"), [("mackey-glass", 15), ("lorenz", 25)])
def test_targets_are_the_inputs_some_steps_ahead(name: str, ahead: int) -> None:
    data = load_data(f"{name},length=60")
    assert (data.task, data.per_step, data.tokens, data.classes) == (
        "regression",
        True,
        False,
        None,
    )
    assert (data.outputs, data.d_input, data.length) == (1, 1, 60)
    assert data.sizes() == {name: dynamics.SIZES[name] for name in data.splits}
    data.check_disjoint()
    split = data.splits["search"]
    assert split.x.shape == split.y.shape == (128, 60, 1)
    assert torch.equal(split.x[:, ahead:], split.y[:, : 60 - ahead])
    one = load_data(f"{name},length=60,ahead=1").splits["search"]
    assert torch.equal(one.x[:, 1:], one.y[:, :59])
    assert one.fingerprint != split.fingerprint


@pytest.mark.parametrize("name", dynamics.SYSTEMS)
def test_train_has_mean_zero_and_deviation_one(name: str) -> None:
    data = load_data(f"{name},length=60")
    train = data.splits["train"]
    values = np.concatenate([train.x, train.y[:, -dynamics.SYSTEMS[name].ahead :]], 1)
    assert abs(values.mean()) < 1e-5
    assert values.std() == pytest.approx(1, abs=1e-5)
    assert data.splits["confirmation"].y.std() == pytest.approx(1, abs=0.05)
    sequences = np.concatenate([split.x.numpy() for split in data.splits.values()])
    assert len(np.unique(sequences, axis=0)) == 832


def test_the_same_values_on_every_machine() -> None:
    found = [load_data(f"{name},length=20").splits["confirmation"] for name in dynamics.SYSTEMS]
    assert [split.fingerprint[:16] for split in found] == ["1285127db329d0ff", "22f834eedeacd518"]


def test_options_there_are_not() -> None:
    with pytest.raises(UsageError, match="length and ahead must be at least 1"):
        load_data("lorenz,ahead=0")
    with pytest.raises(UsageError, match="no option 'tau=30'; Its options: length, ahead"):
        load_data("mackey-glass,tau=30")
    with pytest.raises(UsageError, match="did you mean mackey-glass"):
        load_data("mackey_glass")
