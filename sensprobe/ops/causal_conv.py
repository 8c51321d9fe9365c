"""The short causal convolution in front of a selective recurrence, one filter a channel.

    y_t = sum_k w_k v_k + bias,   v = (s_{t-1}, x_t),   s_t = store(the last K - 1 of v)

The conv state s holds the K - 1 inputs before the present one, the oldest first: what a streaming
deployment carries. The present input is read as it comes, earlier ones as memory kept them. The
whole window is stored at every step, so a dynamic range spans the window.

Arithmetic, fixed (float32, no contraction): products from the oldest input to the present one, each
added to the sum of those before; then the bias.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.numerics.storage import Memory, Storage, fresh, store


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """Convolve a sequence.

    x: (batch, length, channels) float32. weight: (channels, K), the last for the present input.
    bias: (channels,). Returns y, as x, and the memory, of state (batch, channels, K - 1), after
    the last step; `memory` continues an earlier one.
    """
    if memory is None:
        memory = fresh(x.shape[0], (weight.shape[0], weight.shape[1] - 1), storage, x.device)
    if storage is None:
        return _whole(x, weight, bias, memory)
    y = []
    for t in range(x.shape[1]):
        window = torch.cat([memory.state, x[:, t, :, None]], dim=-1)  # (b, c, K)
        y.append(_filtered(list(window.unbind(-1)), weight, bias))
        memory = store(memory, window[..., 1:], storage)
    return (torch.stack(y, dim=1) if y else torch.zeros_like(x)), memory


def _whole(x: Tensor, weight: Tensor, bias: Tensor | None, memory: Memory) -> tuple[Tensor, Memory]:
    """All steps at once while memory keeps inputs as they are: the same sums in the same order."""
    length, taps = x.shape[1], weight.shape[1]
    seen = torch.cat([memory.state.transpose(1, 2), x], dim=1)  # (b, K - 1 + l, c)
    y = _filtered([seen[:, k : k + length] for k in range(taps)], weight, bias)
    last = seen[:, length:].transpose(1, 2)
    # A copy: a view would keep the whole sequence alive for as long as the memory is.
    return y, Memory(last.clone(memory_format=torch.contiguous_format), None, memory.step + length)


def _filtered(inputs: list[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """inputs: K tensors (…, channels), the oldest first."""
    y = weight[:, 0] * inputs[0]
    for k in range(1, len(inputs)):
        y = y + weight[:, k] * inputs[k]
    return y if bias is None else y + bias
