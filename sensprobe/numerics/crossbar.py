"""Matrices on a crossbar (see `plans.crossbar`): codes as levels of cells, and the product of them.

    c_i   = x_i / s_x, rounded and clamped                          the DAC, in one shot
    p_k±  = sum over a block's rows of c_i g_ik±                    the column of slice k
    q_k±  = p_k± / t_k, rounded and clamped, times t_k              the ADC
    y     = s_x sum over blocks of s_w sum_k 2^(k cell_bits) (q_k+ - q_k-)       digital

s_x is the scale of the inputs, s_w those of the weight, t_k that of an ADC. Between exact levels
and codes p is a whole number, so t is never below 1, and an ADC that tells all of them apart
changes nothing. Everything is float32; whole numbers below 2^24 are exact in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.numerics.pcm import DRAWS, read_pairs
from sensprobe.numerics.rounding import Field, spread, unpack_scale
from sensprobe.plans.crossbar import Crossbar, Placed
from sensprobe.plans.noise import Gaussian, Noise

TOGETHER = 1 << 18
"""Sums that are converted at once: they stay in the cache."""
POLARITIES = 2


def sliced(codes: Tensor, slices: int, cell_bits: int) -> Tensor:
    """Levels of cells (2, slices, inputs, outputs) uint8 of codes (outputs, inputs): those of
    positive codes, then of negative ones, each from the lowest bits up."""
    both = torch.stack([codes.clamp(min=0), (-codes).clamp(min=0)]).mT
    return torch.stack([both >> k * cell_bits & 2**cell_bits - 1 for k in range(slices)], 1).to(
        torch.uint8
    )


def joined(levels: Tensor, cell_bits: int) -> Tensor:
    """The codes (outputs, inputs) int32 of levels: the inverse of `sliced`."""
    parts = [level.to(torch.int32) << k * cell_bits for k, level in enumerate(levels.unbind(1))]
    both = torch.stack(parts).sum(0, dtype=torch.int32)
    return (both[0] - both[1]).mT.contiguous()


def on_tiles(levels: Tensor, placed: Placed, crossbar: Crossbar) -> Tensor:
    """The levels of every cell: (blocks of rows, blocks of outputs, rows, columns) uint8. A tile's
    column is (output · slices + slice) · 2 + polarity; cells that hold nothing are 0."""
    blocks, across = in_blocks(levels, placed), placed.grid[1]
    blocks = F.pad(blocks, (0, across * placed.outputs - blocks.shape[-1]))
    blocks = blocks.unflatten(-1, (across, placed.outputs))  # (2, s, blocks, rows, across, o)
    columns = blocks.permute(2, 4, 3, 5, 1, 0).flatten(3)
    more = crossbar.rows - placed.rows, crossbar.columns - columns.shape[-1]
    return F.pad(columns, (0, more[1], 0, more[0])).contiguous()


def off_tiles(tiles: Tensor, placed: Placed) -> Tensor:
    """The levels (2, slices, inputs, outputs) of cells on tiles: the inverse of `on_tiles`."""
    outputs = placed.site.shape[0]
    used = tiles[..., : placed.outputs * placed.slices * POLARITIES]
    split = used.unflatten(-1, (placed.outputs, placed.slices, POLARITIES))
    rows = split.permute(5, 4, 0, 2, 1, 3).flatten(4)[..., :outputs]  # (2, s, blocks, rows, o)
    parts = [rows[:, :, k, :size] for k, size in enumerate(placed.sizes)]
    return torch.cat(parts, 2)


def _blocks(x: Tensor, placed: Placed, rows: int) -> Tensor:
    """x (…, inputs) by block of rows: (blocks, …, rows), 0 where a block is shorter."""
    return torch.stack(
        [F.pad(part, (0, rows - part.shape[-1])) for part in x.split(placed.sizes, -1)]
    )


def in_blocks(levels: Tensor, placed: Placed) -> Tensor:
    """Levels (2, slices, inputs, outputs) by block: (2, slices, blocks, rows, outputs)."""
    return _blocks(levels.mT, placed, placed.rows).movedim(0, 2).mT.contiguous()


def block_scales(stored: Field, placed: Placed) -> Tensor:
    """The weight's scale of every block of rows and output: (blocks, outputs) float32."""
    assert stored.scale is not None
    scale = spread(unpack_scale(stored.scale), placed.scheme, placed.site)
    return scale.expand(placed.site.shape)[:, placed.starts].mT.contiguous()


# -- devices --------------------------------------------------------------------------------------

Normal = Callable[[int], Tensor]
"""Normal numbers of the shape of a weight (outputs, inputs), number k of it."""


def programmed(levels: Tensor, noise: Noise, top: int, normal: Normal) -> Tensor:
    """Levels as a device holds them: float32, (2, slices, inputs, outputs).

    Gaussian noise is a share of the highest level, of every cell; conductances do not fall below 0.
    Under pcm each pair is one of phase-change devices; what a device conducts at the lowest is
    taken off, as a column of such devices does.
    """
    out = []
    for k, (plus, minus) in enumerate(levels.float().unbind(1)):
        at = 2 * DRAWS * k
        if isinstance(noise, Gaussian):
            pair = torch.stack([plus, minus])
            both = torch.stack([normal(at).mT, normal(at + DRAWS).mT])
            out.append((pair + noise.amount * top * both).clamp(min=0))
        else:
            signed = (plus - minus).mT.double()
            read, factor, unit = read_pairs(signed, noise, partial(_after, normal, at), top)
            out.append(((read * factor - 1 / noise.on_off) * unit).float().mT)
    return torch.stack(out, 1)


def _after(normal: Normal, first: int, k: int) -> Tensor:
    return normal(first + k)


# -- the product ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Array:
    """A matrix on a crossbar, as `RoundingTap.products` has one: called with inputs x (…, inputs)
    it returns (…, outputs).

    levels: (2, slices, blocks, rows, outputs) float32; scales: (blocks, outputs). `dac_scale` is
    that of the DAC, of `dac_peak` codes to either side, `adc_scales` (slices,) those of the ADCs.
    Without the latter sums are exact, and `largest` (slices,) keeps the largest of each slice,
    which `adc_scales_of` reads; it is below 0 where nothing was multiplied.
    """

    placed: Placed
    crossbar: Crossbar
    levels: Tensor
    scales: Tensor
    dac_scale: float
    dac_peak: float
    largest: Tensor
    adc_scales: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        codes = (x / self.dac_scale).clamp_(-self.dac_peak, self.dac_peak).round_()
        vectors = codes.flatten(0, -2).split(max(TOGETHER // self.scales.numel(), 1))
        y = torch.cat([self._product(some) for some in vectors])
        return y.view(*x.shape[:-1], y.shape[-1])

    def _product(self, codes: Tensor) -> Tensor:
        rows = _blocks(codes, self.placed, self.placed.rows)  # (blocks, n, rows)
        total = torch.zeros(*rows.shape[:2], self.scales.shape[1])
        for polarity, sign in enumerate((1, -1)):
            for k, levels in enumerate(self.levels[polarity]):
                unit = sign * 2.0 ** (k * self.crossbar.cell_bits) * self.dac_scale
                sums = rows @ levels  # (blocks, n, outputs)
                total.add_(sums, alpha=unit * self._convert(sums, k))
        return (total * self.scales[:, None]).sum(0)

    def _convert(self, sums: Tensor, k: int) -> float:
        """Put the codes of ADCs in place of sums, and return their scale."""
        if self.adc_scales is None:
            self.largest[k] = max(self.largest[k], *(end.abs() for end in sums.aminmax()))
            return 1.0
        scale, peak = float(self.adc_scales[k]), self.crossbar.adc.peak
        sums.div_(scale).round_().clamp_(-peak, peak)
        return scale


def array_of(
    levels: Tensor, scales: Tensor, placed: Placed, crossbar: Crossbar, dac: tuple[float, float]
) -> Array:
    """A matrix of levels (2, slices, inputs, outputs) whose sums are exact; `dac` is the scale of
    its inputs, and their largest code."""
    none = torch.full((placed.slices,), -1.0)
    return Array(placed, crossbar, in_blocks(levels.float(), placed), scales, *dac, none)


def adc_scales_of(largest: Tensor, crossbar: Crossbar) -> Tensor:
    """The scales of ADCs whose ranges are the largest sums: at least 1, as sums are whole."""
    return (largest / crossbar.adc.peak).clamp(min=1)
