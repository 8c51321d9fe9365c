"""Operations that benchmarks compare with: PyTorch's own, and the kernels of mamba_ssm.

    products      bfloat16                       embedding, norm, rotation   bfloat16
    updates       float32, of a state or window  scans                       float32, a loop

PyTorch has no Hadamard transform: a rotation is the product with the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Run: TypeAlias = Callable[[], Any]
CHUNK = 256
"""Tokens a chunk of mamba_ssm's scan of Mamba-2, as published models have it."""


def torch_update(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Run:
    """h = exp(dt A) h + (dt x) B and y = C h in float32: a decay a state of (channels, n), or one a
    head of (heads, p, n)."""
    *rows, n = shape
    with torch.device(device):
        state, x = torch.zeros(batch, *shape), torch.full((batch, *rows, 1), 0.5)
        dt = torch.full((batch, rows[0], *[1] * (len(shape) - 1)), 0.5)
        A = torch.full(shape if len(rows) == 1 else (rows[0], 1, 1), -1.0)
        B = C = torch.full((batch, *[1] * len(rows), n), 0.5)

    def run() -> Tensor:
        state.mul_(torch.exp(dt * A)).add_((dt * x) * B)
        return (state * C).sum(-1)

    return run


def torch_scan(shape: tuple[int, ...], batch: int, tokens: int, device: str = "cpu") -> Run:
    """So many updates, one after the other."""
    update = torch_update(shape, batch, device)
    return lambda: [update() for _ in range(tokens)]


def torch_diagonal(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Run:
    """h = A h + B u and y = 2 Re(C h), complex64 (heads, n)."""
    with torch.device(device):
        state = torch.zeros(batch, *shape, dtype=torch.complex64)
        A = B = C = torch.full(shape, 0.5 + 0.5j)
        u = torch.full((batch, shape[0], 1), 0.5)

    def run() -> Tensor:
        state.mul_(A).add_(B * u)
        return 2 * (state * C).sum(-1).real

    return run


def torch_window(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Run:
    """A token of the causal convolution and its SiLU, in float32; shape: (channels, n) of the
    window before it."""
    channels, n = shape
    with torch.device(device):
        window, weight = torch.zeros(batch, channels, n), torch.full((channels, n + 1), 0.5)
        x, bias = torch.full((batch, channels, 1), 0.5), torch.zeros(channels)

    def run() -> Tensor:
        whole = torch.cat([window, x], -1)
        window.copy_(whole[..., 1:])
        return F.silu((whole * weight).sum(-1) + bias)

    return run


def torch_norm(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Run:
    """RMS norm of rows."""
    x = torch.ones(batch, *shape, dtype=torch.bfloat16, device=device)
    weight = torch.ones(shape, dtype=torch.bfloat16, device=device)
    return lambda: F.rms_norm(x, shape, weight, 1e-5)


def torch_rotation(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Run:
    """Rows times an orthogonal matrix."""
    x = torch.ones(batch, *shape, dtype=torch.bfloat16, device=device)
    matrix = torch.ones(*shape, *shape, dtype=torch.bfloat16, device=device)
    return lambda: x @ matrix


def torch_rows(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Run:
    """Rows of an embedding."""
    table = torch.ones(shape, dtype=torch.bfloat16, device=device)
    tokens = torch.arange(batch, device=device) * 7 % shape[0]
    return lambda: F.embedding(tokens, table)


# -- mamba_ssm ------------------------------------------------------------------------------------


def ssm_update(shape: tuple[int, ...], batch: int, device: str) -> Run | None:
    """mamba_ssm's update of float32 states, as `torch_update`; None where it is not installed."""
    try:
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    except ImportError:
        return None
    *rows, n = shape
    with torch.device(device):
        state, x = torch.zeros(batch, *shape), torch.full((batch, *rows), 0.5)
        dt = torch.full((batch, rows[0], *[1] * (len(rows) - 1)), 0.5).expand(batch, *rows)
        A = torch.full((rows[0], *[1] * (len(shape) - 1)), -1.0).expand(shape)
        if len(rows) == 1:
            dt, A = dt.contiguous(), A.contiguous()
        B = C = torch.full((batch, *[1] * (len(rows) - 1), n), 0.5)
    return lambda: selective_state_update(state, x, dt, A, B, C)


def ssm_scan(shape: tuple[int, ...], batch: int, tokens: int, device: str) -> Run | None:
    """mamba_ssm's scan of float32 states: Mamba's of (channels, n), or Mamba-2's in chunks, of
    (heads, p, n); None where it is not installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    *rows, n = shape
    if len(rows) == 1:
        with torch.device(device):
            x = dt = torch.full((batch, *rows, tokens), 0.5)
            A, B = torch.full(shape, -1.0), torch.full((batch, n, tokens), 0.5)
        return lambda: selective_scan_fn(x, dt, A, B, B, return_last_state=True)
    with torch.device(device):
        x, dt = torch.full((batch, tokens, *rows), 0.5), torch.full((batch, tokens, rows[0]), 0.5)
        A, B = torch.full((rows[0],), -1.0), torch.full((batch, tokens, 1, n), 0.5)
    return lambda: mamba_chunk_scan_combined(x, dt, A, B, B, CHUNK, return_final_states=True)
