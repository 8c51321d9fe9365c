"""Rounding complex numbers that lie as real and imaginary numbers in turn, sixteen at a time.

What is of real and of imaginary numbers apart is the same value with two kinds of places: even ones
and odd ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.quantize.lanes import Scale
from sensprobe_kernels.quantize.scales import Range, across, dynamic_scale, unseen
from sensprobe_kernels.quantize.spec import Flags
from sensprobe_kernels.simd.vector import (
    Ints,
    choose,
    every,
    every_int,
    less,
    number,
    places,
)

_HALF = np.float32(0.5)


@inline
def _only(x: Ints, others: int, part: int) -> Ints:
    """x in the places of one part (0 real, 1 imaginary), `others` in the rest."""
    turn = places() & every_int(1)  # 1 in imaginary places
    inside = every_int(0) - turn if part else turn - every_int(1)  # all ones, or none
    return (x & inside) | (every_int(others) & (inside ^ every_int(-1)))


@inline
def range_of(seen: Range, part: int, flags: Flags) -> Range:
    """The range of the numbers of one part, in every place."""
    none = unseen(flags)
    if flags.asym:
        low = _only(seen.low, 0x7FFFFFFF, part)
        return across(Range(low, _only(seen.high, -0x80000000, part)))
    return across(Range(none.low, _only(seen.high, 0, part)))


@inline
def _mixed(a: Scale, b: Scale) -> Scale:
    """Scales of real and imaginary numbers in turn."""
    odd = less(every(_HALF), number(places() & every_int(1)))
    return Scale(
        choose(odd, b.scale, a.scale), choose(odd, b.inverse, a.inverse),
        choose(odd, b.rest, a.rest), choose(odd, b.low, a.low), choose(odd, b.high, a.high),
        choose(odd, b.shift, a.shift),
    )  # fmt: skip


@inline
def scale_of(seen: Range, parts: int, numbers: Any, kind: int, flags: Flags) -> Scale:
    """The dynamic scale of numbers whose range has been seen in sixteen places; with `parts` 2 real
    and imaginary numbers have one each."""
    if parts == 1:
        return dynamic_scale(across(seen), numbers, kind, flags)
    re = dynamic_scale(range_of(seen, 0, flags), numbers, kind, flags)
    im = dynamic_scale(range_of(seen, 1, flags), numbers, kind, flags)
    return _mixed(re, im)
