"""The selective recurrence of Mamba-2 (arXiv 2405.21060): one a head of P channels.

A head has one dt and one decay a step; B and C are shared by the heads of a group. The equations
and their arithmetic are those of `selective_scan`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensprobe.numerics.storage import Carry, Rounded, Storage, fresh, passed, store
from sensprobe.ops.exponential import exponential
from sensprobe.ops.selective_kernel import Call, fastest, run
from sensprobe.ops.selective_scan import over_time, total
from sensprobe.plans.scheme import Rounding


def reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """Mamba-2's recurrence over a sequence.

    x: (batch, length, heads, p). dt: (batch, length, heads). A: (heads,). B, C: (batch, length,
    groups, n), each for heads / groups heads that follow one another. float32. `decay` is how the
    decay (heads,) is rounded, `storage` how the state is kept. Returns y, as x, and the carry, of
    state (batch, heads, p, n), after the last step; `carry` continues an earlier one.
    """
    batch, _, heads, p = x.shape
    groups, n = B.shape[2:]
    if carry is None:
        carry = fresh(batch, (heads, p, n), storage, x.device)

    def step(t: int, carry: Carry) -> tuple[Tensor, Carry]:
        a = passed(exponential(dt[:, t] * A), decay, carry.step)  # (b, h)
        B_t, C_t = (v[:, t].repeat_interleave(heads // groups, dim=1)[:, :, None] for v in (B, C))
        drive = (dt[:, t, :, None] * x[:, t])[..., None] * B_t
        carry = store(carry, a[:, :, None, None] * carry.state + drive, storage)
        return total(C_t * carry.state), carry

    return over_time(x, step, carry)


# -- by a kernel ----------------------------------------------------------------------------------


def head_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """`reference` by the fastest implementation of it; its arguments are left as they are.

    Gradients come from a kernel as well; rounding passes them on as if it were not there.
    """
    if carry is None:
        carry = fresh(x.shape[0], (*x.shape[2:], B.shape[-1]), storage, x.device)
    return fastest(_by_kernel, reference, x, dt, A, B, C, decay, storage, carry)


def _by_kernel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage, storage: Storage,
    carry: Carry,
) -> tuple[Tensor, Carry]:  # fmt: skip
    """The kernel's result. A decay is one number a head and step, a tensor like dt: it is computed
    and rounded here, for all steps."""
    return run(x, dt, _decays(dt * A, decay, carry.step), None, B, C, Call(storage, carry))


def _decays(exponents: Tensor, decay: Storage, step: int) -> Tensor:
    """Every decay as the recurrence goes on with it: (batch, length, heads)."""
    raw = exponential(exponents)
    return _StraightThrough.apply(raw, decay, step) if isinstance(decay, Rounded) else raw


class _StraightThrough(torch.autograd.Function):
    """Rounding that passes gradients as if it were not there."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, decay: Rounded, step: int) -> Tensor:
        if decay.scheme.rounding is Rounding.STOCHASTIC:
            steps = [passed(a, decay, step + t) for t, a in enumerate(raw.unbind(1))]
            return torch.stack(steps, dim=1) if steps else raw
        return passed(raw.flatten(0, 1), decay, step).view(raw.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None, None
