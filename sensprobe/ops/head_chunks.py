"""Mamba-2's recurrence in chunks of matrix products: another order of sums for the same numbers.

Dao and Gu 2024, arXiv 2405.21060, section 6 ("state space duality"). With s_t the sum of dt A up to
step t of a chunk, h the state before it and u = dt x:

    y_i = sum over j <= i of exp(s_i - s_j) (C_i · B_j) u_j  +  exp(s_i) C_i · h
    h'  = exp(s_last) h + sum over j of exp(s_last - s_j) u_j B_j

Legal where the decay is exact and the state is written to memory at chunk ends only: an exact
state, or one that is rounded every so many steps, as the chunk is long. The last step of a chunk
reads the stored state. Sums run in the order of matrix products, so this equals the recurrence to
rounding only, about 1e-6 of the largest output; where a bit matters, take `head_scan`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.numerics.storage import Carry, Rounded, Storage, fresh, store

CHUNK = 64
"""Steps a chunk of an exact state: long enough for matrix products, short enough for the cache."""


def chunk_of(decay: Storage, storage: Storage) -> int:
    """Steps a chunk; UnsupportedError where chunks would compute something else."""
    if decay is not None:
        raise UnsupportedError(
            "chunks need exact decays: they multiply a whole chunk of them at once. Leave decay "
            "out of the plan, or use mode='recurrent'."
        )
    if storage is None:
        return CHUNK
    if isinstance(storage, Rounded) and storage.scheme.every > 1:
        return storage.scheme.every
    raise UnsupportedError(
        "chunks need a state that stays exact inside them: leave it exact, round it everyK steps, "
        "or use mode='recurrent'."
    )


def head_chunks(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """`head_scan` in chunks; arguments and results are the same.

    x: (batch, length, heads, p). dt: (batch, length, heads). A: (heads,). B, C: (batch, length,
    groups, n). float32. Raises UnsupportedError where chunks would compute something else.
    """
    size = chunk_of(decay, storage)
    if carry is None:
        carry = fresh(x.shape[0], (*x.shape[2:], B.shape[-1]), storage, x.device)
    y, start = [torch.zeros_like(x[:, :0])], 0
    while start < x.shape[1]:
        stop = min(start + size - carry.step % size, x.shape[1])
        now = slice(start, stop)
        out, carry = _chunk(x[:, now], dt[:, now], A, B[:, now], C[:, now], storage, carry)
        y.append(out)
        start = stop
    return torch.cat(y, dim=1), carry


def _chunk(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, storage: Storage, carry: Carry
) -> tuple[Tensor, Carry]:
    """One chunk, after which the state is written to carry."""
    batch, length, heads, p = x.shape
    groups = B.shape[2]
    share = heads // groups
    s = (dt * A).cumsum(1).mT.unflatten(1, (groups, share))  # (b, g, h, l)
    u = (dt[..., None] * x).permute(0, 2, 1, 3).unflatten(1, (groups, share))  # (b, g, h, l, p)
    B, C = B.transpose(1, 2), C.transpose(1, 2)  # (b, g, l, n)
    h = carry.state.unflatten(1, (groups, share))  # (b, g, h, p, n)

    later = s[..., :, None] - s[..., None, :]  # (b, g, h, l, l)
    past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    weights = torch.exp(later.masked_fill(~past, -torch.inf)) * (C @ B.mT)[:, :, None]
    carried = C[:, :, None] @ h.mT  # (b, g, h, l, p)
    y = weights @ u + torch.exp(s)[..., None] * carried
    rest = torch.exp(s[..., -1:] - s)[..., None] * u
    new = torch.exp(s[..., -1])[..., None, None] * h + rest.mT @ B[:, :, None]

    steps = carry.step + length
    carry = store(Carry(carry.state, carry.residual, steps - 1), new.flatten(1, 2), storage)
    if storage is not None:
        last = carry.state.unflatten(1, (groups, share)) @ C[:, :, None, -1:].mT
        y = torch.cat([y[..., :-1, :], last.mT], dim=-2)
    return y.flatten(1, 2).permute(0, 2, 1, 3).reshape(batch, length, heads, p), carry
