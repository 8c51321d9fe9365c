"""Bytes and bit operations: against sums done by hand, and against what encoding really yields."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from builders import ACTIVATION, CONFIGS, MATRIX, PLAIN, SITES, STATE, stored, tiny, values_of
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import schemes_for

from sensprobe.errors import UsageError
from sensprobe.models.apply import Applier, observe, wanted_by
from sensprobe.models.s4d import S4DConfig, products, sites
from sensprobe.numerics.rounding import Field, min_max, pack_scale, scale_and_zero
from sensprobe.plans.cost import bit_operations, cost, site_bytes
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.plans.scheme import EXACT, Rounding, Scheme, parse
from sensprobe.plans.sites import Kind


def resolved(where, *settings: str) -> dict[str, Scheme]:
    return Plan(tuple(parse_setting(s) for s in settings)).resolve(where)


# -- by hand --------------------------------------------------------------------------------------


def test_full_precision_counts_four_bytes_a_real():
    """PLAIN: h=4 heads, n=3 pairs, one input, three classes."""
    h, n = 4, 3
    matrices = 2 * h * n  # A, B and C each
    weights = (h + h) + 3 * matrices + h + (2 * h * h + 2 * h) + (3 * h + 3)
    got = cost(sites(PLAIN).values(), {}, products(PLAIN))
    assert got.weight_bytes == 4 * weights
    assert got.state_bytes == 4 * 2 * h * n
    assert got.total_bytes == got.weight_bytes + got.state_bytes
    assert got.effective_bits == 32
    multiplications = h + 4 * h * n + 2 * h * n + 2 * h * n + h + 2 * h * h + 3 * h
    assert got.bit_operations == 32 * 32 * multiplications


@pytest.mark.parametrize(("h", "trained"), [(16, 3850), (64, 21514)])
def test_published_models_hold_what_they_train_and_the_discretised_A(h, trained):
    """2H² + 208H + 10 are trained with 32 pairs: dt and A's two parts become A; dt itself goes."""
    config = S4DConfig(d_input=1, d_output=10, d_model=h, d_state=32)
    assert trained == 2 * h * h + 208 * h + 10
    got = cost(sites(config).values(), {})
    assert got.weight_bytes == 4 * (trained - h)
    assert got.state_bytes == 4 * 64 * h
    assert got.effective_bits == 32


@pytest.mark.parametrize(
    ("text", "stored_once"),
    [
        ("int8", 24 + 2),
        ("int8/head", 24 + 4 * 2),
        ("int8/head/asym", 24 + 4 * (2 + 2)),
        ("int8/head/asym/parts", 24 + 8 * (2 + 2)),
        ("int8/head/asym/s32", 24 + 4 * (4 + 4)),
        ("int8/head/asym/pow2", 24 + 4 * (1 + 2)),
        ("int5/group2", ceil(24 * 5 / 8) + 8 * 2),
        ("int3", 9 + 2),
        ("e2m1/head", 12 + 8),
        ("bf16", 48),
        ("fp32", 96),
        ("polar(m3,p5)", ceil(12 * 3 / 8) + ceil(12 * 5 / 8) + 2 * 2 + 2),
        ("logpolar(m1,p11)/head", 2 + 17 + 4 * (2 * 2 + 2 * 2)),
    ],
)
def test_bytes_of_a_complex_weight(text, stored_once):
    """MATRIX: 4 heads of 3 complex numbers, 24 reals."""
    assert site_bytes(MATRIX, parse(text)) == (stored_once, 0)


@pytest.mark.parametrize(
    ("text", "once", "each"),
    [
        ("fp32", 0, 96),
        ("int8/head", 8, 24),
        ("int8/head/dynamic", 0, 24 + 8),
        ("int8/head/asym/parts/dynamic", 0, 24 + 8 * 4),
        ("int8/head/feedback", 8, 24 + 48),
        ("int4/dynamic/feedback/clip50/every16", 0, 12 + 48 + 2),
        ("bf16/feedback", 0, 48 + 48),
    ],
)
def test_bytes_of_a_state_once_and_a_sequence(text, once, each):
    assert site_bytes(STATE, parse(text)) == (once, each)


def test_an_activation_costs_its_static_scales_alone():
    assert site_bytes(ACTIVATION, EXACT) == (0, 0)
    assert site_bytes(ACTIVATION, parse("int8/head")) == (8, 0)
    assert site_bytes(ACTIVATION, parse("int8/asym/dynamic")) == (0, 0)


def test_states_are_counted_for_each_sequence_and_weights_once():
    plan = resolved(SITES, "*.state=int8/head/dynamic", "*.A=int8")
    one, many = cost(SITES, plan, batch=1), cost(SITES, plan, batch=7)
    assert many.weight_bytes == one.weight_bytes
    assert many.state_bytes == 7 * one.state_bytes == 7 * 32
    reals = sum(s.reals for s in SITES if s.kind is Kind.WEIGHT) + 7 * STATE.reals
    assert many.effective_bits == 8 * many.total_bytes / reals


def test_full_precision_is_32_bits_at_any_batch():
    for config in CONFIGS.values():
        for batch in (1, 3):
            assert cost(sites(config).values(), {}, batch=batch).effective_bits == 32


def test_bit_operations_multiply_the_bits_of_both_operands():
    plan = {"w": parse("int4"), "A": parse("logpolar(m1,p11)"), "state": parse("int8/dynamic")}
    assert bit_operations(plan, [("w", "x", 10)]) == 10 * 4 * 32
    assert bit_operations(plan, [("A", "state", 10)]) == 10 * 6 * 8
    assert bit_operations(plan, [("w", None, 10), ("other", "x", 1)]) == 10 * 4 * 32 + 1024


def test_a_batch_of_none_is_refused():
    with pytest.raises(UsageError, match="batch 0: at least one sequence"):
        cost(SITES, {}, batch=0)


def test_a_cost_is_plain_json():
    got = cost(SITES, {}).to_json()
    assert set(got) == {
        "weight_bytes", "state_bytes", "total_bytes", "effective_bits", "bit_operations", "batch",
    }  # fmt: skip
    assert all(isinstance(v, int | float) for v in got.values())


# -- against what encoding yields -----------------------------------------------------------------


def packed_bytes(field: Field) -> int:
    total = ceil(field.codes.numel() * field.bits / 8)
    for extra in (field.scale, field.zero):
        total += 0 if extra is None else extra.numel() * extra.element_size()
    return total


@pytest.mark.parametrize("where", [s for s in SITES if s.kind is Kind.WEIGHT], ids=lambda s: s.name)
@given(data=st.data())
def test_a_weight_costs_what_its_fields_weigh(where, data):
    scheme = data.draw(schemes_for(where))
    fields = stored(values_of(where.shape, where.is_complex), scheme, where)
    assert site_bytes(where, scheme) == (sum(packed_bytes(f) for f in fields.values()), 0)


@given(data=st.data())
def test_a_state_costs_its_codes_scales_and_residual(data):
    """As `storage` keeps them: live scales have the range's shape, a residual is a bf16 a real."""
    scheme, batch = data.draw(schemes_for(STATE)), data.draw(st.integers(1, 5))
    x = torch.zeros(batch, *STATE.shape, 2)
    each = batch * ceil(x[0].numel() * scheme.format.bits / 8)
    if scheme.rounding is Rounding.FEEDBACK:
        each += x.bfloat16().numel() * x.bfloat16().element_size()
    once = 0
    if scheme.scaled:
        live = x if scheme.dynamic else x[0]
        scale, zero = scale_and_zero(scheme, *min_max(live, scheme, STATE))
        packed = pack_scale(scale, scheme.scales)
        weight = packed.numel() * packed.element_size()
        if zero is not None:
            weight += zero.numel() * (4 if scheme.scales == "s32" else 2)
        each, once = (each + weight, 0) if scheme.dynamic else (each, weight)
    got = cost([STATE], {STATE.name: scheme}, batch=batch)
    assert (got.weight_bytes, got.state_bytes) == (once, each)


@settings(max_examples=30)
@given(data=st.data())
def test_a_whole_plan_costs_the_sum_of_what_it_stores(data):
    model = tiny(CONFIGS["deep"])
    chosen = {}
    for name, site in model.sites.items():
        if data.draw(st.booleans()):
            chosen[name] = data.draw(schemes_for(site))
    applier = Applier(model, observe(model, torch.ones(2, 5, 2), wanted_by(chosen, model)))
    fields = {
        n: applier.encoded(model.sites[n], s)
        for n, s in chosen.items()
        if not s.exact and model.sites[n].kind is Kind.WEIGHT
    }
    want = sum(packed_bytes(f) for site in fields.values() for f in site.values())
    want += sum(
        s.full_bytes for n, s in model.sites.items() if s.kind is Kind.WEIGHT and n not in fields
    )
    want += sum(
        site_bytes(s, chosen[n])[0]
        for n, s in model.sites.items()
        if s.kind is not Kind.WEIGHT and n in chosen
    )
    assert cost(model.sites.values(), chosen).weight_bytes == want


def test_static_scales_weigh_what_an_applier_calibrates():
    model = tiny()
    plan = resolved(
        model.sites.values(), "*.state=int8/head/asym/parts", "*.x=int6/head", "head_in=int4/asym"
    )
    applier = Applier(model, observe(model, torch.ones(2, 5, 1)))
    scales = applier.tap(plan).scales
    weight = sum(2 * t.numel() for pair in scales.values() for t in pair if t is not None)
    exact = cost(model.sites.values(), {}).weight_bytes
    assert cost(model.sites.values(), plan).weight_bytes == exact + weight
