"""The kernel of `selective_scan` and `head_scan`, with its gradient.

The decay of Mamba is computed and rounded inside the kernel; that of Mamba-2 is given.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sensprobe.numerics.storage import Carry, Storage, Watched, stretches
from sensprobe.ops.choice import array, differentiated, feeds_back, obstacle, say, unstorable
from sensprobe.ops.exponential import exponential
from sensprobe.ops.kept import keep, kept
from sensprobe.ops.specs import as_one_head, spec_of_rows

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.spec import Spec

Scan = Callable[..., tuple[Tensor, Carry]]


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of the kernel that are no tensors to differentiate."""

    storage: Storage
    carry: Carry  # its state (batch, heads, p, n)
    decay: Storage = None  # where it is computed inside
    one_head: bool = False  # whose axis the storages do not have
    graph: bool = field(default_factory=torch.is_grad_enabled)  # a gradient may be asked for


def _has_kernel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage, storage: Storage,
    carry: Carry,
) -> bool:  # fmt: skip
    """Whether the kernel computes this; where it does not, the log says why."""
    why = obstacle("selective recurrence", [x, dt, A, B, C, carry.state], [decay, storage])
    if not why and differentiated([carry.state]):
        why = logging.INFO, "gradients of the state a recurrence starts from"
    if not why and spec_of_rows(decay) is None:
        why = unstorable("decay", decay)
    fed = carry.residual is None or feeds_back(storage)
    if not why and (spec_of_rows(storage) is None or not fed):
        why = unstorable("state", storage)
    if why:
        say(*why)
    return not why


def run(
    x: Tensor, dt: Tensor, decay: Tensor | None, A: Tensor | None, B: Tensor, C: Tensor, call: Call
) -> tuple[Tensor, Carry]:
    """y and the carry after the last step, of tensors as `selective_scan.cpu.prepare` of the
    kernels takes them."""
    y, state, *residual = _Kernel.apply(x, dt, decay, A, B, C, call)
    return y, Carry(state, residual[0] if residual else None, call.carry.step + x.shape[1])


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, decay: Tensor | None, A: Tensor | None, B: Tensor,
        C: Tensor, call: Call,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """y, the state and, where there is one, the residual; from zero time steps too."""
        from sensprobe_kernels.ops.selective_scan.cpu import Decays, prepare, scan, states_of

        carry, residual = call.carry, call.carry.residual
        if not (x.numel() and B.shape[-1]):
            states = [carry.state.clone(), *([] if residual is None else [residual.clone()])]
            return torch.zeros_like(x), *states
        spec = _spec(call.storage, call.one_head)
        decays = None if A is None else Decays(array(A), _spec(call.decay, True))
        watched, asked = isinstance(call.storage, Watched), call.graph and any(ctx.needs_input_grad)
        interval = 1 if watched else max(1, math.isqrt(x.shape[1])) if asked else 0
        run = prepare(
            array(x), array(dt), array(decay) if decays is None else decays, array(B), array(C),
            spec, array(carry.state), None if residual is None else array(residual), carry.step,
            interval=interval,
        )  # fmt: skip
        found = scan(run, torch.get_num_threads())
        if isinstance(call.storage, Watched):
            shown = torch.from_numpy(states_of(run, found))
            call.storage.look(shown.squeeze(2) if call.one_head else shown, carry.step)
        if asked:  # without y, which the backward pass does not read
            keep(ctx, run._replace(given=run.given._replace(y=np.zeros(0, np.float32))))
        states = [torch.from_numpy(x) for x in found[1:] if x is not None]
        ctx.mark_non_differentiable(*states)
        return torch.from_numpy(found.y), *states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *states: Tensor) -> tuple[Tensor | None, ...]:
        from sensprobe_kernels.ops.selective_scan.cpu import gradient

        found = gradient(kept(ctx), array(dy), torch.get_num_threads())
        in_order = (found.x, found.dt, found.decay, found.A, found.B, found.C)
        return *(None if g is None else torch.from_numpy(g) for g in in_order), None


def _spec(storage: Storage, one_head: bool) -> Spec:
    """The Spec of a storage that kernels have."""
    spec = spec_of_rows(storage)
    assert spec is not None
    return as_one_head(spec) if one_head else spec


# -- the choice, and where states or decays are watched -------------------------------------------


def fastest(
    scan: Scan, reference: Scan, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
    decay: Storage, storage: Storage, carry: Carry,
) -> tuple[Tensor, Carry]:  # fmt: skip
    """`scan`, which runs the kernel, or `reference` where no kernel computes this.

    Where a decay or the state is watched, the kernel runs some steps at a time, which bounds how
    many are held to be shown.
    """
    if not _has_kernel(x, dt, A, B, C, decay, storage, carry):
        return reference(x, dt, A, B, C, decay, storage, carry)
    if not (isinstance(decay, Watched) or isinstance(storage, Watched)):
        return scan(x, dt, A, B, C, decay, storage, carry)
    y = [torch.zeros_like(x[:, :0])]
    inside = None if isinstance(decay, Watched) else decay
    for now in stretches(x.shape[1], carry.state.nbytes):
        if isinstance(decay, Watched):
            decay.look(_exact_decays(dt[:, now], A), carry.step)
        out, carry = scan(x[:, now], dt[:, now], A, B[:, now], C[:, now], inside, storage, carry)
        y.append(out)
    return torch.cat(y, dim=1), carry


def _exact_decays(dt: Tensor, A: Tensor) -> Tensor:
    """Every exact decay, (length, batch, *A.shape)."""
    if A.ndim == 1:
        return exponential((dt * A).transpose(0, 1))
    from sensprobe_kernels.ops.selective_scan.cpu import Decays, decays_of, prepare
    from sensprobe_kernels.quantize.spec import Spec

    wide = array(dt[:, :, None])
    row = np.zeros((*dt.shape[:2], 1, A.shape[1]), np.float32)  # B and C, which no decay reads
    state = np.zeros((dt.shape[0], 1, *A.shape), np.float32)
    run = prepare(wide, wide, Decays(array(A[None]), Spec()), row, row, Spec(), state, None, 0)
    return torch.from_numpy(decays_of(run, torch.get_num_threads())).squeeze(2)
