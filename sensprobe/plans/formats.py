"""Formats: which numbers a code can name, before any scale.

A format is a value that can list itself (`values`), so that rounding is tested against its
definition. Integers name whole numbers, floats name sign · 2^e · (1 + m), powers of two name
sign · 2^-k, and the two polar formats name complex numbers by magnitude and phase.
No torch here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from sensprobe.errors import SchemeError


@dataclass(frozen=True, slots=True)
class Int:
    """Integers of `bits` bits; symmetric codes leave the most negative one unused (int8: ±127)."""

    bits: int

    @property
    def peak(self) -> float:
        return float(2 ** (self.bits - 1) - 1)

    @property
    def levels(self) -> int:
        """Steps between the lowest and the highest code of an asymmetric range."""
        return 2**self.bits - 1

    def values(self) -> list[float]:
        top = 2 ** (self.bits - 1) - 1
        return [float(v) for v in range(-top, top + 1)]

    def __str__(self) -> str:
        return f"int{self.bits}"


@dataclass(frozen=True, slots=True)
class Float:
    """Sign, exponent, mantissa; subnormals, no infinities.

    `peak` is given: e4m3 keeps a code for NaN (448, not 480). IEEE 754 for bf16, fp16 and fp32;
    OCP 8-bit (OFP8, 2023) for e4m3 and e5m2, OCP MX (2023) for e2m1.
    """

    name: str
    exponent: int
    mantissa: int
    peak: float

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def floor(self) -> int:
        """Exponent of the smallest normal number."""
        return 2 - 2 ** (self.exponent - 1)

    def code_values(self) -> list[float]:
        """The value of every code from 0 up, positive half only; ends at `peak`."""
        out: list[float] = []
        for field in range(2**self.exponent):
            for fraction in range(2**self.mantissa):
                if field == 0:
                    value = fraction * 2.0 ** (self.floor - self.mantissa)
                else:
                    value = (1 + fraction / 2**self.mantissa) * 2.0 ** (self.floor + field - 1)
                if value > self.peak:
                    return out
                out.append(value)
        return out

    def values(self) -> list[float]:
        positive = self.code_values()
        return [-v for v in reversed(positive[1:])] + positive

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Log:
    """Zero and ± powers of two, the largest 1: a product with one is a shift."""

    bits: int
    peak: float = 1.0

    @property
    def powers(self) -> int:
        """The number of powers of two that have a code; code 0 is zero."""
        return 2 ** (self.bits - 1) - 1

    def code_values(self) -> list[float]:
        return [0.0] + [2.0 ** (k - self.powers) for k in range(1, self.powers + 1)]

    def values(self) -> list[float]:
        positive = self.code_values()
        return [-v for v in reversed(positive[1:])] + positive

    def __str__(self) -> str:
        return f"log{self.bits}"


@dataclass(frozen=True, slots=True)
class Polar:
    """A complex number as magnitude on [0, max] and phase on its observed range."""

    magnitude_bits: int
    phase_bits: int

    @property
    def bits(self) -> int:
        """Bits a complex number."""
        return self.magnitude_bits + self.phase_bits

    def __str__(self) -> str:
        return f"polar(m{self.magnitude_bits},p{self.phase_bits})"


@dataclass(frozen=True, slots=True)
class LogPolar:
    """A complex number inside the unit circle as log(1 - magnitude) and phase, each on its range.

    log(1 - |A|) spreads out the slow modes, whose decay is what a linear code rounds away.
    """

    magnitude_bits: int
    phase_bits: int

    @property
    def bits(self) -> int:
        """Bits a complex number."""
        return self.magnitude_bits + self.phase_bits

    def __str__(self) -> str:
        return f"logpolar(m{self.magnitude_bits},p{self.phase_bits})"


Scalar: TypeAlias = Int | Float | Log
ComplexFormat: TypeAlias = Polar | LogPolar
Format: TypeAlias = Scalar | ComplexFormat

E4M3 = Float("e4m3", 4, 3, 448.0)
E5M2 = Float("e5m2", 5, 2, 57344.0)
E2M1 = Float("e2m1", 2, 1, 6.0)
BF16 = Float("bf16", 8, 7, float.fromhex("0x1.fep127"))
FP16 = Float("fp16", 5, 10, 65504.0)
FP32 = Float("fp32", 8, 23, float.fromhex("0x1.fffffep127"))

FORMATS: dict[str, Scalar] = {
    **{f"int{bits}": Int(bits) for bits in range(2, 17)},
    **{f.name: f for f in (E4M3, E5M2, E2M1)},
    **{f"log{bits}": Log(bits) for bits in range(3, 9)},
    **{f.name: f for f in (BF16, FP16, FP32)},
}
"""Every scalar format by name; `polar(mM,pP)` and `logpolar(mM,pP)` come on top, 1-16 bits each."""

UNSCALED: frozenset[Format] = frozenset({BF16, FP16, FP32})
"""Formats wide enough to be stored without a scale."""

_POLAR = re.compile(r"(log)?polar\(m(\d+),p(\d+)\)")


def parse_format(text: str) -> Format:
    """The format a name stands for; SchemeError lists what exists."""
    if text == "exact":
        return FP32
    if text in FORMATS:
        return FORMATS[text]
    if len(text) < 40 and (match := _POLAR.fullmatch(text)):
        magnitude, phase = int(match[2]), int(match[3])
        if 1 <= magnitude <= 16 and 1 <= phase <= 16:
            return (LogPolar if match[1] else Polar)(magnitude, phase)
        raise SchemeError(f"{text!r}: magnitude and phase take 1 to 16 bits each.")
    raise SchemeError(
        f"no format {text[:80]!r}. Formats: int2 to int16, e4m3, e5m2, e2m1, log3 to log8, bf16, "
        "fp16, fp32 (also called exact), polar(mM,pP), logpolar(mM,pP)."
    )
