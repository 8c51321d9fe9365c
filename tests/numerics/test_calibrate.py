"""Ranges from values seen: extremes, percentiles, least squares, and those a scheme states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import ACTIVATION, MATRIX, PROJECTION, RAGGED, STATE, site, stored, values_of, vector
from hypothesis import given
from hypothesis import strategies as st
from schemes import schemes_for
from torch import Tensor

from sensprobe.errors import SchemeError
from sensprobe.numerics.calibrate import (
    Observer,
    Statistics,
    Wanted,
    given_range,
    range_of,
    weight_range,
)
from sensprobe.numerics.rounding import decode, quantize, real_view, scale_and_zero, spread
from sensprobe.plans.fitting import why_not
from sensprobe.plans.formats import LogPolar, Polar
from sensprobe.plans.scheme import Rounding, parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

BIN = 2.0**-5
"""Width of a histogram's bin, relative: five bits of mantissa."""


def watched(where, *batches: Tensor, whole: bool = False) -> Statistics:
    names = frozenset({where.name})
    observer = Observer(Wanted(whole=names) if whole else Wanted(channels=names))
    for x in batches:
        observer.observe(where, x)
    return observer.seen[where.name]


def activations(count: int = 400, seed: int = 0) -> Tensor:
    """(b, l, 4): channels of different spread and centre, with a heavy tail."""
    x = vector(count, 5, 4, seed=seed, dtype=torch.float32)
    return x**3 * torch.tensor([0.1, 1.0, 10.0, 1.0]) + torch.tensor([0.0, 0.0, 0.0, 2.0])


def written(count: int = 300, seed: int = 0) -> Tensor:
    """States (b, heads, n, 2): imaginary parts ten times as large."""
    x = vector(count, *STATE.shape, 2, seed=seed, dtype=torch.float32)
    return x * torch.tensor([1.0, 10.0]) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)


# -- extremes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["int8", "int8/channel", "int8/group2", "int8/group3/asym"])
def test_absmax_of_activations_is_their_extremes(text):
    scheme, x = parse(text), activations()
    low, high = range_of(watched(ACTIVATION, *x.split(77)), scheme)
    channels = x.reshape(-1, 4)
    size = {"tensor": 4, "channel": 1, "group": scheme.group}[scheme.granularity]
    want = [(part.min().item(), part.max().item()) for part in channels.split(size, dim=1)]
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == want


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("int8", (0, 1, 2, 3)),
        ("int8/head", (0, 2, 3)),
        ("int8/head/parts", (0, 2)),
        ("int8/parts", (0, 1, 2)),
    ],
)
def test_absmax_of_states_is_their_extremes(text, over):
    scheme, x = parse(text), written()
    low, high = range_of(watched(STATE, *x.split(70)), scheme)
    assert low.shape == scale_shape(scheme, STATE)
    assert torch.equal(low.flatten(), x.amin(over).double().flatten())
    assert torch.equal(high.flatten(), x.amax(over).double().flatten())


def test_groups_of_states_have_their_own_extremes():
    x = written()
    low, high = range_of(watched(STATE, x), parse("int8/group2/parts"))
    assert torch.equal(high[:, 0], x[:, :, :2].amax((0, 2)).double())
    assert torch.equal(low[:, 1], x[:, :, 2].amin(0).double())


def test_watching_in_parts_is_watching_at_once():
    x = activations()
    one, many = watched(ACTIVATION, x), watched(ACTIVATION, *x.split(33))
    assert torch.equal(one.low, many.low)
    assert torch.equal(one.high, many.high)
    assert torch.equal(one.counts, many.counts)
    assert one.counts.sum() == x.numel()


def test_histograms_are_kept_only_where_asked_for():
    observer = Observer()
    observer.observe(ACTIVATION, activations())
    assert observer.seen[ACTIVATION.name].counts is None
    with pytest.raises(AssertionError, match="needs histograms"):
        range_of(observer.seen[ACTIVATION.name], parse("int8/p99"))


# -- percentiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [60.0, 90.0, 99.0, 99.9])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group2"])
def test_percentiles_of_activations_are_within_a_bin_of_the_exact_ones(granularity, percent):
    x = activations(2000)
    scheme = parse(f"int8/{granularity}/p{percent}")
    low, high = range_of(watched(ACTIVATION, *x.split(500)), scheme)
    size = {"tensor": 4, "channel": 1, "group": 2}[scheme.granularity]
    for k, part in enumerate(x.reshape(-1, 4).split(size, dim=1)):
        below, above = (
            np.percentile(part.abs().numpy(), percent, method=m) for m in ("lower", "higher")
        )
        assert below * (1 - BIN) <= high[k] <= above * (1 + BIN)
        assert low[k] == -high[k]


@pytest.mark.parametrize("percent", [60.0, 90.0, 99.0])
def test_percentiles_of_an_asymmetric_range_cut_both_ends(percent):
    x = activations(2000)
    low, high = range_of(watched(ACTIVATION, x), parse(f"int8/channel/asym/p{percent}"))
    for k in range(4):
        values = x[..., k].flatten().numpy()
        for got, want in (
            (low[k], np.percentile(values, 100 - percent)),
            (high[k], np.percentile(values, percent)),
        ):
            assert abs(got - want) <= BIN * abs(want) + 1e-6


@pytest.mark.parametrize("text", ["int8/p99", "int8/head/p99", "int8/head/parts/p99"])
def test_percentiles_of_states_span_what_shares_a_scale(text):
    x, scheme = written(2000), parse(text)
    _, high = range_of(watched(STATE, *x.split(500)), scheme)
    over = {
        "int8/p99": (0, 1, 2, 3),
        "int8/head/p99": (0, 2, 3),
        "int8/head/parts/p99": (0, 2),
    }[text]
    want = np.percentile(x.abs().numpy(), 99, axis=over).flatten()
    assert np.abs(high.flatten().numpy() / want - 1).max() <= BIN


def test_the_hundredth_percentile_is_the_extreme():
    x = activations()
    for symmetry in ("sym", "asym"):
        got = range_of(watched(ACTIVATION, x), parse(f"int8/{symmetry}/p100"))
        want = range_of(watched(ACTIVATION, x), parse(f"int8/{symmetry}"))
        if symmetry == "asym":
            assert (got[0], got[1]) == (want[0], want[1])
        assert got[1] == torch.maximum(want[0].abs(), want[1].abs()) or symmetry == "asym"


@pytest.mark.parametrize("text", ["int8/p99", "int8/asym/p99", "int8/mse", "int8/asym/mse"])
def test_a_constant_is_its_own_range(text):
    for value in (0.0, 2.5, -2.5):
        low, high = range_of(watched(ACTIVATION, torch.full((3, 2, 4), value)), parse(text))
        assert torch.maximum(low.abs(), high.abs()).item() <= abs(value)
        assert torch.maximum(low.abs(), high.abs()).item() >= abs(value) * (1 - BIN)


def test_infinite_and_nan_activations_do_not_hide_the_finite_percentile():
    x = activations(1000)
    x[0, 0, 0], x[1, 0, 0] = torch.nan, torch.inf
    statistics = watched(ACTIVATION, x)
    statistics.low, statistics.high = -torch.ones(4) * 1e9, torch.ones(4) * 1e9
    _, high = range_of(statistics, parse("int8/p90"))
    assert abs(high.item() / np.percentile(activations(1000).abs().numpy(), 90) - 1) < 2 * BIN


# -- least squares --------------------------------------------------------------------------------


def squared_error(x: Tensor, scheme, where) -> float:
    statistics = watched(where, x)
    scale, zero = scale_and_zero(scheme, *range_of(statistics, scheme))
    return ((quantize(x.double(), scheme, where, scale, zero) - x) ** 2).sum().item()


@pytest.mark.parametrize("format", ["int2", "int3", "int4", "int6", "int8", "e2m1", "e4m3", "log4"])
@pytest.mark.parametrize("options", ["", "/channel", "/asym"])
@pytest.mark.parametrize("data", [activations, lambda: vector(500, 5, 4, dtype=torch.float32)])
def test_least_squares_ranges_err_no_more_than_the_full_range(format, options, data):
    """The histogram knows values to a bin, so a range may be chosen that errs a little more."""
    if "asym" in options and not format.startswith("int"):
        return
    x = data()
    full = squared_error(x, parse(format + options), ACTIVATION)
    assert squared_error(x, parse(f"{format}{options}/mse"), ACTIVATION) <= 1.03 * full


def test_least_squares_ranges_gain_where_tails_are_heavy():
    x = activations()
    assert squared_error(x, parse("int4/mse"), ACTIVATION) < 0.8 * squared_error(
        x, parse("int4"), ACTIVATION
    )


def test_least_squares_ranges_of_states_are_a_head_and_part_each():
    x, scheme = written(), parse("int4/head/parts/mse")
    low, high = range_of(watched(STATE, x), scheme)
    assert high.shape == low.shape == (4, 1, 2)
    assert (high[:, 0, 1] / high[:, 0, 0] > 3).all()


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [51.0, 90.0, 99.9, 100.0])
def test_percentiles_of_weights_are_exact(percent):
    x = values_of(PROJECTION.shape, False)
    _, high = weight_range(x, parse(f"int8/p{percent}"), PROJECTION)
    assert high.item() == pytest.approx(np.percentile(x.abs(), percent), rel=1e-12)
    low, high = weight_range(x, parse(f"int8/channel/asym/p{percent}"), PROJECTION)
    assert high.flatten().numpy() == pytest.approx(np.percentile(x, percent, axis=1), rel=1e-12)
    assert low.flatten().numpy() == pytest.approx(np.percentile(x, 100 - percent, axis=1), rel=1e-9)


def test_percentiles_of_a_ragged_group_are_of_its_own_values():
    x = values_of(RAGGED.shape, False)
    _, high = weight_range(x, parse("int8/group4/p80"), RAGGED)
    assert high[:, 1].numpy() == pytest.approx(np.percentile(x[:, 4:].abs(), 80, axis=1))
    low, high = weight_range(x, parse("int8/group4/asym/p80"), RAGGED)
    assert low[:, 1].numpy() == pytest.approx(np.percentile(x[:, 4:], 20, axis=1))


def test_percentiles_of_complex_weights_are_of_both_parts_or_of_each():
    x = values_of(MATRIX.shape, True)
    parts = torch.view_as_real(x).numpy()
    _, high = weight_range(x, parse("int8/head/p80"), MATRIX)
    assert high.flatten().numpy() == pytest.approx(np.percentile(abs(parts), 80, axis=(1, 2)))
    _, high = weight_range(x, parse("int8/head/parts/p80"), MATRIX)
    assert high[:, 0].numpy() == pytest.approx(np.percentile(abs(parts), 80, axis=1))


@given(data=st.data())
def test_least_squares_ranges_of_weights_never_err_more_than_the_full_range(data):
    where = data.draw(st.sampled_from([PROJECTION, RAGGED, MATRIX]))
    drawn = data.draw(
        schemes_for(where).filter(lambda s: s.scaled and not isinstance(s.format, Polar | LogPolar))
    )
    scheme = replace(drawn, range="mse", rounding=Rounding.NEAREST)
    x = values_of(where.shape, where.is_complex, seed=data.draw(st.integers(0, 99)))
    full = replace(scheme, range="absmax")
    error, most = (
        (real_view(decode(stored(x, s, where), s, where)).double() - real_view(x)).square().sum()
        for s in (scheme, full)
    )
    assert error <= most * (1 + 1e-5)  # decoded in float32, searched in float64


def test_least_squares_ranges_of_weights_find_the_best_of_the_ranges_tried():
    x, scheme = values_of(PROJECTION.shape, False) ** 3, parse("int3/s32/mse")
    _, high = weight_range(x, scheme, PROJECTION)
    errors = {}
    for shrink in torch.linspace(1, 0.2, 41, dtype=torch.float64):
        peak = (x.abs().max() * shrink).view(1, 1)
        scale, _ = scale_and_zero(scheme, -peak, peak)
        errors[peak.item()] = ((quantize(x, scheme, PROJECTION, scale) - x) ** 2).sum().item()
    assert torch.maximum(high, -weight_range(x, scheme, PROJECTION)[0]).item() == pytest.approx(
        min(errors, key=lambda peak: errors[peak]), rel=1e-6
    )
    assert min(errors.values()) < 0.95 * next(iter(errors.values()))


def test_least_squares_of_a_ragged_group_weighs_its_own_values_alone():
    """A tail filled up to the group's size must not count its last value several times."""
    x = torch.tensor([[1.0] * 6 + [1.9]] * 3, dtype=torch.float64)
    whole = weight_range(x, parse("int2/group5/s32/mse"), RAGGED)[1][:, 1]
    tail = x[:, 5:].contiguous()
    alone = weight_range(tail, parse("int2/group2/s32/mse"), site(shape=(3, 2)))[1][:, 0]
    assert (alone < 1.6).all()  # between the two: the larger one does not count four times
    assert torch.equal(whole, alone)


def test_formats_that_keep_their_own_range_have_none():
    x = values_of(MATRIX.shape, True)
    for text in ("polar(m4,p4)", "bf16", "fp32"):
        assert weight_range(x, parse(text), MATRIX) is None


# -- stated ranges and clips ----------------------------------------------------------------------


def test_a_stated_range_needs_no_data():
    low, high = given_range(parse("int8/channel/asym/range-1:3"), ACTIVATION)
    assert (low.tolist(), high.tolist()) == ([-1] * 4, [3] * 4)
    low, high = given_range(parse("int8/head/parts/range50"), STATE)
    assert low.shape == (4, 1, 2)
    assert (low == -50).all()
    assert (high == 50).all()


def test_a_stated_range_overrides_what_was_seen():
    x = values_of(PROJECTION.shape, False)
    low, high = weight_range(x, parse("int8/channel/range9"), PROJECTION)
    assert (low.flatten().tolist(), high.flatten().tolist()) == ([-9] * 8, [9] * 8)
    got = range_of(watched(ACTIVATION, activations()), parse("int8/range9"))
    assert (got[0].item(), got[1].item()) == (-9, 9)


def test_a_clip_bounds_the_range_of_a_state():
    low, high = range_of(watched(STATE, written()), parse("int8/head/clip2"))
    assert (low == -2).all()
    assert (high == 2).all()
    low, high = range_of(watched(STATE, written() / 100), parse("int8/head/clip2"))
    assert high.max() < 2


def test_kinds_have_the_histograms_they_need():
    assert watched(ACTIVATION, activations()).counts.shape[0] == 4
    assert watched(STATE, written()).counts.shape[0] == 8
    assert watched(ACTIVATION, activations(), whole=True).counts.shape[0] == 1
    assert watched(STATE, written(), whole=True).counts.shape[0] == 2


@pytest.mark.parametrize("text", ["int8/p99", "int8/asym/p99.9", "int6/mse", "int8/parts/p90"])
def test_a_histogram_of_the_whole_gives_the_range_that_those_of_channels_give(text):
    for where, x in ((ACTIVATION, activations()), (STATE, written())):
        if "parts" in text and not where.is_complex:
            continue
        one, many = (watched(where, *x.split(77), whole=w) for w in (True, False))
        for got, want in zip(*(range_of(s, parse(text)) for s in (one, many)), strict=True):
            assert torch.equal(got, want)


# -- tensors of several axes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "over"), [("int8/p99", (0, 1, 2, 3)), ("int8/head/p99", (0, 1, 3))]
)
def test_percentiles_of_activations_of_several_axes(text, over):
    where = site(kind=Kind.ACTIVATION, shape=(4, 3), axes=(Axis.HEAD, Axis.CHANNEL))
    x = vector(300, 5, 4, 3, dtype=torch.float32) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    _, high = range_of(watched(where, *x.split(77)), parse(text))
    want = np.percentile(x.abs().numpy(), 99, axis=over).flatten()
    assert high.flatten().numpy() == pytest.approx(want, rel=2 * BIN)


# -- decoupled scales -----------------------------------------------------------------------------

CUBE = Site("s", Part.STATE, Kind.STATE, (2, 3, 5), (Axis.HEAD, Axis.CHANNEL, Axis.N))


def rank_one(seed: int = 0) -> Tensor:
    """States (b, 2, 3, 5) whose size is a channel's times a variable's, as outer products are."""
    sizes = torch.logspace(-2, 2, 6).view(2, 3, 1) * torch.logspace(-1, 1, 5)
    return vector(400, 2, 3, 5, seed=seed, dtype=torch.float32).clamp(-2, 2) * sizes


def error(text: str) -> float:
    """Largest error over the size of what is rounded, element by element."""
    x, scheme = rank_one(), parse(text)
    scale, zero = scale_and_zero(scheme, *range_of(watched(CUBE, x), scheme))
    kept = quantize(x, scheme, CUBE, scale.float(), zero)
    return ((kept - x).abs().amax(0) / x.abs().amax(0)).max().item()


def test_decoupled_scales_are_a_channels_times_a_variables():
    scheme = parse("int8/decoupled/s32")
    scale, _ = scale_and_zero(scheme, *range_of(watched(CUBE, rank_one()), scheme))
    assert scale.shape == scale_shape(scheme, CUBE) == (6 + 5,)
    peaks = rank_one().abs().amax(0)
    want = peaks.amax(-1).flatten() / 127
    assert torch.allclose(scale[:6].float(), want)
    shares = (peaks / peaks.amax(-1, keepdim=True)).flatten(0, 1).amax(0)
    assert torch.allclose(scale[6:].float(), shares)
    full = spread(scale, scheme, CUBE)
    assert full.shape == CUBE.shape
    assert (full * 127 * (1 + 1e-6) >= peaks).all(), "nothing seen is beyond the range"


def test_decoupled_scales_fit_what_no_scale_a_channel_fits():
    assert error("int8/decoupled/s32") < 1 / 127 < error("int8/channel/s32") / 5


def test_decoupled_scales_of_nothing_are_positive():
    scheme = parse("int8/decoupled")
    low, high = range_of(watched(CUBE, torch.zeros(3, *CUBE.shape)), scheme)
    scale, _ = scale_and_zero(scheme, low, high)
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()


def test_decoupled_scales_follow_the_clip():
    scheme = parse("int8/decoupled/clip1/s32")
    scale, _ = scale_and_zero(scheme, *range_of(watched(CUBE, rank_one()), scheme))
    assert scale[:6].max() == pytest.approx(1 / 127)


@pytest.mark.parametrize("word", ["asym", "dynamic", "p99", "mse", "range3"])
def test_decoupled_scales_are_static_symmetric_and_of_the_extremes(word):
    with pytest.raises(SchemeError, match="decoupled scales are static, symmetric"):
        parse(f"int8/decoupled/{word}")


@pytest.mark.parametrize("where", [ACTIVATION, STATE, PROJECTION], ids=lambda s: s.name)
def test_decoupled_scales_are_for_real_states(where):
    assert "for real states" in why_not(parse("int8/decoupled"), where)
