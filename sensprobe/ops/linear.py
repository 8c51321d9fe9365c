"""A linear map of few vectors, as streaming kernels compute it: the reference.

    y_o = sum_i W_oi x_i

Arithmetic, fixed so that kernels can equal it bit for bit (float32, no contraction): sixteen lanes,
lane j adds the products of columns j, j + 16, j + 32, … from the first column upward, starting at
0; then lanes 0 to 7 take in lanes 8 to 15, 0 to 3 take in 4 to 7, and so on.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

LANES = 16


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (…, inputs), weight (outputs, inputs), float32 -> (…, outputs)."""
    products = x[..., None, :] * weight
    products = F.pad(products, (0, -products.shape[-1] % LANES))
    lanes = products.new_zeros(*products.shape[:-1], LANES)
    for chunk in products.unflatten(-1, (-1, LANES)).unbind(-2):
        lanes = lanes + chunk
    while lanes.shape[-1] > 1:
        lower, upper = lanes.chunk(2, dim=-1)
        lanes = lower + upper
    return lanes[..., 0]
