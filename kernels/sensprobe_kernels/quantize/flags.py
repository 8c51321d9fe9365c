"""How numbers are stored: what a compiled scan is specialised on, and the words for it.

Flags are compile-time constants: what they exclude leaves no code behind.
"""

from __future__ import annotations

from typing import NamedTuple

from sensprobe_kernels.jit import inline

# What a scale spans. STATIC: at least a head; STATIC_EACH: less. Read live: GROUP, states of one
# head, every `group` along n; TENSOR, all heads.
EXACT, STATIC, STATIC_EACH, GROUP, TENSOR = range(5)
# What the codes name. WIDE floats have steps whose reciprocal float32 cannot hold; ANY is float32.
INTEGER, FLOAT, WIDE, ANY = 0, 1, 2, 3
# How a number becomes a whole one.
NEAREST, TRUNCATE, STOCHASTIC = 0, 1, 2
# How a number is divided by its scale and rounded (see `lanes.kept`): not divided; divided; by the
# reciprocal in two parts; the same, and rounded by a shift, which is for finite numbers.
UNSCALED, DIVIDED, FUSED, SHIFTED = 0, 1, 2, 3
# How a live scale is stored.
S16, S32, POW2 = 0, 1, 2

# Places in the array of a scheme's float32 constants.
PEAK, LEVELS, ZERO_PEAK, STEP_FLOOR, STEP_SHIFT, CLIP, SMALLEST, LARGEST = range(8)


class Flags(NamedTuple):
    """Whole numbers from the lists above; the last three are 0 or 1."""

    span: int
    code: int
    rounding: int
    quotient: int
    asym: int
    feedback: int
    clip: int


@inline
def flags_of(
    span: int, code: int, rounding: int, quotient: int, asym: int, feedback: int, clip: int
) -> Flags:
    """Flags, whose type is the same for constants: a type of its own would be compiled apart."""
    return Flags(span, code, rounding, quotient, asym, feedback, clip)


@inline
def safe(flags: Flags) -> Flags:
    """The same, for numbers that may not be finite."""
    quotient = FUSED if flags.quotient == SHIFTED else flags.quotient
    return flags_of(
        flags.span, flags.code, flags.rounding, quotient, flags.asym, flags.feedback, flags.clip
    )


@inline
def exactly(flags: Flags) -> Flags:
    """Of a step that is not rounded."""
    return flags_of(flags.span, ANY, NEAREST, UNSCALED, 0, 0, 0)
