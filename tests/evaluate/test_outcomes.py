"""What outputs say of each sample, against scipy and by hand."""

import numpy as np
import pytest
import torch
from builders import vector
from scipy.special import log_softmax, rel_entr, softmax

from sensprobe.data.user import load_function
from sensprobe.errors import DataError
from sensprobe.evaluate import ADDITIVE, PRIMARY, outcomes
from sensprobe.evaluate.outcomes import CAP, FARTHEST

N, CLASSES = 9, 4


@pytest.fixture
def logits():
    return 3 * vector(N, CLASSES, dtype=torch.float32)


@pytest.fixture
def y():
    return torch.arange(N) % CLASSES


def test_a_classifier_is_right_where_its_largest_logit_is(logits, y):
    got = outcomes("classification", logits, y)
    assert got["correct"].tolist() == [float(row.argmax() == k) for row, k in zip(logits, y)]  # noqa: B905
    assert set(got["correct"]) == {0.0, 1.0}
    assert set(got) == {"correct", "cross_entropy"}


def test_cross_entropy_is_that_of_the_label(logits, y):
    want = -log_softmax(logits.double().numpy(), axis=1)[np.arange(N), y.numpy()]
    got = outcomes("classification", logits, y)["cross_entropy"]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_kl_is_from_the_baseline_to_the_model(logits, y):
    other = logits + vector(N, CLASSES, seed=1, dtype=torch.float32)
    p, q = softmax(other.double().numpy(), axis=1), softmax(logits.double().numpy(), axis=1)
    got = outcomes("classification", logits, y, other)["kl"]
    np.testing.assert_allclose(got, rel_entr(p, q).sum(1), rtol=1e-5)
    backwards = rel_entr(q, p).sum(1)
    assert (np.abs(got - backwards) > 1e-3).any()  # the two differ: it can fail


def test_kl_of_the_same_logits_is_zero_and_a_shift_is_nothing(logits, y):
    assert (outcomes("classification", logits, y, logits)["kl"] == 0).all()
    shifted = outcomes("classification", logits + 100, y, logits)["kl"]
    assert (shifted < 1e-10).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_broken_outputs_are_wrong_and_cost_the_cap(logits, y, bad):
    broken = logits.clone()
    broken[2, 1] = bad
    got = outcomes("classification", broken, y, logits)
    fine = outcomes("classification", logits, y, logits)
    assert got["correct"][2] == 0
    assert got["cross_entropy"][2] == got["kl"][2] == CAP
    others = np.arange(N) != 2
    for name, values in got.items():
        assert np.array_equal(values[others], fine[name][others])


def test_no_sample_costs_more_than_the_cap(y):
    sure = torch.zeros(N, CLASSES)
    sure[:, 0] = 1e6
    got = outcomes("classification", sure, torch.full((N,), 1), -sure)
    assert (got["cross_entropy"] == CAP).all()
    assert (got["kl"] == CAP).all()


def test_a_regression_is_scored_by_its_mean_square_over_targets():
    outputs, y, base = (vector(5, 3, seed=k, dtype=torch.float32) for k in range(3))
    got = outcomes("regression", outputs, y, base)
    for name, other in (("squared_error", y), ("distance", base)):
        want = ((outputs - other).double() ** 2).mean(1).numpy()
        np.testing.assert_allclose(got[name], want, rtol=1e-6)
    assert set(outcomes("regression", outputs, y)) == {"squared_error"}


def test_a_regression_of_one_target_may_drop_its_axis():
    outputs, y = vector(5, 1, dtype=torch.float32), vector(5, seed=1, dtype=torch.float32)
    got = outcomes("regression", outputs, y)["squared_error"]
    np.testing.assert_allclose(got, ((outputs[:, 0] - y).double() ** 2).numpy(), rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e25, -3e38])
def test_a_broken_regression_costs_the_farthest_and_stays_finite(bad):
    outputs = torch.tensor([[bad], [1.0]])
    got = outcomes("regression", outputs, torch.zeros(2, 1), torch.zeros(2, 1))
    for values in got.values():
        assert values.tolist() == [np.float32(FARTHEST), 1.0]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_arrays_a_task_is_known_by_are_there_in_float32(task, logits, y):
    targets = y if task == "classification" else logits
    got = outcomes(task, logits, targets, logits)
    assert {PRIMARY[task], ADDITIVE[task]} <= set(got)
    assert all(v.dtype == np.float32 and v.shape == (N,) for v in got.values())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_no_samples_give_empty_arrays(task):
    y = torch.zeros(0, dtype=torch.int64) if task == "classification" else torch.zeros(0, 4)
    got = outcomes(task, torch.zeros(0, 4), y, torch.zeros(0, 4), lambda o, t: o[:, 0])
    assert len(got) >= 3
    assert all(v.shape == (0,) for v in got.values())


# -- a user's metric ------------------------------------------------------------------------------

METRIC = """
def top2(outputs, targets):
    best = outputs.topk(2, dim=1).indices
    return (best == targets[:, None]).any(1)

def mean_only(outputs, targets):
    return outputs.mean()

def nothing(outputs, targets):
    pass

def broken(outputs, targets):
    return outputs[:, 0] / 0

def fails(outputs, targets):
    raise KeyError("no such column")
"""


@pytest.fixture
def metric(tmp_path):
    (tmp_path / "mine.py").write_text(METRIC)
    return lambda name: load_function(f"python:{tmp_path / 'mine.py'}:{name}")


def test_a_users_metric_is_kept_beside_the_others(metric, logits, y):
    got = outcomes("classification", logits, y, None, metric("top2"))
    want = [float(k in row.topk(2).indices) for row, k in zip(logits, y)]  # noqa: B905
    assert got["custom"].tolist() == want
    assert 0 < sum(want) < N
    assert got["custom"].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mean_only", f"the metric returned 1 values for {N} samples; it must return one each"),
        ("nothing", "the metric returned a NoneType; it must return a tensor of one number"),
        ("broken", f"the metric returned NaN or infinity for {N} of {N} samples"),
        ("fails", "fails() failed: KeyError: 'no such column'"),
    ],
)
def test_a_metric_that_gives_no_number_a_sample_is_told_so(metric, logits, y, name, says):
    with pytest.raises(DataError) as error:
        outcomes("classification", logits, y, None, metric(name))
    assert says in str(error.value)
