"""The short causal convolution by the fastest implementation that computes it."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from sensprobe.numerics.storage import Memory, Storage, Watched, fresh, stretches
from sensprobe.ops.causal_conv import causal_conv as reference
from sensprobe.runtime.choice import differentiated, obstacle, say, unstorable
from sensprobe.runtime.stores import array, dense_rows, spanned


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """`sensprobe.ops.causal_conv.causal_conv`, by the fastest implementation of the same.

    x: (batch, length, channels). weight: (channels, K). bias: (channels,). float32. Returns y and
    the memory after the last step; arguments are left as they are.
    """
    if memory is None:
        memory = fresh(x.shape[0], (weight.shape[0], weight.shape[1] - 1), storage, x.device)
    if isinstance(storage, Watched):
        return _watched(x, weight, bias, storage, memory)
    tensors = [x, weight, memory.state, *([] if bias is None else [bias])]
    if not x.numel() or (storage is None and differentiated(tensors)):
        return reference(x, weight, bias, storage, memory)  # all steps at once
    if not _may(tensors, storage, memory):
        return reference(x, weight, bias, storage, memory)
    from sensprobe_kernels.ops.causal_conv.cpu import convolve

    found = spanned(storage)
    assert found is not None
    y, state = convolve(
        array(x),
        array(weight),
        None if bias is None else array(bias),
        dense_rows(found[0]),
        array(memory.state),
        memory.step,
        torch.get_num_threads(),
    )
    after = Memory(torch.from_numpy(state), None, memory.step + x.shape[1])
    return torch.from_numpy(y), after


def _may(tensors: list[Tensor], storage: Storage, memory: Memory) -> bool:
    """Whether the kernel computes this; says why where it does not."""
    why = obstacle("causal convolution", tensors, [storage])
    if not why and differentiated(tensors):
        why = logging.INFO, "convolutions over a rounded window that need a gradient"
    if not why and (spanned(storage) is None or memory.residual is not None):
        why = unstorable("conv state", storage)
    if why:
        say(*why)
    return not why


def _watched(
    x: Tensor, weight: Tensor, bias: Tensor | None, storage: Watched, memory: Memory
) -> tuple[Tensor, Memory]:
    """All steps at once, then the windows shown: what is watched stays exact."""
    y, after = causal_conv(x, weight, bias, None, memory)
    seen = torch.cat([memory.state.transpose(1, 2), x], dim=1)
    windows = seen[:, 1:].unfold(1, weight.shape[1] - 1, 1).transpose(0, 1)
    for now in stretches(x.shape[1], memory.state.nbytes):
        storage.look(windows[now].contiguous(), memory.step + now.start)
    return y, after
