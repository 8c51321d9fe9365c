"""How an operation stores the tensors inside it: a `Storage`, the value that a tap gives it.

A recurrence stores its state after every step (`store`). A tensor that it computes and uses up
within a step, such as the decay of a selective one, goes through `passed`.

    new state -> + residual (feedback) -> clip -> range (dynamic) -> round -> (+ noise) -> carry

The arithmetic is float32 in this order, so that kernels can repeat it bit for bit (see
`rounding`). A state is (batch, *site.shape), complex states with a trailing axis of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sensprobe.numerics.philox import grid_of_state, key_of, philox, unit
from sensprobe.numerics.rounding import min_max, quantize, scale_and_zero, spread, straight
from sensprobe.plans.formats import LogPolar, Polar
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.plans.sites import Site


@dataclass(frozen=True, slots=True)
class Rounded:
    """A state stored in a scheme.

    `scale` and `zero` (float32, the scheme's scale shape) are the calibrated ones of a static
    scheme; None for dynamic and unscaled ones. `first` is the position of the batch's first
    sequence in its data set: stochastic rounding depends on the sequence, not on the batch.
    """

    scheme: Scheme
    site: Site
    scale: Tensor | None = None
    zero: Tensor | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Custom:
    """A state passed through any function (state, step) -> state at every step.

    For noise and tests; always runs on the reference loop.
    """

    function: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class Watched:
    """A state that stays exact and is shown to a function look(states, step).

    `states` (steps, batch, …) are those of the steps from `step` on; every step is shown once and
    in order.
    """

    look: Callable[[Tensor, int], None]


@dataclass(frozen=True, slots=True)
class Noisy:
    """A tensor stored as `inner` says, to which noise is added as it is read, at every step.

    `noise` has what to add: (values, step) -> a tensor of the shape of the values. Always runs on
    the reference loop.
    """

    inner: Rounded | Custom | None
    noise: Callable[[Tensor, int], Tensor]


SHOWN_BYTES = 2**24
"""Most bytes of states that are shown at once, unless one step has more."""


def stretches(length: int, step_bytes: int) -> Iterator[slice]:
    """Slices of the steps 0 to `length`, each of as many as may be shown at once."""
    count = max(1, SHOWN_BYTES // max(step_bytes, 1))
    for start in range(0, length, count):
        yield slice(start, min(start + count, length))


Storage = Rounded | Custom | Watched | Noisy | None
"""None keeps the state exact."""


@dataclass(frozen=True, slots=True)
class Carry:
    """What goes from one step to the next: the state, the residual of error feedback (None without
    it), and the number of steps taken."""

    state: Tensor
    residual: Tensor | None = None
    step: int = 0


def fresh(
    batch: int, site_shape: tuple[int, ...], storage: Storage, device: torch.device | None = None
) -> Carry:
    """The carry before the first step, all zero; site_shape includes the trailing two of a complex
    state."""
    shape = (batch, *site_shape)
    storage = storage.inner if isinstance(storage, Noisy) else storage
    feedback = isinstance(storage, Rounded) and storage.scheme.rounding is Rounding.FEEDBACK
    return Carry(_zeros(shape, device), _zeros(shape, device) if feedback else None)


def _zeros(shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    """Zeros; on the CPU made by NumPy, whose pages are cleared when they are first written to."""
    device = torch.get_default_device() if device is None else device
    if device.type != "cpu":
        return torch.zeros(shape, device=device)
    return torch.from_numpy(np.zeros(shape, np.float32))


def store(carry: Carry, new: Tensor, storage: Storage) -> Carry:
    """The carry after `new` has been stored as the state. Where a gradient is asked for, all of a
    scheme's rounding and clipping passes it straight through."""
    step = carry.step + 1
    if storage is None:
        return Carry(new, None, step)
    if isinstance(storage, Custom):
        return Carry(storage.function(new, carry.step), None, step)
    if isinstance(storage, Noisy):
        after = store(carry, new, storage.inner)
        return replace(after, state=after.state + storage.noise(new, carry.step))
    if isinstance(storage, Watched):
        storage.look(new[None], carry.step)
        return Carry(new, None, step)
    scheme = storage.scheme
    if step % scheme.every:
        return replace(carry, state=new, step=step)
    exact = new.detach()
    v = exact if carry.residual is None else exact + carry.residual
    if scheme.clip is not None:
        v = v.clamp(-scheme.clip, scheme.clip)
    scale, zero = _scale(v, storage)
    noise = None
    if scheme.rounding is Rounding.STOCHASTIC:
        noise = state_noise(v, storage, carry.step)
    kept = quantize(v, scheme, storage.site, scale, zero, noise)
    if carry.residual is None:
        return Carry(straight(new, kept), None, step)
    # A saturated value leaves no residual beyond the range: feedback must not wind up.
    residual = (within(v, scheme, storage.site, scale, zero) - kept).to(torch.bfloat16).to(v.dtype)
    return Carry(straight(new, kept), residual, step)


def _scale(v: Tensor, storage: Rounded) -> tuple[Tensor | None, Tensor | None]:
    scheme = storage.scheme
    if not scheme.scaled:
        return None, None
    if scheme.dynamic:
        return scale_and_zero(scheme, *min_max(v, scheme, storage.site))
    assert storage.scale is not None, f"{storage.site.name}: a static state needs calibrated scales"
    return storage.scale, storage.zero


def within(
    v: Tensor, scheme: Scheme, site: Site, scale: Tensor | None, zero: Tensor | None
) -> Tensor:
    """v clamped to the range of the codes."""
    assert not isinstance(scheme.format, Polar | LogPolar)
    if scale is None:
        return v.clamp(-scheme.format.peak, scheme.format.peak)
    s = spread(scale, scheme, site)
    if zero is None:
        peak = scheme.format.peak * s
        return torch.clamp(v, min=-peak, max=peak)
    z = spread(zero, scheme, site)
    return torch.clamp(v, min=-z * s, max=(2**scheme.format.bits - 1 - z) * s)


def passed(x: Tensor, storage: Storage, step: int) -> Tensor:
    """A tensor that an operation computes at `step` and does not carry, rounded as it goes on.

    x: (batch, *site.shape) float32, real. Options of states have no effect: feedback, every, clip.
    """
    if storage is None:
        return x
    if isinstance(storage, Custom):
        return storage.function(x, step)
    if isinstance(storage, Noisy):
        return passed(x, storage.inner, step) + storage.noise(x, step)
    if isinstance(storage, Watched):
        storage.look(x[None], step)
        return x
    exact, noise = x.detach(), None
    scale, zero = _scale(exact, storage)
    if storage.scheme.rounding is Rounding.STOCHASTIC:
        noise = state_noise(exact, storage, step)
    return straight(x, quantize(exact, storage.scheme, storage.site, scale, zero, noise))


def state_noise(v: Tensor, storage: Rounded, step: int) -> Tensor:
    """Uniform noise for a state, by its counters (`grid_of_state`).

    v: (batch, …, n), complex ones (batch, heads, n, 2). The real part takes the first word of the
    counter, the imaginary one the second.
    """
    shape = v.shape[:-1] if storage.site.is_complex else v.shape
    grid = grid_of_state(shape, storage.first, step)
    words = philox(grid.counters(), key_of(storage.scheme.seed, storage.site.name))
    parts = [unit(word).reshape(shape) for word in words[: 2 if storage.site.is_complex else 1]]
    noise = torch.stack(parts, dim=-1) if storage.site.is_complex else parts[0]
    return noise.to(v.device)
