"""Analog noise: what the values of a site are perturbed with when a model runs. Plain data.

    0.01                            Gaussian; its standard deviation is this share of a range
    pcm(levels=16,on_off=50,t=3600) a weight in pairs of phase-change devices, read t seconds after

The range of a weight is max|w| of the whole tensor as it is deployed, after the plan's rounding; of
an activation or a state the largest magnitude seen on the calibration split at full precision. A
complex number is two real ones, and a tensor's two parts share a range. `numerics.noise` and
`numerics.pcm` draw the numbers.

Entries (pattern, noise) name sites as those of a plan do, and a later one overrides an earlier.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sensprobe.errors import UsageError
from sensprobe.plans.plan import no_match
from sensprobe.plans.sites import Kind, Site, matching

READ_AFTER = 20.0
"""Seconds after programming at which the conductance that programming reached is read."""
MOST_LEVELS = 1 << 16
"""As many as 16 bits tell apart, which no device comes near."""
_CALL = re.compile(r"pcm(?:\((.*)\))?")


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Normal noise of standard deviation `amount` times the site's range, independent of all else:
    of a weight drawn once a programming, of an activation or a state at every step."""

    amount: float

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 1:
            raise UsageError(
                f"noise of {self.amount:g}: it is a share of the range, from 0 to 1 (0.01 is 1 %)."
            )

    @property
    def nothing(self) -> bool:
        """True where it changes no number."""
        return self.amount == 0

    def __str__(self) -> str:
        return _number(self.amount)


@dataclass(frozen=True, slots=True)
class Pcm:
    """A weight as the difference of two phase-change devices (see `numerics.pcm`).

    `levels` conductances are told apart, evenly spaced from the lowest to the highest; 0 for any.
    `on_off` is the highest over the lowest, infinite where the lowest is 0. The devices are read
    `t` seconds after they were programmed.
    """

    levels: int = 0
    on_off: float = math.inf
    t: float = READ_AFTER

    def __post_init__(self) -> None:
        rules = {
            f"levels is 0 (any conductance) or from 2 to {MOST_LEVELS:,}": (
                self.levels == 0 or 2 <= self.levels <= MOST_LEVELS
            ),
            "on_off is above 1": self.on_off > 1,
            f"t is at least {READ_AFTER:g} (seconds after programming), and finite": (
                READ_AFTER <= self.t < math.inf
            ),
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise UsageError(f"{self}: {'; '.join(broken)}.")

    @property
    def nothing(self) -> bool:
        """False: programming alone changes every number."""
        return False

    def __str__(self) -> str:
        told = {
            "levels": (self.levels, 0),
            "on_off": (self.on_off, math.inf),
            "t": (self.t, READ_AFTER),
        }
        stated = [f"{name}={_number(x)}" for name, (x, default) in told.items() if x != default]
        return f"pcm({','.join(stated)})" if stated else "pcm"


Noise: TypeAlias = Gaussian | Pcm
Entries: TypeAlias = tuple[tuple[str, Noise], ...]
Noises: TypeAlias = dict[str, Noise]
"""Site name -> noise, sites without any left out, in the order of the model's sites."""


def _number(x: int | float) -> str:
    """The shortest text that reads back as the number."""
    short = f"{x:g}"
    return short if isinstance(x, float) and float(short) == x else str(x)


def parse(text: str) -> Noise:
    """The noise that a text names; UsageError says what is wrong with it."""
    if found := _CALL.fullmatch(text):
        options: dict[str, Any] = dict(
            _option(one, text) for one in (found[1] or "").split(",") if one
        )
        return Pcm(**options)
    try:
        return Gaussian(float(text))
    except ValueError:
        raise UsageError(
            f"no noise {text!r}: give a share of the range (0.01), or pcm(levels=N,on_off=R,"
            "t=SECONDS), each of which may be left out."
        ) from None


def _option(text: str, whole: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    try:
        return name, {"levels": int, "on_off": float, "t": float}[name](value)
    except (KeyError, ValueError):
        raise UsageError(
            f"{whole!r}: {text!r} is none of levels=N (whole), on_off=R and t=SECONDS."
        ) from None


def parse_entry(text: str) -> tuple[str, Noise]:
    """One `PATTERN=AMOUNT` as the command line takes it."""
    pattern, equals, noise = text.partition("=")
    if not (equals and pattern and noise):
        raise UsageError(f"{text!r} is not PATTERN=AMOUNT, as in 'weights=0.01'.")
    return pattern, parse(noise)


def why_not(noise: Noise, site: Site) -> str | None:
    """Why a site cannot have a noise; None if it can."""
    if isinstance(noise, Pcm) and site.kind is not Kind.WEIGHT:
        return (
            f"pcm is of weights, which devices are programmed to; {site.name} is "
            f"{'a state' if site.kind is Kind.STATE else 'an activation'}, whose noise is a share "
            "of its range (0.01)"
        )
    return None


def resolve(entries: Iterable[tuple[str, Noise]], sites: Iterable[Site]) -> Noises:
    """The noise of every site that has some.

    Raises PlanError for a pattern that names no site, UsageError for a noise that fits none of
    those it names, or not the one it names in full.
    """
    sites = list(sites)
    chosen: Noises = {}
    for pattern, noise in entries:
        found = matching(pattern, sites)
        if not found:
            raise no_match(pattern, sites, "the noise")
        fits = [site for site in found if why_not(noise, site) is None]
        if not fits or any(site.name == pattern and site not in fits for site in found):
            raise UsageError(f"{pattern}={noise}: {why_not(noise, found[0])}.")
        chosen |= dict.fromkeys((site.name for site in fits), noise)
    return {
        s.name: chosen[s.name] for s in sites if s.name in chosen and not chosen[s.name].nothing
    }


@dataclass(frozen=True)
class Draw:
    """One draw of noise: device number `index` of those that `seed` makes, and one inference on it.

    Equal draws give equal numbers on every machine, whatever runs before or beside.
    """

    noises: Mapping[str, Noise]
    seed: int = 0
    index: int = 0

    @property
    def fingerprint(self) -> str:
        """The identity of the draw, 16 hex digits."""
        told = sorted((name, str(noise)) for name, noise in self.noises.items())
        text = json.dumps([told, self.seed, self.index])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
