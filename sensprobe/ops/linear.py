"""A linear map of few vectors, as streaming kernels compute it: the reference.

    linear         y_o = sum_i W_oi x_i                                            float32
    linear_codes   y_o = sum_g (float32(sum_i q_oi c_i) s_og) a_g    i: columns of group g; int32

The arithmetic of `linear`, fixed so that kernels can equal it bit for bit (float32, no
contraction): sixteen lanes, lane j adds the products of columns j, j + 16, j + 32, … from the first
column upward, starting at 0; then lanes 0 to 7 take in lanes 8 to 15, 0 to 3 take in 4 to 7, and so
on.

That of `linear_codes`: c are the codes of an activation and q those of a weight, less their zero
points; columns of group g share the weight's scale s and the activation's a. What is summed over
them is exact: with n columns in a group, |q| up to Q and |c| up to C it stays below 2^31 while
n Q C does (int8 with int8: 132,104 columns). It becomes float32, rounded once where it is beyond
2^24, is multiplied by s, then by a, and groups are added in float32 from the first upward, starting
at 0.
"""

from __future__ import annotations

import torch
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


def linear_codes(
    codes: Tensor, scales: Tensor, run: int, weight: Tensor, weight_scales: Tensor, group: int
) -> Tensor:
    """codes (…, inputs), scales (…, ceil(inputs / run)), weight (outputs, inputs) of whole numbers,
    weight_scales (outputs, ceil(inputs / group)), both scales float32 -> (…, outputs).

    Of `run` and `group` one is a multiple of the other, or both span all inputs.
    """
    inputs, few = weight.shape[1], min(run, group)
    y = torch.zeros(*codes.shape[:-1], len(weight))
    for first in range(0, inputs, few):
        part = slice(first, first + few)
        total = codes[..., part].to(torch.int64) @ weight[:, part].to(torch.int64).T
        scaled = total.float() * weight_scales[:, first // group]
        y = y + scaled * scales[..., first // run, None]
    return y
