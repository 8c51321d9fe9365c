"""S5 from packed memory: the state of its modes to the bit, outputs within float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import vector
from mimo import CONFIGS, PLAIN, inputs, tiny
from packed_memory import packed, same_modes
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.models.s5 import S5Config
from sensprobe.plans.cost import cost

STATES = [
    "int8/head/asym/parts/dynamic", "int8/dynamic", "int3/head/asym/dynamic",
    "int4/head/parts/dynamic/pow2", "e4m3/head/dynamic", "log4/head/dynamic/s32", "fp16", "bf16",
    "fp32", "int8/head/asym/parts/range2/s32", "int8/group2/dynamic", "int8/head/range2/feedback",
    "int5/group2/asym/parts/dynamic/stochastic", "int4/asym/parts/dynamic/feedback",
    "int8/head/dynamic/clip0.1", "int7/head/dynamic/stochastic",
]  # fmt: skip
ONE = S5Config(d_input=1, d_output=3, d_model=5, d_state=12, blocks=3)  # no multiple of anything
WIDE = S5Config(d_input=1, d_output=3, d_model=6, d_state=40)


def _inputs(batch: int, length: int) -> Tensor:
    return vector(batch, length, 1, dtype=torch.float32)


@pytest.mark.parametrize("scheme", STATES)
@pytest.mark.parametrize("config", [ONE, WIDE], ids=["blocks", "wide"])
def test_each_step_leaves_the_state_the_reference_leaves(config: S5Config, scheme: str) -> None:
    plan, xs = {"layers.*.state": scheme, "layers.*.A": "int8/head/asym/parts"}, _inputs(2, 4)
    case = packed(tiny(config), plan, xs / 2)
    made, state = case.stream.program(2), case.stream.start(2)
    for t, x in enumerate(xs.unbind(1)):
        before = state
        _, state = case.stream.step(x, state)
        v = torch.from_numpy(made.on_cpu.read(made.registers["drive"]))
        for b in range(2):
            same_modes(case, v[b], before.carry[b], state.carry[b], b, t)


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"layers.*.A": "int8/head/asym/parts", "layers.*.[BC]": "int4/channel"},
        {"layers.*.A": "logpolar(m2,p8)/head", "layers.*.B": "int3/group2", "layers.*.D": "int8"},
        {"layers.*.[ABC]": "fp16", "layers.*.x": "int8/dynamic", "layers.*.B": "int8/channel"},
        {"layers.*.norm": "int8", "layers.*.out_proj": "int8/channel", "head": "int8/channel"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_simulation(name: str, plan: dict[str, str]) -> None:
    config = CONFIGS[name]
    absent = {"layers.*.norm": config.norm == "none", "layers.*.out_proj": config.gate == "none"}
    model = tiny(config)
    case = packed(model, {p: s for p, s in plan.items() if not absent.get(p)})
    state, sim = case.stream.start(3), model.start(3, case.tap)
    for x in inputs(config, 3, 9).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"layers.*.norm_in": "int8/dynamic", "layers.*.norm_factor": "int6/range2"},
        {"layers.*.norm_factor": "fp16", "layers.*.norm": "int8", "layers.*.norm.bias": "int8"},
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_norm_of_two_factors_is_that_of_the_simulation(norm: str, plan: dict[str, str]) -> None:
    config = replace(PLAIN, norm=norm, norm_kind="layer-product", final_norm=True)
    case = packed(tiny(config), plan)
    state, sim = case.stream.start(3), case.model.start(3, case.tap)
    for x in inputs(config, 3, 9).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize("gate", ["full", "half1", "half2", "none"])
def test_a_gate_reads_what_a_rotated_map_reads_too(gate: str) -> None:
    """Of `half1` both sides of the gate: one reads the numbers, the other their rotation."""
    config = replace(PLAIN, d_model=8, gate=gate)
    plan = {"layers.*.out_proj_in": "int8/dynamic/hadamard"}
    plan |= {"layers.*.out_proj": "int8/hadamard"} if gate != "none" else {}
    case = packed(tiny(config), plan)
    state, sim = case.stream.start(3), case.model.start(3, case.tap)
    for x in inputs(config, 3, 9).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize("scheme", ["int3/head/asym/parts/dynamic", "fp16/feedback", "int3/range2"])
def test_live_buffers_are_the_bytes_of_the_plan(scheme: str) -> None:
    model = tiny(ONE)
    case = packed(model, {"layers.*.state": scheme, "layers.*.A": "int8/head/asym"}, _inputs(2, 4))
    told = cost(model.sites.values(), case.plan, batch=3)
    assert case.stream.weights.bytes == told.weight_bytes
    assert case.stream.start(3).bytes == told.state_bytes


def test_a_model_of_two_directions_has_no_step() -> None:
    with pytest.raises(UnsupportedError, match="Give it whole sequences"):
        packed(tiny(replace(PLAIN, bidirectional=True)), {}).stream.program(1)
