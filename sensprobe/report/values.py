"""Numbers as text: the quantity they measure, their error, and the digits that it supports.

A measured value is shown to the precision its error bar supports (Particle Data Group rule: two
digits of the error where they lie below 36, else one). A difference within 1.96 standard errors
of zero is called noise, and every table and figure marks it with a dot. Where a result carries the
p of a test that suits its tails (differences of regression, see `score`), that decides instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor, isfinite, isinf, isnan, log10, nan, sqrt
from typing import Any

from sensprobe.scores.metrics import MetricInfo, info_named
from sensprobe.scores.score import LEVEL, Z95

NOISE = "·"
UNSTABLE = "▲"
MISSING = "–"
ROUNDING = 1e-12
"""Errors below this part of a value are rounding of the sum that gave them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its standard error; NaN stands for what was not measured or is not known."""

    value: float = nan
    stderr: float = nan
    n: int | None = None
    p: float = nan  # by chance, where another test than the error's decides (see `score`)

    @property
    def known(self) -> bool:
        return not isnan(self.value)

    @property
    def differs(self) -> bool:
        """True if the value is a difference: further from zero than its error bar explains.

        An infinite value differs from anything; a finite one without a known error does not.
        """
        if isinf(self.value):
            return True
        if not isnan(self.p):
            return self.p < LEVEL
        return isfinite(self.stderr) and abs(self.value) > Z95 * self.stderr

    def times(self, factor: float) -> Measured:
        return Measured(self.value * factor, self.stderr * abs(factor), self.n, self.p)


UNKNOWN = Measured()


@dataclass(frozen=True, slots=True)
class Quantity:
    """The quantity a number measures: its name, the unit it is shown in, and which way is better.

    `scale` turns the stored number into the shown one. `sign` is +1 where more is better. Shown
    values surely below `floor` are called just that: rounding of the arithmetic, not of the model.
    """

    name: str
    unit: str = ""
    change_unit: str = ""
    scale: float = 1.0
    sign: int = -1
    floor: float = 0.0

    @property
    def paired_first(self) -> bool:
        """True of text, whose scores vary more from document to document than plans differ: what a
        plan loses to full precision, which is paired, is then the default axis."""
        return self.name == BITS.name

    @property
    def heading(self) -> str:
        """Name and unit of a level: "accuracy (%)"."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def change_heading(self) -> str:
        """Name and unit of a difference to full precision: "accuracy change (points)"."""
        name = f"{self.name} change"
        return f"{name} ({self.change_unit})" if self.change_unit else name

    def shown(self, measured: Measured) -> Measured:
        """A stored value in the shown unit."""
        return measured.times(self.scale)

    def level(self, measured: Measured) -> str:
        """A stored level as text: "97.5 ± 0.8"."""
        return plus_minus(self.shown(measured))

    def change(self, measured: Measured) -> str:
        """A stored difference as text, with its sign; noise behind a dot: "· −0.5 ± 0.8"."""
        shown = self.shown(measured)
        return flagged(plus_minus(shown, signed=True), shown)


KL = Quantity("KL divergence", "nats", "nats", floor=1e-6)
DISTANCE = Quantity("output distance")
ADDITIVES = {"kl": KL, "distance": DISTANCE}


def quantity_of(info: MetricInfo) -> Quantity:
    """The quantity of a headline metric, as it declares itself."""
    return Quantity(info.name, info.unit, info.change_unit, info.scale, info.sign)


def metric_named(name: str, sign: int | None = None) -> Quantity:
    """The quantity that a document of an older run means by a metric's name and sign."""
    return quantity_of(info_named(name, sign))


ACCURACY = metric_named("accuracy")


BITS = metric_named("bits_per_byte")


def additive_named(name: str) -> Quantity:
    return ADDITIVES.get(name, Quantity(name))


def real(value: Any) -> float:
    """A JSON number as a float; null, text and anything else as NaN."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else nan


def measured(document: Any) -> Measured:
    """The `{"value", "stderr", "n"}` of a result document; UNKNOWN where it is null."""
    if not isinstance(document, Mapping):
        return UNKNOWN
    n = document.get("n")
    return Measured(
        real(document.get("value")),
        real(document.get("stderr")),
        n if isinstance(n, int) and not isinstance(n, bool) else None,
        real(document.get("p")),
    )


# -- digits -------------------------------------------------------------------------------------


def decimals(stderr: float) -> int:
    """Decimals (negative: powers of ten) that an error of this size supports."""
    exponent = floor(log10(stderr))
    leading = stderr / 10.0**exponent
    return (1 if leading < 3.55 else 0) - exponent


def number(value: float, places: int, *, signed: bool = False) -> str:
    """A number with that many decimals and a true minus sign."""
    if isnan(value):
        return MISSING
    if isinf(value):
        return "−∞" if value < 0 else "∞"
    text = f"{round(value, places):{'+' if signed else ''},.{max(places, 0)}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def digits(value: float, count: int = 2, *, signed: bool = False) -> str:
    """A number without an error bar, to `count` significant digits; powers of ten where small."""
    if not isfinite(value):
        return number(value, 0)
    if value == 0:
        return "0"
    exponent = floor(log10(abs(value)) + 1e-12)
    if -4 < exponent < 7:
        return number(value, count - 1 - exponent, signed=signed)
    text = f"{value:{'+' if signed else ''}.{count - 1}e}"
    mantissa, _, power = text.partition("e")
    return f"{mantissa}e{int(power)}".replace("-", "−")


def plus_minus(shown: Measured, *, signed: bool = False) -> str:
    """ "−1.25 ± 0.40", both to the precision the error supports. "–" where nothing is known."""
    value, stderr = shown.value, shown.stderr
    if not isfinite(value):
        return number(value, 0)
    if not isfinite(stderr):
        return f"{digits(value, 3, signed=signed)} ± ?"
    if stderr <= ROUNDING * abs(value):  # no sample differs from another: the spread is unknown
        return digits(value, 3, signed=signed)
    places = decimals(stderr)
    if places > 4:
        power = min(floor(log10(max(abs(value), stderr))), 0)
        scaled = shown.times(10.0**-power)
        places = max(decimals(scaled.stderr), 0)
        body = f"{number(scaled.value, places, signed=signed)} ± {number(scaled.stderr, places)}"
        return f"({body})e{power}".replace("-", "−")
    return f"{number(value, places, signed=signed)} ± {number(stderr, places)}"


def level_text(quantity: Quantity, shown: Measured, *, bars: bool = True) -> str:
    """A level (not a difference): "0.0144 ± 0.0012", or "< 1e−6" under the quantity's floor."""
    if shown.value + Z95 * shown.stderr < quantity.floor:
        return f"< {digits(quantity.floor, 1)}"
    return plus_minus(shown) if bars else short(shown)


def flagged(text: str, shown: Measured) -> str:
    """A difference as it is; noise behind a dot."""
    return text if shown.differs or not shown.known else f"{NOISE} {text}"


def short(shown: Measured, *, signed: bool = False) -> str:
    """The value alone, to the digits its error supports."""
    text = plus_minus(shown, signed=signed)
    if text.startswith("("):
        return digits(shown.value, signed=signed)
    return text.partition(" ± ")[0]


# -- bytes --------------------------------------------------------------------------------------

KIB = 1024
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def byte_unit(sizes: Iterable[float]) -> tuple[str, int]:
    """The unit that suits the median of some sizes, and how many bytes it is."""
    known = sorted(size for size in sizes if isfinite(size) and size > 0)
    middle = known[len(known) // 2] if known else 0
    for name, count in _UNITS:
        if middle >= count:
            return name, count
    return "bytes", 1


def in_bytes(size: float) -> str:
    """A size on its own: "312 bytes", "11.98 KiB"."""
    if not isfinite(size):
        return MISSING
    name, count = byte_unit([size])
    return f"{size:,.0f} bytes" if count == 1 else f"{size / count:,.2f} {name}"


def byte_ticks(low: float, high: float, most: int = 9) -> tuple[str, list[tuple[float, str]]]:
    """The unit of a log axis from `low` to `high` bytes, and its ticks (bytes, name).

    As fine as `most` ticks and three digits behind the point allow: powers of two, with halves and
    quarters between.
    """
    unit, count = byte_unit([sqrt(low * high)])
    found: list[float] = []
    for steps in ((1.0,), (1.0, 1.5), (1.0, 1.25, 1.5, 1.75)):
        every = [m * 2.0**k for k in range(-9, 60) for m in steps]
        finer = [s for s in every if low <= s * count <= high]
        if not found or (len(finer) <= most and all(s == round(s, 3) for s in finer)):
            found = finer
    return unit, [(step * count, f"{step:g}") for step in found]


def shortened(text: str, width: int) -> str:
    """At most `width` characters, the middle left out, on one line."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
