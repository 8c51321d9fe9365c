"""How an operation keeps what it holds inside: the plain value a tap hands to it.

A recurrence writes its state to a memory at every step (`store`); what it computes and uses up
within a step, such as the decay of a selective one, goes through `passed`. Both take a Storage.

    new state -> + residual (feedback) -> clip -> range (dynamic) -> round -> memory

The arithmetic is float32 in this order, so that kernels can repeat it bit for bit (see
`rounding`). A state is (batch, *site.shape), complex states with a trailing axis of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sensprobe.numerics.philox import key_of, philox, unit
from sensprobe.numerics.rounding import min_max, quantize, scale_and_zero, spread
from sensprobe.plans.formats import LogPolar, Polar
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.plans.sites import Site


@dataclass(frozen=True, slots=True)
class Rounded:
    """A state kept in a scheme.

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
    """A state kept exact and shown to a function (states, step): those of the steps from `step` on,
    (steps, batch, …), each step once and in order."""

    look: Callable[[Tensor, int], None]


SHOWN_BYTES = 2**24
"""What is shown at once, unless one step is more."""


def stretches(length: int, step_bytes: int) -> Iterator[slice]:
    """Steps 0 to `length`, as many at a time as may be shown at once."""
    count = max(1, SHOWN_BYTES // max(step_bytes, 1))
    for start in range(0, length, count):
        yield slice(start, min(start + count, length))


Storage = Rounded | Custom | Watched | None
"""None keeps the state exact."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a recurrence carries: the state, the residual of error feedback, and steps taken."""

    state: Tensor
    residual: Tensor | None = None
    step: int = 0


def fresh(
    batch: int, site_shape: tuple[int, ...], storage: Storage, device: torch.device | None = None
) -> Memory:
    """An all-zero memory; site_shape includes the trailing two of a complex state."""
    shape = (batch, *site_shape)
    feedback = isinstance(storage, Rounded) and storage.scheme.rounding is Rounding.FEEDBACK
    return Memory(_zeros(shape, device), _zeros(shape, device) if feedback else None)


def _zeros(shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    """On the CPU as NumPy makes them: pages are cleared when they are first written to."""
    device = torch.get_default_device() if device is None else device
    if device.type != "cpu":
        return torch.zeros(shape, device=device)
    return torch.from_numpy(np.zeros(shape, np.float32))


def store(memory: Memory, new: Tensor, storage: Storage) -> Memory:
    """The memory after `new` has been written to it."""
    step = memory.step + 1
    if storage is None:
        return Memory(new, None, step)
    if isinstance(storage, Custom):
        return Memory(storage.function(new, memory.step), None, step)
    if isinstance(storage, Watched):
        storage.look(new[None], memory.step)
        return Memory(new, None, step)
    scheme = storage.scheme
    if step % scheme.every:
        return replace(memory, state=new, step=step)
    v = new if memory.residual is None else new + memory.residual
    if scheme.clip is not None:
        v = v.clamp(-scheme.clip, scheme.clip)
    scale, zero = _scale(v, storage)
    noise = None
    if scheme.rounding is Rounding.STOCHASTIC:
        noise = state_noise(v, storage, memory.step)
    kept = quantize(v, scheme, storage.site, scale, zero, noise)
    if memory.residual is None:
        return Memory(kept, None, step)
    # A saturated value leaves no residual beyond the range: feedback must not wind up.
    residual = (_within(v, scheme, storage.site, scale, zero) - kept).to(torch.bfloat16).to(v.dtype)
    return Memory(kept, residual, step)


def _scale(v: Tensor, storage: Rounded) -> tuple[Tensor | None, Tensor | None]:
    scheme = storage.scheme
    if not scheme.scaled:
        return None, None
    if scheme.dynamic:
        return scale_and_zero(scheme, *min_max(v, scheme, storage.site))
    assert storage.scale is not None, f"{storage.site.name}: a static state needs calibrated scales"
    return storage.scale, storage.zero


def _within(
    v: Tensor, scheme: Scheme, site: Site, scale: Tensor | None, zero: Tensor | None
) -> Tensor:
    """v clamped to what the codes reach."""
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
    """What an operation goes on with of a tensor it computed at `step` and does not keep.

    x: (batch, *site.shape) float32, real. Nothing is carried: no feedback, no every, no clip.
    """
    if storage is None:
        return x
    if isinstance(storage, Custom):
        return storage.function(x, step)
    if isinstance(storage, Watched):
        storage.look(x[None], step)
        return x
    scale, zero = _scale(x, storage)
    noise = None
    if storage.scheme.rounding is Rounding.STOCHASTIC:
        noise = state_noise(x, storage, step)
    return quantize(x, storage.scheme, storage.site, scale, zero, noise)


def state_noise(v: Tensor, storage: Rounded, step: int) -> Tensor:
    """Uniform noise for a state: counter (place along the last axis, row, sequence, step).

    v: (batch, …, n), complex ones (batch, heads, n, 2). Rows count all axes between. The real part
    takes the first word of the counter, the imaginary one the second.
    """
    shape = v.shape[:-1] if storage.site.is_complex else v.shape
    batch, n = shape[0], shape[-1]
    rows = shape[1:-1].numel()
    words = philox(
        (
            torch.arange(n).view(1, 1, n),
            torch.arange(rows).view(1, rows, 1),
            torch.arange(storage.first, storage.first + batch).view(batch, 1, 1),
            torch.full((1, 1, 1), step),
        ),
        key_of(storage.scheme.seed, storage.site.name),
    )
    parts = [unit(word).reshape(shape) for word in words[: 2 if storage.site.is_complex else 1]]
    noise = torch.stack(parts, dim=-1) if storage.site.is_complex else parts[0]
    return noise.to(v.device)
