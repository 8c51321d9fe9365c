"""Hadamard rotation: what it is, what it keeps, and that rounding in its basis is a deployment."""

from __future__ import annotations

import pytest
import torch
from builders import site, vector
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.errors import SchemeError
from sensprobe.models.apply import Applier, encode_weight, observe, static_scale, wanted_by
from sensprobe.numerics.calibrate import Observer, Wanted, weight_range
from sensprobe.numerics.rounding import (
    decode,
    encode,
    quantize,
    rotated,
    rotated_back,
    scale_and_zero,
)
from sensprobe.numerics.taps import RoundingTap
from sensprobe.numerics.transforms import paley, rotate, rotate_back, rotate_both
from sensprobe.plans.fitting import adapt, check, hadamard_order
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

EVEN = st.integers(1, 100).map(lambda k: 2 * k)
READ = Site("layers.0.out_proj_in", Part.OUT_PROJ_IN, Kind.ACTIVATION, (24,), (Axis.CHANNEL,))
READS = site(name="layers.0.out_proj", shape=(6, 24))


def matrix(size: int) -> torch.Tensor:
    """R, a column at a time: rotate's rows are R x."""
    return rotate(torch.eye(size, dtype=torch.float64)).mT


# -- the matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [12, 20])
def test_paleys_matrices_are_hadamard(order):
    H = paley(order)
    assert set(H.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(H @ H.mT, order * torch.eye(order, dtype=H.dtype))


@pytest.mark.parametrize("size", [2, 4, 8, 12, 16, 20, 24, 40, 48, 80, 96, 160])
def test_whole_orders_mix_every_element_with_every_other(size):
    R = matrix(size)
    assert (R.abs() - size**-0.5).abs().max() < 1e-15
    assert (R @ R.mT - torch.eye(size, dtype=R.dtype)).abs().max() < size * 2**-52


@pytest.mark.parametrize(("size", "order"), [(6, 2), (36, 12), (28, 4), (60, 20), (1536, 1536)])
def test_other_sizes_are_rotated_in_blocks_of_the_largest_order(size, order):
    assert hadamard_order(size) == order
    blocks = (rotate(torch.eye(size, dtype=torch.float64)) != 0).unflatten(0, (-1, order))
    for k, block in enumerate(blocks):
        assert block[:, k * order : (k + 1) * order].all()
        assert block.sum() == order**2


@given(size=st.integers(1, 10_000))
def test_the_order_divides_the_size_and_a_matrix_of_it_is_known(size):
    order = hadamard_order(size)
    assert size % order == 0
    odd = order // (order & -order)
    assert odd in (1, 3, 5)
    assert odd == 1 or order % 4 == 0
    assert (order == 1) == (size % 2 == 1)


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="axis of 7 cannot be rotated"):
        rotate(torch.zeros(2, 7))


# -- what rotation keeps --------------------------------------------------------------------------


@given(size=EVEN, rows=st.integers(1, 3), seed=st.integers(0, 99))
def test_norms_are_kept_and_the_way_back_is_the_inverse(size, rows, seed):
    x = vector(rows, size, seed=seed)
    assert torch.allclose(rotate(x).norm(dim=-1), x.norm(dim=-1), rtol=1e-14)
    assert torch.allclose(rotate_back(rotate(x)), x, rtol=0, atol=1e-14 * x.abs().max().item())
    assert torch.allclose(rotate(rotate_back(x)), x, rtol=0, atol=1e-14 * x.abs().max().item())


def test_an_outlier_is_shared_out():
    x = torch.zeros(1536)
    x[700] = 100.0
    assert rotate(x).abs().max() == pytest.approx(100 / 1536**0.5)


@given(size=EVEN, batch=st.integers(2, 5))
def test_a_row_does_not_depend_on_its_neighbours(size, batch):
    x = vector(batch, 3, size, dtype=torch.float32)
    for k in range(batch):
        assert torch.equal(rotate(x)[k, 1], rotate(x[k, 1]))


def test_nor_on_how_many_are_turned_at_once(monkeypatch):
    x = vector(50, 96, dtype=torch.float32)
    whole = rotate(x)
    for piece in (1, 96 * 7, 96 * 50):
        monkeypatch.setattr("sensprobe.numerics.transforms.PIECE", piece)
        assert torch.equal(rotate(x), whole)
    assert rotate(x[:0]).shape == (0, 96)


@given(size=EVEN)
def test_a_second_moment_turns_with_its_vectors(size):
    x = vector(30, size)
    y = rotate(x)
    assert torch.allclose(rotate_both(x.mT @ x), y.mT @ y, atol=1e-11)


def test_gradients_pass_through_it():
    paley.cache_clear()
    with torch.inference_mode():
        rotate(vector(3, 24))
    x = vector(3, 24).requires_grad_()
    y = vector(3, 24, seed=1)
    (rotate(x) * y).sum().backward()
    assert torch.allclose(x.grad, rotate_back(y), rtol=0, atol=1e-14)


# -- rounding in its basis ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["int8", "int4/channel", "int4/group8/asym", "e4m3", "int8/p99"])
def test_stored_codes_are_those_of_the_rotated_weight(text):
    w, scheme, plain = vector(6, 24), parse(f"{text}/hadamard"), parse(text)
    fields = encode(w, scheme, READS, weight_range(w, scheme, READS))[""]
    of_rotated = encode(rotate(w), plain, READS, weight_range(rotate(w), plain, READS))[""]
    assert torch.equal(fields.codes, of_rotated.codes)
    assert torch.equal(fields.scale, of_rotated.scale)


@pytest.mark.parametrize("size", [8, 24, 36, 40])
def test_rotating_both_sides_is_the_folded_deployment(size):
    """(Rᵀ Q(R x)) · (Rᵀ Q(R w)) = Q(R x) · Q(R w): what is simulated, and what a device runs with
    one online transform. Both sides in float64; they differ by its rounding alone, some 4 log2(n)
    half-ulps of sums of n products."""
    x, w = vector(5, size, seed=1), vector(3, size, seed=2)
    read = Site("r", Part.OUT_PROJ_IN, Kind.ACTIVATION, (size,), (Axis.CHANNEL,))
    reads, scheme = site(shape=(3, size)), parse("int4/s32")
    low, high = rotate(x).amin(), rotate(x).amax()
    s, _ = scale_and_zero(scheme, low.view(1), high.view(1))
    codes = quantize(rotate(x), scheme, read, s)
    fields = encode(w, parse("int4/s32/hadamard"), reads)[""]
    folded = fields.codes.double() * fields.scale.double()
    deployed = codes @ folded.mT
    simulated = rotate_back(codes) @ rotate_back(folded).mT
    bound = size * 2.0**-50 * codes.norm(dim=-1).max() * folded.norm(dim=-1).max()
    assert (simulated - deployed).abs().max() < bound
    assert (codes @ rotate_back(folded).mT - deployed).abs().max() > 1e6 * bound, "can fail"


def test_the_decoded_weight_is_the_folded_one_turned_back():
    scheme = parse("int8/channel/hadamard")
    fields = encode(vector(6, 24), scheme, READS)
    held = decode(fields, parse("int8/channel"), READS)
    assert torch.equal(decode(fields, scheme, READS), rotate_back(held.double()).float())


def test_a_tap_rounds_an_activation_in_the_rotated_basis():
    x = vector(2, 5, 24, dtype=torch.float32)
    scale = torch.tensor([0.01])
    tap = RoundingTap({READ.name: parse("int8/hadamard")}, {}, {READ.name: (scale, None)})
    steps = (rotate(x) / scale).round().clamp(-127, 127)
    assert torch.equal(tap(READ, x), rotate_back(steps * scale))
    plain = RoundingTap({READ.name: parse("int8")}, {}, {READ.name: (scale, None)})
    assert not torch.allclose(plain(READ, x), tap(READ, x), atol=1e-4)


def test_dynamic_ranges_are_those_of_the_rotated_values():
    x = torch.zeros(1, 1, 24)
    x[..., 3] = 24.0
    plan = {READ.name: parse("int8/dynamic/hadamard")}
    assert (RoundingTap(plan, {}, {})(READ, x) - x).abs().max() < 24**0.5 / 100


@pytest.mark.parametrize("text", ["int8/hadamard", "int8/p99/hadamard", "int8/asym/mse/hadamard"])
def test_static_ranges_are_calibrated_on_the_rotated_values(text):
    x, scheme = vector(40, 24, dtype=torch.float32), parse(text)
    x[:, 3] += 30
    names = frozenset({READ.name, f"{READ.name} rotated"})
    both, alone = (Observer(Wanted(channels=names, rotated=r)) for r in (names, frozenset()))
    both.observe(READ, x)
    alone.observe(READ, rotate(x))
    plain = parse(text.removesuffix("/hadamard"))
    got, want = static_scale(READ, scheme, both.seen), static_scale(READ, plain, alone.seen)
    assert torch.equal(got[0], want[0])
    assert not torch.equal(got[0], static_scale(READ, plain, both.seen)[0])


def test_a_static_range_without_rotated_values_is_refused():
    seen = Observer()
    seen.observe(READ, vector(4, 24, dtype=torch.float32))
    with pytest.raises(SchemeError, match="needs calibrated ranges"):
        static_scale(READ, parse("int8/hadamard"), seen.seen)


def test_rotation_rescues_the_channels_beside_an_outlier():
    """What it is for: six bits a tensor, one channel forty times the others."""
    x = vector(200, 24)
    x[:, 5] *= 40

    def error(text: str) -> float:
        scheme = parse(text)
        seen = rotated(x, scheme)
        s, _ = scale_and_zero(scheme, seen.amin().view(1), seen.amax().view(1))
        kept = rotated_back(quantize(seen, scheme, READ, s), scheme)
        return (kept - x).square().mean().item()

    assert error("int6/hadamard") < error("int6") / 5


# -- where it may stand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (site(shape=(4, 7)), "holds 7 value"),
        (Site("s", Part.STATE, Kind.STATE, (4, 8), (Axis.HEAD, Axis.N)), "inside an operation"),
        (Site("d", Part.DECAY, Kind.ACTIVATION, (4,), (Axis.HEAD,)), "inside an operation"),
        (Site("a", Part.A, Kind.WEIGHT, (4, 8), (Axis.HEAD, Axis.N), True), "complex"),
    ],
)
def test_where_it_cannot_stand_the_error_says_why(where, reason):
    with pytest.raises(SchemeError, match=reason):
        check(parse("int8/hadamard"), where)
    assert adapt(parse("int8/hadamard"), where) == parse("int8")


@pytest.mark.parametrize("text", ["fp32/hadamard", "polar(m4,p4)/hadamard"])
def test_formats_that_take_no_rotation(text):
    with pytest.raises(SchemeError, match="takes no hadamard"):
        parse(text)


def test_plans_without_it_keep_their_fingerprints():
    """Recorded before schemes had the word: evaluations in runs that exist are found by it."""
    plan = {"layers.0.A": parse("int8/head/asym/dynamic"), "head": parse("int4/group32/s32")}
    assert fingerprint(plan) == "e3c975baefde36e6"
    assert fingerprint(plan) != fingerprint(plan | {"head": parse("int4/group32/s32/hadamard")})


def test_a_model_runs_with_both_sides_rotated():
    import selective

    model = selective.tiny(selective.MAMBA2S["groups"])
    x = selective.inputs(model.config, 4, 9)
    both = Plan((("*.out_proj", parse("int8/hadamard")), ("*.out_proj_in", parse("int8/hadamard"))))
    plan = both.resolve(model.sites.values())
    tap = Applier(model, observe(model, x, wanted_by(plan, model))).tap(plan)
    assert (model(x, tap) - model(x)).abs().max() < 0.05 * model(x).abs().max()
    assert not torch.equal(model(x, tap), model(x))
    where = model.sites["layers.0.out_proj"]
    fields = encode_weight(model, where, plan[where.name])
    assert torch.equal(tap.weights[where.name], decode(fields, plan[where.name], where))
