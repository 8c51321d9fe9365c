"""Balanced accuracy and F1 against scikit-learn, and their errors against resampling."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from sensprobe.scores.classes import POOLED, balanced_accuracy, macro_f1, per_class
from sensprobe.scores.score import mean, paired

SHARES = (0.7, 0.2, 0.1)


def outcomes(n: int, seed: int = 0, right: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=SHARES)
    chance = np.where(labels == 2, right / 2, right)  # the rare class is found less often
    return labels, np.where(rng.random(n) < chance, labels, rng.integers(0, 3, n))


def test_means_are_those_of_scikit_learn() -> None:
    labels, predicted = outcomes(300)
    balanced, f1 = mean(balanced_accuracy(labels, predicted)), mean(macro_f1(labels, predicted))
    assert balanced.value == pytest.approx(balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert f1.value == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)


def test_the_error_of_balanced_accuracy_is_that_of_means_within_classes() -> None:
    labels, predicted = outcomes(300)
    hit = labels == predicted
    variance = sum(hit[labels == c].var(ddof=1) / (labels == c).sum() for c in range(3)) / 9
    found = mean(balanced_accuracy(labels, predicted))
    assert found.stderr == pytest.approx(variance**0.5, rel=1e-9)


@pytest.mark.parametrize("name", POOLED)
def test_errors_are_the_spread_over_samples_drawn_anew(name: str) -> None:
    values = POOLED[name]
    many = [mean(values(*outcomes(400, seed))) for seed in range(300)]
    spread = np.std([score.value for score in many])
    assert np.mean([score.stderr for score in many]) == pytest.approx(spread, rel=0.12)


@pytest.mark.parametrize("name", POOLED)
def test_pairs_differ_by_the_difference_and_by_nothing_where_nothing_differs(name: str) -> None:
    values = POOLED[name]
    labels, one = outcomes(300)
    other = np.where(np.arange(300) % 50 == 0, 0, one)
    gap = paired(values(labels, other), values(labels, one))
    levels = mean(values(labels, other)), mean(values(labels, one))
    assert gap.value == pytest.approx(levels[0].value - levels[1].value, abs=1e-12)
    assert gap.stderr < levels[0].stderr / 2
    same = paired(values(labels, one), values(labels, one))
    assert (same.value, same.stderr) == (0, 0)


def test_a_class_of_one_sample_does_not_make_the_error_small() -> None:
    labels, predicted = np.array([0] * 50 + [1]), np.array([0] * 45 + [1] * 5 + [0])
    found = mean(balanced_accuracy(labels, predicted))
    assert found.value == pytest.approx(0.45)
    assert found.stderr > 0.2


def test_outputs_that_name_no_class_are_wrong() -> None:
    labels = np.array([0, 0, 1, 1])
    assert mean(balanced_accuracy(labels, np.array([0, -1, -1, -1]))).value == 0.25
    assert mean(macro_f1(labels, np.full(4, -1))).value == 0


def test_the_table_of_classes() -> None:
    labels, predicted = outcomes(200)
    rows = list(per_class(labels, labels == predicted, predicted, None))
    assert [row["n"] for row in rows] == np.bincount(labels).tolist()
    assert [row["predicted"] for row in rows] == np.bincount(predicted).tolist()
    for key, score in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
        expected = score(labels, predicted, average=None)
        assert [row[key]["value"] for row in rows] == pytest.approx(expected.tolist())
    assert "f1" not in next(iter(per_class(labels, labels == predicted, None, None)))
    never = list(per_class(labels, labels == 0, np.zeros(200, int), None))
    assert never[1]["precision"] is None
