"""The quantizer of Zhao et al. (arXiv 2506.12480) as their code computes it, written anew.

Where it differs from this product's, and from what the paper says:

- A state is rounded three times a step, each time with the same scale: A·x, B·u, and their sum. y
  reads the sum of the two rounded products, before the third rounding. What is kept is the state
  after the third, clamped to ±50; y is clamped to ±1000.
- A range is a quantile of 99.999 % along one axis after the other, each taking a value that is there:
  along fewer than 50,000 values that is the extreme.
- Static ranges are those of one batch that runs at full precision. That of the state spans A·x, B·u
  and the sum of all steps, and is one a head *and* pair; a live one spans the pairs of a sample and
  head, at each of the three roundings.
- Codes are asymmetric, from -2^(b-1) to 2^(b-1) - 1, with a zero point of 16 bits. A, B and C have a
  scale a head, D and linear weights one a tensor; biases are exact.
- GELU is x · min(max(x + 2, 0), 4) / 4, where the paper prints x · min(max(0, x + 2), 1).

Shapes: b images, l length, h heads, n complex pairs a head. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from sensprobe.models.s4d_layers import S4D

MEAN, DEVIATION = 0.1307, 0.3081
"""Of pixels in [0, 1]; their input is (pixel - MEAN) / DEVIATION."""
STATE_PEAK, Y_PEAK = 50.0, 1000.0
TINIEST_RANGE = 2.0**-24
"""Ranges up to this have the scale 1."""
ZERO_LOW, ZERO_HIGH = -(2**15), 2**15 - 1
ROUNDER = np.float32(1.5 * 2**23)
"""Added to a float32 below 2^22 and taken away again, it leaves the nearest integer, half to even."""
LANES = 64


class Range(NamedTuple):
    """The least and the largest value of a tensor, or of each of its heads."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True, slots=True)
class Bits:
    """The widths of a model; None keeps exact. `weights` are all but A, `activations` all but the
    state. `time` is that of the state's range, "static" or "live"; `gelu` is "exact" or "theirs"."""

    weights: int | None = None
    activations: int | None = None
    A: int | None = None
    state: int | None = None
    time: str = "static"
    gelu: str = "exact"


# -- rounding --------------------------------------------------------------------------------------


def scale_and_zero(found: Range, bits: int) -> tuple[Tensor, Tensor]:
    """The scale and zero point of a range."""
    scale = (found.high - found.low) / (2**bits - 1)
    scale = torch.where(found.high - found.low <= TINIEST_RANGE, torch.ones_like(scale), scale)
    zero = (-(2 ** (bits - 1)) - found.low / scale).round().clamp(ZERO_LOW, ZERO_HIGH)
    return scale, zero


def rounded(x: Tensor, found: Range, bits: int | None) -> Tensor:
    """x as the codes of a range give it; exact without bits."""
    if bits is None:
        return x
    scale, zero = scale_and_zero(found, bits)
    codes = (x / scale + zero).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (codes - zero) * scale


def range_of(x: Tensor, kept: tuple[int, ...] = ()) -> Range:
    """The range of a real tensor, one for each index of the axes that are kept."""
    axes = [axis for axis in range(x.ndim) if axis not in kept]
    return Range(x.amin(axes, keepdim=True), x.amax(axes, keepdim=True))


def rounded_weight(x: Tensor, bits: int | None, kept: tuple[int, ...] = ()) -> Tensor:
    """A weight, complex or real, by its own range."""
    if x.is_complex():
        return torch.view_as_complex(rounded_weight(torch.view_as_real(x), bits, kept))
    return rounded(x, range_of(x, kept), bits)


# -- the recurrence --------------------------------------------------------------------------------


@njit(inline="always")
def _rounded(v, scale, zero, least, most):  # type: ignore[no-untyped-def]
    code = v / scale + zero
    code = least if code < least else code
    code = most if code > most else code
    return ((code + ROUNDER) - ROUNDER - zero) * scale


@njit(inline="always")
def _less(a, b):  # type: ignore[no-untyped-def]
    return a if a < b else b


@njit(inline="always")
def _clamped(v, peak):  # type: ignore[no-untyped-def]
    v = -peak if v < -peak else v
    return peak if v > peak else v


@njit(error_model="numpy")
def _exact(u, A, B, C, y, low, high):  # type: ignore[no-untyped-def]
    """Fill y (h, l, b); widen low and high (h, n, lanes) by every A·x, B·u and sum."""
    heads, length, count = u.shape
    pairs = A.shape[1]
    for h in range(heads):
        for first in range(0, count, LANES):
            lanes = min(LANES, count - first)
            re = np.zeros((pairs, LANES), np.float32)
            im = np.zeros((pairs, LANES), np.float32)
            for t in range(length):
                for n in range(pairs):
                    a, b, c = A[h, n], B[h, n], C[h, n]
                    least, most = low[h, n], high[h, n]
                    for k in range(lanes):
                        x = u[h, t, first + k]
                        pr = a.real * re[n, k] - a.imag * im[n, k]
                        pi = a.real * im[n, k] + a.imag * re[n, k]
                        br, bi = b.real * x, b.imag * x
                        sr, si = pr + br, pi + bi
                        least[k] = _less(_less(least[k], _less(pr, pi)), _less(br, bi))
                        least[k] = _less(least[k], _less(sr, si))
                        most[k] = -_less(_less(-most[k], _less(-pr, -pi)), _less(-br, -bi))
                        most[k] = -_less(-most[k], _less(-sr, -si))
                        y[h, t, first + k] += np.float32(2) * (c.real * sr - c.imag * si)
                        re[n, k], im[n, k] = sr, si


@njit(error_model="numpy")
def _static(u, A, B, C, y, scale, zero, least, most, peak):  # type: ignore[no-untyped-def]
    """Fill y (h, l, b), the state rounded three times a step by scale and zero (h, n)."""
    heads, length, count = u.shape
    pairs = A.shape[1]
    for h in range(heads):
        for first in range(0, count, LANES):
            lanes = min(LANES, count - first)
            re = np.zeros((pairs, LANES), np.float32)
            im = np.zeros((pairs, LANES), np.float32)
            out = np.zeros(LANES, np.float32)
            for t in range(length):
                x = u[h, t, first : first + lanes]
                out[:] = np.float32(0)
                for n in range(pairs):
                    a, b, c, s, z = A[h, n], B[h, n], C[h, n], scale[h, n], zero[h, n]
                    for k in range(lanes):
                        pr = a.real * re[n, k] - a.imag * im[n, k]
                        pi = a.real * im[n, k] + a.imag * re[n, k]
                        sr = _rounded(pr, s, z, least, most)
                        sr += _rounded(b.real * x[k], s, z, least, most)
                        si = _rounded(pi, s, z, least, most)
                        si += _rounded(b.imag * x[k], s, z, least, most)
                        out[k] += c.real * sr - c.imag * si
                        re[n, k] = _clamped(_rounded(sr, s, z, least, most), peak)
                        im[n, k] = _clamped(_rounded(si, s, z, least, most), peak)
                for k in range(lanes):
                    y[h, t, first + k] = np.float32(2) * out[k]


@njit(error_model="numpy")
def _round_live(re, im, levels, least, most):  # type: ignore[no-untyped-def]
    """Round (n, lanes) by the range of each lane."""
    pairs, lanes = re.shape
    low, high = re[0].copy(), -re[0]  # high is kept negated
    for n in range(pairs):
        for k in range(lanes):
            low[k] = _less(low[k], _less(re[n, k], im[n, k]))
            high[k] = _less(high[k], _less(-re[n, k], -im[n, k]))
    scale, zero = low.copy(), low.copy()
    for k in range(lanes):
        span = -high[k] - low[k]
        scale[k] = np.float32(1) if span <= np.float32(TINIEST_RANGE) else span / levels
        zero[k] = np.rint(least - low[k] / scale[k])
        zero[k] = min(max(zero[k], np.float32(ZERO_LOW)), np.float32(ZERO_HIGH))
    for n in range(pairs):
        for k in range(lanes):
            re[n, k] = _rounded(re[n, k], scale[k], zero[k], least, most)
            im[n, k] = _rounded(im[n, k], scale[k], zero[k], least, most)


@njit(error_model="numpy")
def _live(u, A, B, C, y, levels, least, most, peak):  # type: ignore[no-untyped-def]
    """Fill y (h, l, b), each of the three roundings by the range of a sample and head."""
    heads, length, count = u.shape
    pairs = A.shape[1]
    for h in range(heads):
        for first in range(0, count, LANES):
            lanes = min(LANES, count - first)
            re = np.zeros((pairs, LANES), np.float32)
            im = np.zeros((pairs, LANES), np.float32)
            pr, pi, br, bi = (np.zeros_like(re), np.zeros_like(re), re.copy(), re.copy())
            out = np.zeros(LANES, np.float32)
            for t in range(length):
                for n in range(pairs):
                    a, b = A[h, n], B[h, n]
                    for k in range(lanes):
                        x = u[h, t, first + k]
                        pr[n, k] = a.real * re[n, k] - a.imag * im[n, k]
                        pi[n, k] = a.real * im[n, k] + a.imag * re[n, k]
                        br[n, k], bi[n, k] = b.real * x, b.imag * x
                _round_live(pr, pi, levels, least, most)
                _round_live(br, bi, levels, least, most)
                out[:] = np.float32(0)
                for n in range(pairs):
                    c = C[h, n]
                    for k in range(lanes):
                        re[n, k], im[n, k] = pr[n, k] + br[n, k], pi[n, k] + bi[n, k]
                        out[k] += c.real * re[n, k] - c.imag * im[n, k]
                _round_live(re, im, levels, least, most)
                for n in range(pairs):
                    for k in range(lanes):
                        re[n, k] = _clamped(re[n, k], peak)
                        im[n, k] = _clamped(im[n, k], peak)
                for k in range(lanes):
                    y[h, t, first + k] = np.float32(2) * out[k]


def recurrence(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, bits: int | None, found: Range | None
) -> tuple[Tensor, Range]:
    """y (b, l, h) of the input u (b, l, h), and the range (h, n) of the state of an exact one.

    A, B, C (h, n) complex. `found` is the state's static range; without it, it is live.
    """
    heads_first = u.permute(2, 1, 0).contiguous().numpy()  # (h, l, b)
    weights = tuple(w.to(torch.complex64).numpy() for w in (A, B, C))
    y = np.zeros_like(heads_first)
    low, high = np.zeros((2, *A.shape, LANES), np.float32)  # the first A·x is 0
    if bits is None:
        _exact(heads_first, *weights, y, low, high)
    else:
        codes = np.float32(-(2 ** (bits - 1))), np.float32(2 ** (bits - 1) - 1)
        if found is None:
            levels = np.float32(2**bits - 1)
            _live(heads_first, *weights, y, levels, *codes, np.float32(STATE_PEAK))
        else:
            numbers = (number.numpy() for number in scale_and_zero(found, bits))
            _static(heads_first, *weights, y, *numbers, *codes, np.float32(STATE_PEAK))
    ends = low.min(-1), high.max(-1)
    return torch.from_numpy(y).permute(2, 1, 0), Range(*map(torch.from_numpy, ends))


# -- the network -----------------------------------------------------------------------------------


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32, for inputs that are normalised: the same function."""
    out = {
        name: w.to(torch.complex64 if w.is_complex() else torch.float32)
        for name, w in weights.items()
    }
    out["encoder.bias"] = (weights["encoder.bias"] + MEAN * weights["encoder"][:, 0]).float()
    out["encoder"] = (weights["encoder"] * DEVIATION).float()
    return out


def deployed(model: S4D, bits: Bits) -> dict[str, Tensor]:
    """The weights of a one-layer model as their code rounds them."""
    weights, at = folded(model.weights), "layers.0."
    for name in ("encoder", at + "out_proj", "head", at + "D"):
        weights[name] = rounded_weight(weights[name], bits.weights)
    for name, width in (("A", bits.A), ("B", bits.weights), ("C", bits.weights)):
        weights[at + name] = rounded_weight(weights[at + name], width, kept=(0,))
    return weights


GELUS = {
    "exact": F.gelu,
    "theirs": lambda x: x * (x + 2).clamp(0, 4) / 4,
}


@dataclass(frozen=True)
class Network:
    """A one-layer S4D under their quantizer. `ranges` are static, by the name of what is rounded."""

    model: S4D
    bits: Bits
    ranges: Mapping[str, Range]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, dict[str, Range]]:
        """Logits (b, 10) of pixels (b, l, 1) in [0, 1], and the ranges that were met."""
        weights, at, met = deployed(self.model, self.bits), "layers.0.", {}

        def passes(name: str, x: Tensor, kept: tuple[int, ...] = ()) -> Tensor:
            met[name] = range_of(x, kept)
            return rounded(x, self.ranges.get(name, met[name]), self.bits.activations)

        x = passes("input", (pixels - MEAN) / DEVIATION)
        u = passes("u", F.linear(x, weights["encoder"], weights["encoder.bias"]), kept=(2,))
        static = self.ranges["state"] if self.bits.time == "static" and self.bits.state else None
        y, met["state"] = recurrence(
            u, *(weights[at + name] for name in "ABC"), self.bits.state, static
        )
        y = passes("recurrent", y.clamp(-Y_PEAK, Y_PEAK), kept=(2,))
        y = passes("y", y + weights[at + "D"] * u, kept=(2,))
        y = passes("out_proj_in", GELUS[self.bits.gelu](y))
        z = F.glu(F.linear(y, weights[at + "out_proj"], weights[at + "out_proj.bias"]), dim=-1)
        z = passes("head_in", z.mean(1))
        return F.linear(z, weights["head"], weights["head.bias"]), met


def calibrated(model: S4D, pixels: Tensor) -> dict[str, Range]:
    """The static ranges of a batch of images, at full precision."""
    return Network(model, Bits(), {})(pixels)[1]


def correct(network: Network, pixels: Tensor, labels: Tensor, batch: int) -> np.ndarray:
    """1 for each image whose class is the label, else 0, in batches of images."""
    found = []
    for first in range(0, len(pixels), batch):
        logits = network(pixels[first : first + batch])[0]
        told = labels[first : first + batch]
        found.append((logits.argmax(1) == told).numpy())
    return np.concatenate(found).astype(np.float64)
