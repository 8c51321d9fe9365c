"""The diagonal complex recurrence of S4D and S5: the reference that defines what is computed.

    h_t = store(A h_{t-1} + B u_t),   y_t = 2 Re(sum_n C_n h_{t,n})

`store` is what memory does to the state between steps. It sits inside the loop because its error
feeds back; rounding the finished trajectory would measure something milder. y reads the stored
state. One of each pair of conjugate modes is kept, hence the factor 2.

Arithmetic, fixed so that kernels can equal it bit for bit (float32, no contraction):

    re = (A_re h_re - A_im h_im) + B_re u        sum over n: from n = 0 upward
    im = (A_re h_im + A_im h_re) + B_im u        y = 2 * sum (C_re re - C_im im)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from sensprobe.numerics.storage import Carry, Storage, Watched, fresh, store
from sensprobe.ops.choice import array, differentiated, feeds_back, obstacle, say, unstorable
from sensprobe.ops.kept import keep, kept
from sensprobe.ops.specs import spec_of_pairs

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.spec import Spec


def reference(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """Run the recurrence over a sequence.

    u: (batch, length, heads) float32. A, B, C: (heads, n) complex64, discretised. Returns
    y (batch, length, heads) and the carry after the last step; `carry` continues an earlier one.
    """
    batch, length, heads = u.shape
    if carry is None:
        carry = fresh(batch, (*A.shape, 2), storage, u.device)
    y = []
    for t in range(length):
        out, carry = diagonal_step(u[:, t], A, B, C, storage, carry)
        y.append(out)
    return (torch.stack(y, dim=1) if y else u.new_zeros(batch, 0, heads)), carry


def trajectory(u: Tensor, A: Tensor, B: Tensor, carry: Carry) -> Iterator[Tensor]:
    """The exact state after every step, (batch, heads, n, 2), equal to the bits of `reference`.

    Without the sums over n that make y: those take most of a step of the reference.
    """
    A_re, A_im, B_re, B_im = (part.contiguous() for part in (A.real, A.imag, B.real, B.imag))
    re, im = (part.contiguous() for part in carry.state.unbind(-1))
    for drive in u.unbind(1):
        drive = drive[:, :, None]
        re, im = (
            (A_re * re - A_im * im) + B_re * drive,
            (A_re * im + A_im * re) + B_im * drive,
        )
        yield torch.stack([re, im], dim=-1)


def diagonal_step(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, storage: Storage, carry: Carry
) -> tuple[Tensor, Carry]:
    """One step: u (batch, heads) -> y (batch, heads) and the carry after it."""
    re, im = carry.state.unbind(-1)  # (b, h, n)
    drive = u[:, :, None]
    new = torch.stack(
        [
            (A.real * re - A.imag * im) + B.real * drive,
            (A.real * im + A.imag * re) + B.imag * drive,
        ],
        dim=-1,
    )
    carry = store(carry, new, storage)
    re, im = carry.state.unbind(-1)
    terms = C.real * re - C.imag * im  # (b, h, n)
    total = terms[..., 0]
    for n in range(1, terms.shape[-1]):
        total = total + terms[..., n]
    return 2 * total, carry


# -- by a kernel ----------------------------------------------------------------------------------


def diagonal_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """`reference` by the fastest implementation of it; its arguments are left as they are.

    Where a gradient is asked for, rounding passes it straight through.
    """
    ours = carry is None  # a carry made here may be written to
    if carry is None:
        carry = fresh(u.shape[0], (*A.shape, 2), storage, u.device)
    why = obstacle("state space recurrence", [u, A, B, C, carry.state], [storage])
    if not why and differentiated([carry.state]):
        why = logging.INFO, "gradients of the state a recurrence starts from"
    spec = None
    if not why and (carry.residual is None or feeds_back(storage)):
        spec = spec_of_pairs(storage)
    if spec is None:
        say(*(why or unstorable("state", storage)))
        return reference(u, A, B, C, storage, carry)
    if isinstance(storage, Watched):
        with torch.no_grad():
            for step, state in enumerate(trajectory(u, A, B, carry), carry.step):
                storage.look(state[None], step)
    carry = carry if ours else _copied(carry)
    asked = differentiated([u, A, B, C])
    y = _Kernel.apply(u, A, B, C, spec, carry, asked)
    return y, Carry(carry.state, carry.residual, carry.step + u.shape[1])


def _copied(carry: Carry) -> Carry:
    def copy(x: Tensor) -> Tensor:
        return x.detach().clone(memory_format=torch.contiguous_format)

    residual = None if carry.residual is None else copy(carry.residual)
    return Carry(copy(carry.state), residual, carry.step)


class _Kernel(torch.autograd.Function):
    """y of the recurrence; the tensors of the carry are written to."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, A: Tensor, B: Tensor, C: Tensor, spec: Spec, carry: Carry, asked: bool
    ) -> Tensor:
        from sensprobe_kernels.ops.diagonal_scan.cpu import prepare, scan

        threads = torch.get_num_threads()
        residual = None if carry.residual is None else carry.residual.numpy()
        run = prepare(
            array(u), (_parts(A), _parts(B), _parts(C)), spec, carry.state.numpy(), residual,
            carry.step, threads, keep=asked,
        )  # fmt: skip
        y = scan(run, threads)
        if asked:
            keep(ctx, run)
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from sensprobe_kernels.ops.diagonal_scan.cpu import gradient

        found = gradient(kept(ctx), array(dy), torch.get_num_threads())
        A, B, C = (torch.from_numpy(np.ascontiguousarray(x)) for x in (found.A, found.B, found.C))
        return torch.from_numpy(found.u), *map(torch.view_as_complex, (A, B, C)), None, None, None


def _parts(x: Tensor) -> NDArray[np.float32]:
    """Complex numbers as (…, 2) float32."""
    return array(torch.view_as_real(x.detach().resolve_conj()))
