"""The promise of the search, kept on a real model's 16,384 plans as `exhaustive` measured them."""

from __future__ import annotations

import numpy as np
import pytest
from enumeration import STUDY, Enumeration, load_enumeration, resolved
from replay import METHODS, Yardstick
from results import median_of_five, reached

from sensprobe.data import Dataset, load_data
from sensprobe.plans.cost import cost
from sensprobe.search import Assignment
from sensprobe.search.exhaustive import every_assignment
from sensprobe.session.session import Session
from sensprobe.session.source import Source, open_model

SPLIT = STUDY["space"]["split"]
BAR = STUDY["yardstick"]["bar"]


@pytest.fixture(scope="module")
def truth() -> Enumeration:
    return load_enumeration()


@pytest.fixture(scope="module")
def yardstick(truth: Enumeration) -> Yardstick:
    return Yardstick(truth, STUDY["yardstick"]["evaluations"])


@pytest.fixture(scope="module")
def source() -> Source:
    return open_model(STUDY["space"]["model"])


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_data(STUDY["space"]["data"])


def picked(truth: Enumeration, count: int, low: float = 0.0, high: float = 1.0) -> list[Assignment]:
    """Plans at random among those whose accuracy lies in [low, high]."""
    within = np.flatnonzero((truth.accuracy >= low) & (truth.accuracy <= high))
    rows = np.random.default_rng(0).choice(within, count, replace=False)
    every = list(every_assignment(truth.problem))
    return [every[row] for row in rows]


def test_it_holds_every_plan_of_the_model_and_data_that_ship(
    truth: Enumeration, source: Source, dataset: Dataset
) -> None:
    parts = [decision.part for decision in truth.problem.decisions]
    schemes = [[o.scheme for o in d.options] for d in truth.problem.decisions]
    assert parts == STUDY["space"]["parts"]
    assert schemes == [STUDY["space"]["schemes"]] * len(parts)
    assert truth.correct.shape == (4**7, dataset.splits.count(SPLIT))
    assert truth.about["model"] in {source.fingerprint, *source.earlier()}
    assert truth.about["data"] == dataset.splits.fingerprint(SPLIT)


def test_its_bytes_are_what_the_plans_cost(truth: Enumeration, source: Source) -> None:
    sites = source.model.sites.values()
    assert truth.full_bytes == cost(sites, {}).total_bytes
    for plan in picked(truth, 50):
        price, size = cost(sites, resolved(plan, truth.problem, sites)), truth.problem.size(plan)
        assert (size.weight, size.state) == (price.weight_bytes, price.state_bytes)


def test_its_scores_are_what_the_plans_score(
    truth: Enumeration, source: Source, dataset: Dataset
) -> None:
    """To a few samples: another processor may add floats in another order.

    Plans that score this low are far from their neighbours, so a wrong row would be seen.
    """
    session, sites = Session(source, dataset), source.model.sites.values()
    count, few = truth.correct.shape[1], 4
    for plan in picked(truth, 6, 0.3, 0.9):
        arrays = session.measure(resolved(plan, truth.problem, sites), SPLIT, 0, count)
        fell_otherwise = arrays["correct"].astype(bool) != truth.correct[truth.row(plan)]
        assert fell_otherwise.sum() <= few
        other = truth.row((*plan[:2], (plan[2] + 1) % 4, *plan[3:]))
        assert (arrays["correct"].astype(bool) != truth.correct[other]).sum() > few


@pytest.mark.thorough
def test_gains_finds_99_percent_of_the_front_with_100_evaluations(yardstick: Yardstick) -> None:
    curves = np.array([METHODS["gains"](yardstick, seed) for seed in range(5)])
    paid = 1 + yardstick.truth.sensitivities
    assert paid == 29
    assert (curves[:, :paid] == 0).all()
    assert curves.max() <= 1
    assert np.median(curves[:, -1]) >= BAR


@pytest.mark.thorough
def test_eight_workers_need_few_evaluations_more_than_one(yardstick: Yardstick) -> None:
    needed = {}
    for method in ("gains", "gains, 8 workers"):
        curves = np.array([METHODS[method](yardstick, seed) for seed in range(3)])
        needed[method] = reached(curves, BAR)
        assert np.median(curves[:, -1]) >= BAR
    assert needed["gains, 8 workers"] <= 1.25 * needed["gains"]


@pytest.mark.parametrize("method", ["random", "nsga2"])
def test_not_every_search_reaches_the_bar(yardstick: Yardstick, method: str) -> None:
    curves = np.array([METHODS[method](yardstick, seed) for seed in range(5)])
    assert np.median(curves[:, -1]) < BAR


def test_a_curve_of_every_plan_ends_at_one_and_counts_what_is_paid(yardstick: Yardstick) -> None:
    every = list(every_assignment(yardstick.truth.problem))
    curve = yardstick.curve([(7.5, plan) for plan in every])
    assert curve[7] == 0
    assert curve[8] == pytest.approx(1)


def test_the_share_of_medians_of_five_by_hand() -> None:
    values = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    assert median_of_five(values, 1.0) == 1
    assert median_of_five(values[::-1] * 0.5, 1.0) == 0
