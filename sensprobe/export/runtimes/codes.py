"""Codes and scales of a tensor that joins several sites, row by row.

A runtime's tensor is its sites' rows one after another. Each site was encoded on its own, with
scales of its own; rows and groups keep them, and a scale for a whole site is repeated for its rows.
So the joined tensor stands for exactly the numbers that the sites do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.models.apply import Applier
from sensprobe.numerics.rounding import Field, unpack_scale
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.formats import Int
from sensprobe.plans.scheme import Scales, Scheme

SCALE_DTYPE = {Scales.S16: torch.float16, Scales.S32: torch.float32, Scales.POW2: torch.float32}
FLOAT_DTYPE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Codes:
    """A quantized matrix: values are (codes - zero) · scale, a scale for each group of columns.

    codes: (rows, columns) int8, centred on 0 (of 4 bits -8 to 7), or float8_e4m3fn. scale:
    (rows, groups) float16 or float32. zero: (rows, groups) int8, or None.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None

    def values(self) -> Tensor:
        """The float32 matrix, for checks."""
        width = self.codes.shape[1] // self.scale.shape[1]
        scale = self.scale.float().repeat_interleave(width, 1)
        if self.zero is None:
            return self.codes.float() * scale
        return (self.codes.float() - self.zero.float().repeat_interleave(width, 1)) * scale


def codes_of(tensor: HfTensor, plan: dict[str, Scheme], applier: Applier) -> Codes:
    """The joined codes of a tensor whose sites' schemes are in one layout."""
    parts = [_site_codes(name, plan[name], applier) for name in tensor.sites]
    zeros = [part.zero for part in parts if part.zero is not None]
    return Codes(
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scale for part in parts]),
        torch.cat(zeros) if zeros else None,
    )


def _site_codes(name: str, scheme: Scheme, applier: Applier) -> Codes:
    field = applier.encoded(applier.model.sites[name], scheme)[""]
    assert field.scale is not None
    rows = field.codes.shape[0]
    scale = unpack_scale(field.scale).to(SCALE_DTYPE[scheme.scales])
    scale = scale.expand(rows, scale.shape[1]).contiguous()
    if not isinstance(scheme.format, Int):
        codes = field.codes.to(torch.uint8).view(torch.float8_e4m3fn)  # sign, exponent, mantissa
        return Codes(codes, scale, None)
    codes, zero = _centred(field, scheme)
    zero = None if zero is None else zero.expand(rows, zero.shape[1]).contiguous()
    return Codes(codes, scale, zero)


def _centred(field: Field, scheme: Scheme) -> tuple[Tensor, Tensor | None]:
    if field.zero is None:
        return field.codes.to(torch.int8), None
    half = 2 ** (scheme.format.bits - 1)
    return (field.codes - half).to(torch.int8), (field.zero.int() - half).to(torch.int8)


def float_of(tensor: HfTensor, scheme: Scheme, tap: RoundingTap) -> Tensor:
    """An unquantized tensor in its format, as the plan's rounding left it."""
    return tensor.of(tap.weights).to(FLOAT_DTYPE[str(scheme.format)]).contiguous()
