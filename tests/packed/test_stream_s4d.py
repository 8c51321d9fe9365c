"""S4D from packed memory: the complex state to the bit, outputs within float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import CONFIGS, tiny, vector
from packed_memory import held, packed, same_complex_state, values

from sensprobe.errors import UnsupportedError
from sensprobe.models.s4d import S4DConfig
from sensprobe.plans.cost import cost

STATES = [
    "int8/head/asym/parts/dynamic", "int8/head/dynamic", "int8/dynamic", "int6/asym/parts/dynamic",
    "int3/head/asym/dynamic", "int4/head/parts/dynamic/pow2", "int5/asym/dynamic/s32",
    "e4m3/head/dynamic", "e2m1/parts/dynamic", "log4/head/dynamic/s32", "fp16", "bf16", "fp32",
    "int8/head/range2", "int8/asym/parts/range2", "int8/head/dynamic/truncate",
    "int8/range2/pow2", "int8/head/asym/parts/range2/s32", "int8/group2/dynamic",
    "int5/group2/asym/parts/dynamic",
    "int8/head/dynamic/feedback", "int4/asym/parts/dynamic/feedback", "int8/head/range2/feedback",
    "int8/head/asym/parts/range0.1/feedback/clip0.2", "int3/group2/dynamic/feedback/clip0.1",
    "e4m3/head/dynamic/feedback", "int8/asym/dynamic/s32/feedback", "fp16/feedback",
    "bf16/feedback/clip0.1",
    "int4/head/dynamic/stochastic", "int8/asym/parts/range2/stochastic", "bf16/stochastic",
    "int5/group2/asym/parts/dynamic/stochastic", "e2m1/dynamic/stochastic/clip0.1",
    "int8/group2/parts/feedback", "int8/head/parts/stochastic", "int5/group2/s32",
    "int8/head/dynamic/clip0.1", "fp32/clip0.1", "int4/group2/parts/dynamic/clip0.1/truncate",
]  # fmt: skip
ONE = S4DConfig(d_input=1, d_output=3, d_model=5, d_state=4)  # no multiple of anything
WIDE = S4DConfig(d_input=1, d_output=3, d_model=9, d_state=48)


def _inputs(batch, length):
    return vector(batch, length, 1, dtype=torch.float32)


@pytest.mark.parametrize("scheme", STATES)
def test_each_step_leaves_the_state_the_reference_leaves(scheme):
    plan, xs = {"layers.*.state": scheme, "layers.*.A": "int8/head/asym/parts"}, _inputs(2, 6)
    case = packed(tiny(ONE), plan, xs / 2)
    made, state = case.stream.program(2), case.stream.start(2)
    for t, x in enumerate(xs.unbind(1)):
        before = state
        _, state = case.stream.step(x, state)
        u = torch.from_numpy(made.on_cpu.read(made.registers["v"]))
        for b in range(2):
            same_complex_state(case, u[b], before.carry[b], state.carry[b], b, t)


@pytest.mark.parametrize("scheme", STATES[:8])
def test_heads_without_a_kernel_have_no_state(scheme):
    """Those that have one leave what the reference leaves, of their numbers of x alone."""
    plan, xs = {"layers.*.state": scheme, "layers.*.A": "int8/head/asym/parts"}, _inputs(2, 6)
    case = packed(tiny(replace(ONE, kernels="0 3 4")), plan, xs / 2)
    told = cost(case.model.sites.values(), case.plan, batch=2)
    made, state = case.stream.program(2), case.stream.start(2)
    assert (state.bytes, case.stream.weights.bytes) == (told.state_bytes, told.weight_bytes)
    for t, x in enumerate(xs.unbind(1)):
        before = state
        _, state = case.stream.step(x, state)
        u = torch.from_numpy(made.on_cpu.read(made.registers["driven"]))
        assert torch.equal(u, torch.from_numpy(made.on_cpu.read(made.registers["v"]))[:, [0, 3, 4]])
        for b in range(2):
            same_complex_state(case, u[b], before.carry[b], state.carry[b], b, t)


@pytest.mark.parametrize(
    "plan",
    [
        {"*.A": "logpolar(m2,p8)/head", "*.B": "int2/head", "*.C": "int3/head"},
        {"*.A": "logpolar(m1,p11)/s32", "*.B": "polar(m3,p7)/head", "*.C": "polar(m8,p8)/pow2"},
        {"*.[ABC]": "polar(m7,p9)/group2"},
    ],
    ids=str,
)
def test_magnitudes_and_phases_are_read_by_steps(plan):
    """The state is the reference's, to the bit: so A and B are, and C by what comes out."""
    xs = _inputs(2, 6)
    case = packed(tiny(ONE), {**plan, "layers.*.state": "int7/head/dynamic"}, xs)
    made, state = case.stream.program(2), case.stream.start(2)
    sim = case.model.start(2, case.tap)
    for t, x in enumerate(xs.unbind(1)):
        before = state
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())
        u = torch.from_numpy(made.on_cpu.read(made.registers["v"]))
        for b in range(2):
            same_complex_state(case, u[b], before.carry[b], state.carry[b], b, t)


@pytest.mark.parametrize(
    "scheme", ["int8/group16/asym/parts/dynamic", "int5/range2", "int7/dynamic"]
)
@pytest.mark.parametrize("option", ["feedback", "stochastic", "clip0.1/feedback"])
def test_wide_states_are_left_as_the_reference_leaves_them(scheme, option):
    """Rows of more numbers than a vector has, and that do not fill their last one."""
    case = packed(tiny(WIDE), {"layers.*.state": f"{scheme}/{option}"})
    made, state = case.stream.program(1), case.stream.start(1)
    for t, x in enumerate(_inputs(1, 3).unbind(1)):
        before = state
        _, state = case.stream.step(x, state)
        u = torch.from_numpy(made.on_cpu.read(made.registers["v"]))
        same_complex_state(case, u[0], before.carry[0], state.carry[0], 0, t)


@pytest.mark.parametrize("option", ["feedback", "stochastic", "clip0.1", "truncate"])
@pytest.mark.parametrize("scheme", ["int5/head/dynamic", "int5/range2", "bf16"])
def test_every_option_changes_what_is_kept(scheme, option):
    """So the checks to the bit see each of them at work."""
    kept = []
    for text in (scheme, f"{scheme}/{option}"):
        case = packed(tiny(ONE), {"layers.*.state": text})
        state = case.stream.start(1)
        for x in _inputs(1, 6).unbind(1):
            _, state = case.stream.step(x, state)
        found = values(held(state.carry[0], case.model, case.plan)["layers.0.state"], case.tap)
        kept.append(found.state)
    assert not torch.equal(*kept)


@pytest.mark.parametrize("scheme", STATES)
def test_the_first_step_starts_from_zero(scheme):
    model = tiny(ONE)
    case = packed(model, {"layers.*.state": scheme}, _inputs(2, 6))
    x = torch.zeros(2, 1)
    (got, _), (want, _) = case.step(x, case.stream.start(2), model.start(2, case.tap))
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"layers.*.[ABC]": "int8/head/asym/parts", "layers.*.out_proj": "int4/channel"},
        {"layers.*.[ABC]": "int4/head", "layers.*.D": "int8", "encoder": "fp16"},
        {"layers.*.[ABC]": "int6/group2", "head": "int8/channel/asym"},
        {"layers.*.[AC]": "fp16", "layers.*.out_proj": "e4m3/channel"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [*CONFIGS, "one"])
def test_outputs_are_those_of_the_simulation(name, plan):
    config = ONE if name == "one" else CONFIGS[name]
    if config.d_state < 2 and plan:
        plan = {"layers.*.out_proj": "int4"}
    if config.d_input == 1:
        plan = {p: s for p, s in plan.items() if p != "encoder"}
    model = tiny(config)
    if "head" in plan and "head" not in model.sites:  # one of several layers
        plan = {p.replace("head", "head.*[0-9]"): s for p, s in plan.items()}
    case = packed(model, plan)
    state, sim = case.stream.start(3), model.start(3, case.tap)
    for x in vector(3, 9, config.d_input, dtype=torch.float32).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    "scheme",
    ["int3/head/asym/parts/dynamic", "int3/group2/asym/parts/dynamic/feedback", "fp16/feedback",
     "int3/range2/feedback", "int3/group2/dynamic/stochastic"],
)  # fmt: skip
def test_live_buffers_are_the_bytes_of_the_plan(scheme):
    model = tiny(ONE)
    case = packed(model, {"layers.*.state": scheme, "layers.*.A": "int8/head/asym"})
    told = cost(model.sites.values(), case.plan, batch=3)
    assert case.stream.weights.bytes == told.weight_bytes
    assert case.stream.start(3).bytes == told.state_bytes


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({"layers.*.state": "int8/group3/dynamic"}, "groups of a complex state that n does not"),
        ({"layers.*.state": "int8/head/dynamic/every16"}, "in full for 16 steps"),
        ({"layers.*.state": "int12/head/dynamic"}, "more than 8 bits"),
    ],
)
def test_a_plan_without_a_kernel_says_which_site_and_why(plan, why):
    with pytest.raises(UnsupportedError, match=f"layers.0.*{why}"):
        packed(tiny(ONE), plan).stream.program(1)
