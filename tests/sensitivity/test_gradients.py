"""Per-sample gradients against autograd through the plain recurrence, one sample at a time."""

from dataclasses import replace

import pytest
import torch
from builders import CONFIGS, inputs, tiny, vector

from sensprobe.numerics.storage import Carry
from sensprobe.numerics.taps import EXACT
from sensprobe.ops.diagonal_scan import reference as diagonal_scan
from sensprobe.plans.sites import Kind
from sensprobe.sensitivity.gradients import (
    activation_shapes,
    exact_weights,
    gradients_of,
    pull,
)

TASKS = ("classification", "regression")
SMALL = {  # a norm over two channels leaves nothing but signs
    name: replace(config, d_model=2 if config.norm == "none" else 4, d_state=2, d_output=3)
    for name, config in CONFIGS.items()
}
BATCH, LENGTH, FIRST = 3, 8, 5


class Leaves:
    """Weights and zeros on activations that autograd differentiates; weights as given."""

    def __init__(self, model):
        self.weights = {
            name: EXACT(model.sites[name], w).clone().requires_grad_()
            for name, w in model.weights.items()
        }
        self.zeros = {}

    def __call__(self, site, x):
        if site.kind is Kind.WEIGHT:
            return self.weights[site.name]
        self.zeros[site.name] = torch.zeros_like(x, requires_grad=True)
        return x + self.zeros[site.name]

    def storage(self, site):
        return None


def plain(model, x, task, position):
    """Gradients by name of one sequence (l, c), through the recurrence step by step."""
    leaves = Leaves(model)
    outputs = model(x[None], leaves)
    v = pull(outputs.detach(), task, position)
    named = leaves.weights | leaves.zeros
    found = torch.autograd.grad((outputs * v).sum(), list(named.values()))
    return dict(zip(named, found, strict=True))


def batch(model, x, task="classification", first=FIRST):
    weights = exact_weights(model)
    return gradients_of(model, weights, activation_shapes(model, weights, x), x, task, first)


@pytest.fixture(params=SMALL)
def model(request, reference_scan):
    return tiny(SMALL[request.param], seed=3)


@pytest.mark.parametrize("task", TASKS)
def test_every_sample_gets_its_own_gradient_of_weights_and_activations(model, task):
    x = inputs(model.config, BATCH, LENGTH)
    found = batch(model, x, task)
    inside = {name for r in model.recurrences for name in (r.A, r.B, r.C)}
    wanted = set(model.sites) - inside - {r.state for r in model.recurrences}
    assert set(found.gradients) == wanted
    for i in range(BATCH):
        alone = plain(model, x[i], task, FIRST + i)
        for name in wanted:
            got, want = found.gradients[name][i], alone[name].view(found.gradients[name].shape[1:])
            torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: n + m)


def test_values_are_what_the_model_computes(model):
    x = inputs(model.config, BATCH, LENGTH)
    seen = {}

    class Watch(Leaves):
        def __call__(self, site, x):
            seen[site.name] = x.detach()
            return super().__call__(site, x)

    model(x, Watch(model))
    for name, value in batch(model, x).values.items():
        torch.testing.assert_close(value, seen[name], rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_kernel_is_the_correlation_of_output_gradient_and_input(model):
    x = inputs(model.config, BATCH, LENGTH)
    found = batch(model, x)
    for r in model.recurrences:
        heads = slice(None) if r.heads is None else list(r.heads)
        g, u = found.gradients[r.y][..., heads], found.values[r.x][..., heads]
        want = torch.zeros(BATCH, g.shape[-1], LENGTH)
        for t in range(LENGTH):
            for k in range(t + 1):
                want[:, :, k] += g[:, t] * u[:, t - k]
        torch.testing.assert_close(found.kernels[r.state], want, rtol=1e-4, atol=1e-5)


def test_it_prices_small_changes_of_A_B_and_C_as_autograd_through_the_recurrence_does(model):
    x = inputs(model.config, BATCH, LENGTH)
    found = batch(model, x)
    for r in model.recurrences:
        A, B, C = (model.weights[name] for name in (r.A, r.B, r.C))
        for k, name in enumerate((r.A, r.B, r.C)):
            change = 1e-4 * torch.view_as_complex(vector(*A.shape, 2, seed=9 + k))
            moved = [w + change if i == k else w for i, w in enumerate((A, B, C))]
            delta = impulse(*moved) - impulse(A, B, C)
            for i in range(BATCH):
                gradient = plain(model, x[i], "classification", FIRST + i)[name]
                want = (gradient.conj() * change).real.sum()
                got = (found.kernels[r.state][i].double() * delta).sum()
                scale = (gradient.abs() * change.abs()).sum()
                assert abs(got - want) < 2e-3 * scale, name


def impulse(A, B, C):
    """Kernel (h, l): the recurrence's answer to a one followed by zeros."""
    u = torch.zeros(1, LENGTH, len(A), dtype=torch.float64)
    u[:, 0] = 1
    start = Carry(torch.zeros(1, *A.shape, 2, dtype=torch.float64))
    return diagonal_scan(u, A, B, C, None, start)[0][0].T


# -- the pull -------------------------------------------------------------------------------------


def test_pulls_of_a_classifier_have_the_fisher_information_as_second_moment():
    logits = torch.tensor([2.0, 0.5, -1.0, -4.0])
    n = 20_000
    v = pull(logits.expand(n, 4), "classification", 0).double()
    p = logits.double().softmax(0)
    want = torch.diag(p) - torch.outer(p, p)
    products = v[:, :, None] * v[:, None, :]
    error = products.std(0) / n**0.5
    assert ((products.mean(0) - want).abs() < 5 * error + 1e-9).all()
    assert (products.mean(0) - torch.diag(p)).abs().max() > 20 * error.max()  # it can fail


def test_pulls_of_a_regression_average_squares_over_the_outputs():
    v = pull(torch.zeros(1000, 4), "regression", 0)
    assert (v.abs() == 0.5).all()
    assert abs(float(v.mean())) < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize("task", TASKS)
def test_a_pull_depends_on_the_position_of_the_sample_alone(task):
    outputs = vector(9, 3, dtype=torch.float32)
    whole = pull(outputs, task, 0)
    assert torch.equal(pull(outputs[4:], task, 4), whole[4:])
    assert not torch.equal(pull(outputs[4:], task, 0), whole[4:])
