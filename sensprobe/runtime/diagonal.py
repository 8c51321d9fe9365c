"""The diagonal recurrence by the fastest implementation that computes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.numerics.storage import Memory, Rounded, Storage, Watched, fresh
from sensprobe.ops.diagonal_scan import diagonal_scan as reference
from sensprobe.ops.diagonal_scan import trajectory
from sensprobe.plans.scheme import Rounding
from sensprobe.runtime.choice import differentiated, obstacle, say, unstorable
from sensprobe.runtime.stores import live, scales_of, store_of

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.store import Store


def diagonal_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """`sensprobe.ops.diagonal_scan`, by the fastest implementation that computes the same.

    u: (batch, length, heads) float32. A, B, C: (heads, n) complex64. Returns y (batch, length,
    heads) and the memory after the last step; arguments are left as they are.
    """
    ours = memory is None  # a memory made here may be written to
    if memory is None:
        memory = fresh(u.shape[0], (*A.shape, 2), storage, u.device)
    why = obstacle("state space recurrence", [u, A, B, C, memory.state], [storage])
    if not why and differentiated([u, A, B, C, memory.state]):
        why = logging.INFO, "recurrences that need a gradient run on the reference loop"
    store = None if why else _store(storage, memory, A.shape)
    if store is None:
        say(*(why or unstorable("state", storage)))
        return reference(u, A, B, C, storage, memory)
    if isinstance(storage, Watched):
        for step, state in enumerate(trajectory(u, A, B, memory), memory.step):
            storage.look(state[None], step)
    return _fast(u, A, B, C, store, memory if ours else _copied(memory))


def _copied(memory: Memory) -> Memory:
    return Memory(
        memory.state.detach().clone(memory_format=torch.contiguous_format),
        None
        if memory.residual is None
        else memory.residual.detach().clone(memory_format=torch.contiguous_format),
        memory.step,
    )


def _fast(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, store: Store, memory: Memory
) -> tuple[Tensor, Memory]:
    """By the kernel, which writes to the memory's tensors."""
    from sensprobe_kernels.ops.diagonal_scan.cpu import scan

    state, residual = memory.state, memory.residual
    y = scan(
        u.detach().contiguous().numpy(),
        (_parts(A), _parts(B), _parts(C)),
        store,
        state.numpy(),
        None if residual is None else residual.numpy(),
        memory.step,
        torch.get_num_threads(),
    )
    return torch.from_numpy(y), Memory(state, residual, memory.step + u.shape[1])


def _parts(x: Tensor) -> NDArray[np.float32]:
    """Complex numbers as (…, 2) float32."""
    return torch.view_as_real(x.detach().resolve_conj()).contiguous().numpy()


def _store(storage: Storage, memory: Memory, shape: torch.Size) -> Store | None:
    """The kernel's description of a storage; None where it has none."""
    from sensprobe_kernels.quantize import flags

    if memory.residual is not None and not _feeds_back(storage):
        return None
    store = store_of(storage)
    if store is None or (rounded := live(storage)) is None:
        return store
    heads, n = shape
    scheme = rounded.scheme
    group = {"tensor": n, "head": n, "channel": n, "group": scheme.group}[scheme.granularity]
    spans = {(1, 1): flags.TENSOR, (heads, -(-n // group)): flags.GROUP}
    rows, columns = scales_of(rounded)
    span = spans.get((rows, columns))
    return None if span is None else store._replace(span=span, group=min(group, n))


def _feeds_back(storage: Storage) -> bool:
    return isinstance(storage, Rounded) and storage.scheme.rounding is Rounding.FEEDBACK
