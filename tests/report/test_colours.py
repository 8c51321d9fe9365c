"""Marks stand out from the ground, and those that stand beside each other from each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from sensprobe import api
from sensprobe.plans.sites import Part
from sensprobe.report.charts.frontiers import LOOKS, PRESET, RING
from sensprobe.report.charts.rankings import KINDS
from sensprobe.report.theme import GREY, PARTS, SERIES, THEMES, Theme, part_colour

LEAST_CONTRAST = 3.0
"""WCAG 2.2, 1.4.11: of what is needed to understand a figure, against what is beside it."""
APART, APART_PARTS = 30.0, 40.0
"""CIE76 differences of neighbours as seen with deuteranopia: about ten just noticeable ones."""
DEUTERANOPIA = np.array([
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
])  # fmt: skip
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB."""
TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
WHITE = TO_XYZ.sum(axis=1)


def linear(colour: str) -> np.ndarray:
    """Linear RGB of sRGB."""
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of relative luminances."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    share = TO_XYZ @ rgb / WHITE
    f = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, other: str) -> float:
    """How far two colours are as one with deuteranopia sees them."""
    seen = [lab(np.clip(DEUTERANOPIA @ linear(colour), 0, 1)) for colour in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def nearest(colours: Sequence[str], theme: Theme) -> float:
    """The least difference of neighbours on a ground."""
    return min(apart(theme.mark(a), theme.mark(b)) for a, b in pairwise(colours))


@pytest.fixture(params=THEMES.values(), ids=list(THEMES))
def theme(request) -> Theme:
    return request.param


def test_the_measures_are_those_of_the_standards() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)
    assert apart("#FFFFFF", "#FFFFFF") == 0
    red, green = "#A05000", "#5C7000"  # told apart by most, hardly with deuteranopia
    assert apart(red, green) < 15 < np.linalg.norm(lab(linear(red)) - lab(linear(green)))


def test_every_mark_has_three_to_one_against_the_ground(theme: Theme) -> None:
    looks = [*LOOKS.values(), PRESET, RING, *KINDS.values()]
    assert all(look.opacity > 0.8 for look in looks)
    for colour in {*SERIES, *PARTS.values(), GREY, *(look.colour for look in looks)}:
        assert contrast(theme.mark(colour), theme.paper) >= LEAST_CONTRAST, colour
    assert contrast(theme.ink, theme.paper) >= 4.5


def test_neighbours_stay_apart_with_deuteranopia(theme: Theme) -> None:
    assert nearest(SERIES, theme) >= APART
    assert nearest([look.colour for look in KINDS.values()], theme) >= APART
    assert nearest([look.colour for look in LOOKS.values()], theme) >= APART


@pytest.mark.parametrize("model", ["s4d-digits", "s5-digits", "mamba-bytes", "mamba2-bytes"])
def test_parts_of_a_model_have_colours_of_their_own(model: str, theme: Theme) -> None:
    stored = [row["part"] for row in api.list_sites(model) if row["kind"] != "activation"]
    order = [part.value for part in Part if part.value in stored]
    colours = [part_colour(part) for part in order]
    assert GREY not in colours
    assert len({*colours}) == len(colours) > 8
    assert nearest(colours, theme) >= APART_PARTS
