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
from math import pi, prod

import torch
from torch import Tensor

from sensprobe.numerics.arithmetic import Pair, log, sin_cos
from sensprobe.numerics.pcm import programmed
from sensprobe.numerics.philox import Grid, grid_of, grid_of_state, key_of, philox
from sensprobe.numerics.rounding import real_view
from sensprobe.numerics.storage import Noisy, Storage, Watched
from sensprobe.numerics.taps import RoundingTap, Tap
from sensprobe.plans.noise import Draw, Gaussian, Noise
from sensprobe.plans.sites import Site

Key = tuple[int, int]
TOGETHER = 1 << 16
"""Numbers drawn at once: what Philox passes through then stays in the cache."""
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


def numbers(grid: Grid, key: Key, pairs: bool) -> Tensor:
    """Normal numbers (float32) at every counter of a grid: sizes, and two each with `pairs`.

    The reference. A few rows of the longest leading axis at a time, which stay in the cache.
    """
    axis = next((a for a, n in enumerate(grid.sizes) if n > 1), 3)
    rows = max(1, TOGETHER * grid.sizes[axis] // max(prod(grid.sizes), 1))
    counters, parts = list(grid.counters()), []
    for some in counters[3 - axis].split(rows):
        counters[3 - axis] = some
        found = normals(philox(counters, key))
        parts.append((torch.stack(found, dim=-1) if pairs else found[0]).float())
    return torch.cat(parts, dim=axis)


Numbers = Callable[[Grid, Key, bool], Tensor]
"""`numbers`, or what computes the same."""


def noisy_weight(
    w: Tensor, noise: Noise, site: Site, draw: Draw, numbers: Numbers = numbers
) -> Tensor:
    """A weight (float32 or complex64, as deployed) as a device of this draw holds it. A gradient
    passes straight through to w."""
    exact, grid = real_view(w.detach()).contiguous(), grid_of(w.shape)

    def normal(k: int) -> Tensor:
        found = numbers(grid, key_of_draw(draw, site.name, k), w.is_complex())
        return found.view(exact.shape).to(w.device)

    if isinstance(noise, Gaussian):
        sigma = exact.abs().max() * noise.amount if exact.numel() else exact.sum()
        change = sigma * normal(0)
    else:
        values = programmed(exact.double(), noise, lambda k: normal(k).double())
        change = values.float() - exact
    return w + (torch.view_as_complex(change) if w.is_complex() else change)


@dataclass(frozen=True, slots=True)
class NoiseTap:
    """A tap that adds the noise of a draw to activations and states after `inner` has rounded them.
    Its weights are those of `inner`, which holds them with noise already (`noisy_weight`).

    `sigmas` has the standard deviations by site, of no weight. `first` and `step` are as of
    `RoundingTap`; `numbers` is the function of that name, or what computes the same.
    """

    inner: Tap
    sigmas: Mapping[str, float]
    draw: Draw
    first: int = 0
    step: int = 0
    numbers: Numbers = numbers

    @property
    def products(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Those of `inner` (see `RoundingTap`)."""
        return self.inner.products if isinstance(self.inner, RoundingTap) else {}

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        x = self.inner(site, x)
        if site.name not in self.sigmas:
            return x
        grid, key = grid_of(x.shape, self.first, self.step), key_of_draw(self.draw, site.name)
        noise = self.numbers(grid, key, x.is_complex()).view(real_view(x).shape).to(x.device)
        noise = torch.view_as_complex(noise) if x.is_complex() else noise
        return x + self.sigmas[site.name] * noise

    def storage(self, site: Site) -> Storage:
        inner = self.inner.storage(site)
        if site.name not in self.sigmas:
            return inner
        assert not isinstance(inner, Watched | Noisy)
        key, sigma, first = key_of_draw(self.draw, site.name), self.sigmas[site.name], self.first

        def noise(x: Tensor, step: int) -> Tensor:
            shape = x.shape[:-1] if site.is_complex else x.shape
            found = self.numbers(grid_of_state(shape, first, step), key, site.is_complex)
            return sigma * found.view(x.shape).to(x.device)

        return Noisy(inner, noise)

    def at(self, first: int) -> NoiseTap:
        """The same tap for a batch that starts at another position."""
        return replace(self, first=first, inner=self._placed(lambda tap: tap.at(first)))

    def after(self, steps: int) -> NoiseTap:
        """The same tap for sequences of which `steps` steps are over."""
        return replace(self, step=steps, inner=self._placed(lambda tap: tap.after(steps)))

    def _placed(self, move: Callable[[RoundingTap], RoundingTap]) -> Tap:
        return move(self.inner) if isinstance(self.inner, RoundingTap) else self.inner
