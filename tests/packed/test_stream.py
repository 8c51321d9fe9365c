"""Steps from packed memory: states to the bit, outputs within float32, bytes as the cost says."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from packed_memory import CONFIGS, GROUPED, ONE, STATES, held, packed, same_states, values
from selective import inputs, tiny

from sensprobe import load as load_model
from sensprobe.errors import DataError, UnsupportedError
from sensprobe.export import export_model
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig
from sensprobe.numerics.taps import RoundingTap
from sensprobe.ops.choice import said
from sensprobe.packed import PackedState
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.session.source import open_model as source_of


@pytest.mark.parametrize("name", ["mamba", "mamba2", "ungated"])
@pytest.mark.parametrize("scheme", STATES)
def test_each_step_leaves_the_state_the_reference_leaves(name, scheme):
    """From the same packed state and the inputs the kernel itself computed, to the bit."""
    window = scheme.replace("/feedback", "")
    plan = {"layers.*.state": scheme, "layers.*.conv_state": window.replace("head", "channel")}
    _follow(packed(tiny(CONFIGS[name]), plan), inputs(CONFIGS[name], 2, 6))


def _follow(case, xs):
    """States that each step leaves are the reference's, to the bit."""
    made, state = case.stream.program(len(xs)), case.stream.start(len(xs))
    for t, x in enumerate(xs.unbind(1)):
        before = state
        _, state = case.stream.step(x, state)
        registers = {name: made.on_cpu.read(at) for name, at in made.registers.items()}
        for b in range(len(xs)):
            same_states(case, registers, before.carry[b], state.carry[b], b, t)


@pytest.mark.parametrize("name", ["wide", "mamba2", "ungated"])
@pytest.mark.parametrize("scheme", GROUPED)
def test_rows_with_several_scales_are_left_as_the_reference_leaves_them(name, scheme):
    """From zero on; the bytes are those of the plan."""
    xs = inputs(CONFIGS[name], 2, 4)
    case = packed(tiny(CONFIGS[name]), {"layers.*.state": scheme}, xs / 2)
    _follow(case, xs)
    told = cost(case.model.sites.values(), case.plan, batch=2)
    assert case.stream.start(2).bytes == told.state_bytes
    (got, _), (want, _) = case.step(xs[:, 0], case.stream.start(2), case.model.start(2, case.tap))
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
@pytest.mark.parametrize("scheme", STATES)
def test_the_first_step_starts_from_zero(name, scheme):
    """Outputs after one step are the simulation's: what memory held before it was 0."""
    window = scheme.replace("/feedback", "").replace("head", "channel")
    case = packed(tiny(CONFIGS[name]), {"layers.*.state": scheme, "layers.*.conv_state": window})
    x = inputs(CONFIGS[name], 2, 1)[:, 0]
    (got, _), (want, _) = case.step(x, case.stream.start(2), case.model.start(2, case.tap))
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    "scheme",
    ["int8", "int8/asym", "int8/pow2", "int8/head/s32", "e4m3/s32", "fp16", "int12", "int8/dynamic",
     "int8/head/asym/dynamic"],
)  # fmt: skip
def test_decays_are_rounded_as_in_the_simulation(scheme):
    given = scheme if "dynamic" in scheme or scheme == "fp16" else f"{scheme}/range1"
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.decay": given})
    state, sim = case.stream.start(2), case.model.start(2, case.tap)
    for x in inputs(CONFIGS["mamba"], 2, 5).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


@pytest.mark.parametrize(
    "scheme",
    ["int8/dynamic/truncate/s32", "int16/dynamic/truncate", "e4m3/dynamic/truncate/s32",
     "int8/group20/dynamic/truncate/s32", "int8/range2/pow2", "int8/asym/range2/s32",
     "e4m3/range2/s32", "int8/range2/truncate", "int4/dynamic/truncate/hadamard",
     "int6/asym/dynamic/hadamard", "int8/group20/dynamic/hadamard", "bf16/hadamard"],
)  # fmt: skip
def test_registers_hold_what_the_reference_rounds_to(scheme):
    """z, which nothing follows: rounded once, to the bit, wherever its runs end."""
    config = MambaConfig(**{**ONE, "d_model": 24}, dt_rank=2, d_state=4)
    model = tiny(config)
    free, case = packed(model, {}), packed(model, {"layers.0.z": scheme})
    for seed in range(4):
        x = inputs(config, 3, 1, seed=seed)[:, 0]
        for one in (free, case):
            one.stream.step(x, one.stream.start(3))
        raw, found = (
            torch.from_numpy(
                one.stream.program(3).on_cpu.read(one.stream.program(3).registers["z"])
            )
            for one in (free, case)
        )
        want = case.tap(model.sites["layers.0.z"], raw)
        torch.testing.assert_close(found, want, rtol=0, atol=0)


def test_a_range_without_zero_has_no_code_to_start_from():
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.state": "int8/asym/range0.5:2"})
    with pytest.raises(UnsupportedError, match=r"layers.0.state.*starts at 0"):
        case.stream.program(1)


def test_codes_of_a_narrow_range_far_from_zero_stay_codes():
    """Zero points near 2^23 leave quotients off by one: a code must not wrap around."""
    config = MambaConfig(**ONE, dt_rank=3, d_state=5, d_conv=3)
    model = tiny(config)
    case = packed(model, {"layers.*.conv_state": "int8/channel/asym/dynamic/s32"})
    made, state, x = case.stream.program(1), case.stream.start(1), inputs(config, 1, 1)[:, 0]
    for t in range(12):
        before = state
        _, state = case.stream.step(x * (1 + 1e-6 * t), state)
        same_states(
            case,
            {n: made.on_cpu.read(at) for n, at in made.registers.items()},
            before.carry[0],
            state.carry[0],
            0,
            t,
        )


def test_a_state_that_no_number_stands_for_becomes_zero():
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.state": "int8/range2"})
    x = torch.full((1, 3), torch.nan)
    _, state = case.stream.step(x, case.stream.start(1))
    held_ = held(state.carry[0], case.model, case.plan)["layers.0.state"]
    assert not values(held_, case.tap).state.any()


def test_a_state_must_be_whole(tmp_path):
    case = packed(tiny(CONFIGS["groups"]), {"layers.*.state": "int8/head/dynamic"})
    x, state = inputs(CONFIGS["groups"], 1, 1)[:, 0], case.stream.start(1)
    wide = np.zeros((1, 2 * state.carry.shape[1]), np.uint8)[:, ::2]
    for wrong in (
        None,
        case.model.start(1, case.tap),
        PackedState(state.carry, np.zeros((1, 0), np.float32), state.steps),
        PackedState(wide, state.sums, state.steps),
    ):
        for step in (case.stream.step, case.stream.advance):
            with pytest.raises(DataError, match=r"start\(1\)"):
                step(x, wrong)


def test_tokens_may_lie_apart_and_inputs_ask_for_gradients():
    case = packed(tiny(CONFIGS["tokens"]), {})
    tokens = inputs(CONFIGS["tokens"], 3, 4)
    got, _ = case.stream.step(tokens[:, 1], case.stream.start(3))
    want, _ = case.stream.step(tokens[:, 1].contiguous(), case.stream.start(3))
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    case = packed(tiny(CONFIGS["mamba"]), {})
    out, _ = case.stream.step(torch.ones(1, 3, requires_grad=True), case.stream.start(1))
    assert not out.requires_grad


def test_a_packed_model_can_be_copied(tmp_path):
    model = exported({"layers.*.state": "int8/head/dynamic"}, tmp_path)
    x = torch.tensor([65])
    want, _ = model.step(x, model.start())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        got, _ = twin.step(x, twin.start())
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("weights", ["fp32", "int8/channel", "int4/group32", "e4m3", "fp16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_simulation(name, weights):
    """Nothing is rounded on the way, so nothing can flip: float32 alone separates the two."""
    model = tiny(CONFIGS[name])
    plan = {
        n: weights
        for n, s in model.sites.items()
        if s.kind is Kind.WEIGHT
        and len(s.shape) == 2
        and min(s.shape) > 1
        and not n.endswith(("conv", "D"))
    }
    case = packed(tiny(CONFIGS[name]), plan)
    state, sim = case.stream.start(3), model.start(3, case.tap)
    for x in inputs(CONFIGS[name], 3, 9).unbind(1):
        (got, state), (want, sim) = case.step(x, state, sim)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


ROUNDED = [
    "int8",
    "int8/dynamic",
    "int8/asym/dynamic",
    "e4m3/dynamic",
    "bf16",
    "int6/group16/dynamic",
]


@pytest.mark.parametrize("scheme", ROUNDED)
@pytest.mark.parametrize("name", ["mamba", "mamba2", "tokens"])
def test_activations_are_rounded_as_they_pass(name, scheme):
    """One step from rest, every activation rounded: a flipped code moves an output by less than
    the schemes' own error, which is measured here against the exact model."""
    config = CONFIGS[name]
    model = tiny(config)
    where = [
        n for n, s in model.sites.items() if s.kind is Kind.ACTIVATION and not n.endswith(".A")
    ]
    fitted = {
        n: scheme if "dynamic" in scheme or scheme == "bf16" else "int8/range4" for n in where
    }
    if "group" in scheme:
        fitted = {n: s for n, s in fitted.items() if not n.endswith("decay")}
    case = packed(model, fitted)
    x = inputs(config, 4, 1)[:, 0]
    got, _ = case.stream.step(x, case.stream.start(4))
    with torch.no_grad():
        want, _ = model.step(x, model.start(4, case.tap), case.tap)
        exact, _ = model.step(x, model.start(4))
    damage = (want - exact).abs().max().item()
    assert damage > 0
    assert (got - want).abs().max().item() < damage / 2
    assert (got - want).abs().median().item() < 1e-5


def exported(plan: dict[str, str], folder):
    """The byte model that ships, written under a plan and loaded again."""
    model = source_of("mamba-bytes").model
    chosen = Plan(tuple((p, parse(s)) for p, s in plan.items())).resolve(model.sites.values())
    export_model(model, chosen, Applier(model), folder / "out", name="mamba-bytes")
    return load_model(folder / "out")


def test_live_buffers_are_the_bytes_of_the_plan(tmp_path):
    plan = {
        "layers.*.in_proj.*": "int4/group32", "layers.*.out_proj": "int3/channel/asym",
        "embedding": "int8/channel", "layers.*.state": "int4/head/dynamic/feedback",
        "layers.*.conv_state": "int8/channel/asym/dynamic", "layers.*.x": "int8/range8",
    }  # fmt: skip
    model = exported(plan, tmp_path)
    assert model.packed
    for batch in (1, 3):
        told = model.cost(batch)
        assert model.weight_bytes == told.weight_bytes
        assert model.state_bytes(batch) == told.state_bytes


def test_a_language_model_scores_packed_as_simulated(tmp_path):
    """Bits a byte over held-out words, streamed from packed memory and simulated in one call."""
    chosen = {
        "layers.*.in_proj.*": "int8/channel", "layers.*.out_proj": "int4/group32",
        "embedding": "int8/channel", "layers.*.state": "int8/head/dynamic",
        "layers.*.x": "int8/dynamic", "layers.*.y": "int8/dynamic",
    }  # fmt: skip
    model = exported(chosen, tmp_path)
    text = torch.tensor(list(b"The model reads bytes, one after the other, and guesses the next."))
    told = load_model("mamba-bytes", chosen)(text[None])[0]
    torch.testing.assert_close(model(text[None])[0], told, rtol=0, atol=0)
    state, outputs = model.start(), []
    for token in text:
        out, state = model.step(token[None], state)
        outputs.append(out[0])
    scores = [
        torch.nn.functional.cross_entropy(logits[:-1], text[1:], reduction="none")
        for logits in (told, torch.stack(outputs))
    ]
    damage = (scores[0] - _exact_scores(text)).abs().mean()
    assert (scores[0] - scores[1]).abs().mean() < damage / 2, "less than what rounding costs"
    assert abs(scores[0].mean() - scores[1].mean()) < 0.01


def _exact_scores(text):
    logits = load_model("mamba-bytes")(text[None])[0]
    return torch.nn.functional.cross_entropy(logits[:-1], text[1:], reduction="none")


def test_the_state_given_stays_as_it_was():
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.state": "int8/head/dynamic"})
    x = inputs(CONFIGS["mamba"], 2, 3)
    state = case.stream.start(2)
    _, state = case.stream.step(x[:, 0], state)
    kept = state.carry.copy()
    first, _ = case.stream.step(x[:, 1], state)
    again, _ = case.stream.step(x[:, 1], state)
    assert torch.equal(first, again)
    assert (state.carry == kept).all()
    written, _ = case.stream.advance(x[:, 1], state)
    assert torch.equal(first, written)
    assert (state.carry != kept).any()


def test_threads_share_a_stream():
    case = packed(tiny(CONFIGS["tokens"]), {"layers.*.state": "int8/head/dynamic"})
    x = inputs(CONFIGS["tokens"], 4, 40)

    def run(b):
        state, out = case.stream.start(1), []
        for t in range(40):
            logits, state = case.stream.step(x[b : b + 1, t], state)
            out.append(logits)
        return torch.stack(out)

    alone = [run(b) for b in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(alone, threads.map(run, range(4)), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_sequences_do_not_meet():
    """A batch gives what its sequences give alone."""
    case = packed(tiny(CONFIGS["groups"]), {"layers.*.state": "int8/head/dynamic"})
    x = inputs(CONFIGS["groups"], 3, 4)
    together, alone = case.stream.start(3), [case.stream.start(1) for _ in range(3)]
    for t in range(4):
        out, together = case.stream.step(x[:, t], together)
        for b in range(3):
            one, alone[b] = case.stream.step(x[b : b + 1, t], alone[b])
            torch.testing.assert_close(out[b : b + 1], one, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({"layers.*.state": "int8/head/dynamic/every4"}, "in full for 4 steps"),
        ({"layers.*.state": "int12/head/dynamic"}, "more than 8 bits"),
        ({"layers.*.state": "int8/group2/dynamic"}, "groups of a state that n does not fill"),
        ({"layers.*.conv_state": "int8/group2/dynamic"}, "several dynamic scales in a row"),
        ({"layers.*.decay": "int8/group2/dynamic"}, "several dynamic scales in a row"),
        ({"layers.*.x": "int8/dynamic/stochastic"}, "at random"),
    ],
)
def test_a_plan_without_a_kernel_says_which_site_and_why(plan, why):
    case = packed(tiny(CONFIGS["mamba"]), plan)
    with pytest.raises(UnsupportedError, match=f"layers.0.*{why}"):
        case.stream.program(1)


def test_a_state_of_another_batch_is_refused():
    case = packed(tiny(CONFIGS["mamba"]), {})
    with pytest.raises(DataError, match=r"start\(2\)"):
        case.stream.step(inputs(CONFIGS["mamba"], 2, 1)[:, 0], case.stream.start(1))


def test_weights_are_decoded_as_they_are_asked_for():
    case = packed(tiny(CONFIGS["mamba"]), {"layers.*.in_proj.*": "int4"})
    weights = case.stream.weights.decoded
    assert weights["layers.0.D"] is not weights["layers.0.D"]
    assert set(weights) == {n for n, s in case.model.sites.items() if s.kind is Kind.WEIGHT}
    with pytest.raises(KeyError):
        weights["layers.0.x"]
    tap = RoundingTap(case.plan, weights, case.stream.weights.scales())
    x = inputs(CONFIGS["mamba"], 2, 5)
    torch.testing.assert_close(case.model(x, tap), case.model(x, case.tap), rtol=0, atol=0)


def test_a_plan_without_a_kernel_still_steps_and_says_so(tmp_path, caplog):
    """Weights are decoded as they are met, and outputs are the simulation's to the bit."""
    plan = {"layers.*.y": "int8/dynamic/stochastic", "layers.*.out_proj": "int4/channel"}
    model = exported(plan, tmp_path)
    assert not model.packed
    said.clear()
    with caplog.at_level("WARNING", logger="sensprobe.ops"):
        state = model.start(2)
    assert "layers.0.y" in caplog.text
    assert "at random" in caplog.text
    simulated = load_model("mamba-bytes", plan)
    other = simulated.start(2)
    for token in (65, 66, 67):
        x = torch.tensor([token, token + 9])
        got, state = model.advance(x, state)
        want, other = simulated.step(x, other)
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert model.weight_bytes == model.cost().weight_bytes
    assert model.state_bytes(2) == simulated.state_bytes(2)
