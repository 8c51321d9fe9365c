"""Prices against their definition, and against what is measured on the model that ships."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import PLAIN, inputs, tiny
from scipy.stats import kendalltau

from sensprobe import zoo
from sensprobe.checkpoints import read_checkpoint
from sensprobe.data import load_data
from sensprobe.evaluate import Evaluator
from sensprobe.evaluate.outcomes import CAP
from sensprobe.models.apply import Applier, observe
from sensprobe.numerics.storage import fresh, store
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.sensitivity import groups_of, measured, pairs_of, taylor
from sensprobe.sensitivity.gradients import SEED, activation_shapes, exact_weights, gradients_of

SMALL = replace(PLAIN, d_model=2, d_state=2)
DEEP = replace(PLAIN, d_model=3, d_state=2, layers=2)
STATES = [
    "int8/head/asym/dynamic",
    "int4/tensor/dynamic",
    "int6/head/dynamic/feedback",
    "int6/head/dynamic/stochastic",
    "int5/channel/range2/every3",
    "e4m3/range3/clip1.5",
    "bf16",
]
room = sys.modules["sensprobe.sensitivity.taylor"]


def prices(model, schemes, x, task="classification", by="site", applier=None, **more):
    """(target, scheme) -> Score."""
    found = taylor(
        model,
        applier or Applier(model),
        groups_of(model.sites.values(), by),
        [parse(s) for s in schemes],
        x,
        task,
        **more,
    )
    name = "kl" if task == "classification" else "distance"
    return {(f.group.name, str(f.scheme)): f.scores[name] for f in found}


# -- one sample, by the definition ----------------------------------------------------------------


def state_errors(model, u, scheme, layer=0):
    """Rounding error of every step, float64: what memory made of the state less the state."""
    at = f"layers.{layer}."
    A, B = (model.weights[at + name].to(torch.complex64) for name in "AB")
    storage = Applier(model).tap({at + "state": parse(scheme)}).storage(model.sites[at + "state"])
    memory, errors = fresh(1, (*A.shape, 2), storage), []
    for x in u:
        h = torch.view_as_complex(memory.state)
        new = torch.view_as_real(A * h + B * x[None, :, None])
        memory = store(memory, new, storage)
        errors.append(torch.view_as_complex((memory.state - new).double())[0])
    return errors


def adjoint_sum(model, g, errors, layer=0):
    """Σ_t <λ_t, Δ_t> with λ_t = conj(A) λ_{t+1} + 2 conj(C) g_t, backwards through time."""
    A, C = (model.weights[f"layers.{layer}.{name}"] for name in "AC")
    adjoint, total = torch.zeros_like(A), 0.0
    for g_t, error in zip(reversed(g.double()), reversed(errors), strict=True):
        adjoint = A.conj() * adjoint + 2 * C.conj() * g_t[:, None]
        total += float((adjoint.conj() * error).real.sum())
    return total


@pytest.mark.parametrize("scheme", STATES)
@pytest.mark.parametrize(("config", "layer"), [(SMALL, 0), (DEEP, 1)])
def test_a_state_costs_its_adjoint_times_the_rounding_errors(config, layer, scheme, reference_scan):
    model = tiny(config, seed=2)
    x, weights = inputs(config, 1, 8), exact_weights(model)
    found = gradients_of(
        model, weights, activation_shapes(model, weights, x), x, "classification", 0
    )
    u, g = found.values[f"layers.{layer}.x"][0], found.gradients[f"layers.{layer}.y"][0]
    want = adjoint_sum(model, g, state_errors(model, u, scheme, layer), layer)
    got = prices(model, [scheme], x)[f"layers.{layer}.state", str(parse(scheme))].value
    assert want != 0
    assert (2 * got) ** 0.5 == pytest.approx(abs(want), rel=1e-3, abs=1e-6)


def test_the_adjoint_is_the_gradient_that_autograd_takes_through_the_recurrence(reference_scan):
    """Zeros are added to every state; the gradient of each is λ_t."""
    model, length = tiny(SMALL), 8
    A, B, C = (model.weights[f"layers.0.{name}"] for name in "ABC")
    u = inputs(SMALL, 1, length)[0].double()
    zeros = [torch.zeros_like(A, requires_grad=True) for _ in range(length)]
    h, loss = torch.zeros_like(A), 0.0
    g = torch.linspace(-1, 1, length, dtype=torch.float64)[:, None].expand(length, 2)
    for t in range(length):
        h = A * h + B * u[t] + zeros[t]
        loss = loss + (g[t] * 2 * (C * h).real.sum(1)).sum()
    adjoints = torch.autograd.grad(loss, zeros)
    for t in range(length):
        errors = [torch.zeros_like(A) for _ in range(length)]
        errors[t] = torch.full_like(A, 0.3 - 0.7j)
        want = float((adjoints[t].conj() * errors[t]).real.sum())
        assert adjoint_sum(model, g, errors) == pytest.approx(want, rel=1e-12)


def test_weights_and_activations_cost_gradient_times_error(reference_scan):
    model, schemes = tiny(SMALL), ["int6/tensor/dynamic", "bf16"]
    x, weights = inputs(SMALL, 1, 8), exact_weights(tiny(SMALL))
    found = gradients_of(
        model, weights, activation_shapes(model, weights, x), x, "classification", 0
    )
    got = prices(model, schemes, x)
    checked = 0
    for target, scheme, fitted in pairs_of(
        groups_of(model.sites.values(), "site"), list(map(parse, schemes))
    ):
        (site,) = target.sites
        if site.kind is Kind.STATE or site.name[-1] in "ABC":
            continue
        tap = Applier(model).tap(fitted)
        if site.kind is Kind.WEIGHT:
            delta = (tap.weights[site.name] - weights[site.name])[None]
        else:
            delta = tap(site, found.values[site.name]) - found.values[site.name]
        want = 0.5 * float((delta * found.gradients[site.name]).double().sum()) ** 2
        assert got[site.name, str(scheme)].value == pytest.approx(want, rel=1e-3, abs=1e-14)
        checked += 1
    assert checked > 20


# -- how it is summed -----------------------------------------------------------------------------


def test_a_part_is_the_square_of_the_sum_over_its_sites(reference_scan):
    """With one sample, ½ (a + b)² comes from ½ a² and ½ b² and one of two signs."""
    model, x = tiny(DEEP), inputs(DEEP, 1, 8)
    scheme = "int6/head/asym/dynamic"
    site, part = prices(model, [scheme], x), prices(model, [scheme], x, by="part")
    (text,) = {text for _, text in site}
    for name in ("state", "A", "y"):
        a, b = (site[f"layers.{i}.{name}", text].value ** 0.5 for i in range(2))
        got = part[f"layers.*.{name}", text].value
        assert min(abs(got - (a + b) ** 2), abs(got - (a - b) ** 2)) < 1e-4 * got


SEVERAL = ["int8/head/asym/dynamic", "int6/head/dynamic/stochastic", "fp16"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_batches_do_not_matter(task, monkeypatch, reference_scan):
    model, x = tiny(DEEP), inputs(DEEP, 7, 9)
    whole, ticks = prices(model, SEVERAL, x, task), []
    monkeypatch.setattr(room, "BATCH", 2)
    parts = prices(model, SEVERAL, x, task, tick=ticks.append)
    assert ticks == [2, 2, 2, 1]
    for key, score in whole.items():
        # float32 sums in another order; a sum of squares of small things keeps that small
        assert parts[key].value == pytest.approx(score.value, rel=1e-2, abs=1e-11), key


def test_the_seed_of_the_pulls_matters(monkeypatch, reference_scan):
    """Else the test above could not fail for the positions it is about."""
    model, x = tiny(DEEP), inputs(DEEP, 7, 9)
    whole = prices(model, SEVERAL, x)
    monkeypatch.setattr(sys.modules["sensprobe.sensitivity.gradients"], "SEED", SEED + 1)
    other = prices(model, SEVERAL, x)
    changed = [k for k, s in whole.items() if abs(other[k].value - s.value) > 0.05 * s.value]
    assert len(changed) > len(whole) / 2


def test_batches_shrink_as_sequences_and_models_grow(monkeypatch):
    model = tiny(DEEP)
    sizes = [room.batch_size(model, length) for length in (10, 10_000, 1_000_000, 10**9)]
    assert sizes[0] == room.BATCH
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    monkeypatch.setattr(room, "ROOM_BYTES", room.ROOM_BYTES // 4)
    assert room.batch_size(model, 10_000) < sizes[1]


def test_changes_of_kernels_are_made_once_while_there_is_room(monkeypatch, reference_scan):
    model, x = tiny(DEEP), inputs(DEEP, 5, 9)
    made, real = [], room.ssm_kernel
    monkeypatch.setattr(room, "BATCH", 2)
    monkeypatch.setattr(room, "ssm_kernel", lambda *args: made.append(1) or real(*args))
    roomy = prices(model, SEVERAL[:1], x)
    once = len(made)
    assert once == 2 * 3 * 2  # layers; A, B and C; before and after
    monkeypatch.setattr(room, "KEPT_BYTES", 0)
    assert prices(model, SEVERAL[:1], x) == roomy
    assert len(made) == once + 3 * once  # anew in each of three batches


def test_groups_widen_the_error_and_leave_the_value(reference_scan):
    model, x = tiny(DEEP), inputs(DEEP, 3, 9).repeat(4, 1, 1)
    groups = np.tile(np.arange(3), 4)
    alone, grouped = (prices(model, SEVERAL[:1], x, clusters=g) for g in (None, groups))
    for key, score in alone.items():
        assert grouped[key].value == score.value
        assert (score.clusters, grouped[key].clusters) == (12, 3)
    assert any(grouped[k].stderr > 1.2 * alone[k].stderr for k in alone)


def test_what_overflows_costs_the_cap(reference_scan):
    model = tiny(SMALL)
    A = model.weights["layers.0.A"]
    loud = type(model)(SMALL, {**model.weights, "layers.0.A": A / A.abs() * 0.99})
    found = prices(loud, ["int2/range1.3", "int8/dynamic"], inputs(SMALL, 2, 3000))
    assert found["layers.0.A", "int2/range1.3"].value == CAP
    assert 0 < found["layers.0.A", "int8/dynamic"].value < CAP


# -- against what is measured ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """Model, applier and search split of s4d-digits; measured sensitivities of each scheme list."""
    model, _ = read_checkpoint(zoo.shipped()["s4d-digits"])
    data = load_data("digits")
    applier = Applier(model, observe(model, data.splits["calibration"].x))
    return model, applier, data.splits["search"]


def both(digits, schemes):
    """(target, scheme) -> (measured KL, priced KL), by part."""
    model, applier, split = digits
    evaluator = Evaluator(model, applier, split, "classification")
    parsed = [parse(s) for s in schemes]
    found = measured(
        groups_of(model.sites.values(), "part"),
        parsed,
        lambda plans: (evaluator.evaluate(plan, 0, len(split)) for plan, _ in plans),
    )
    priced = prices(model, schemes, split.x, by="part", applier=applier)
    return {
        key: (f.scores["kl"], priced[key])
        for f in found
        if (key := (f.group.name, str(f.scheme))) in priced
    }


@pytest.mark.thorough
def test_small_perturbations_cost_what_is_measured(digits):
    """Second order is all there is at 12 bits; what remains is the noise of the signs."""
    found = both(digits, ["int12/head/asym", "int10/head/asym/dynamic"])
    assert ("input", "int12/head/asym") in found
    assert ("input", "int10/head/asym/dynamic") not in found  # one number under a scale of its own
    assert len(found) > 20
    for key, (truth, price) in found.items():
        noise = (truth.stderr**2 + price.stderr**2) ** 0.5
        assert abs(price.value - truth.value) < 4 * noise, key
    ratios = [price.value / truth.value for truth, price in found.values()]
    assert 0.9 < np.median(ratios) < 1.1


def test_it_ranks_as_measuring_does(digits):
    found = both(digits, ["int8/head/asym/dynamic", "int6/head/asym/dynamic", "int4/head/asym"])
    pairs = [(truth.value, price.value) for truth, price in found.values()]
    assert len(pairs) > 30
    assert kendalltau(*zip(*pairs, strict=True)).statistic > 0.9


def test_a_regression_is_priced_in_squared_change(reference_scan):
    """One output: the sign squares away, and what is left is the change itself, to first order."""
    config = replace(PLAIN, d_output=1)
    model, x = tiny(config), inputs(config, 6, 12)
    schemes = ["int10/tensor/dynamic", "fp16"]
    got = prices(model, schemes, x, "regression")
    base = model(x)
    for target, scheme, fitted in pairs_of(
        groups_of(model.sites.values(), "site"), list(map(parse, schemes))
    ):
        moved = model(x, Applier(model).tap(fitted))
        want = float(((moved - base).double() ** 2).mean())
        assert got[target.name, str(scheme)].value == pytest.approx(want, rel=0.05, abs=1e-13)


def test_outputs_of_a_regression_are_averaged(reference_scan):
    """A constant added to one of four outputs changes the mean square by its square over four."""
    config = replace(PLAIN, d_output=4)
    model, x = tiny(config), inputs(config, 400, 3)
    name, scheme = "head.bias", "int4/dynamic"
    error = Applier(model).tap({name: parse("int4")}).weights[name] - model.weights[name]
    score = prices(model, [scheme], x, "regression")[name, scheme]
    assert abs(score.value - float((error**2).mean())) < 4 * score.stderr
