"""Measured sensitivities against differences taken by hand."""

import numpy as np
import pytest
from builders import CONFIGS, tiny

from sensprobe.data import load_data
from sensprobe.evaluate import Evaluator
from sensprobe.models.apply import Applier
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.sensitivity import differences, groups_of, measured, pairs_of


def brute(values, groups):
    """Standard error of a mean of clusters, written out."""
    residual = values - values.mean()
    sums = [residual[groups == g].sum() for g in np.unique(groups)]
    count = len(sums)
    return (count / (count - 1) * sum(s**2 for s in sums)) ** 0.5 / len(values)


@pytest.fixture
def evaluator(tmp_path, reference_scan):
    """A tiny model on 40 samples of two classes in 8 groups."""
    rng = np.random.default_rng(0)
    config = CONFIGS["pre"]
    n = 120
    np.savez(
        tmp_path / "d.npz",
        x=rng.normal(size=(n, 6, 1)).astype(np.float32),
        y=rng.integers(0, 2, n),
        group=np.arange(n) // 5,
    )
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    model = tiny(config)
    return Evaluator(model, Applier(model), data.splits["search"], data.task)


def test_a_difference_is_paired_sample_by_sample(evaluator):
    n = len(evaluator.split)
    groups = evaluator.split.group.numpy()
    sites, schemes = evaluator.model.sites, [parse("int4/dynamic"), parse("bf16")]
    asked = []

    def measure(plans):
        for plan, label in plans:
            asked.append(label)
            yield evaluator.evaluate(plan, 0, n)

    found = list(measured(groups_of(sites.values(), "part"), schemes, measure, groups))
    assert asked[0] == "baseline"
    assert len(asked) == len(found) + 1 == len(set(asked))
    base = evaluator.evaluate({}, 0, n)
    for f in found:
        alone = evaluator.evaluate(f.applied, 0, n)
        for name in ("correct", "cross_entropy"):
            by_hand = alone[name].astype(float) - base[name].astype(float)
            assert f.scores[name].value == pytest.approx(by_hand.mean(), abs=1e-12)
            assert f.scores[name].stderr == pytest.approx(brute(by_hand, groups), abs=1e-12)
            assert (f.scores[name].n, f.scores[name].clusters) == (n, len(np.unique(groups)))
        assert f.scores["kl"].value == pytest.approx(alone["kl"].astype(float).mean(), abs=1e-12)
        assert f.scores["kl"].value > 0
    assert any(f.scores["cross_entropy"].value != 0 for f in found)


def test_a_divergence_is_kept_as_it_is_and_what_one_lacks_is_left_out():
    arrays = {"kl": np.array([1.0, 3.0]), "correct": np.array([1.0, 0.0]), "new": np.zeros(2)}
    base = {"kl": np.array([9.0, 9.0]), "correct": np.array([1.0, 1.0])}
    found = differences(arrays, base, None)
    assert {name: s.value for name, s in found.items()} == {"kl": 2.0, "correct": -0.5}


def test_a_target_changes_nothing_but_its_sites(evaluator):
    seen = {}

    def measure(plans):
        for plan, label in plans:
            seen[label] = dict(plan)
            yield evaluator.evaluate(plan, 0, 4)

    list(measured(groups_of(evaluator.model.sites.values(), "part"), [parse("bf16")], measure))
    assert set(seen["layers.*.state=bf16"]) == {"layers.0.state", "layers.1.state"}
    assert set(seen["layers.*.A=bf16"]) == {"layers.0.A", "layers.1.A"}


# -- which pairs there are ------------------------------------------------------------------------


def pairs(sites, schemes, by="site"):
    return [
        (t.name, str(s)) for t, s, _ in pairs_of(groups_of(sites, by), [parse(s) for s in schemes])
    ]


def test_pairs_leave_out_what_changes_nothing_makes_no_sense_or_was_there_already():
    sites = tiny().sites
    names = [name for name, _ in pairs(sites.values(), ["int8"])]
    assert names == list(sites)
    assert pairs(sites.values(), ["fp32"]) == []
    # a weight's range is known, so dynamic says nothing new of it
    twice = pairs(sites.values(), ["int8", "int8/dynamic"])
    weights = [n for n, s in sites.items() if s.kind is Kind.WEIGHT]
    assert [n for n, _ in twice if n in weights] == weights
    # nor is one number a step rounded under a live scale of its own
    assert [s for n, s in twice if n == "input"] == ["int8"]
    assert len(twice) == 2 * len(sites) - len(weights) - 1
    only = [n for n, _ in pairs(sites.values(), ["polar(m4,p8)"])]
    assert "layers.0.A" in only
    assert "layers.0.D" not in only
    assert "encoder" not in only


def test_targets_by_part_hold_every_site_once_and_are_named_by_patterns():
    sites = tiny(CONFIGS["deep"]).sites
    by_part = groups_of(sites.values(), "part")
    assert sorted(s.name for t in by_part for s in t.sites) == sorted(sites)
    named = {t.name: [s.name for s in t.sites] for t in by_part}
    assert named["layers.*.state"] == ["layers.0.state", "layers.1.state"]
    assert all({s.part for s in t.sites} == {t.part} for t in by_part)
    assert [t.name for t in groups_of(sites.values(), "site")] == list(sites)


def test_a_targets_plan_is_its_fit():
    (state,) = (t for t in groups_of(tiny().sites.values(), "part") if t.part == "state")
    plan = state.plan(parse("int8/dynamic"))
    assert plan is not None
    assert [name for name, _ in plan.entries] == ["layers.0.state"]
    bias = next(t for t in groups_of(tiny().sites.values(), "part") if t.part == "bias")
    assert bias.fitted(parse("polar(m4,p8)")) is None
    assert bias.plan(parse("polar(m4,p8)")) is None
