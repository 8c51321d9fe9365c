"""The short convolution: its definition, its memory, and a memory that rounds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders import vector
from recurrence import assert_same
from torch import Tensor

from sensprobe.numerics.rounding import scale_and_zero
from sensprobe.numerics.storage import Carry, Custom, Rounded, fresh
from sensprobe.ops.causal_conv import reference as causal_conv
from sensprobe.plans.fitting import check
from sensprobe.plans.scheme import parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

CHANNELS = 3


def problem(taps: int = 4, length: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    x = vector(2, length, CHANNELS, dtype=torch.float32)
    weight = vector(CHANNELS, taps, seed=1, dtype=torch.float32)
    return x, weight, vector(CHANNELS, seed=2, dtype=torch.float32)


def rounded(text: str, taps: int = 4) -> Rounded:
    shape = (CHANNELS, taps - 1)
    site = Site("s", Part.CONV_STATE, Kind.STATE, shape, (Axis.CHANNEL, Axis.LAG))
    scheme = parse(text)
    check(scheme, site)
    if scheme.dynamic:
        return Rounded(scheme, site)
    high = torch.full(scale_shape(scheme, site), 3.0)
    return Rounded(scheme, site, *scale_and_zero(scheme, -high, high))


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_it_is_a_causal_convolution(taps, length):
    x, weight, bias = problem(taps, length)
    padded = F.pad(x.transpose(1, 2), (taps - 1, 0)).double()
    want = F.conv1d(padded, weight[:, None].double(), bias.double(), groups=CHANNELS)
    y, memory = causal_conv(x, weight, bias)
    torch.testing.assert_close(y.double(), want.transpose(1, 2), rtol=0, atol=1e-6)
    assert torch.equal(memory.state, padded[:, :, length:].float())
    assert memory.step == length


def test_that_bound_catches_filters_turned_round():
    x, weight, bias = problem()
    y, _ = causal_conv(x, weight, bias)
    assert (causal_conv(x, weight.flip(1), bias)[0] - y).abs().max() > 1e-1


def test_without_a_bias_the_bias_is_zero():
    x, weight, bias = problem()
    assert_same(causal_conv(x, weight), causal_conv(x, weight, torch.zeros_like(bias)))


def test_all_at_once_equals_one_by_one():
    """The exact memory takes a shortcut; a function that changes nothing does not."""
    p = problem()
    assert_same(causal_conv(*p), causal_conv(*p, Custom(lambda state, step: state)))


@pytest.mark.parametrize("scheme", [None, "int4", "int4/channel/dynamic", "int8/stochastic"])
def test_pieces_of_a_sequence_equal_the_run(scheme):
    x, weight, bias = problem(length=8)
    storage = scheme and rounded(scheme)
    memory, outs = fresh(2, (CHANNELS, 3), storage), []
    for piece in x[:, :1], x[:, 1:5], x[:, 5:5], x[:, 5:]:
        y, memory = causal_conv(piece, weight, bias, storage, memory)
        outs.append(y)
    assert_same((torch.cat(outs, dim=1), memory), causal_conv(x, weight, bias, storage))


def test_the_past_is_read_as_stored_and_the_present_as_it_comes():
    x, weight, bias = problem()
    storage = rounded("int4")
    step = storage.scale.item()
    kept = (x / step).round().clamp(-7, 7) * step
    past = F.pad(kept.transpose(1, 2), (3, 0))
    y, memory = causal_conv(x, weight, bias, storage)
    for t in range(x.shape[1]):
        window = torch.cat([past[:, :, t : t + 3], x[:, t, :, None]], dim=-1)
        torch.testing.assert_close(y[:, t], (weight * window).sum(-1) + bias)
    assert torch.equal(memory.state, past[:, :, x.shape[1] :])


def test_memory_counts_on():
    x, weight, bias = problem()
    _, memory = causal_conv(x, weight, bias, None, Carry(torch.ones(2, CHANNELS, 3), None, 5))
    assert memory.step == 12


@pytest.mark.parametrize("storage", [None, Custom(lambda state, step: state)])
def test_memory_does_not_hold_the_sequence_it_saw(storage):
    _, memory = causal_conv(*problem(length=500), storage)
    assert memory.state.untyped_storage().nbytes() <= 4 * 2 * CHANNELS * 4
