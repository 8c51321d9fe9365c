"""An S5 step on a GPU: the state of its modes to the bit, outputs within float32."""

from __future__ import annotations

import pytest
import torch
from builders import vector
from gpu_slots import SLOTS, many_tokens_are_as_many_steps, on
from mimo import CONFIGS, inputs, tiny
from packed_memory import packed, same_modes

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


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("config", [ONE, WIDE], ids=["blocks", "wide"])
def test_each_step_leaves_the_state_the_reference_leaves(device, config, scheme):
    xs = vector(2, 3, 1, dtype=torch.float32)
    plan = {"layers.*.state": scheme, "layers.*.A": "logpolar(m2,p8)/head"}
    case = packed(tiny(config), plan, xs / 2)
    program, made = on(device, case, 2)
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


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("scheme", ["int8/head/dynamic/feedback", "int4/dynamic/stochastic"])
def test_many_tokens_at_once_are_as_many_steps(device, scheme):
    """To the bit, and again from where they left."""
    case = packed(tiny(ONE), {"layers.*.state": scheme})
    many_tokens_are_as_many_steps(device, case, vector(2, 6, 1, dtype=torch.float32))


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
