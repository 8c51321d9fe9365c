"""What each convolution kernel of an S4D is worth: the price of the whole recurrence of a head.

Without it y is D x, so what out_proj reads becomes the activation of D x. That change Δ is taken as
it is, for a kernel is much to lose: where y is far below zero GELU has no slope, and the price of a
small change of y is nothing. From there on outputs diverge by ½ E[⟨g, Δ⟩²] to second order, with g
the gradient of a sample at out_proj's input (see `taylor`): a forward and a backward pass a sample
price every kernel alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensprobe.models import Model
from sensprobe.models.family import Pruning
from sensprobe.models.framed import columns
from sensprobe.sensitivity.gradients import activation_shapes, exact_weights, gradients_of
from sensprobe.sensitivity.taylor import batch_size


def kernel_prices(
    model: Model,
    pruning: Pruning,
    x: Tensor,
    task: str,
    tick: Callable[[int], None] = lambda count: None,
) -> list[Tensor]:
    """The price of every kernel of every layer: (k,) float64, in the order of the rows of A.

    x: samples (n, l, c). Prices are nats of divergence, of a regression the mean squared change.
    """
    assert pruning.unread is not None
    weights = exact_weights(model)
    shapes = activation_shapes(model, weights, x)
    factor, size = 1.0 if task == "regression" else 0.5, batch_size(model, x.shape[1])
    total = [torch.zeros(len(weights[r.A]), dtype=torch.float64) for r in model.recurrences]
    for first in range(0, len(x), size):
        found = gradients_of(model, weights, shapes, x[first : first + size], task, first)
        for i, r in enumerate(model.recurrences):
            read = f"layers.{i}.out_proj_in"
            change = pruning.unread({**weights, **found.values}, model.config, i)
            change = change - found.values[read]  # (b, l, h)
            share = (found.gradients[read] * change).sum(1, dtype=torch.float64)
            total[i] += factor / len(x) * columns(share, r.heads).square().sum(0)
        tick(len(x[first : first + size]))
    return total
