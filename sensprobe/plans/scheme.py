"""Schemes: how one tensor is stored. One text form that parses, prints and round-trips.

    FORMAT[/GRANULARITY][/sym|asym][/RANGE][/static|dynamic][/ROUNDING][/OPTION…]

| field       | words                                              | default   |
|-------------|----------------------------------------------------|-----------|
| FORMAT      | int2…int16 e4m3 e5m2 e2m1 log3…log8 bf16 fp16 fp32 | required  |
|             | polar(mM,pP) logpolar(mM,pP), for complex numbers  |           |
| GRANULARITY | tensor, channel, head, groupK (K along the last axis), | tensor |
|             | decoupled (static states: a channel's times a variable's) |     |
| symmetry    | sym, asym (integers only: a zero point is stored)  | sym       |
| RANGE       | absmax, pPERCENT (p99.9), mse, rangeR (±R), rangeLO:HI | absmax |
| time        | static (calibrated once), dynamic (read live)      | static    |
| ROUNDING    | nearest, truncate (toward zero), stochastic[SEED], feedback (states), |   |
|             | gptq (projections: errors fed forward, see `gptq`) | nearest   |
| hadamard    | rounded in the basis of a Hadamard transform of the last axis | as it is |
| parts       | a scale each for real and imaginary parts          | one scale |
| clipR       | states: clamp to ±R before rounding                | no clamp  |
| everyK      | states: round every K-th step only                 | every1    |
| scales      | s16 (float16), s32 (float32), pow2 (int8 exponent) | s16       |

After the format the words may come in any order. A scale is simulated as it is stored, rounding
included. A zero point is int16 (int32 beside s32 scales); the polar formats store the low end of a
range instead, as float16 (float32). `fp32` (or `exact`) keeps a tensor as it is.

What a dynamic range spans: a state's, one sequence at one step; an activation's, one time step.
It never spans the batch, so that a sequence's result does not depend on its neighbours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import ceil, isfinite, prod

from sensprobe.errors import SchemeError
from sensprobe.plans.formats import FP32, UNSCALED, Format, Int, LogPolar, Polar, parse_format
from sensprobe.plans.sites import Axis, Site

TINIEST, HUGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # normal numbers of float32
GRANULARITIES = ("tensor", "channel", "head", "group", "decoupled")


class Rounding(StrEnum):
    """How a value becomes one of the format's."""

    NEAREST = "nearest"  # ties to even
    TRUNCATE = "truncate"  # toward zero: never grows |A|
    STOCHASTIC = "stochastic"  # up with the probability of the remainder; unbiased
    FEEDBACK = "feedback"  # nearest, and the error is added back at the next step
    GPTQ = "gptq"  # nearest, column by column, and the columns after make up for the error


class Scales(StrEnum):
    """How scales are stored."""

    S16 = "s16"
    S32 = "s32"
    POW2 = "pow2"


SCALE_BYTES = {Scales.S16: 2, Scales.S32: 4, Scales.POW2: 1}
ZERO_BYTES = {Scales.S16: 2, Scales.S32: 4, Scales.POW2: 2}
ZERO_PEAK = {Scales.S16: 2**15 - 1, Scales.S32: 2**23 - 1, Scales.POW2: 2**15 - 1}
"""Largest zero point. int32 stops at 2^23: code minus zero point stays exact in float32."""
RESIDUAL_BYTES = 2
"""Error feedback keeps its residual as bf16."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one tensor is stored. Build from text with `parse`; `str` gives the canonical form."""

    format: Format
    granularity: str = "tensor"
    group: int = 0  # values along the last axis that share a scale; only with granularity "group"
    asym: bool = False
    range: str = "absmax"  # absmax | percentile | mse | given
    percent: float = 100.0
    given: tuple[float, float] = (0.0, 0.0)
    dynamic: bool = False
    rounding: Rounding = Rounding.NEAREST
    seed: int = 0
    parts: bool = False
    clip: float | None = None
    every: int = 1
    scales: Scales = Scales.S16
    hadamard: bool = False

    def __post_init__(self) -> None:
        _check_alone(self)

    @property
    def exact(self) -> bool:
        """Whether the tensor is left as it is."""
        return self == EXACT

    @property
    def scaled(self) -> bool:
        return self.format not in UNSCALED

    @property
    def bits_per_real(self) -> float:
        if isinstance(self.format, Polar | LogPolar):
            return self.format.bits / 2
        return self.format.bits

    def __str__(self) -> str:
        words = [str(self.format)]
        if self.granularity != "tensor":
            words.append(self.granularity + (str(self.group) if self.group else ""))
        words += ["asym"] * self.asym + ["parts"] * self.parts + _range_words(self)
        words += ["dynamic"] * self.dynamic
        if self.rounding is not Rounding.NEAREST:
            words.append(self.rounding + (str(self.seed) if self.seed else ""))
        words += [f"clip{_number(self.clip)}"] if self.clip is not None else []
        words += [f"every{self.every}"] if self.every != 1 else []
        words += [self.scales.value] if self.scales is not Scales.S16 else []
        words += ["hadamard"] * self.hadamard
        return "/".join(words)


def _range_words(scheme: Scheme) -> list[str]:
    if scheme.range == "percentile":
        return [f"p{scheme.percent!r}".removesuffix(".0")]
    if scheme.range == "given":
        low, high = scheme.given
        return [f"range{_number(high)}" if low == -high else f"range{_number(low)}:{_number(high)}"]
    return ["mse"] if scheme.range == "mse" else []


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _check_alone(scheme: Scheme) -> None:
    """What can be wrong with a scheme whatever tensor it is put on."""
    if scheme.hadamard and (scheme.format == FP32 or isinstance(scheme.format, Polar | LogPolar)):
        raise SchemeError(
            f"{scheme.format} takes no hadamard: it is for real numbers that are rounded."
        )
    if scheme.granularity == "decoupled" and (
        scheme.asym or scheme.dynamic or scheme.range != "absmax"
    ):
        raise SchemeError("decoupled scales are static, symmetric and of the extremes.")
    if isinstance(scheme.format, Polar | LogPolar) and (
        scheme.asym or scheme.parts or scheme.range != "absmax"
    ):
        raise SchemeError(f"{scheme.format} sets its own ranges: leave out asym, parts and RANGE.")
    if isinstance(scheme.format, Polar | LogPolar) and scheme.rounding not in (
        Rounding.NEAREST,
        Rounding.TRUNCATE,
    ):
        raise SchemeError(f"{scheme.format} rounds to nearest or truncates, not {scheme.rounding}.")
    if scheme.asym and not isinstance(scheme.format, Int):
        raise SchemeError(
            f"asym needs an integer format, not {scheme.format}: zero points are integers."
        )
    if not scheme.scaled and (
        scheme.granularity != "tensor"
        or scheme.parts
        or scheme.range != "absmax"
        or scheme.dynamic
        or scheme.scales is not Scales.S16
    ):
        raise SchemeError(
            f"{scheme.format} is stored without scales: leave out granularity, parts, range, "
            "dynamic and scales."
        )
    if scheme.dynamic and scheme.range != "absmax":
        raise SchemeError(
            "a dynamic range is the one read live: leave out percentile, mse and range."
        )
    if scheme.format == FP32 and (scheme.rounding is not Rounding.NEAREST or scheme.every != 1):
        raise SchemeError("fp32 is kept as it is: there is nothing to round.")
    if scheme.clip is not None and not TINIEST <= scheme.clip <= HUGEST:
        raise SchemeError(
            f"clip{_number(scheme.clip)}: a state is clamped to ± a number float32 can name, "
            f"from {TINIEST:g} to {HUGEST:g}."
        )
    low, high = scheme.given
    if scheme.range == "given" and max(abs(low), abs(high)) > HUGEST:
        raise SchemeError(f"range{low:g}:{high:g} is beyond float32, which ends at {HUGEST:g}.")
    if scheme.range == "given" and high - low < TINIEST and low < high:
        raise SchemeError(f"range{low:g}:{high:g} is narrower than {TINIEST:g}, float32's least.")
    if scheme.range == "given" and not (low < high and isfinite(low) and isfinite(high)):
        raise SchemeError(f"range{low:g}:{high:g} is empty: LO must lie below HI.")
    if scheme.range == "given" and not scheme.asym and low != -high:
        raise SchemeError("a range that is not ± one number needs asym.")
    if scheme.range == "percentile" and not 50 < scheme.percent <= 100:
        raise SchemeError(f"p{scheme.percent:g}: a percentile lies above 50 and at most at 100.")


EXACT = Scheme(FP32)

LONGEST = 200
"""Characters of a scheme's text. The longest that says anything has 120."""
_DIGITS = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_WORDS: list[tuple[str, str]] = [
    (r"(tensor|channel|head|decoupled)", "granularity"),
    (r"group(\d+)", "group"),
    (r"(sym|asym)", "symmetry"),
    (r"(absmax|mse)", "range"),
    (r"p(\d+(?:\.\d+)?)", "percentile"),
    (rf"range(-?{_DIGITS})(?::(-?{_DIGITS}))?", "given"),
    (r"(static|dynamic)", "time"),
    (r"(nearest|truncate|feedback|gptq)", "rounding"),
    (r"stochastic(\d*)", "stochastic"),
    (r"(parts)", "parts"),
    (rf"clip({_DIGITS})", "clip"),
    (r"every(\d+)", "every"),
    (r"(s16|s32|pow2)", "scales"),
    (r"(hadamard)", "hadamard"),
]
_SLOT = {"group": "granularity", "percentile": "range", "given": "range", "stochastic": "rounding"}


@lru_cache(maxsize=4096)
def parse(text: str) -> Scheme:
    """The scheme a text stands for.

    Raises SchemeError naming the word that is unknown or said twice, and the words that exist.
    """
    if len(text) > LONGEST:
        raise SchemeError(
            f"a scheme of {len(text):,} characters ({text[:40]!r}…): none has more than {LONGEST}."
        )
    head, *words = text.strip().split("/")
    given: dict[str, object] = {}
    seen: dict[str, str] = {}
    for word in words:
        slot, values = _read_word(word, text)
        if slot in seen:
            raise SchemeError(f"scheme {text!r} says {seen[slot]!r} and {word!r}: only one {slot}.")
        seen[slot] = word
        given |= values
    format = parse_format(head)
    try:
        return Scheme(format, **given)  # type: ignore[arg-type]
    except SchemeError as error:
        raise SchemeError(f"scheme {text!r}: {error}") from None


def _read_word(word: str, text: str) -> tuple[str, dict[str, object]]:
    for pattern, name in _WORDS:
        if match := re.fullmatch(pattern, word):
            return _SLOT.get(name, name), _FIELDS[name](match)
    raise SchemeError(
        f"scheme {text!r} has a word that means nothing here: {word!r}. After the format come "
        "tensor|channel|head|groupK|decoupled, sym|asym, absmax|pPERCENT|mse|rangeR|rangeLO:HI, "
        "static|dynamic, "
        "nearest|truncate|stochastic|feedback|gptq, hadamard, parts, clipR, everyK, s16|s32|pow2."
    )


def _positive(match: re.Match[str], what: str) -> int:
    digits = match[1]
    if len(digits) > 9 or not int(digits) >= 1:
        raise SchemeError(f"{match[0][:40]!r}: {what} must be from 1 to 999999999.")
    return int(digits)


def _seed(match: re.Match[str]) -> int:
    if len(match[1]) > 18:
        raise SchemeError(f"{match[0][:40]!r}: a seed has at most 18 digits.")
    return int(match[1] or 0)


def _given(match: re.Match[str]) -> dict[str, object]:
    low, high = float(match[1]), float(match[2] or match[1])
    return {"range": "given", "given": (low + 0.0 if match[2] else -high, high)}  # -0 + 0 is 0


_FIELDS = {
    "granularity": lambda m: {"granularity": m[1]},
    "group": lambda m: {"granularity": "group", "group": _positive(m, "a group")},
    "symmetry": lambda m: {"asym": m[1] == "asym"},
    "range": lambda m: {"range": m[1]},
    "percentile": lambda m: {"range": "percentile", "percent": float(m[1])},
    "given": _given,
    "time": lambda m: {"dynamic": m[1] == "dynamic"},
    "rounding": lambda m: {"rounding": Rounding(m[1])},
    "stochastic": lambda m: {"rounding": Rounding.STOCHASTIC, "seed": _seed(m)},
    "parts": lambda m: {"parts": True},
    "clip": lambda m: {"clip": float(m[1])},
    "every": lambda m: {"every": _positive(m, "the number of steps")},
    "scales": lambda m: {"scales": Scales(m[1])},
    "hadamard": lambda m: {"hadamard": True},
}


def scale_shape(scheme: Scheme, site: Site) -> tuple[int, ...]:
    """Shape of the scales: the site's shape with every axis that shares a scale set to 1.

    Groups shorten the last axis to ceil(length / group). Decoupled ones are one vector: a scale a
    channel (every axis but the last), then one an element of the last axis. A complex tensor has a
    trailing axis of 2 under `parts` and 1 otherwise (polar formats: 1, the fields apart).
    """
    if scheme.granularity == "decoupled":
        return (prod(site.shape[:-1]) + site.shape[-1],)
    kept = {
        "tensor": (),
        "head": (Axis.HEAD,),
        "channel": (Axis.HEAD, Axis.CHANNEL, Axis.OUT, Axis.GROUP),
        "group": site.axes,
    }[scheme.granularity]
    shape = [size if axis in kept else 1 for size, axis in zip(site.shape, site.axes, strict=True)]
    if scheme.granularity == "group":
        shape[-1] = ceil(site.shape[-1] / scheme.group)
    if site.is_complex and not isinstance(scheme.format, Polar | LogPolar):
        shape.append(2 if scheme.parts else 1)
    return tuple(shape)


def scale_count(scheme: Scheme, site: Site) -> int:
    """How many scales are stored for one copy of the tensor; 0 for unscaled formats."""
    if not scheme.scaled:
        return 0
    return prod(scale_shape(scheme, site))
