"""exp(x) for float32 in a fixed order of plain operations, so that a kernel can repeat it.

The decay of a selective recurrence, exp(dt A), is computed anew at every step and fed back at every
step. A library's exp differs between machines in its last bit, and a rounded recurrence is chaotic
in last bits, so the exponential is part of the arithmetic that defines the recurrence:

    n = round(x / ln 2)              half to even
    r = (x - n · 0.693359375) - n · (ln 2 - 0.693359375)      the first product is exact
    exp(x) = 2^n · ((p(r) · r² + r) + 1)      p of degree 5, by Horner's rule

The polynomial is that of Cephes' expf (S. L. Moshier). No operation is contracted. The result is
off by less than 2^-23 of itself (tested) and exactly 1 at 0. Below x = -87.33, where exp(x) nears
the smallest normal number, it is 0; above x = 88 it stays at exp(88). NaN stays NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST = -87.33
"""Just above ln 2^-126, the logarithm of the smallest normal number."""
HIGHEST = 88.0
LOG2_E = 1 / math.log(2)
LN2_HIGH = 0.693359375
LN2_LOW = math.log(2) - LN2_HIGH
POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def exponential(x: Tensor) -> Tensor:
    """exp of every element of x (float32), by the operations above. Differentiable."""
    inside = x.clamp(LOWEST, HIGHEST)
    n = (inside.detach() * LOG2_E).round()
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    p = torch.full_like(r, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        p = p * r + coefficient
    power = ((n.to(torch.int32) + 127) << 23).view(torch.float32)
    y = ((p * (r * r) + r) + 1) * power
    return torch.where(x < LOWEST, torch.zeros_like(y), y)
