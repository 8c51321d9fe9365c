"""Normal numbers that are the same on every machine, and the tap that adds them.

A counter says where a number is used (place, sequence, step) and a key for what (seed, draw,
site), as in stochastic rounding, so noise is the same in any batch and in steps as in sequences.
Two words of Philox make a pair of normal numbers (Box and Muller 1958), in float64 and in the
arithmetic of `arithmetic`:

    r = sqrt(-2 log((w0 + 1) / 2^32)),  a = 2 pi w1 / 2^32,  (r cos a, r sin a)

A complex value takes both, for its parts; a real one the first. Beyond 6.7 there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import pi

import torch
from torch import Tensor

from sensprobe.numerics.arithmetic import Pair, log, sin_cos
from sensprobe.numerics.pcm import programmed
from sensprobe.numerics.philox import key_of, philox, words_like, words_of_state
from sensprobe.numerics.rounding import real_view
from sensprobe.numerics.storage import Noisy, Storage, Watched
from sensprobe.numerics.taps import RoundingTap, Tap
from sensprobe.plans.noise import Draw, Gaussian, Noise
from sensprobe.plans.sites import Kind, Site

Key = tuple[int, int]
MARK = 0x4E6F6973
"""The last word of the counter that a key is made of."""


def key_of_draw(draw: Draw, site: str, device: int = 0) -> Key:
    """The key of a site's noise in one draw; `device` tells several random numbers of one value
    apart. No two seeds, draws, sites or devices share one, nor with stochastic rounding, but by
    chance (1 in 2^64)."""
    low, high, which, mark = (
        torch.tensor(c) for c in (draw.index & 0xFFFFFFFF, draw.index >> 32, device, MARK)
    )
    words = philox((low, high, which, mark), key_of(draw.seed, site))
    return int(words[0]), int(words[1])


@torch.no_grad()
def normals(words: list[Tensor]) -> Pair:
    """Two independent normal numbers (float64) of the first two words of each counter."""
    r = (-2 * log((words[0].double() + 1) * 2.0**-32)).sqrt()
    sine, cosine = sin_cos(words[1].double() * (2 * pi * 2.0**-32))
    return r * cosine, r * sine


def _parts(pair: Pair, pairs: bool) -> Tensor:
    return torch.stack(pair, dim=-1) if pairs else pair[0]


def normal_like(x: Tensor, key: Key, first: int = 0, step: int = 0) -> Tensor:
    """Normal numbers (float64) for every element of x, those of a complex one as its real view, by
    position (see `words_like`)."""
    return _parts(normals(words_like(x, key, first, step)), x.is_complex())


TOGETHER = 1 << 16
"""Numbers drawn at once: what Philox passes through then stays in the cache."""


def _drawn(x: Tensor, key: Key, first: int, step: int) -> Tensor:
    """`normal_like` in float32, a few rows of the leading axis at a time."""
    rows = max(1, TOGETHER // max(x[:1].numel(), 1))
    parts = [
        normal_like(part, key, first + i * rows, step).float()
        for i, part in enumerate(x.split(rows))
    ]
    return torch.cat(parts).to(x.device)


def noisy_weight(w: Tensor, noise: Noise, site: Site, draw: Draw) -> Tensor:
    """A weight (float32 or complex64, as deployed) as a device of this draw holds it. A gradient
    passes straight through to w."""
    exact = real_view(w.detach()).contiguous()
    if isinstance(noise, Gaussian):
        sigma = exact.abs().max() * noise.amount if exact.numel() else exact.sum()
        change = sigma * _drawn(w.detach(), key_of_draw(draw, site.name), 0, 0)
    else:
        values = programmed(
            exact.double(), noise,
            lambda k: normal_like(w.detach(), key_of_draw(draw, site.name, k)),
        )  # fmt: skip
        change = values.float() - exact
    return w + (torch.view_as_complex(change) if w.is_complex() else change)


@dataclass(frozen=True, slots=True)
class NoiseTap:
    """A tap that adds the noise of a draw to activations and states after `inner` has rounded them.
    Its weights are those of `inner`, which holds them with noise already (`noisy_weight`).

    `sigmas` has the standard deviations by site. `first` and `step` as of `RoundingTap`.
    """

    inner: Tap
    sigmas: Mapping[str, float]
    draw: Draw
    first: int = 0
    step: int = 0

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        x = self.inner(site, x)
        if site.kind is Kind.WEIGHT or site.name not in self.sigmas:
            return x
        noise = _drawn(x.detach(), key_of_draw(self.draw, site.name), self.first, self.step)
        noise = torch.view_as_complex(noise) if x.is_complex() else noise
        return x + self.sigmas[site.name] * noise

    def storage(self, site: Site) -> Storage:
        inner = self.inner.storage(site)
        if site.name not in self.sigmas:
            return inner
        assert not isinstance(inner, Watched | Noisy)
        key, sigma, first = key_of_draw(self.draw, site.name), self.sigmas[site.name], self.first

        def noise(x: Tensor, step: int) -> Tensor:
            words = words_of_state(x, site.is_complex, key, first, step)
            return sigma * _parts(normals(words), site.is_complex).float().to(x.device)

        return Noisy(inner, noise)

    def at(self, first: int) -> NoiseTap:
        """The same tap for a batch that starts at another position."""
        return replace(self, first=first, inner=self._placed(lambda tap: tap.at(first)))

    def after(self, steps: int) -> NoiseTap:
        """The same tap for sequences of which `steps` steps are over."""
        return replace(self, step=steps, inner=self._placed(lambda tap: tap.after(steps)))

    def _placed(self, move: Callable[[RoundingTap], RoundingTap]) -> Tap:
        return move(self.inner) if isinstance(self.inner, RoundingTap) else self.inner
