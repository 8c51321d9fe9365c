"""Schemes: how one tensor is stored. One text form that parses, prints and round-trips.

    FORMAT[/GRANULARITY][/sym|asym][/RANGE][/static|dynamic][/ROUNDING][/OPTION…]

`FORMATS` of `formats` lists the formats; `OPTIONS` below is the one table of all that may stand
behind one, from which texts are read, printed, checked and explained (`grammar` shows it). Options
come in any order. A scale is simulated as it is stored, rounding included. A zero point is int16
(int32 with s32 scales); the polar formats store the low end of a range instead, as float16
(float32). `fp32` (or `exact`) keeps a tensor as it is.

A dynamic range of a state spans one sequence at one step, that of an activation one time step.
Neither spans the batch, so that a sequence's result does not depend on its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from math import ceil, isfinite, prod
from typing import Any

from sensprobe.errors import SchemeError
from sensprobe.plans.formats import FP32, UNSCALED, Format, Int, LogPolar, Polar, parse_format
from sensprobe.plans.sites import Axis, Site

TINIEST, HUGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # normal numbers of float32


class Rounding(StrEnum):
    """The rule by which a value becomes one of the format's."""

    NEAREST = "nearest"  # ties to even
    TRUNCATE = "truncate"  # toward zero: never grows |A|
    STOCHASTIC = "stochastic"  # up with the probability of the remainder; unbiased
    FEEDBACK = "feedback"  # nearest, and the error is added back at the next step
    GPTQ = "gptq"  # nearest, column by column, and the columns after make up for the error


class Scales(StrEnum):
    """The formats that scales are stored in."""

    S16 = "s16"
    S32 = "s32"
    POW2 = "pow2"


SCALE_BYTES = {Scales.S16: 2, Scales.S32: 4, Scales.POW2: 1}
ZERO_BYTES = {Scales.S16: 2, Scales.S32: 4, Scales.POW2: 2}
ZERO_PEAK = {Scales.S16: 2**15 - 1, Scales.S32: 2**23 - 1, Scales.POW2: 2**15 - 1}
"""Largest zero point. int32 stops at 2^23: code minus zero point stays exact in float32."""
RESIDUAL_BYTES = 2
"""Error feedback keeps its residual as bf16."""


# -- the grammar ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    """The number inside a word: the field it is for, how it is written, read and printed."""

    field: str
    pattern: str
    read: Callable[[str], object]  # SchemeError where it is out of range
    show: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Word:
    """One thing to say. `form` is how help shows it; capitals in it stand for the number."""

    form: str
    says: Mapping[str, object]  # fields and their values
    number: Number | None = None

    @property
    def letters(self) -> str:
        """The part of the word that is written as it is."""
        return re.split("[^a-z]", self.form)[0] if self.number else self.form

    def read(self, text: str) -> dict[str, object] | None:
        """The fields that a text sets; None where it is not this word."""
        pattern = self.number.pattern if self.number else ""
        if (match := re.fullmatch(f"{self.letters}({pattern})", text)) is None:
            return None
        if self.number is None:
            return dict(self.says)
        try:
            return {**self.says, self.number.field: self.number.read(match[1])}
        except SchemeError as error:
            raise SchemeError(f"{text[:40]!r}: {error}") from None

    def is_said(self, scheme: Scheme) -> bool:
        """True if it describes a scheme. A word that is a number alone does unless at default."""
        if not self.says and self.number is not None:
            return getattr(scheme, self.number.field) != DEFAULTS[self.number.field]
        return all(getattr(scheme, name) == value for name, value in self.says.items())

    def show(self, scheme: Scheme) -> str:
        """The word as a scheme prints it."""
        number = self.number
        return self.letters + (number.show(getattr(scheme, number.field)) if number else "")


@dataclass(frozen=True, slots=True)
class Option:
    """A part of a scheme's text, of which at most one word may be said.

    `default` is what holds where none is, the form of a word where one says so; `needs` name what
    must hold where another is said (see `NEEDS`).
    """

    name: str
    default: str
    needs: tuple[str, ...]
    about: str
    words: tuple[Word, ...]

    def word(self, scheme: Scheme) -> str:
        """The word that a scheme prints of the option; "" where it is at its default."""
        said = next((word for word in self.words if word.is_said(scheme)), None)
        return "" if said is None or said.form == self.default else said.show(scheme)

    @property
    def forms(self) -> str:
        """Its words, as help and errors show them."""
        return "|".join(word.form for word in self.words)


def _words(field: str, *values: str) -> tuple[Word, ...]:
    """Words that say their own name of a field."""
    return tuple(Word(str(value), {field: value}) for value in values)


def _count(what: str) -> Callable[[str], int]:
    """A reader of whole numbers from 1 to 999999999."""

    def read(digits: str) -> int:
        if len(digits) > 9 or int(digits) < 1:
            raise SchemeError(f"{what} must be from 1 to 999999999.")
        return int(digits)

    return read


def _seed(digits: str) -> int:
    if len(digits) > 18:
        raise SchemeError("a seed has at most 18 digits.")
    return int(digits or 0)


def _bounds(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    return (float(low) + 0.0, float(high)) if colon else (-float(low), float(low))  # -0 + 0 is 0


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _shown_bounds(given: tuple[float, float]) -> str:
    low, high = given
    return _number(high) if low == -high else f"{_number(low)}:{_number(high)}"


_REAL = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
OPTIONS = (
    Option(
        "granularity", "tensor", ("scaled",),
        "what shares a scale: groupK is K values along the last axis; decoupled (static states) is "
        "a scale of the channel times one of the state variable",
        (
            *_words("granularity", "tensor", "channel", "head"),
            Word("groupK", {"granularity": "group"},
                 Number("group", r"\d+", _count("a group"), str)),
            *_words("granularity", "decoupled"),
        ),
    ),
    Option(
        "symmetry", "sym", ("coupled", "own_ranges", "integer"),
        "asym stores a zero point (integers only)",
        (Word("sym", {"asym": False}), Word("asym", {"asym": True})),
    ),
    Option(
        "parts", "one scale", ("own_ranges", "scaled"),
        "a scale each for real and imaginary parts",
        (Word("parts", {"parts": True}),),
    ),
    Option(
        "range", "absmax",
        ("coupled", "own_ranges", "scaled", "static", "finite", "wide", "ordered", "centred",
         "above_50"),
        "what a scale covers: the extremes, a percentile (p99.9), the range of the least squared "
        "error, or one that is given: ±R or LO to HI",
        (
            *_words("range", "absmax"),
            Word("pPERCENT", {"range": "percentile"},
                 Number("percent", r"\d+(?:\.\d+)?", float, _number)),
            *_words("range", "mse"),
            Word("rangeR|rangeLO:HI", {"range": "given"},
                 Number("given", rf"-?{_REAL}(?::-?{_REAL})?", _bounds, _shown_bounds)),
        ),
    ),
    Option(
        "time", "static", ("coupled", "scaled"),
        "static ranges are calibrated once, dynamic ones are those of the values at hand",
        (Word("static", {"dynamic": False}), Word("dynamic", {"dynamic": True})),
    ),
    Option(
        "rounding", "nearest", ("polar_rounding", "rounded"),
        "to nearest, toward zero, up or down by chance, with the error fed back (states), or with "
        "errors fed forward to later columns (projections, see `gptq`)",
        (
            *_words("rounding", Rounding.NEAREST, Rounding.TRUNCATE),
            Word("stochastic[SEED]", {"rounding": Rounding.STOCHASTIC},
                 Number("seed", r"\d*", _seed, lambda seed: str(seed or ""))),
            *_words("rounding", Rounding.FEEDBACK, Rounding.GPTQ),
        ),
    ),
    Option(
        "clip", "no clamp", ("a_clamp",), "states: clamp to ±R before rounding",
        (Word("clipR", {}, Number("clip", _REAL, float, _number)),),
    ),
    Option(
        "every", "every1", ("rounded",), "states: round every K-th step only",
        (Word("everyK", {}, Number("every", r"\d+", _count("the number of steps"), str)),),
    ),
    Option(
        "scales", "s16", ("scaled",),
        "how scales are stored: float16, float32, or as int8 exponents of 2",
        _words("scales", *Scales),
    ),
    Option(
        "hadamard", "as it is", ("real",),
        "rounded in the basis of a Hadamard transform of the last axis",
        (Word("hadamard", {"hadamard": True}),),
    ),
)  # fmt: skip
"""All that may stand behind a format, in the order in which it is printed."""


@dataclass(frozen=True, slots=True)
class Need:
    """A condition that an option puts on its scheme `s`, and the error where it does not hold."""

    holds: Callable[[Scheme], bool]
    otherwise: str


def _is_polar(scheme: Scheme) -> bool:
    return isinstance(scheme.format, Polar | LogPolar)


NEEDS = {
    "real": Need(
        lambda s: s.format != FP32 and not _is_polar(s),
        "{s.format} takes no hadamard: it is for real numbers that are rounded.",
    ),
    "coupled": Need(
        lambda s: s.granularity != "decoupled",
        "decoupled scales are static, symmetric and of the extremes.",
    ),
    "own_ranges": Need(
        lambda s: not _is_polar(s),
        "{s.format} sets its own ranges: leave out asym, parts and RANGE.",
    ),
    "polar_rounding": Need(
        lambda s: not _is_polar(s) or s.rounding in (Rounding.NEAREST, Rounding.TRUNCATE),
        "{s.format} rounds to nearest or truncates, not {s.rounding}.",
    ),
    "integer": Need(
        lambda s: not s.asym or isinstance(s.format, Int),
        "asym needs an integer format, not {s.format}: zero points are integers.",
    ),
    "scaled": Need(
        lambda s: s.scaled,
        "{s.format} is stored without scales: leave out granularity, parts, range, dynamic and "
        "scales.",
    ),
    "static": Need(
        lambda s: not s.dynamic,
        "a dynamic range is that of the values at hand: leave out percentile, mse and range.",
    ),
    "rounded": Need(
        lambda s: s.format != FP32, "fp32 is kept as it is: there is nothing to round."
    ),
    "a_clamp": Need(
        lambda s: s.clip is not None and TINIEST <= s.clip <= HUGEST,
        "{word}: a state is clamped to ± a number float32 can name, from {tiny:g} to {huge:g}.",
    ),
    "finite": Need(
        lambda s: s.range != "given" or max(map(abs, s.given)) <= HUGEST,
        "range{s.given[0]:g}:{s.given[1]:g} is beyond float32, which ends at {huge:g}.",
    ),
    "wide": Need(
        lambda s: s.range != "given" or not 0 < s.given[1] - s.given[0] < TINIEST,
        "range{s.given[0]:g}:{s.given[1]:g} is narrower than {tiny:g}, float32's least.",
    ),
    "ordered": Need(
        lambda s: s.range != "given" or (s.given[0] < s.given[1] and all(map(isfinite, s.given))),
        "range{s.given[0]:g}:{s.given[1]:g} is empty: LO must lie below HI.",
    ),
    "centred": Need(
        lambda s: s.range != "given" or s.asym or s.given[0] == -s.given[1],
        "a range that is not ± one number needs asym.",
    ),
    "above_50": Need(
        lambda s: s.range != "percentile" or 50 < s.percent <= 100,
        "p{s.percent:g}: a percentile lies above 50 and at most at 100.",
    ),
}
"""The conditions that options name, in the order in which they are checked."""


def grammar() -> str:
    """The table of options as Markdown: words, what they say, what holds without one."""
    rows = [
        f"| {o.name} | `{o.forms.replace('|', '` `')}` | {o.about} | {o.default} |" for o in OPTIONS
    ]
    return "\n".join(["| option | words | what they say | default |", "|---|---|---|---|", *rows])


# -- schemes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scheme:
    """The way one tensor is stored. `parse` builds one from text; `str` is its canonical form."""

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
        _words_of(self)  # checks them

    @property
    def exact(self) -> bool:
        """True if the tensor is left as it is."""
        return self == EXACT

    @property
    def scaled(self) -> bool:
        """True if values are stored relative to scales."""
        return self.format not in UNSCALED

    @property
    def bits_per_real(self) -> float:
        """Bits of the codes of a real number, without scales."""
        return self.format.bits / (2 if _is_polar(self) else 1)

    def __str__(self) -> str:
        return "/".join([str(self.format), *_words_of(self).values()])


@lru_cache(maxsize=4096)
def _words_of(scheme: Scheme) -> dict[str, str]:
    """Option -> the word that a scheme prints of it, without those at their default; SchemeError
    that names the first need of these that does not hold."""
    words = {option.name: word for option in OPTIONS if (word := option.word(scheme))}
    said = {need: words[o.name] for o in OPTIONS if o.name in words for need in o.needs}
    for name, need in NEEDS.items():
        if name in said and not need.holds(scheme):
            told = {"s": scheme, "word": said[name], "tiny": TINIEST, "huge": HUGEST}
            raise SchemeError(need.otherwise.format(**told))
    return words


DEFAULTS = {f.name: f.default for f in fields(Scheme)}
EXACT = Scheme(FP32)

LONGEST = 200
"""Characters of a scheme's text. The longest that says anything has 120."""


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
        option, values = _read_word(word, text)
        if option in seen:
            raise SchemeError(
                f"scheme {text!r} says {seen[option]!r} and {word!r}: only one {option}."
            )
        seen[option] = word
        given |= values
    format = parse_format(head)
    try:
        return Scheme(format, **given)  # type: ignore[arg-type]
    except SchemeError as error:
        raise SchemeError(f"scheme {text!r}: {error}") from None


def _read_word(text: str, whole: str) -> tuple[str, dict[str, object]]:
    """The option that a word is of, and the fields it sets."""
    for option in OPTIONS:
        for word in option.words:
            if (values := word.read(text)) is not None:
                return option.name, values
    raise SchemeError(
        f"scheme {whole!r} has a word that means nothing here: {text!r}. After the format come "
        f"{', '.join(option.forms for option in OPTIONS)}."
    )


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
    """The number of scales stored for one copy of the tensor; 0 for unscaled formats."""
    if not scheme.scaled:
        return 0
    return prod(scale_shape(scheme, site))
