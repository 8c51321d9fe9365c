"""An S5 step on a GPU: the state of its modes to the bit, outputs within float32."""

from __future__ import annotations

import pytest
import torch
from builders import vector
from mimo import CONFIGS, inputs, tiny
from packed_memory import packed, same_modes
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram

from sensprobe.models.s5 import S5Config
from sensprobe.packed import DeviceStream

SCHEMES = [
    "int8/head/asym/parts/dynamic", "int8/dynamic", "int4/head/parts/dynamic/pow2", "fp16", "bf16",
    "fp32", "e4m3/head/dynamic", "int8/head/asym/parts/range2/s32", "int8/group2/dynamic",
    "int4/asym/parts/dynamic/feedback", "int5/group2/asym/parts/dynamic/stochastic",
    "int8/head/dynamic/clip0.1",
]  # fmt: skip
ONE = S5Config(d_input=1, d_output=3, d_model=5, d_state=12, blocks=3)  # no multiple of anything
WIDE = S5Config(d_input=1, d_output=3, d_model=6, d_state=40)  # a row padded
SLOTS = torch.tensor([2, 0])  # of two sequences, among three


def _on(device: str, case, batch: int, length: int = 1):
    """A program of some of three slots."""
    made = case.stream.program(batch * length)
    weights = Weights(made.program.data, device)
    states = States(made.program, made.fresh.size, 3, weights)
    program = GpuProgram(made.program, length, states)
    program.buffers.order.copy_(SLOTS[:batch])
    return program, made


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("config", [ONE, WIDE], ids=["blocks", "wide"])
def test_each_step_leaves_the_state_the_reference_leaves(device, config, scheme):
    xs = vector(2, 3, 1, dtype=torch.float32)
    plan = {"layers.*.state": scheme, "layers.*.A": "logpolar(m2,p8)/head"}
    case = packed(tiny(config), plan, xs / 2)
    program, made = _on(device, case, 2)
    state = case.stream.start(2)
    for t, x in enumerate(xs.unbind(1)):
        program.states.put(torch.from_numpy(state.carry), SLOTS, t)
        program.feed(x)
        program.run()
        after = program.states.get(SLOTS).numpy()
        v = program.read(made.registers["drive"]).cpu()
        for b, slot in enumerate(SLOTS.tolist()):
            same_modes(case, v[b], state.carry[b], after[b], slot, t)
        _, state = case.stream.step(x, state)


@pytest.mark.parametrize("scheme", ["int8/head/dynamic/feedback", "int4/dynamic/stochastic"])
def test_many_tokens_at_once_are_as_many_steps(device, scheme):
    """To the bit, and again from where they left."""
    case = packed(tiny(ONE), {"layers.*.state": scheme})
    (whole, _), (single, _) = _on(device, case, 2, length=3), _on(device, case, 2)
    fresh, xs = torch.from_numpy(case.stream.start(2).carry), vector(2, 6, 1, dtype=torch.float32)
    for program in (whole, single):
        program.states.put(fresh, SLOTS, 0)
    for first in (0, 3):
        whole.feed(xs[:, first : first + 3].flatten(0, 1))
        whole.run()
        for x in xs[:, first : first + 3].unbind(1):
            single.feed(x)
            single.run()
        assert torch.equal(whole.states.get(SLOTS), single.states.get(SLOTS))
    assert not torch.equal(whole.states.get(SLOTS), fresh)


@pytest.mark.parametrize("name", CONFIGS)
def test_whole_sequences_are_steps(device, name):
    """Also of folded norms and every gate."""
    config = CONFIGS[name]
    case = packed(tiny(config), {"layers.*.B": "int8/channel", "layers.*.state": "fp32"})
    stream = DeviceStream(
        case.model, case.stream.weights, case.stream.weights.scales(), torch.device(device)
    )
    xs, state = inputs(config, 2, 5), case.stream.start(2)
    got = stream.whole(xs.to(device)).cpu()
    for t in range(5):
        want, state = case.stream.step(xs[:, t], state)
        last = got[:, t] if config.pooling == "none" else got
    torch.testing.assert_close(last, want, rtol=3e-5, atol=3e-5 * want.abs().max().item())
