"""The short causal convolution in front of a selective recurrence, one filter a channel.

    y_t = sum_k w_k v_k + bias,   v = (s_{t-1}, x_t),   s_t = store(the last K - 1 of v)

The conv state s holds the K - 1 inputs before the present one, the oldest first: what a streaming
deployment carries. The present input is read as it comes, earlier ones as memory kept them. The
whole window is stored at every step, so a dynamic range spans the window.

Arithmetic, fixed (float32, no contraction): products from the oldest input to the present one, each
added to the sum of those before; then the bias.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sensprobe.numerics.storage import Carry, Storage, Watched, fresh, store, stretches
from sensprobe.ops.choice import array, differentiated, obstacle, say, unstorable
from sensprobe.ops.specs import as_one_head, spec_of_rows

if TYPE_CHECKING:
    from sensprobe_kernels.quantize.spec import Spec


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """Convolve a sequence.

    x: (batch, length, channels) float32. weight: (channels, K), the last for the present input.
    bias: (channels,). Returns y, as x, and the carry, of state (batch, channels, K - 1), after
    the last step; `carry` continues an earlier one.
    """
    if carry is None:
        carry = _fresh(x, weight, storage)
    if storage is None:
        return _all_steps(x, weight, bias, carry)
    y = []
    for t in range(x.shape[1]):
        window = torch.cat([carry.state, x[:, t, :, None]], dim=-1)  # (b, c, K)
        y.append(_filtered(list(window.unbind(-1)), weight, bias))
        carry = store(carry, window[..., 1:], storage)
    return (torch.stack(y, dim=1) if y else torch.zeros_like(x)), carry


def _fresh(x: Tensor, weight: Tensor, storage: Storage) -> Carry:
    return fresh(x.shape[0], (weight.shape[0], weight.shape[1] - 1), storage, x.device)


def _all_steps(
    x: Tensor, weight: Tensor, bias: Tensor | None, carry: Carry
) -> tuple[Tensor, Carry]:
    """All steps at once while memory keeps inputs as they are: the same sums in the same order."""
    length, taps = x.shape[1], weight.shape[1]
    seen = torch.cat([carry.state.transpose(1, 2), x], dim=1)  # (b, K - 1 + l, c)
    y = _filtered([seen[:, k : k + length] for k in range(taps)], weight, bias)
    last = seen[:, length:].transpose(1, 2)
    # A copy: a view would keep the whole sequence alive for as long as the carry is.
    return y, Carry(last.clone(memory_format=torch.contiguous_format), None, carry.step + length)


def _filtered(inputs: list[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """inputs: K tensors (…, channels), the oldest first."""
    y = weight[:, 0] * inputs[0]
    for k in range(1, len(inputs)):
        y = y + weight[:, k] * inputs[k]
    return y if bias is None else y + bias


# -- by a kernel ----------------------------------------------------------------------------------


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    storage: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """`reference` by the fastest implementation of it; its arguments are left as they are.

    Gradients come from a kernel as well; rounding passes them on as if it were not there.
    """
    if carry is None:
        carry = _fresh(x, weight, storage)
    if isinstance(storage, Watched):
        return _watched(x, weight, bias, storage, carry)
    tensors = [x, weight, carry.state, *([] if bias is None else [bias])]
    if not x.numel() or not _has_kernel(tensors, storage, carry):
        return reference(x, weight, bias, storage, carry)
    y, state = _Kernel.apply(x, weight, bias, storage, carry)
    return y, Carry(state, None, carry.step + x.shape[1])


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, storage: Storage, carry: Carry
    ) -> tuple[Tensor, Tensor]:
        """y and the window after the last step."""
        from sensprobe_kernels.ops.causal_conv.cpu import convolve

        spec = _spec(storage)
        y, state = convolve(
            array(x), array(weight), None if bias is None else array(bias), spec,
            array(carry.state), carry.step, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x, weight, carry.state)
        ctx.spec, ctx.step, ctx.biased = spec, carry.step, bias is not None
        after = torch.from_numpy(state)
        ctx.mark_non_differentiable(after)
        return torch.from_numpy(y), after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        from sensprobe_kernels.ops.causal_conv.cpu import gradient

        x, weight, state = map(array, ctx.saved_tensors)
        found = gradient(x, weight, ctx.spec, state, ctx.step, array(dy), torch.get_num_threads())
        dx, dweight, dbias = map(torch.from_numpy, found)
        return dx, dweight, dbias if ctx.biased else None, None, None


def _spec(storage: Storage) -> Spec:
    """The Spec of a storage that the kernel has."""
    spec = spec_of_rows(storage)
    assert spec is not None
    return as_one_head(spec)


def _has_kernel(tensors: list[Tensor], storage: Storage, carry: Carry) -> bool:
    """Whether the kernel computes this; where it does not, the log says why."""
    why = obstacle("causal convolution", tensors, [storage])
    if not why and differentiated([carry.state]):
        why = logging.INFO, "gradients of the window a convolution starts from"
    if not why and (spec_of_rows(storage) is None or carry.residual is not None):
        why = unstorable("conv state", storage)
    if why:
        say(*why)
    return not why


def _watched(
    x: Tensor, weight: Tensor, bias: Tensor | None, storage: Watched, carry: Carry
) -> tuple[Tensor, Carry]:
    """All steps at once, then the windows are shown: a watched state stays exact."""
    y, after = causal_conv(x, weight, bias, None, carry)
    seen = torch.cat([carry.state.transpose(1, 2), x], dim=1)
    windows = seen[:, 1:].unfold(1, weight.shape[1] - 1, 1).transpose(0, 1)
    for now in stretches(x.shape[1], carry.state.nbytes):
        storage.look(windows[now].contiguous(), carry.step + now.start)
    return y, after
