"""The selective recurrences by the fastest implementation that computes them.

Gradients come from a kernel as well; rounding passes them on as if it were not there.
The decay of Mamba-2 is one number a head and step, a tensor like dt: it is computed and rounded
here, for all steps. That of Mamba is computed and rounded inside its kernel.
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

from sensprobe.numerics.storage import Memory, Rounded, Storage, Watched, fresh, passed, stretches
from sensprobe.ops import selective_scan as reference
from sensprobe.ops.exponential import exponential
from sensprobe.plans.scheme import Rounding
from sensprobe.runtime.choice import differentiated, obstacle, say, unstorable
from sensprobe.runtime.stores import array, dense_rows, spanned

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.store import Store

Scan = Callable[..., tuple[Tensor, Memory]]
_NAME = "selective recurrence"


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """`sensprobe.ops.selective_scan.selective_scan`, by the fastest implementation of the same.

    x, dt: (batch, length, channels). A: (channels, n). B, C: (batch, length, n). float32. Returns y
    and the memory after the last step; arguments are left as they are.
    """
    if memory is None:
        memory = fresh(x.shape[0], tuple(A.shape), storage, x.device)
    if not _may(x, dt, A, B, C, decay, storage, memory):
        return reference.selective_scan(x, dt, A, B, C, decay, storage, memory)
    if isinstance(decay, Watched) or isinstance(storage, Watched):
        return _watched(_mamba, x, dt, A, B, C, decay, storage, memory)
    return _mamba(x, dt, A, B, C, decay, storage, memory)


def head_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """`sensprobe.ops.selective_scan.head_scan`, by the fastest implementation of the same.

    x: (batch, length, heads, p). dt: (batch, length, heads). A: (heads,). B, C: (batch, length,
    groups, n). float32. Returns y and the memory after the last step; arguments are left as they
    are.
    """
    if memory is None:
        memory = fresh(x.shape[0], (*x.shape[2:], B.shape[-1]), storage, x.device)
    if not _may(x, dt, A, B, C, decay, storage, memory):
        return reference.head_scan(x, dt, A, B, C, decay, storage, memory)
    if isinstance(decay, Watched) or isinstance(storage, Watched):
        return _watched(_mamba2, x, dt, A, B, C, decay, storage, memory)
    return _mamba2(x, dt, A, B, C, decay, storage, memory)


def _may(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage, storage: Storage,
    memory: Memory,
) -> bool:  # fmt: skip
    """Whether a kernel computes this; says why where it does not."""
    why = obstacle(_NAME, [x, dt, A, B, C, memory.state], [decay, storage])
    if not why and differentiated([memory.state]):
        why = logging.INFO, "gradients of the state a recurrence starts from"
    if not why and spanned(decay) is None:
        why = unstorable("decay", decay)
    feeds = isinstance(storage, Rounded) and storage.scheme.rounding is Rounding.FEEDBACK
    if not why and (spanned(storage) is None or (memory.residual is not None and not feeds)):
        why = unstorable("state", storage)
    if why:
        say(*why)
    return not why


def _watched(
    scan: Scan, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage,
    storage: Storage, memory: Memory,
) -> tuple[Tensor, Memory]:  # fmt: skip
    """A stretch of steps at a time, shown to whoever watches."""
    y = [torch.zeros_like(x[:, :0])]
    passing = None if isinstance(decay, Watched) else decay
    for now in stretches(x.shape[1], memory.state.nbytes):
        if isinstance(decay, Watched):
            decay.look(_shown_decays(dt[:, now], A), memory.step)
        out, memory = scan(x[:, now], dt[:, now], A, B[:, now], C[:, now], passing, storage, memory)
        y.append(out)
    return torch.cat(y, dim=1), memory


def _shown_decays(dt: Tensor, A: Tensor) -> Tensor:
    """Every exact decay, the step first."""
    if A.ndim == 1:
        return exponential((dt * A).transpose(0, 1))
    from sensprobe_kernels.ops.selective_scan.cpu import Decays, decays_of, prepare
    from sensprobe_kernels.quantize.store import Store

    wide = array(dt[:, :, None])
    row = np.zeros((*dt.shape[:2], 1, A.shape[1]), np.float32)  # B and C, which no decay reads
    state = np.zeros((dt.shape[0], 1, *A.shape), np.float32)
    run = prepare(wide, wide, Decays(array(A[None]), Store()), row, row, Store(), state, None, 0)
    return torch.from_numpy(decays_of(run, torch.get_num_threads())).squeeze(2)


def _mamba(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage, storage: Storage,
    memory: Memory,
) -> tuple[Tensor, Memory]:  # fmt: skip
    """By the kernel, as one head of all channels."""
    rest = None if memory.residual is None else memory.residual[:, None]
    inner = Memory(memory.state[:, None], rest, memory.step)
    found = _Kernel.apply(
        x[:, :, None], dt[:, :, None], None, A[None], B[:, :, None], C[:, :, None],
        _How(storage, inner, decay, one_head=True),
    )  # fmt: skip
    y, state, *residual = found
    after = Memory(state[:, 0], residual[0][:, 0] if residual else None, memory.step + x.shape[1])
    return y[:, :, 0], after


def _mamba2(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, decay: Storage, storage: Storage,
    memory: Memory,
) -> tuple[Tensor, Memory]:  # fmt: skip
    decays = _decays(dt * A, decay, memory.step)
    found = _Kernel.apply(x, dt, decays, None, B, C, _How(storage, memory))
    y, state, *residual = found
    return y, Memory(state, residual[0] if residual else None, memory.step + x.shape[1])


@dataclass(frozen=True, slots=True)
class _How:
    """What the kernel is told besides tensors."""

    storage: Storage
    memory: Memory  # its state (batch, heads, p, n)
    decay: Storage = None  # where it is computed inside
    one_head: bool = False  # whose axis the storages do not have
    graph: bool = field(default_factory=torch.is_grad_enabled)  # a gradient may be asked for


class _Kernel(torch.autograd.Function):
    """The kernel and its gradient, as `selective_scan.cpu.prepare` of the kernels has them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, decay: Tensor | None, A: Tensor | None, B: Tensor,
        C: Tensor, how: _How,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """y, the state and, where there is one, the residual; from zero time steps too."""
        from sensprobe_kernels.ops.selective_scan.cpu import Decays, prepare, scan, states_of

        memory, rest = how.memory, how.memory.residual
        if not (x.numel() and B.shape[-1]):
            states = [memory.state.clone(), *([] if rest is None else [rest.clone()])]
            return torch.zeros_like(x), *states
        store, unit_heads = _stored(how.storage, how.one_head)
        decays = None if A is None else Decays(array(A), _stored(how.decay, True)[0])
        watched, asked = isinstance(how.storage, Watched), how.graph and any(ctx.needs_input_grad)
        mark = 1 if watched else max(1, math.isqrt(x.shape[1])) if asked else 0
        run = prepare(
            array(x), array(dt), array(decay) if decays is None else decays, array(B), array(C),
            store, array(memory.state), None if rest is None else array(rest), memory.step,
            unit_heads, mark=mark,
        )  # fmt: skip
        found = scan(run, torch.get_num_threads())
        if isinstance(how.storage, Watched):
            shown = torch.from_numpy(states_of(run, found))
            how.storage.look(shown.squeeze(2) if how.one_head else shown, memory.step)
        ctx.run = run
        states = [torch.from_numpy(x) for x in found[1:] if x is not None]
        ctx.mark_non_differentiable(*states)
        return torch.from_numpy(found.y), *states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *states: Tensor) -> tuple[Tensor | None, ...]:
        from sensprobe_kernels.ops.selective_scan.cpu import gradient

        found = gradient(ctx.run, array(dy), torch.get_num_threads())
        in_order = (found.x, found.dt, found.decay, found.A, found.B, found.C)
        return *(None if g is None else torch.from_numpy(g) for g in in_order), None


def _decays(exponents: Tensor, decay: Storage, step: int) -> Tensor:
    """Every decay as the recurrence goes on with it: (batch, length, heads)."""
    raw = exponential(exponents)
    return _Straight.apply(raw, decay, step) if isinstance(decay, Rounded) else raw


class _Straight(torch.autograd.Function):
    """Rounding that passes gradients as if it were not there."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, decay: Rounded, step: int) -> Tensor:
        return _rounded(raw, decay, step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None, None


def _rounded(raw: Tensor, decay: Rounded, step: int) -> Tensor:
    if decay.scheme.rounding is Rounding.STOCHASTIC:
        steps = [passed(a, decay, step + t) for t, a in enumerate(raw.unbind(1))]
        return torch.stack(steps, dim=1) if steps else raw
    return passed(raw.flatten(0, 1), decay, step).view(raw.shape)


def _stored(storage: Storage, one_head: bool = False) -> tuple[Store, bool]:
    """What `spanned` says of a storage that kernels have a way for."""
    found = spanned(storage)
    assert found is not None
    return (dense_rows(found[0]), found[1]) if one_head else found
