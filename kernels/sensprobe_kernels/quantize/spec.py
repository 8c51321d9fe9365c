"""How a number is stored: one description, `Spec`, and what kernels are given of it.

    Spec.flags()       the key that a kernel is compiled for: `Flags`, small whole numbers
    Spec.constants()   the float32 numbers of its arithmetic: `Constants`
    Spec.settings()    whole numbers it reads while it runs: `Settings`
    Spec.known()       calibrated scales, with the bounds of the codes

`sensprobe.ops.specs.spec_of` makes a Spec of a scheme. A program's table of stores
(`program.ir.Stored`) has rows of flags and settings, and `quantize.gpu.rounds_of` makes the
value that Triton compiles for from flags and constants.

The files of a new rounding mode or granularity: CONTRIBUTING.md, "A scheme option".
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numpy.typing import NDArray

from sensprobe_kernels.jit import inline
from sensprobe_kernels.quantize.rounding import NEAREST

Array: TypeAlias = NDArray[np.float32]

# What a scale spans. STATIC scales are calibrated, at least a head's; STATIC_EACH: fewer numbers
# share one. Dynamic scales: GROUP, those of `group` numbers along n; TENSOR, of a head or of all.
EXACT, STATIC, STATIC_EACH, GROUP, TENSOR = range(5)
# The numbers that codes stand for. The steps of WIDE floats have reciprocals beyond float32; ANY
# number of float32 is kept as it is.
INTEGER, FLOAT, WIDE, ANY = range(4)
# How a number is divided by its scale and rounded (see `lanes.kept`): not divided; divided; by the
# reciprocal in two parts; the same, and rounded by a shift, which is for finite numbers.
UNSCALED, DIVIDED, FUSED, SHIFTED = range(4)
# How a dynamic scale is stored, as `sensprobe.plans.scheme.Scales` names it.
SCALES = ("s16", "s32", "pow2")
S16, S32, POW2 = range(3)


class Flags(NamedTuple):
    """The key of compiled code: constants when it is compiled, so branches that they exclude leave
    no code. Whole numbers from the lists above and from `rounding`; the last three are 0 or 1."""

    span: int
    code: int
    rounding: int
    quotient: int
    asym: int
    feedback: int
    clip: int


class Constants(NamedTuple):
    """float32 numbers of a scheme, an array in this order. `levels` is `peak` under another name:
    the largest code of formats with a zero point. `clip` is 0 where states are not clamped."""

    peak: float
    levels: float
    zero_peak: float
    step_floor: float  # 2^e of the smallest normal number
    step_shift: float  # 2^-mantissa bits
    clip: float
    smallest: float  # scale
    largest: float  # scale


PEAK, LEVELS, ZERO_PEAK, STEP_FLOOR, STEP_SHIFT, CLIP, SMALLEST, LARGEST = range(
    len(Constants._fields)
)


class Settings(NamedTuple):
    """Whole numbers that compiled code reads: it is not specialised on them. See `Spec`."""

    group: int
    parts: int
    scales: int
    every: int
    key0: int
    key1: int


class Spec(NamedTuple):
    """How the numbers of one tensor are stored. The defaults keep them as they are.

    Codes: INTEGER ones go to `peak` on both sides, or from 0 to `peak` around a zero point if
    `asym`. FLOAT and WIDE ones have `mantissa` bits and normal numbers from 2^`floor` on.

    Scales: `scaled` says that there are some. Of STATIC ones `scale` and `zero` are dense: one for
    each number. Dynamic ones span `group` numbers along n (GROUP), or all heads or, if `by_head`,
    one (TENSOR); `parts` gives real and imaginary parts a scale each. They are stored as `scales`
    says, between `smallest` and `largest`, beside zero points up to `zero_peak`.

    States: clamped to ±`clip` if there is one, rounded every `every` steps; `feedback` adds the
    error back at the next step.

    Random bits: `key`, and `first`, the position of the batch's first sequence in its data set.
    """

    code: int = ANY
    peak: float = 0.0
    asym: bool = False
    mantissa: int = 0
    floor: int = 0
    rounding: int = NEAREST
    feedback: bool = False
    span: int = EXACT
    scaled: bool = False
    group: int = 0
    by_head: bool = False
    parts: bool = False
    scales: int = S16
    smallest: float = 0.0
    largest: float = 0.0
    zero_peak: float = 0.0
    scale: Array | None = None
    zero: Array | None = None
    clip: float | None = None
    every: int = 1
    first: int = 0
    key: tuple[int, int] = (0, 0)

    def flags(self) -> Flags:
        """The key of code compiled for this Spec."""
        return Flags(
            self.span, self.code, self.rounding, self.quotient(), int(self.asym),
            int(self.feedback), int(self.clip is not None),
        )  # fmt: skip

    def constants(self) -> Constants:
        """The numbers of the arithmetic, rounded to float32."""
        values = [
            self.peak, self.peak, self.zero_peak, 2.0**self.floor, 2.0**-self.mantissa,
            0.0 if self.clip is None else self.clip, self.smallest, self.largest,
        ]  # fmt: skip
        return Constants(*np.array(values, np.float32).tolist())

    def settings(self, n: int) -> Settings:
        """The whole numbers that compiled code reads; a Spec without groups has groups of n."""
        return Settings(self.group or n, int(self.parts), self.scales, self.every, *self.key)

    def known(self, shape: tuple[int, ...]) -> Array:
        """(5, *shape): scale, inverse, rest, low and high of `lanes.Scale` for each number.

        The bounds are multiples of the scale.
        """
        peak = np.float32(self.peak)
        scale = np.ones(shape, np.float32) if self.scale is None else self.scale
        low = np.full(shape, -peak) if self.zero is None else -self.zero
        high = np.full(shape, peak) if self.zero is None else peak - self.zero
        with np.errstate(all="ignore"):
            inverse = np.float32(1) / scale
            rest = (1 / scale.astype(np.float64) - inverse).astype(np.float32)
        return np.stack([scale, inverse, rest, low, high])

    def apart_along(self, axis: int) -> Spec:
        """This Spec, with STATIC_EACH for STATIC if the calibrated scales differ along an axis."""
        known = [x for x in (self.scale, self.zero) if x is not None]
        if self.span != STATIC or all((x == x.take([0], axis)).all() for x in known):
            return self
        return self._replace(span=STATIC_EACH)

    def quotient(self) -> int:
        """UNSCALED, FUSED where a product with the reciprocal is the quotient, else DIVIDED."""
        if not self.scaled:
            return UNSCALED
        usual = self.rounding == NEAREST and (self.code == INTEGER or self.floor > -100)
        short = self.scales == S16 if self.scale is None else _short(self.scale)
        near = self.zero is None or bool((np.abs(self.zero) < 2**15).all())
        return FUSED if usual and short and near and _has_fused() else DIVIDED


def _short(scale: Array) -> bool:
    """True if all scales are positive float16 numbers."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    return bool((half == scale).all() and (scale > 0).all() and np.isfinite(half).all())


@cache
def _has_fused() -> bool:
    """True if the processor has fused multiply-add, as x86 reports and ARM always has."""
    features = get_host_cpu_features()
    return bool(features.get("fma") or features.get("neon"))


# -- in compiled code -----------------------------------------------------------------------------


@inline
def flags_of(
    span: int, code: int, rounding: int, quotient: int, asym: int, feedback: int, clip: int
) -> Flags:
    """Flags, whose type is the same for constants: a type of its own would be compiled apart."""
    return Flags(span, code, rounding, quotient, asym, feedback, clip)


@inline
def safe(flags: Flags) -> Flags:
    """These flags with FUSED for SHIFTED, which is for finite numbers only."""
    quotient = FUSED if flags.quotient == SHIFTED else flags.quotient
    return flags_of(
        flags.span, flags.code, flags.rounding, quotient, flags.asym, flags.feedback, flags.clip
    )


@inline
def exactly(flags: Flags) -> Flags:
    """The flags of a step after which nothing is rounded."""
    return flags_of(flags.span, ANY, NEAREST, UNSCALED, 0, 0, 0)
