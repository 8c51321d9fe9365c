"""What memory does to a state between steps: add the residual, clip, take a range, round."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from builders import STATE, vector
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sensprobe.numerics.rounding import min_max, quantize, round_ratio, scale_and_zero
from sensprobe.numerics.storage import (
    Carry,
    Custom,
    Rounded,
    Watched,
    fresh,
    passed,
    state_noise,
    store,
)
from sensprobe.plans.formats import E4M3, FP16, Int
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

LONE = Site("layers.0.state", Part.STATE, Kind.STATE, (1, 1), (Axis.HEAD, Axis.N), True)
SHAPE = (*STATE.shape, 2)


def static(text: str, where: Site = STATE, scale: float = 1.0, **more) -> Rounded:
    """A state with one calibrated scale everywhere."""
    scheme = parse(text)
    zero = torch.zeros(1, 1, 1) if scheme.asym else None
    return Rounded(scheme, where, torch.full((1, 1, 1), scale), zero, **more)


def states(*shape: int, seed: int = 0) -> Tensor:
    return vector(*shape, *SHAPE, seed=seed, dtype=torch.float32)


def written(value: float, storage: Rounded, memory: Carry | None = None) -> Carry:
    memory = memory or fresh(1, (1, 1, 2), storage)
    return store(memory, torch.full((1, 1, 1, 2), value), storage)


# -- the plain cases ------------------------------------------------------------------------------


def test_no_storage_keeps_what_is_written():
    x = states(2)
    memory = store(fresh(2, SHAPE, None), x, None)
    assert torch.equal(memory.state, x)
    assert (memory.residual, memory.step) == (None, 1)


def test_a_fresh_memory_is_zero_and_has_a_residual_only_under_feedback():
    assert fresh(2, SHAPE, None).residual is None
    assert fresh(2, SHAPE, static("int8")).residual is None
    memory = fresh(2, SHAPE, static("int8/feedback"))
    assert memory.state.shape == memory.residual.shape == (2, *SHAPE)
    assert not memory.state.any()
    assert not memory.residual.any()


def test_a_custom_storage_sees_every_step():
    seen = []

    def double(state: Tensor, step: int) -> Tensor:
        seen.append(step)
        return 2 * state

    memory = fresh(1, SHAPE, Custom(double))
    for _ in range(3):
        memory = store(memory, states(1), Custom(double))
    assert seen == [0, 1, 2]
    assert torch.equal(memory.state, 2 * states(1))


@pytest.mark.parametrize("text", ["fp16", "bf16", "fp32"])
def test_unscaled_formats_round_each_value(text):
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[text]
    x = states(2)
    storage = Rounded(parse(text + "/clip90"), STATE)
    assert torch.equal(store(fresh(2, SHAPE, storage), x, storage).state, x.to(dtype).float())


def test_static_scales_are_the_ones_given():
    x = states(2)
    got = store(fresh(2, SHAPE, None), x, static("int8", scale=0.125)).state
    assert torch.equal(got, round_ratio(x / 0.125, Int(8)) * 0.125)


def test_a_static_scheme_without_scales_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError, match=r"layers\.0\.state: a static state needs calibrated"):
        store(fresh(1, SHAPE, None), states(1), Rounded(parse("int8"), STATE))


# -- live ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["tensor", "head", "group2"])
@pytest.mark.parametrize("symmetry", ["sym", "asym"])
@pytest.mark.parametrize("parts", ["", "/parts"])
def test_a_live_range_is_one_of_its_own_sequence(granularity, symmetry, parts):
    """A sequence is stored the same whoever stands beside it in the batch."""
    storage = Rounded(parse(f"int8/{granularity}/{symmetry}/dynamic{parts}"), STATE)
    x = states(3) * torch.tensor([1.0, 100.0, 0.1]).view(3, 1, 1, 1)
    together = store(fresh(3, SHAPE, storage), x, storage).state
    for i in range(3):
        alone = store(fresh(1, SHAPE, storage), x[i : i + 1], storage).state
        assert torch.equal(together[i : i + 1], alone)
    assert ((together - x).abs().amax((1, 2, 3)) < 0.02 * x.abs().amax((1, 2, 3))).all()


def test_a_live_range_is_measured_after_the_clip():
    storage = Rounded(parse("int8/dynamic/clip2"), STATE)
    x = states(1)
    x[0, 0, 0, 0] = 1e6
    clipped = x.clamp(-2, 2)
    scale, _ = scale_and_zero(storage.scheme, *min_max(clipped, storage.scheme, STATE))
    want = quantize(clipped, storage.scheme, STATE, scale)
    assert torch.equal(store(fresh(1, SHAPE, None), x, storage).state, want)
    assert want.abs().max() == scale * 127


@pytest.mark.parametrize("text", ["int8/dynamic", "int8/asym/dynamic", "e4m3/dynamic"])
def test_an_all_zero_state_stays_zero(text):
    storage = Rounded(parse(text), STATE)
    assert not store(fresh(2, SHAPE, storage), torch.zeros(2, *SHAPE), storage).state.any()


# -- what cannot be stored ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["int8", "int8/asym", "e4m3", "fp16"])
def test_nan_stays_nan_and_infinity_saturates(text):
    storage = static(text) if text != "fp16" else Rounded(parse(text), STATE)
    x = states(1)
    x[0, 0, 0, 0], x[0, 1, 0, 0] = nan, inf
    got = store(fresh(1, SHAPE, None), x, storage).state
    assert got.isnan().sum() == 1
    assert got[0, 0, 0, 0].isnan()
    peaks = {"int8": 127, "int8/asym": 255, "e4m3": E4M3.peak, "fp16": FP16.peak}
    assert got[0, 1, 0, 0] == peaks[text]


def test_nan_spoils_only_what_shares_its_live_range():
    storage = Rounded(parse("int8/head/dynamic"), STATE)
    x = states(2)
    x[0, 1, 0, 0] = nan
    got = store(fresh(2, SHAPE, None), x, storage).state
    assert got[0, 1].isnan().all()
    assert got.isnan().sum() == got[0, 1].numel()


# -- every k-th step, clips -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_every_kth_step_is_rounded_and_no_other(k):
    storage = static(f"int4/every{k}", scale=0.5)
    memory = fresh(1, SHAPE, storage)
    for step in range(1, 12):
        x = states(1, seed=step)
        memory = store(memory, x, storage)
        rounded = round_ratio(x / 0.5, Int(4)) * 0.5
        assert torch.equal(memory.state, rounded if step % k == 0 else x), step
        assert memory.step == step


def test_a_clip_acts_where_rounding_does():
    storage = Rounded(parse("fp32/clip1.5"), STATE)
    x = states(3) * 2
    assert torch.equal(store(fresh(3, SHAPE, storage), x, storage).state, x.clamp(-1.5, 1.5))


@given(st.floats(-300, 300, width=32), st.sampled_from(["int8", "e4m3", "fp16"]))
def test_a_clipped_state_never_exceeds_the_clip_by_more_than_its_rounding(value, text):
    storage = (
        static(text + "/clip3", LONE) if text != "fp16" else Rounded(parse("fp16/clip3"), LONE)
    )
    assert written(value, storage).state.abs().max() <= 3


# -- error feedback -------------------------------------------------------------------------------


def test_feedback_adds_the_residual_before_clip_and_range():
    """Two steps by hand: 0.3 is kept as 0, 0.3 is owed; 0.3 + 0.3 is kept as 1, -0.4 is owed."""
    storage = static("int8/feedback", LONE)
    memory = written(0.3, storage)
    owed = torch.tensor(0.3).bfloat16().float()
    assert (memory.state == 0).all()
    assert (memory.residual == owed).all()
    memory = written(0.3, storage, memory)
    assert (memory.state == 1).all()
    left = (torch.tensor(0.3) + owed - 1).bfloat16().float()
    assert (memory.residual == left).all()


def test_feedback_respects_the_clip():
    storage = static("int8/feedback/clip2", LONE)
    memory = Carry(torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 2), 0.5))
    memory = written(1.9, storage, memory)
    assert (memory.state == 2).all()
    assert (memory.residual == 0).all()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4, -0.3])
def test_feedback_keeps_increments_that_rounding_loses(share):
    """h += a third of a step: to the nearest, each is lost; with feedback, their sum is kept."""

    def accumulate(text: str, steps: int = 1000) -> float:
        storage = static(text, LONE)
        memory = fresh(1, (1, 1, 2), storage)
        for _ in range(steps):
            memory = store(memory, memory.state + share, storage)
        return memory.state[0, 0, 0, 0].item()

    assert accumulate("int16") == 0
    # A residual is a bf16 below 1/2: each step errs by 2^-10 at most.
    assert abs(accumulate("int16/feedback") - 1000 * share) <= 0.5 + 1000 * 2.0**-10


def test_stochastic_rounding_keeps_their_mean_with_noise():
    storage = static("int16/stochastic", LONE)
    memory = fresh(400, (1, 1, 2), storage)
    for _ in range(100):
        memory = store(memory, memory.state + 0.3, storage)
    spread = (100 * 0.3 * 0.7 / 800) ** 0.5  # of the mean of 800 sums of 100 draws
    assert abs(memory.state.mean().item() - 30) < 5 * spread


@pytest.mark.parametrize("text", ["int8/feedback", "int8/asym/feedback", "e4m3/feedback"])
@pytest.mark.parametrize("sign", [1, -1])
def test_feedback_does_not_wind_up_while_saturated(text, sign):
    """Far beyond the range for long, then back: the state follows at once."""
    storage = static(text, LONE)
    memory = fresh(1, (1, 1, 2), storage)
    for _ in range(50):
        memory = written(sign * 1e4, storage, memory)
    assert memory.residual.abs().max() <= 0.5
    memory = written(3.0, storage, memory)
    assert (memory.state - 3).abs().max() <= 1


def test_feedback_owes_nothing_for_what_saturates_dynamically():
    storage = Rounded(parse("int8/head/dynamic/feedback"), STATE)
    memory = fresh(2, SHAPE, storage)
    for seed in range(5):
        x = states(2, seed=seed)
        before = memory.residual
        memory = store(memory, x, storage)
        owed = (x + before) - memory.state
        peak = (x + before).abs().amax((2, 3), keepdim=True)
        assert (owed.abs() <= 0.6 * peak / 127).all()
        assert ((memory.residual - owed).abs() <= 2.0**-9 * owed.abs() + 2.0**-10 * peak).all()


def test_between_rounding_steps_the_residual_waits():
    storage = static("int8/feedback/every2", LONE)
    memory = Carry(torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 2), 0.25), step=0)
    memory = written(0.75, storage, memory)
    assert (memory.state == 0.75).all()
    assert (memory.residual == 0.25).all()
    memory = written(0.75, storage, memory)
    assert (memory.state == 1).all()
    assert (memory.residual == 0).all()


# -- stochastic rounding --------------------------------------------------------------------------


def test_noise_depends_on_sequence_step_and_place_not_on_the_batch():
    x = torch.full((4, *SHAPE), 0.5)
    storage = static("int8/stochastic")
    whole = store(Carry(x), x, storage).state
    assert 0 < whole.mean() < 1
    tail = store(Carry(x[2:]), x[2:], static("int8/stochastic", first=2)).state
    assert torch.equal(tail, whole[2:])
    for other in (Carry(x, step=1), Carry(x[:4])):
        again = store(other, x, storage).state
        assert torch.equal(again, whole) == (other.step == 0)
    assert not torch.equal(store(Carry(x), x, static("int8/stochastic1")).state, whole)


def test_real_and_imaginary_parts_have_noise_of_their_own():
    x = torch.full((64, *SHAPE), 0.5)
    kept = store(Carry(x), x, static("int8/stochastic")).state
    agree = (kept[..., 0] == kept[..., 1]).float().mean()
    assert abs(agree - 0.5) < 5 * (0.25 / kept[..., 0].numel()) ** 0.5


# -- real states, and what passes through ---------------------------------------------------------

CUBE = Site("s", Part.STATE, Kind.STATE, (2, 3, 5), (Axis.HEAD, Axis.CHANNEL, Axis.N))
DECAY = Site("a", Part.DECAY, Kind.ACTIVATION, (2, 3), (Axis.HEAD, Axis.N))


def test_noise_of_a_real_state_is_its_own_for_every_value_sequence_and_step():
    x = torch.zeros(3, *CUBE.shape)
    storage = Rounded(parse("int8/stochastic"), CUBE)
    noise = torch.stack([state_noise(x, storage, step) for step in range(4)])
    assert noise.shape == (4, *x.shape)
    assert len(noise.unique()) == noise.numel()
    later = Rounded(parse("int8/stochastic"), CUBE, first=2)
    assert torch.equal(state_noise(x[:1], later, 3), noise[3, 2:])


def test_noise_of_a_complex_state_keeps_its_counter():
    """The real part takes the noise a real state of the same places would."""
    lone = Site("layers.0.state", Part.STATE, Kind.STATE, STATE.shape, STATE.axes)
    both = state_noise(states(2), Rounded(parse("int8/stochastic"), STATE), 5)
    one = state_noise(states(2)[..., 0], Rounded(parse("int8/stochastic"), lone), 5)
    assert torch.equal(both[..., 0], one)
    assert not (both[..., 1] == one).any()


def test_what_passes_is_rounded_as_an_activation_is():
    x = vector(4, 2, 3, dtype=torch.float32)
    scheme = parse("int4/head/dynamic")
    want = quantize(x, scheme, DECAY, *scale_and_zero(scheme, *min_max(x, scheme, DECAY)))
    assert torch.equal(passed(x, Rounded(scheme, DECAY), 3), want)
    scale = torch.full((1, 1), 0.25)
    static_ = Rounded(parse("int4"), DECAY, scale)
    assert torch.equal(passed(x, static_, 0), (x / scale).clamp(-7, 7).round() * scale)
    assert passed(x, None, 0) is x


def test_what_passes_is_shown_with_its_step():
    x, seen = torch.ones(1, 2, 3), []
    assert passed(x, Watched(lambda v, step: seen.append((v, step))), 7) is x
    assert torch.equal(seen[0][0], x[None])
    assert seen[0][1] == 7
    assert torch.equal(passed(x, Custom(lambda v, step: v + step), 2), x + 2)


def test_stochastic_rounding_of_what_passes_depends_on_the_step():
    x, storage = torch.full((1, 2, 3), 0.4), Rounded(parse("int4/stochastic/range7"), DECAY)
    storage = Rounded(storage.scheme, DECAY, torch.ones(1, 1))
    seen = torch.stack([passed(x, storage, step) for step in range(200)])
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < seen.mean() < 0.5
