"""An S4D step on a GPU: the complex state to the bit, outputs within float32."""

from __future__ import annotations

import pytest
import torch
from builders import CONFIGS, tiny, vector
from packed_memory import held, packed, same, values
from sensprobe_kernels.launch import LoweringError
from sensprobe_kernels.program.device import States, Weights
from sensprobe_kernels.program.gpu import GpuProgram

from sensprobe.models.s4d import S4DConfig
from sensprobe.ops.diagonal_scan import diagonal_scan
from sensprobe.packed import DeviceStream
from sensprobe.storage import Memory

SCHEMES = [
    "int8/head/asym/parts/dynamic", "int8/dynamic", "int6/asym/parts/dynamic",
    "int3/head/asym/dynamic", "int4/head/parts/dynamic/pow2", "int5/asym/dynamic/s32",
    "e4m3/head/dynamic", "e2m1/parts/dynamic", "fp16", "bf16", "fp32", "int8/head/range2",
    "int8/asym/parts/range2", "int8/head/dynamic/truncate", "int8/head/asym/parts/range2/s32",
]  # fmt: skip
ONE = S4DConfig(d_input=1, d_output=3, d_model=5, d_state=4)  # no multiple of anything


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_step_leaves_the_state_the_reference_leaves(device, scheme):
    model = tiny(ONE)
    case = packed(model, {"layers.*.state": scheme, "layers.*.A": "int8/head/asym/parts"})
    made, state = case.stream.program(1), case.stream.start(1)
    weights = Weights(made.program.data, device)
    program = GpuProgram(made.program, 1, States(made.program, made.fresh.size, 1, weights))
    site, slots = model.sites["layers.0.state"], torch.arange(1)
    for t, x in enumerate(vector(1, 3, 1, dtype=torch.float32).unbind(1)):
        program.states.put(torch.from_numpy(state.memory), slots, t)
        program.feed(x)
        program.run()
        memories = state.memory[0], program.states.get(slots).numpy()[0]
        u = program.read(made.registers["v"]).cpu()
        A, B, C = (
            case.tap(model.sites[f"layers.0.{n}"], model.weights[f"layers.0.{n}"]) for n in "ABC"
        )
        old, new = (values(held(m, model, case.plan)[site.name], case.tap) for m in memories)
        kept = Memory(old.state[None], None, t)
        _, want = diagonal_scan(u[0][None, None], A, B, C, case.tap.storage(site), kept)
        same(want, Memory(new.state[None]))
        _, state = case.stream.step(x, state)


@pytest.mark.parametrize("name", [*CONFIGS])
def test_whole_sequences_are_steps(device, name):
    config = CONFIGS[name]
    plan = {"layers.*.out_proj": "int8/channel", "layers.*.state": "fp32"}
    case = packed(tiny(config), plan)
    stream = DeviceStream(
        case.model, case.stream.arena, case.stream.arena.scales(), torch.device(device)
    )
    xs, state = vector(2, 5, config.d_input, dtype=torch.float32), case.stream.start(2)
    got = stream.whole(xs.to(device)).cpu()
    for t in range(5):
        want, state = case.stream.step(xs[:, t], state)
    torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-5 * want.abs().max().item())


def test_scales_of_groups_have_no_kernel(device):
    case = packed(tiny(ONE), {"layers.*.state": "int8/group2/dynamic"})
    made = case.stream.program(1)
    weights = Weights(made.program.data, device)
    states = States(made.program, made.fresh.size, 1, weights)
    with pytest.raises(LoweringError, match="scales of groups of a complex state"):
        GpuProgram(made.program, 1, states)
