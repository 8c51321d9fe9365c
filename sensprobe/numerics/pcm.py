"""Weights in pairs of phase-change devices: the statistical model of a million of them.

A weight is the difference of two conductances, of which one holds its size and the other is at the
lowest. In units of the highest conductance (25 µS), with T the target:

    T       = lowest + (1 - lowest) |w| / max|w|, rounded to the levels there are
    g(t_c)  = T + N(0, s),  s = max(-1.1731 T² + 1.9650 T + 0.26348, 0) / 25     programming
    g(t)    = g(t_c) (t / t_c)^-v,  t_c = 20 s,  v = N(mean, spread) at least 0  drift
              mean   = -0.0155 log T + 0.0244, within 0.049 … 0.1
              spread = -0.0125 log T - 0.0059, within 0.008 … 0.045
    read    = g(t) (1 + N(0, q)),  q = min(0.0088 / T^0.65, 0.2) sqrt(log((t + r) / 2 r)),
              r = 250 ns                                                         1/f noise

Conductances are not below 0. One digital factor a tensor, what all its devices conduct at t_c over
what they conduct at t, takes back the part of the drift that they share. Read noise is drawn once a
programming, as if all inferences on a device were one read.

The equations are those of Nandakumar et al. 2019 (ICECS, "Phase-change memory models for deep
learning training and inference"), measured by Joshi et al. 2020 (Nature Communications 11:2473,
arXiv 1906.03138); the factor is theirs too. Not simulated are wires, converters, and devices that
are stuck.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensprobe.numerics.arithmetic import exp, log, total
from sensprobe.plans.noise import READ_AFTER, Pcm

SMALLEST = 1e-6
"""Least conductance of which a logarithm is taken; the laws are constant far above it."""
READ_SECONDS = 250e-9
DRAWS = 3
"""Normal numbers a device needs: programming, drift, read noise."""

Normal = Callable[[int], Tensor]
"""Normal numbers (float64, the shape of the weights) number k of a weight."""


def programmed(w: Tensor, noise: Pcm, normal: Normal) -> Tensor:
    """Weights w (real, float64, any shape) as they are read from devices that hold them."""
    peak = w.abs().max() if w.numel() else w.sum()
    if peak == 0:
        return w
    read, factor, unit = read_pairs(w, noise, normal, peak)
    return ((read[0] - read[1]) * factor) * unit


def read_pairs(
    w: Tensor, noise: Pcm, normal: Normal, peak: Tensor | float
) -> tuple[Tensor, Tensor, Tensor | float]:
    """What the two devices of every weight conduct (2, …), the digital factor, and the weight that
    a conductance stands for; `peak` is the size of a weight that the highest holds."""
    lowest = 1 / noise.on_off
    size = w.abs() / peak
    if noise.levels:
        size = (size * (noise.levels - 1)).round() / (noise.levels - 1)
    target, off = lowest + (1 - lowest) * size, torch.full_like(size, lowest)
    pair = torch.stack([torch.where(w > 0, target, off), torch.where(w < 0, target, off)])
    draws = [torch.stack([normal(k), normal(k + DRAWS)]) for k in range(DRAWS)]
    reached = (pair + _programming(pair) * draws[0]).clamp(min=0)
    late = reached * _drift(pair, noise.t, draws[1])
    read = (late * (1 + _reading(pair, noise.t) * draws[2])).clamp(min=0)
    conducted = total(late, range(late.ndim))
    factor = torch.where(conducted > 0, total(reached, range(late.ndim)) / conducted, 1.0)
    return read, factor[0], peak / (1 - lowest)


def _programming(target: Tensor) -> Tensor:
    """The standard deviation of the conductance that programming reaches."""
    return ((-1.1731 * target + 1.9650) * target + 0.26348).clamp(min=0) / 25


def _drift(target: Tensor, t: float, normal: Tensor) -> Tensor:
    """The part of the conductance that is left after t seconds."""
    logarithm = log(target.clamp(min=SMALLEST))
    mean = (-0.0155 * logarithm + 0.0244).clamp(0.049, 0.1)
    spread = (-0.0125 * logarithm - 0.0059).clamp(0.008, 0.045)
    exponent = (mean + spread * normal).clamp(min=0)
    return exp(-exponent * log(torch.tensor(t / READ_AFTER, dtype=torch.float64)))


def _reading(target: Tensor, t: float) -> Tensor:
    """The standard deviation of read noise, a share of the conductance."""
    share = (0.0088 * exp(-0.65 * log(target.clamp(min=SMALLEST)))).clamp(max=0.2)
    band = torch.tensor((t + READ_SECONDS) / (2 * READ_SECONDS), dtype=torch.float64)
    return share * log(band).sqrt()
