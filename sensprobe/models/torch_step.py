"""A streaming step of each family in PyTorch's own float32 operations, as one would write it there.

`sensprobe bench MODEL` compares with it. The models' own steps call the kernels of whole
sequences, which are slow to enter; here convolution and recurrence are a handful of PyTorch's
operations, without rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.models import Model
from sensprobe.models.forward import At
from sensprobe.models.mamba2_layers import Mamba2
from sensprobe.models.mamba_layers import Mamba
from sensprobe.models.s4d_layers import S4D
from sensprobe.models.s5_layers import S5
from sensprobe.models.selective import Scan, Selective
from sensprobe.numerics.storage import Carry, Storage


def torch_model(model: Model) -> Model:
    """The same model, whose `step` calls PyTorch alone, for exact taps."""
    for family, made in TORCH_MODELS:
        if isinstance(model, family):
            return made(model.config, model.weights)
    raise UnsupportedError(f"no step in PyTorch for models of family {model.family}")


class TorchS4D(S4D):
    """h = A h + B u and y = 2 Re(C h), complex."""

    def recur(
        self, x: Tensor, A: Tensor, B: Tensor, C: Tensor, storage: Storage, carry: Carry | None
    ) -> tuple[Tensor, Carry]:
        assert carry is not None
        state = A * torch.view_as_complex(carry.state) + B * x[:, 0, :, None]
        y = 2 * (C * state).sum(-1).real
        return y[:, None], _after(carry, torch.view_as_real(state))


class TorchS5(S5):
    """h = A h + v, complex."""

    def scan(
        self, at: At, name: str, v: Tensor, A: Tensor, carry: Carry | None
    ) -> tuple[Tensor, Carry | None]:
        assert carry is not None
        drive = torch.view_as_complex(v[:, 0].unflatten(-1, (*A.shape, 2)))
        state = torch.view_as_real(A * torch.view_as_complex(carry.state) + drive)
        return state.flatten(1)[:, None], _after(carry, state)


class _Windowed(Selective):
    """The convolution as a product with the window."""

    def convolve(
        self, at: At, v: Tensor, carry: Carry | None = None
    ) -> tuple[tuple[Tensor, ...], Carry]:
        assert carry is not None
        window = torch.cat([carry.state, v.transpose(1, 2)], dim=-1)
        y, bias = (window * at("conv")).sum(-1), at.bias("conv")
        y = y if bias is None else y + bias
        return self.parted(torch.nn.functional.silu(y)[:, None]), _after(carry, window[..., 1:])


class TorchMamba(_Windowed, Mamba):
    @property
    def recurrence(self) -> Scan:
        return _channels


class TorchMamba2(_Windowed, Mamba2):
    @property
    def recurrence(self) -> Scan:
        return _heads


def _channels(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage,
    storage: Storage,
    carry: Carry,
) -> tuple[Tensor, Carry]:
    """h = exp(dt A) h + (dt x) B and y = C h of (b, channels, n)."""
    now = dt[:, 0, :, None]
    state = torch.exp(now * A) * carry.state + (now * x[:, 0, :, None]) * B
    return torch.matmul(state, C.mT).mT, _after(carry, state)


def _heads(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    decay: Storage,
    storage: Storage,
    carry: Carry,
) -> tuple[Tensor, Carry]:
    """The same of (b, heads, p, n), a decay a head, B and C one a group of heads."""
    now, each = dt[:, 0], x.shape[2] // B.shape[2]
    B, C = (t[:, 0].repeat_interleave(each, 1) for t in (B, C))  # (b, heads, n)
    drive = (now[..., None] * x[:, 0])[..., None] * B[:, :, None]
    state = torch.exp(now * A)[..., None, None] * carry.state + drive
    return torch.matmul(state, C[..., None]).squeeze(-1)[:, None], _after(carry, state)


def _after(carry: Carry, state: Tensor) -> Carry:
    return Carry(state, None, carry.step + 1)


TORCH_MODELS = ((S4D, TorchS4D), (S5, TorchS5), (Mamba, TorchMamba), (Mamba2, TorchMamba2))
