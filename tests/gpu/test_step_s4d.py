"""An S4D step on a GPU: the complex state to the bit, outputs within float32."""

from __future__ import annotations

import pytest
import torch
from builders import CONFIGS, tiny, vector
from gpu_slots import SLOTS, many_tokens_are_as_many_steps, on
from packed_memory import packed, same_complex_state
from sensprobe_kernels.launch import LoweringError

from sensprobe.models.s4d import S4DConfig
from sensprobe.packed import DeviceStream

SCHEMES = [
    "int8/head/asym/parts/dynamic", "int8/dynamic", "int6/asym/parts/dynamic",
    "int3/head/asym/dynamic", "int4/head/parts/dynamic/pow2", "int5/asym/dynamic/s32",
    "e4m3/head/dynamic", "e2m1/parts/dynamic", "fp16", "bf16", "fp32", "int8/head/range2",
    "int8/asym/parts/range2", "int8/head/dynamic/truncate", "int8/head/asym/parts/range2/s32",
    "int8/group2/dynamic", "int5/group2/asym/parts/dynamic", "int8/group2/parts/range2",
    "int8/group1/asym/range2/pow2", "int4/group2/dynamic/pow2/stochastic",
    "int8/head/dynamic/feedback", "int4/asym/parts/dynamic/feedback", "int8/head/range2/feedback",
    "int8/head/asym/parts/range0.1/feedback/clip0.2", "int3/group2/dynamic/feedback/clip0.1",
    "e4m3/head/dynamic/feedback", "fp16/feedback", "bf16/feedback/clip0.1",
    "int4/head/dynamic/stochastic", "int8/asym/parts/range2/stochastic", "bf16/stochastic",
    "int8/group2/parts/feedback", "int8/head/parts/stochastic", "int5/group2/s32",
    "int8/head/dynamic/clip0.1", "fp32/clip0.1",
]  # fmt: skip
ONE = S4DConfig(d_input=1, d_output=3, d_model=5, d_state=4)  # no multiple of anything
WIDE = S4DConfig(d_input=1, d_output=3, d_model=9, d_state=48)  # two programs, a row padded


def _inputs(batch: int, length: int) -> torch.Tensor:
    return vector(batch, length, 1, dtype=torch.float32)


def _follow(device: str, case, xs: torch.Tensor) -> None:
    """States that each step leaves are the reference's, to the bit."""
    batch = len(xs)
    program, made = on(device, case, batch)
    state, slots = case.stream.start(batch), SLOTS[:batch]
    for t, x in enumerate(xs.unbind(1)):
        program.states.put(torch.from_numpy(state.carry), slots, t)
        program.feed(x)
        program.run()
        after = program.states.get(slots).numpy()
        u = program.read(made.registers["v"]).cpu()
        for b, slot in enumerate(slots.tolist()):
            same_complex_state(case, u[b], state.carry[b], after[b], slot, t)
        _, state = case.stream.step(x, state)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_step_leaves_the_state_the_reference_leaves(device, scheme):
    plan, xs = {"layers.*.state": scheme, "layers.*.A": "int8/head/asym/parts"}, _inputs(2, 3)
    _follow(device, packed(tiny(ONE), plan, xs / 2), xs)


@pytest.mark.parametrize(
    "plan",
    [
        {"*.A": "logpolar(m2,p8)/head", "*.B": "polar(m3,p7)/head"},
        {"*.A": "logpolar(m1,p11)/s32", "*.B": "polar(m8,p8)/pow2"},
        {"*.[AB]": "polar(m7,p16)/group2"},
    ],
    ids=str,
)
def test_magnitudes_and_phases_are_read_by_steps(device, plan):
    xs = _inputs(2, 3)
    _follow(device, packed(tiny(ONE), {**plan, "layers.*.state": "int7/head/dynamic"}), xs)


@pytest.mark.parametrize(
    "scheme", ["int8/group16/asym/parts/dynamic", "int5/group8/range2", "int7/dynamic"]
)
@pytest.mark.parametrize("option", ["feedback", "stochastic", "clip0.1"])
def test_wide_states_are_left_as_the_reference_leaves_them(device, scheme, option):
    case = packed(tiny(WIDE), {"layers.*.state": f"{scheme}/{option}"})
    _follow(device, case, _inputs(1, 2))


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize(
    "scheme",
    ["int8/head/dynamic/feedback", "int4/dynamic/stochastic", "int8/group2/asym/parts/dynamic",
     "int5/group2/range2/feedback/clip0.1"],
)  # fmt: skip
def test_many_tokens_at_once_are_as_many_steps(device, scheme):
    """To the bit, and again from where they left."""
    case = packed(tiny(ONE), {"layers.*.state": scheme})
    many_tokens_are_as_many_steps(device, case, _inputs(2, 6))


@pytest.mark.parametrize("name", [*CONFIGS])
def test_whole_sequences_are_steps(device, name):
    config = CONFIGS[name]
    plan = {"layers.*.out_proj": "int8/channel", "layers.*.state": "fp32"}
    case = packed(tiny(config), plan)
    stream = DeviceStream(
        case.model, case.stream.weights, case.stream.weights.scales(), torch.device(device)
    )
    xs, state = vector(2, 5, config.d_input, dtype=torch.float32), case.stream.start(2)
    got = stream.whole(xs.to(device)).cpu()
    for t in range(5):
        want, state = case.stream.step(xs[:, t], state)
    torch.testing.assert_close(got, want, rtol=3e-5, atol=3e-5 * want.abs().max().item())


def test_groups_of_odd_sizes_have_no_kernel(device):
    case = packed(
        tiny(S4DConfig(d_input=1, d_output=3, d_model=5, d_state=6)),
        {"layers.*.state": "int8/group3/dynamic"},
    )
    with pytest.raises(LoweringError, match="scales of groups of 3 pairs"):
        on(device, case, 1)
