"""Noise as text, and the sites it is put on."""

from __future__ import annotations

import math

import pytest
from builders import ACTIVATION, MATRIX, PROJECTION, SITES, STATE

from sensprobe.errors import PlanError, UsageError
from sensprobe.plans.noise import Draw, Gaussian, Pcm, parse, parse_entry, resolve

TEXTS = ["0.01", "0", "1", "1e-05", "pcm", "pcm(levels=16)", "pcm(levels=16,on_off=50,t=3600)"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_read_back(text):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_what_texts_mean():
    assert parse_entry("*.state=0.002") == ("*.state", Gaussian(0.002))
    assert parse("pcm") == parse("pcm()") == Pcm(levels=0, on_off=math.inf, t=20.0)
    assert parse("pcm(t=60, levels=2)".replace(" ", "")) == Pcm(levels=2, t=60.0)
    assert parse(str(Gaussian(0.1 + 0.2))) == Gaussian(0.1 + 0.2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.01", "is not PATTERN=AMOUNT"),
        ("weights=", "is not PATTERN=AMOUNT"),
        ("weights=-0.01", "a share of the range, from 0 to 1"),
        ("weights=1.5", "a share of the range, from 0 to 1"),
        ("weights=nan", "a share of the range, from 0 to 1"),
        ("weights=int8", "give a share of the range"),
        ("weights=pcm(bits=4)", "'bits=4' is none of levels=N"),
        ("weights=pcm(levels=1.5)", "'levels=1.5' is none of levels=N"),
        ("weights=pcm(levels=1)", "levels is 0"),
        ("weights=pcm(levels=99999999999999999999)", "from 2 to 65,536"),
        ("weights=pcm(on_off=1)", "on_off is above 1"),
        ("weights=pcm(t=1)", "t is at least 20"),
        ("weights=pcm(t=inf)", "t is at least 20"),
    ],
)
def test_what_is_wrong_with_a_text(text, said):
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        parse_entry(text)


def test_later_entries_override_and_nothing_is_left_out():
    found = resolve(
        [("*", parse("0.01")), (MATRIX.name, parse("0")), ("states", parse("0.5"))], SITES
    )
    assert list(found) == [s.name for s in SITES if s is not MATRIX]
    assert found[STATE.name] == Gaussian(0.5)
    assert found[PROJECTION.name] == Gaussian(0.01)


def test_devices_hold_weights_alone():
    found = resolve([("*", parse("pcm"))], SITES)
    assert MATRIX.name in found
    assert not {STATE.name, ACTIVATION.name} & set(found)
    for pattern in (STATE.name, "states", ACTIVATION.name):
        with pytest.raises(UsageError, match="pcm is of weights"):
            resolve([(pattern, parse("pcm"))], SITES)
    with pytest.raises(PlanError, match=r"the noise names 'layers.0.E'.*Nearest"):
        resolve([("layers.0.E", parse("0.01"))], SITES)


def test_a_draw_is_told_by_all_that_it_depends_on():
    noises = {"a": Gaussian(0.01), "b": Pcm()}
    draw = Draw(noises, 1, 2)
    assert draw.fingerprint == Draw(dict(reversed(noises.items())), 1, 2).fingerprint
    others = [Draw(noises, 2, 1), Draw(noises, 1, 3), Draw({"a": Gaussian(0.02), "b": Pcm()}, 1, 2)]
    assert len({draw.fingerprint, *(other.fingerprint for other in others)}) == 4
