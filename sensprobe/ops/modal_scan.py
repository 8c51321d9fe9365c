"""The diagonal complex recurrence of S5, whose modes are all driven by all inputs.

    h_t = store(A h_{t-1} + v_t)

v_t = B u_t and what is read of h_t are matrix products over all steps at once, which a linear map
does. `store` is what memory does to the state between steps.

Arithmetic, fixed so that kernels can equal it bit for bit (float32, no contraction):

    re = (A_re h_re - A_im h_im) + v_re
    im = (A_re h_im + A_im h_re) + v_im
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from sensprobe.numerics.storage import Carry, Storage, Watched, fresh, store, stretches
from sensprobe.ops.choice import array, differentiated, feeds_back, obstacle, say, unstorable
from sensprobe.ops.specs import spec_of_pairs

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.spec import Spec


def reference(
    v: Tensor, A: Tensor, storage: Storage = None, carry: Carry | None = None
) -> tuple[Tensor, Carry]:
    """Run the recurrence over a sequence.

    v: (batch, length, 2 · heads · n) float32, head after head, real and imaginary numbers in turn.
    A: (heads, n) complex64, discretised. Returns the states after every step, of the shape of v,
    and the carry after the last one; `carry` continues an earlier run.
    """
    if carry is None:
        carry = fresh(len(v), (*A.shape, 2), storage, v.device)
    states = []
    for drive in v.unflatten(-1, (*A.shape, 2)).unbind(1):
        (re, im), (drive_re, drive_im) = carry.state.unbind(-1), drive.unbind(-1)
        new = torch.stack(
            [
                (A.real * re - A.imag * im) + drive_re,
                (A.real * im + A.imag * re) + drive_im,
            ],
            dim=-1,
        )
        carry = store(carry, new, storage)
        states.append(carry.state)
    return (torch.stack(states, dim=1).flatten(2) if states else torch.zeros_like(v)), carry


def associative(v: Tensor, A: Tensor) -> Tensor:
    """The exact states of `reference` from zero, by a parallel prefix scan of the pairs (A, v):
    (a, x) then (b, y) is (b a, b x + y). Blelloch 1990; Smith et al. 2023, arXiv 2208.04933,
    appendix H."""
    x = torch.view_as_complex(v.unflatten(-1, (*A.shape, 2)).contiguous())
    states = _scanned(A.expand(x.shape[1], *A.shape), x.movedim(1, 0))[1]
    return torch.view_as_real(states.movedim(0, 1).contiguous()).flatten(2)


def _scanned(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """All prefixes of elements a (length, heads, n) and x (length, batch, heads, n)."""
    if len(a) < 2:
        return a, x
    first, second = slice(0, len(a) - 1, 2), slice(1, None, 2)
    joined = a[second] * a[first], a[second][:, None] * x[first] + x[second]
    odd_a, odd_x = _scanned(*joined)
    even_a, even_x = a[2::2], x[2::2]
    some = len(even_a)
    even_a, even_x = even_a * odd_a[:some], even_a[:, None] * odd_x[:some] + even_x
    return _in_turn(a[:1], odd_a, even_a), _in_turn(x[:1], odd_x, even_x)


def _in_turn(first: Tensor, odd: Tensor, even: Tensor) -> Tensor:
    """The element at 0, and those at 1, 3, … and 2, 4, … between one another."""
    out = first.new_empty(1 + len(odd) + len(even), *first.shape[1:])
    out[:1], out[1::2], out[2::2] = first, odd, even
    return out


# -- by a kernel ----------------------------------------------------------------------------------


def modal_scan(
    v: Tensor, A: Tensor, storage: Storage = None, carry: Carry | None = None
) -> tuple[Tensor, Carry]:
    """`reference` by the fastest implementation of it, which writes the states over v; so v must be
    no leaf of a graph. The other arguments are left as they are.

    Where a gradient is asked for, rounding passes it straight through.
    """
    if carry is None:
        carry = fresh(len(v), (*A.shape, 2), storage, v.device)
    why = obstacle("state space recurrence", [v, A, carry.state], [storage])
    if not why and differentiated([carry.state]):
        why = logging.INFO, "gradients of the state a recurrence starts from"
    spec = None
    if not why and (carry.residual is None or feeds_back(storage)):
        spec = spec_of_pairs(storage)
    if spec is None:
        say(*(why or unstorable("state", storage)))
        return reference(v, A, storage, carry)
    residual = None if carry.residual is None else carry.residual.detach().clone()
    states = _Kernel.apply(v.contiguous(), A, spec, carry, residual)
    if isinstance(storage, Watched):
        _show(states.detach(), A, carry.step, storage)
    last = states[:, -1].detach().reshape(carry.state.shape) if v.shape[1] else carry.state
    return states, Carry(last.clone(), residual, carry.step + v.shape[1])


def _show(states: Tensor, A: Tensor, step: int, storage: Watched) -> None:
    """Show the states (batch, length, numbers) of a run to the function of a storage."""
    by_step = states.movedim(1, 0)
    for some in stretches(len(by_step), 4 * by_step[:1].numel()):
        storage.look(by_step[some].unflatten(-1, (*A.shape, 2)), step + some.start)


class _Kernel(torch.autograd.Function):
    """The states of the recurrence, written over v; a residual is written to."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, A: Tensor, spec: Spec, carry: Carry, residual: Tensor | None
    ) -> Tensor:
        from sensprobe_kernels.ops.modal_scan.cpu import Run, scan

        left = None if residual is None else residual.numpy()
        run = Run(v.detach().numpy(), _pairs(A), array(carry.state), spec, carry.step)
        scan(run, left, torch.get_num_threads())
        ctx.mark_dirty(v)
        ctx.save_for_backward(v, A, carry.state)
        return v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        from sensprobe_kernels.ops.modal_scan.cpu import gradient

        states, A, start = ctx.saved_tensors
        threads = torch.get_num_threads()
        dv, dA = gradient(array(states), _pairs(A), array(start), array(slope), threads)
        return torch.from_numpy(dv), torch.view_as_complex(torch.from_numpy(dA)), None, None, None


def _pairs(A: Tensor) -> NDArray[np.float32]:
    """Complex numbers as (…, 2) float32."""
    return array(torch.view_as_real(A.detach().resolve_conj()))
