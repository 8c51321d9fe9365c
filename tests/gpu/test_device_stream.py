"""Packed models on a device through the calls users make: states kept, copied, refused; bytes."""

from __future__ import annotations

import pytest
import torch
from packed_memory import CONFIGS, packed
from selective import inputs, tiny

from sensprobe.errors import DataError
from sensprobe.packed import DeviceStream
from sensprobe.packed.device import device_stream_of

PLAN = {
    "layers.*.in_proj.?": "int4/group8", "layers.*.A": "int8", "layers.*.norm": "int8",
    "layers.*.state": "int8/head/dynamic", "layers.*.y": "int8/range2",
}  # fmt: skip


def _stream(device: str, name: str, plan=PLAN):
    case = packed(tiny(CONFIGS[name]), plan)
    stream = DeviceStream(
        case.model, case.stream.weights, case.stream.weights.scales(), torch.device(device)
    )
    return case, stream


def test_bytes_on_the_device_are_those_of_the_plan(device):
    case, stream = _stream(device, "mamba2")
    assert stream.weight_bytes == case.stream.weights.bytes
    assert stream.start(3).bytes == case.stream.start(3).bytes


def test_a_state_given_to_step_stays_as_it_was(device):
    """Two ways on from one state, and the first again; of two batch sizes by turns."""
    _, stream = _stream(device, "mamba")
    xs = inputs(CONFIGS["mamba"], 2, 2).to(device)
    first, other = stream.start(2), stream.start(1)
    a, after = stream.step(xs[:, 0], first)
    c, _ = stream.step(xs[:1, 0], other)
    b, _ = stream.step(xs[:, 1], after)
    again, after = stream.step(xs[:, 0], first)
    torch.testing.assert_close(again, a, rtol=0, atol=0)
    torch.testing.assert_close(stream.advance(xs[:, 1], after)[0], b, rtol=0, atol=0)
    torch.testing.assert_close(c, a[:1], rtol=1e-6, atol=1e-6)


def test_slots_step_in_any_order_and_start_again(device):
    """Of three: 2 and 0 step, then 0 starts anew; 1 was never touched."""
    _, stream = _stream(device, "mamba")
    xs, pool, alone = inputs(CONFIGS["mamba"], 2, 2).to(device), stream.start(3), stream.start(1)
    got, pool = stream.advance(xs[:, 0], pool, [2, 0])
    want, alone = stream.advance(xs[:1, 0], alone)
    torch.testing.assert_close(got[:1], want, rtol=1e-6, atol=1e-6)
    stream.restart(pool, [0])
    again, pool = stream.advance(xs[1:, 0], pool, [0])
    torch.testing.assert_close(again, got[1:], rtol=1e-6, atol=1e-6)
    first, _ = stream.advance(xs[1:, 0], pool, [1])
    torch.testing.assert_close(first, got[1:], rtol=1e-6, atol=1e-6)


def test_states_and_slots_that_do_not_fit_are_refused(device):
    _, stream = _stream(device, "mamba")
    x, pool = inputs(CONFIGS["mamba"], 1, 1)[:, 0].to(device), stream.start(2)
    with pytest.raises(DataError, match=r"not one of 1 sequence\(s\).*start\(1\)"):
        stream.step(x, pool)
    with pytest.raises(DataError, match="slot"):
        stream.advance(x, pool, [2])
    with pytest.raises(DataError, match="slot"):
        stream.advance(x, pool, [0, 1])


@pytest.mark.parametrize("name", ["tokens", "groups"])
@pytest.mark.parametrize("passing", ["fp32", "int8/range4"])
def test_whole_sequences_are_steps(device, name, passing):
    """Five tokens are four and one; the model's pooling sees all of them. x, B and C: numbers, or
    codes, in two layers."""
    plan = dict.fromkeys(["layers.*.x", "layers.*.B", "layers.*.C"], passing)
    case, stream = _stream(device, name, plan | {"layers.*.state": "int8/head/dynamic"})
    xs = inputs(CONFIGS[name], 2, 5)
    got, state = stream.whole(xs.to(device)).cpu(), case.stream.start(2)
    for t in range(5):
        want, state = case.stream.step(xs[:, t], state)
        if got.ndim == 3:
            torch.testing.assert_close(got[:, t], want, rtol=3e-5, atol=3e-5)
    if got.ndim == 2:
        torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-5)


def test_a_plan_without_a_kernel_says_why(device):
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.out_proj": "int4/group12"})
    given = (case.model, case.stream.weights, case.stream.weights.scales(), torch.device(device))
    stream, why = device_stream_of(*given)
    assert stream is None
    assert why == f"no kernel of {device} for scales of 12 columns: a power of two from 8 on"


@pytest.mark.parametrize("weight", ["int8", "int4", "int3/asym"])
def test_rows_that_fill_no_byte(device, weight):
    """dt_proj has 3 columns, x_proj rows of 16."""
    case, stream = _stream(device, "mamba", {"layers.*.dt_proj": weight})
    x = inputs(CONFIGS["mamba"], 1, 1)[:, 0]
    got, _ = stream.step(x.to(device), stream.start(1))
    want, _ = case.stream.step(x, case.stream.start(1))
    torch.testing.assert_close(got.cpu(), want, rtol=2e-5, atol=2e-5)
