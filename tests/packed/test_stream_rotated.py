"""Steps of models whose weights or activations are stored in the basis of a Hadamard transform."""

from __future__ import annotations

import pytest
import torch
from packed_memory import held, packed, same, values
from selective import inputs, tiny

from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.numerics.rounding import min_max, quantize, scale_and_zero
from sensprobe.numerics.storage import Carry
from sensprobe.numerics.transforms import rotate
from sensprobe.ops.causal_conv import reference as causal_conv
from sensprobe.ops.selective_scan import reference as selective_scan
from sensprobe.plans.fitting import hadamard_order
from sensprobe.plans.sites import Kind, Part

ONE = {"d_input": 4, "d_output": 4, "pooling": "none"}
CONFIGS = {
    "mamba": MambaConfig(**ONE, d_model=24, dt_rank=6, d_state=4),  # 24 = 12 · 2
    "mamba2": Mamba2Config(**ONE, d_model=40, d_state=8, d_head=16, groups=1, expand=2),
    "tokens": MambaConfig(
        d_input=12, d_output=12, d_model=64, encoder="embedding", tied_head=True, head_bias=False,
        pooling="none", dt_rank=4, d_state=16, layers=2,
    ),
}  # fmt: skip
LINEAR = {
    Part.IN_PROJ_IN: ("in_proj.x", "in_proj.z", "in_proj.B", "in_proj.C", "in_proj.dt"),
    Part.DT_PROJ_IN: ("dt_proj",),
    Part.OUT_PROJ_IN: ("out_proj",),
}


def turnable(model, scheme: str, kind: Kind = Kind.WEIGHT) -> dict[str, str]:
    """Every site of a kind that can be rotated, in a scheme."""
    return {
        name: scheme
        for name, site in model.sites.items()
        if site.kind is kind and site.part is not Part.DECAY and hadamard_order(site.shape[-1]) > 1
    }


@pytest.mark.parametrize("scheme", ["int8/hadamard", "fp16/hadamard", "int5/asym/s32/hadamard"])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_simulation(name, scheme):
    """Every weight there is stored rotated: matrices that multiply rotated vectors, and norms,
    filters, biases, A, D and rows of the embedding, which are taken back."""
    model = tiny(CONFIGS[name])
    case = packed(model, turnable(model, scheme))
    state, sim = case.stream.start(3), model.start(3, case.tap)
    for x in inputs(CONFIGS[name], 3, 5).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


def test_states_are_the_reference_s_under_weights_taken_back():
    """The filter and A are decoded to the bit: so are the states they make."""
    config, batch = CONFIGS["mamba"], 2
    model = tiny(config)
    plan = {"layers.0.state": "int8/head/dynamic", "layers.0.conv_state": "int8/channel/dynamic"}
    case = packed(model, turnable(model, "int6/hadamard") | plan)
    made, state = case.stream.program(batch), case.stream.start(batch)

    def weight(part):
        return case.tap(model.sites[f"layers.0.{part}"], model.weights[f"layers.0.{part}"])

    for t, x in enumerate(inputs(config, batch, 4).unbind(1)):
        before = state
        _, state = case.stream.step(x, state)
        for b in range(batch):
            old, new = (held(s.carry[b], model, case.plan) for s in (before, state))

            def register(name, b=b):
                found = torch.from_numpy(made.on_cpu.read(made.registers[name]))
                return found[b][None, None]

            def memory(part, states, t=t):
                return Carry(values(states[f"layers.0.{part}"], case.tap).state[None], None, t)

            storage = [case.tap.storage(model.sites[f"layers.0.{p}"]) for p in plan_parts(plan)]
            _, window = causal_conv(
                register("conv_in"), weight("conv"), weight("conv.bias"), storage[1],
                memory("conv_state", old),
            )  # fmt: skip
            same(window, memory("conv_state", new))
            x_, dt, B, C = (register(n) for n in ("x", "dt", "B", "C"))
            _, kept = selective_scan(
                x_, dt, weight("A"), B, C, None, storage[0], memory("state", old)
            )
            same(kept, memory("state", new))


def plan_parts(plan: dict[str, str]) -> list[str]:
    return [name.rsplit(".", 1)[1] for name in plan]


@pytest.mark.parametrize("text", ["int8/dynamic/hadamard", "int4/range3/hadamard"])
@pytest.mark.parametrize("name", CONFIGS)
def test_rounded_in_the_basis_that_weights_are_stored_in(name, text):
    """Both sides of a product rotated, which is what is deployed: nothing is taken back."""
    model = tiny(CONFIGS[name])
    last = model.config.layers - 1
    chosen = {
        f"layers.*.{part}": scheme
        for reads, weights in LINEAR.items()
        for part, scheme in [(reads, text), *((w, "int8/channel/hadamard") for w in weights)]
        if f"layers.0.{part}" in model.sites
    }
    case = packed(model, chosen)
    rounded_ = packed(model, {n: s for n, s in chosen.items() if s != text})
    x, damage = inputs(CONFIGS[name], 4, 1)[:, 0], {}
    for one in (case, rounded_):
        (got, _), (want, _) = one.step(x, one.stream.start(4), model.start(4, one.tap))
        damage[id(one)] = got, want
    (got, want), (_, exact) = damage[id(case)], damage[id(rounded_)]
    assert (got - want).abs().max() < (want - exact).abs().max() / 4, "less than rounding costs"
    assert (got - want).abs().median() < 1e-5
    made = case.stream.program(4)
    codes = torch.from_numpy(made.on_cpu.read(made.registers["y"]))  # as out_proj reads it
    site = model.sites[f"layers.{last}.out_proj_in"]
    scheme = case.plan[site.name]
    static = case.stream.scales.get(site.name)
    scale, _ = static or scale_and_zero(scheme, *min_max(codes, scheme, site))
    again = quantize(codes, scheme, site, scale)
    torch.testing.assert_close(again, codes, rtol=1e-6, atol=0)


def test_readers_of_both_kinds_find_what_they_read():
    """x is read by a recurrence, by matrices stored rotated and by one that is not."""
    config = CONFIGS["mamba"]
    plan = {
        "layers.*.x": "bf16/hadamard", "layers.*.x_proj.B": "int8/channel/hadamard",
        "layers.*.x_proj.dt": "int8/channel/hadamard", "layers.*.x_proj.C": "int8/channel",
    }  # fmt: skip
    model = tiny(config)
    case, free = packed(model, plan), packed(model, {})
    x = inputs(config, 3, 1)[:, 0]
    for one in (case, free):
        one.stream.step(x, one.stream.start(3))

    def register(one, name):
        made = one.stream.program(3)
        return torch.from_numpy(made.on_cpu.read(made.registers[name]))

    site = model.sites["layers.0.x"]
    want = case.tap(site, register(free, "x"))
    torch.testing.assert_close(register(case, "x"), want, rtol=0, atol=0)
    turned = register(case, "x rotated")
    torch.testing.assert_close(turned, rotate(want), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(turned, turned.bfloat16().float(), rtol=0, atol=0)
    for part in ("B", "C"):
        weight = case.tap(model.sites[f"layers.0.x_proj.{part}"], torch.zeros(0))
        torch.testing.assert_close(register(case, part), want @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int8/hadamard/range4", "int6/hadamard/dynamic"])
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_rotated_rounded_and_taken_back(name, scheme):
    """One step from rest, all of them: a flipped code moves an output by less than the schemes'
    own error."""
    config = CONFIGS[name]
    model = tiny(config)
    case = packed(model, turnable(model, scheme, Kind.ACTIVATION))
    x = inputs(config, 4, 1)[:, 0]
    (got, _), (want, _) = case.step(x, case.stream.start(4), model.start(4, case.tap))
    with torch.no_grad():
        exact, _ = model.step(x, model.start(4))
    damage = (want - exact).abs().max().item()
    assert damage > 0
    assert (got - want).abs().max().item() < damage / 2
    assert (got - want).abs().median().item() < 1e-5
