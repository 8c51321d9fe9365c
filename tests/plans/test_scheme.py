"""The text of schemes: it parses back, has one canonical form, and says what is wrong with it."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest
from builders import ACTIVATION, BIAS, MATRIX, PROJECTION, SITES, SKIP, STATE, site
from hypothesis import given
from hypothesis import strategies as st
from schemes import schemes, schemes_for

from sensprobe.errors import SchemeError
from sensprobe.plans.fitting import adapt, check, why_not
from sensprobe.plans.formats import FP32, Int, LogPolar, Polar
from sensprobe.plans.scheme import (
    DEFAULTS,
    EXACT,
    NEEDS,
    OPTIONS,
    Rounding,
    Scales,
    Scheme,
    grammar,
    parse,
    scale_count,
    scale_shape,
)
from sensprobe.plans.sites import Axis, Kind, Part, Site

CUBE = Site("layers.0.state", Part.STATE, Kind.STATE, (2, 3, 5), (Axis.HEAD, Axis.CHANNEL, Axis.N))
WINDOW = Site("layers.0.conv_state", Part.CONV_STATE, Kind.STATE, (4, 3), (Axis.CHANNEL, Axis.LAG))
GROUPED = Site("layers.0.B", Part.B, Kind.ACTIVATION, (2, 3), (Axis.GROUP, Axis.N))
INNER = Site("layers.0.x", Part.X, Kind.ACTIVATION, (2, 3), (Axis.HEAD, Axis.CHANNEL))

# -- text -----------------------------------------------------------------------------------------


@given(schemes())
def test_every_scheme_parses_back_from_its_text(scheme):
    assert parse(str(scheme)) == scheme


@given(schemes())
def test_the_printed_form_is_a_fixed_point(scheme):
    assert str(parse(str(scheme))) == str(scheme)


@given(schemes(), schemes())
def test_different_schemes_print_differently(one, other):
    """Plans are told apart by this text."""
    assert (one == other) == (str(one) == str(other))


@given(schemes(), st.randoms(use_true_random=False))
def test_words_come_in_any_order(scheme, random):
    format, *words = str(scheme).split("/")
    random.shuffle(words)
    assert parse("/".join([format, *words])) == scheme


def test_all_orders_of_one_scheme():
    words = ["head", "asym", "p99.9", "stochastic7"]
    texts = {str(parse("/".join(["int8", *order]))) for order in permutations(words)}
    assert texts == {"int8/head/asym/p99.9/stochastic7"}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("int8", "int8"),
        (" int8/tensor/sym/absmax/static/nearest/every1/s16 ", "int8"),
        ("exact", "fp32"),
        ("int4/group32", "int4/group32"),
        ("int8/p99.999/asym/head", "int8/head/asym/p99.999"),
        ("int8/p99.0", "int8/p99"),
        ("int8/range50.0", "int8/range50"),
        ("int8/range-50:50", "int8/range50"),
        ("int8/asym/range-1:3", "int8/asym/range-1:3"),
        ("int8/asym/range-0:3", "int8/asym/range0:3"),
        ("int8/range1e-9", "int8/range1e-09"),
        ("int8/range1e20", "int8/range1e+20"),
        ("int8/head/clip50/feedback", "int8/head/feedback/clip50"),
        ("int8/clip1234567.5", "int8/clip1234567.5"),
        ("int8/clip1e-7", "int8/clip1e-07"),
        ("int8/stochastic0", "int8/stochastic"),
        ("int8/channel/dynamic/stochastic/every16", "int8/channel/dynamic/stochastic/every16"),
        ("polar(m4,p8)/head/pow2", "polar(m4,p8)/head/pow2"),
    ],
)
def test_canonical_forms(text, canonical):
    assert str(parse(text)) == canonical


def test_defaults_are_the_documented_ones():
    assert parse("int8") == Scheme(
        Int(8), "tensor", 0, False, "absmax", dynamic=False, rounding=Rounding.NEAREST, parts=False,
        clip=None, every=1, scales=Scales.S16,
    )  # fmt: skip
    assert parse("fp32") == EXACT
    assert EXACT.exact
    assert not parse("fp32/clip50").exact


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (MATRIX, "int8/head/asym/parts"),
        (MATRIX, "polar(m8,p8)/head"),
        (MATRIX, "logpolar(m1,p11)/head"),
        (MATRIX, "int4/head/asym/parts"),
        (SKIP, "int4/tensor/asym"),
        (STATE, "int8/head/asym/parts/dynamic"),
        (STATE, "int8/head/asym/p99.999/clip50"),
        (STATE, "e4m3/head/dynamic/stochastic"),
        (STATE, "int8/head/dynamic/feedback"),
    ],
    ids=str,
)
def test_the_published_rows_can_be_said(where, text):
    check(parse(text), where)


def test_bits_of_a_real_number():
    assert parse("int4/group32").bits_per_real == 4
    assert parse("logpolar(m1,p11)").bits_per_real == 6
    assert parse("fp32").bits_per_real == 32


KEPT = json.loads((Path(__file__).parent / "schemes.json").read_text(encoding="utf-8"))
"""Texts, and what version 0.1.0 read ("=", as it printed it) or said ("!", the error's text up to
the list of words, in today's wording of what dynamic means)."""


def test_texts_read_and_print_as_they_did() -> None:
    assert len(KEPT) > 350
    for text, kind, expected in KEPT:
        try:
            found = "=", str(parse(text))
        except SchemeError as error:
            found = "!", str(error).partition(" After the format come")[0]
        assert found == (kind, expected), text


def test_the_table_is_whole() -> None:
    """Every field is some word's, every need some option's, and every word stands in the help."""
    words = [word for option in OPTIONS for word in option.words]
    said = {name for word in words for name in word.says}
    said |= {word.number.field for word in words if word.number}
    assert said | {"format"} == set(DEFAULTS)
    assert {need for option in OPTIONS for need in option.needs} == set(NEEDS)
    with pytest.raises(SchemeError) as caught:
        parse("int8/what")
    for word in words:
        assert word.form in str(caught.value)
        assert all(f"`{form}`" in grammar() for form in word.form.split("|"))


# -- what a text can get wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no format ''"),
        ("int99", "no format 'int99'. Formats: int2 to int16"),
        ("int8/heads", "means nothing here: 'heads'. After the format come tensor|channel|head"),
        ("int8//asym", "means nothing here: ''"),
        ("int8/HEAD", "means nothing here: 'HEAD'"),
        ("int8/range1.2.3", "means nothing here: 'range1.2.3'"),
        ("int8/head/tensor", "says 'head' and 'tensor': only one granularity"),
        ("int8/head/group4", "says 'head' and 'group4': only one granularity"),
        ("int8/mse/p99", "says 'mse' and 'p99': only one range"),
        ("int8/asym/asym", "says 'asym' and 'asym': only one symmetry"),
        ("int8/feedback/stochastic", "says 'feedback' and 'stochastic': only one rounding"),
        ("int8/s16/pow2", "says 's16' and 'pow2': only one scales"),
        ("int8/group0", "a group must be from 1 to 999999999"),
        ("int8/every0", "the number of steps must be from 1 to 999999999"),
        ("int8/clip0", "a state is clamped to ± a number float32 can name"),
        ("int8/clip1e999", "a state is clamped to ± a number float32 can name"),
        ("e4m3/asym", "asym needs an integer format, not e4m3: zero points are integers"),
        ("log4/asym", "asym needs an integer format, not log4"),
        ("polar(m4,p4)/asym", "polar(m4,p4) sets its own ranges"),
        ("polar(m4,p4)/parts", "polar(m4,p4) sets its own ranges"),
        ("polar(m4,p4)/mse", "polar(m4,p4) sets its own ranges"),
        ("polar(m4,p4)/feedback", "polar(m4,p4) rounds to nearest or truncates, not feedback"),
        ("bf16/head", "bf16 is stored without scales"),
        ("fp16/dynamic", "fp16 is stored without scales"),
        ("fp16/pow2", "fp16 is stored without scales"),
        ("fp32/truncate", "fp32 is kept as it is: there is nothing to round"),
        ("fp32/every2", "fp32 is kept as it is: there is nothing to round"),
        ("int8/dynamic/p99", "a dynamic range is that of the values at hand"),
        ("int8/asym/range3:1", "range3:1 is empty: LO must lie below HI"),
        ("int8/range0", "is empty: LO must lie below HI"),
        ("int8/range1:3", "a range that is not ± one number needs asym"),
        ("int8/p50", "p50: a percentile lies above 50 and at most at 100"),
        ("int8/p100.1", "p100.1: a percentile lies above 50"),
    ],
)
def test_errors_say_what_is_wrong(text, says):
    with pytest.raises(SchemeError) as error:
        parse(text)
    assert says in str(error.value)
    if "no format" not in says:
        assert repr(text) in str(error.value) or "must be" in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["int8/stochastic" + "9" * 5000, "int8/stochastic" + "9" * 30, f"polar(m{'9' * 5000},p3)",
     "int8/clip" + "9" * 5000, "9" * 5000, "int8" + "/head" * 100],
)  # fmt: skip
def test_texts_of_thousands_of_digits(text):
    with pytest.raises(SchemeError) as caught:
        parse(text)
    assert len(str(caught.value)) < 500


def test_errors_are_usage_errors():
    with pytest.raises(SchemeError) as error:
        parse("int8/oops")
    assert error.value.exit_code == 2


# -- where a scheme makes sense -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("int8/head", BIAS, "it has no heads; use tensor, channel or groupK"),
        ("int8/head", PROJECTION, "it has no heads"),
        ("int8/parts", PROJECTION, "its numbers are real: parts, polar and logpolar"),
        ("polar(m4,p4)", PROJECTION, "its numbers are real"),
        ("polar(m4,p4)", STATE, "polar formats are for weights: a state is rewritten every step"),
        ("logpolar(m4,p4)", site(is_complex=True), "only A stays inside the unit circle"),
        ("int8/dynamic", PROJECTION, "a weight does not change: its range is known"),
        ("int8/feedback", PROJECTION, "feedback, clip and every are for states"),
        ("int8/clip50", PROJECTION, "feedback, clip and every are for states"),
        ("int8/every4", ACTIVATION, "feedback, clip and every are for states"),
        ("int8/channel", BIAS, "it would store a scale for each value"),
        ("int8/head", SKIP, "it would store a scale for each value"),
        ("int8/group1", MATRIX, "it would store a scale for each value"),
        ("int8/group1/parts", MATRIX, "it would store a scale for each value"),
        ("polar(m4,p4)/group1", MATRIX, "it would store a scale for each value"),
        ("int8/head/dynamic", ACTIVATION, "it would store a scale for each value"),
        ("int8/group2/p99", STATE, "watched a head at a time; use head or tensor"),
        ("int8/group2/mse", STATE, "watched a head at a time; use head or tensor"),
        ("int8/channel/p99", CUBE, "ranges of a state are watched a head at a time"),
        ("int8/channel/mse", INNER, "several axes are watched a head at a time"),
        ("int8/group2/p99", GROUPED, "several axes are watched along their first axis; use tensor"),
        ("int8/feedback", WINDOW, "moves on by one place a step, so an error cannot be added back"),
    ],
)
def test_what_makes_no_sense_for_a_site_is_said(text, where, says):
    with pytest.raises(SchemeError) as error:
        check(parse(text), where)
    message = str(error.value)
    assert says in message
    assert message.startswith(f"scheme {text!r} makes no sense for {where.name} ({where.kind})")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("int8/channel", PROJECTION),
        ("int8/group2/p99", ACTIVATION),
        ("int8/group2/absmax", STATE),
        ("int8/head", ACTIVATION),  # static: the scales are stored once
        ("int8/clip50/every4/feedback", STATE),
        ("fp32/clip50", STATE),
        ("int8", site(shape=(1,), axes=(Axis.OUT,))),  # one value may have one scale
        ("int8", site(shape=(1, 1), is_complex=True)),  # and one complex number
    ],
)
def test_what_makes_sense_passes(text, where):
    assert why_not(parse(text), where) is None


# -- scales ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "shape"),
    [
        ("int8", PROJECTION, (1, 1)),
        ("int8/channel", PROJECTION, (8, 1)),
        ("int8/group2", PROJECTION, (8, 3)),
        ("int8/group100", PROJECTION, (8, 1)),
        ("int8", MATRIX, (1, 1, 1)),
        ("int8/head", MATRIX, (4, 1, 1)),
        ("int8/head/parts", MATRIX, (4, 1, 2)),
        ("int8/channel/parts", MATRIX, (4, 1, 2)),
        ("int8/group2", MATRIX, (4, 2, 1)),
        ("int8/tensor/parts", MATRIX, (1, 1, 2)),
        ("polar(m4,p4)/head", MATRIX, (4, 1)),
        ("int8", BIAS, (1,)),
        ("int8/head", ACTIVATION, (4,)),
    ],
)
def test_shapes_of_scales(text, where, shape):
    assert scale_shape(parse(text), where) == shape


def test_formats_without_scales_count_none():
    assert scale_count(parse("bf16"), MATRIX) == 0
    assert scale_count(parse("int8/head/parts"), MATRIX) == 8


# -- adapting a scheme to sites -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "fitted"),
    [
        ("int8/head/asym/parts", PROJECTION, "int8/channel/asym"),
        ("int8/head/asym/parts", BIAS, "int8/asym"),
        ("int8/head/asym/parts", SKIP, "int8/asym"),
        ("int8/head/asym/parts", MATRIX, "int8/head/asym/parts"),
        ("int8/head/dynamic/feedback/clip9/every2", MATRIX, "int8/head"),
        ("int8/dynamic/feedback/clip9/every2", STATE, "int8/dynamic/feedback/clip9/every2"),
        ("int8/dynamic/feedback", ACTIVATION, "int8/dynamic"),
        ("int8/group1", MATRIX, "int8/channel"),
        ("int8/group2/mse", STATE, "int8/channel/mse"),
    ],
)  # fmt: skip
def test_adapting_drops_and_coarsens(text, where, fitted):
    assert str(adapt(parse(text), where)) == fitted


@pytest.mark.parametrize("where", SITES, ids=lambda s: s.name)
@given(scheme=schemes())
def test_what_adapting_gives_makes_sense_or_is_refused(where, scheme):
    """Only a polar format on a site that cannot have one has no scheme nearby."""
    try:
        assert why_not(adapt(scheme, where), where) is None
    except SchemeError:
        assert isinstance(scheme.format, Polar | LogPolar)


@given(scheme=schemes())
def test_adapting_leaves_alone_what_makes_sense(scheme):
    if why_not(scheme, STATE) is None:
        assert adapt(scheme, STATE) == scheme


def test_a_format_is_never_changed_by_adapting():
    assert adapt(parse("int3/head"), BIAS).format == Int(3)
    assert adapt(parse("fp32"), BIAS).format == FP32


@pytest.mark.parametrize("where", SITES, ids=lambda s: s.name)
@given(data=st.data())
def test_schemes_drawn_for_a_site_make_sense_there(where, data):
    """What the property tests elsewhere rest on."""
    assert why_not(data.draw(schemes_for(where)), where) is None


# -- selective families ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "shape"),
    [
        ("int8/head", CUBE, (2, 1, 1)),
        ("int8/channel", CUBE, (2, 3, 1)),
        ("int8/group2", CUBE, (2, 3, 3)),
        ("int8/channel", WINDOW, (4, 1)),
        ("int8/channel", GROUPED, (2, 1)),
        ("int8/channel/p99", GROUPED, (2, 1)),
        ("int8/head/p99", INNER, (2, 1)),
    ],
)
def test_scales_of_selective_tensors(text, where, shape):
    check(parse(text), where)
    assert scale_shape(parse(text), where) == shape


def test_feedback_over_a_whole_model_leaves_windows_rounded_to_nearest():
    assert str(adapt(parse("int8/feedback"), WINDOW)) == "int8"
    assert str(adapt(parse("int8/feedback"), CUBE)) == "int8/feedback"
