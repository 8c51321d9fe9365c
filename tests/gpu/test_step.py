"""A model's step on a GPU: the states it leaves to the bit, its outputs within float32."""

from __future__ import annotations

import pytest
import torch
from packed_memory import CONFIGS, GROUPED, ONE, STATES, packed, same_states
from selective import inputs, tiny
from sensprobe_kernels.launch import LoweringError
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram

from sensprobe.models.mamba import MambaConfig

BATCH = 2


def _on(device: str, case, slots: int = BATCH, batch: int = BATCH, length: int = 1):
    made = case.stream.program(batch * length)
    weights = Weights(made.program.data, device)
    states = States(made.program, made.fresh.size, slots, weights)
    return GpuProgram(made.program, length, states), made


def _follow(device: str, case, xs: torch.Tensor) -> None:
    """States that each step leaves are the reference's of the same inputs, outputs near its own."""
    batch = len(xs)
    program, made = _on(device, case, batch, batch)
    state, slots = case.stream.start(batch), torch.arange(batch)
    for t, x in enumerate(xs.unbind(1)):
        program.states.put(torch.from_numpy(state.carry), slots, t)
        program.feed(x)
        program.run()
        after = program.states.get(slots).numpy()
        registers = {n: program.read(at).cpu() for n, at in made.registers.items()}
        for b in range(batch):
            same_states(case, registers, state.carry[b], after[b], b, t)
        want, state = case.stream.step(x, state)
        got = program.read(made.outputs).cpu()
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    ("name", "batch", "scheme"),
    [(name, 1, scheme) for name in ("mamba", "mamba2") for scheme in STATES]
    + [(name, 2, "int4/head/dynamic/stochastic") for name in ("mamba", "mamba2", "ungated")]
    + [("pairs", 2, "int8/dynamic")],
)
def test_each_step_leaves_the_state_the_reference_leaves(device, name, batch, scheme):
    """From the same packed state and the inputs the kernels themselves computed, to the bit."""
    window = scheme.replace("/feedback", "")
    plan = {"layers.*.state": scheme, "layers.*.conv_state": window.replace("head", "channel")}
    case = packed(tiny(CONFIGS[name]), plan)
    _follow(device, case, inputs(CONFIGS[name], batch, 2))


@pytest.mark.parametrize("name", ["wide", "ungated"])
@pytest.mark.parametrize("scheme", GROUPED)
def test_rows_with_several_scales_are_left_as_the_reference_leaves_them(device, name, scheme):
    xs = inputs(CONFIGS[name], 1, 2)
    _follow(device, packed(tiny(CONFIGS[name]), {"layers.*.state": scheme}, xs / 2), xs)


def test_live_scales_of_odd_groups_have_no_kernel(device):
    case = packed(tiny(CONFIGS["ungated"]), {"layers.*.state": "int8/group6/dynamic"})
    with pytest.raises(LoweringError, match="groups of 6 numbers of a state"):
        _on(device, case)


@pytest.mark.parametrize(
    "scheme",
    ["int8/range1", "int8/asym/range1", "int8/range1/pow2", "int8/head/range1/s32", "fp16",
     "e4m3/range1/s32", "int12/range1", "int8/head/dynamic", "int6/head/asym/dynamic",
     "int4/head/dynamic/stochastic", "int8/range1/stochastic"],
)  # fmt: skip
def test_decays_are_rounded_as_the_reference_rounds_them(device, scheme):
    """Which a state kept in full shows to the bit."""
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.decay": scheme})
    _follow(device, case, inputs(CONFIGS["mamba"], BATCH, 3))


def test_the_comparison_can_fail(device):
    """One code off by one is seen."""
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.state": "int8/head/dynamic"})
    program, made = _on(device, case)
    state, slots = case.stream.start(BATCH), torch.arange(BATCH)
    program.feed(inputs(CONFIGS["mamba"], BATCH, 1)[:, 0])
    program.states.put(torch.from_numpy(state.carry), slots, 0)
    program.run()
    after = program.states.get(slots).numpy()
    registers = {n: program.read(at).cpu() for n, at in made.registers.items()}
    same_states(case, registers, state.carry[0], after[0], 0, 0)
    at = next(s.at for s in made.program.states if s.bits == 8)
    after[0, at] ^= 1
    with pytest.raises(AssertionError):
        same_states(case, registers, state.carry[0], after[0], 0, 0)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("tokens", "int4/group8"), ("groups", "int8/channel/asym"), ("bare", "fp16")],
)
def test_whole_models_under_packed_weights(device, name, weight):
    """Weights packed, activations rounded, states of int8: outputs of two steps."""
    plan = {
        "layers.*.in_proj.z": weight, "layers.*.in_proj.x": weight, "layers.*.out_proj": weight,
        "layers.*.A": "int8", "layers.*.conv": "int8/channel", "layers.*.y": "int8/range4",
        "layers.*.D": "int8", "layers.*.in_proj_in": "int8/dynamic",
        "layers.*.state": "int8/head/dynamic",
    }  # fmt: skip
    case = packed(tiny(CONFIGS[name]), plan)
    program, made = _on(device, case)
    state, slots = case.stream.start(BATCH), torch.arange(BATCH)
    program.states.put(torch.from_numpy(state.carry), slots, 0)
    for x in inputs(CONFIGS[name], BATCH, 2).unbind(1):
        program.feed(x)
        program.run()
        want, state = case.stream.step(x, state)
        got = program.read(made.outputs).cpu()
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    "plan",
    [
        {"layers.*.in_proj_in": "int8/dynamic", "layers.*.in_proj.?": "int8/channel",
         "layers.*.out_proj_in": "int8/range3", "layers.*.out_proj": "int4/channel/asym"},
        {"layers.*.out_proj_in": "int8/hadamard/dynamic",
         "layers.*.in_proj_in": "int6/hadamard/dynamic",
         "layers.*.in_proj.?": "int8/channel/hadamard"},
        {"layers.*.out_proj_in": "int8/hadamard/dynamic",
         "layers.*.out_proj": "int4/channel/hadamard"},
    ],
    ids=["whole numbers", "rotated", "rotated whole numbers"],
)  # fmt: skip
def test_products_of_codes_and_of_what_is_rotated(device, plan):
    """16 and 24 columns: Sylvester's matrix, and two blocks of Paley's."""
    config = MambaConfig(**(ONE | {"d_model": 24, "expand": 2}), dt_rank=3, d_state=4)
    case = packed(tiny(config), plan)
    program, made = _on(device, case)
    state, slots = case.stream.start(BATCH), torch.arange(BATCH)
    program.states.put(torch.from_numpy(state.carry), slots, 0)
    for x in inputs(config, BATCH, 2).unbind(1):
        program.feed(x)
        program.run()
        want, state = case.stream.step(x, state)
        got = program.read(made.outputs).cpu()
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


def test_any_sequences_step_in_any_order(device):
    """Slots 3 and 1 of four: as if they stepped alone; the others stay as they were."""
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.state": "int4/head/dynamic"})
    program, _ = _on(device, case, slots=4)
    xs = inputs(CONFIGS["mamba"], BATCH, 2)
    fresh = torch.from_numpy(case.stream.start(4).carry)
    program.states.put(fresh, torch.arange(4), 0)
    program.buffers.order.copy_(torch.tensor([3, 1]))
    other, _ = _on(device, case)
    other.states.put(fresh[:2], torch.arange(2), 0)
    for x in xs.unbind(1):
        for p in (program, other):
            p.feed(x)
            p.run()
    torch.testing.assert_close(
        program.states.get(torch.tensor([3, 1])), other.states.get(torch.arange(2))
    )
    torch.testing.assert_close(program.states.get(torch.tensor([0, 2])), fresh[:2])


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("mamba", "int8/head/asym/dynamic"), ("mamba2", "int4/head/dynamic/stochastic"),
     ("mamba", "int8/head/dynamic/feedback"), ("groups", "e4m3/head/dynamic"),
     ("ungated", "int8/group8/asym/dynamic")],
)  # fmt: skip
def test_many_tokens_at_once_are_as_many_steps(device, name, scheme):
    """States to the bit where inputs are, outputs at every token, and again from where it left."""
    window = scheme.replace("/feedback", "").replace("head", "channel")
    case = packed(tiny(CONFIGS[name]), {"layers.*.state": scheme, "layers.*.conv_state": window})
    whole, made = _on(device, case, length=3)
    single, _ = _on(device, case)
    xs, slots = inputs(CONFIGS[name], BATCH, 6), torch.arange(BATCH)
    fresh = torch.from_numpy(case.stream.start(BATCH).carry)
    for program in (whole, single):
        program.states.put(fresh, slots, 0)
    for first in (0, 3):
        whole.feed(xs[:, first : first + 3].flatten(0, 1))
        whole.run()
        got = whole.read(made.outputs).cpu().unflatten(0, (BATCH, 3))
        for t in range(3):
            single.feed(xs[:, first + t])
            single.run()
            outputs = case.stream.program(BATCH).outputs
            want = single.read(outputs).cpu()
            torch.testing.assert_close(got[:, t], want, rtol=2e-5, atol=2e-5)
    differ = whole.states.get(slots) != single.states.get(slots)
    assert differ.float().mean() < 0.02, "sums in another order move a code now and then"
