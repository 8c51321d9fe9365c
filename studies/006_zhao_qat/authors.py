"""The quantizer of Zhao et al. (arXiv 2506.12480) as their code computes it, written anew.

Where it differs from this product's, and from what the paper says:

- A state is rounded three times a step: A·x, B·u, and their sum. y reads the sum of the two rounded
  products, before the third rounding. What is kept is the state after the third, clamped to ±50; y
  is clamped to ±1000. With a static range all three are on one grid, so that the third only clips.
- A range is a quantile of 99.999 % along one axis after the other, each of which takes a value that
  is there: along fewer than 50,000 values that is the extreme.
- Static ranges are those of one batch that runs at full precision. That of the state spans A·x, B·u
  and the sum of all steps, and is one a head *and* pair; a live one spans the pairs of a sample and
  head, at each of the three roundings.
- Codes are asymmetric, from -2^(b-1) to 2^(b-1) - 1, with a zero point of 16 bits. A, B and C have
  a scale a head, D and linear weights one a tensor; biases are exact.
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
from authors_scan import (
    LANES,
    TINIEST_RANGE,
    ZERO_HIGH,
    ZERO_LOW,
    scan_exact,
    scan_live,
    scan_static,
)
from torch import Tensor

from sensprobe.models.s4d_layers import S4D

MEAN, DEVIATION = 0.1307, 0.3081
"""Of pixels in [0, 1]; their input is (pixel - MEAN) / DEVIATION."""
STATE_PEAK, Y_PEAK = 50.0, 1000.0


class Range(NamedTuple):
    """The least and the largest value of a tensor, or of each of its heads."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True, slots=True)
class Bits:
    """The widths of a model; None keeps exact. `weights` are all but A, `activations` all but the
    state. `time` is that of the state's range, "static" or "live"; `gelu` is "exact" or "theirs".
    """

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
        scan_exact(heads_first, *weights, y, low, high)
    else:
        codes = np.float32(-(2 ** (bits - 1))), np.float32(2 ** (bits - 1) - 1)
        if found is None:
            levels = np.float32(2**bits - 1)
            scan_live(heads_first, *weights, y, levels, *codes, np.float32(STATE_PEAK))
        else:
            numbers = (number.numpy() for number in scale_and_zero(found, bits))
            scan_static(heads_first, *weights, y, *numbers, *codes, np.float32(STATE_PEAK))
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
    """A one-layer S4D under their quantizer. `ranges` are the static ones, by what is rounded."""

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
