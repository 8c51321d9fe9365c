"""Colours shared by every figure, safe for colour-blind readers, on light and on dark.

Marks are Okabe and Ito's, orange and sky darkened, and have a lighter twin on dark ground: 3 to 1
against it or more (WCAG 1.4.11), those that stand beside each other apart with deuteranopia too.
Losses are orange and gains blue (Brewer's Oranges and Blues), with a neutral middle that is the
ground itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BLUE, ORANGE, VERMILION, GREEN = "#0072B2", "#A87400", "#D55E00", "#009E73"
SKY, PURPLE, GREY = "#2B95CE", "#CC79A7", "#8A8F98"

SERIES = (BLUE, PURPLE, VERMILION, GREEN, SKY, ORANGE, GREY)
SYMBOLS = ("circle", "diamond", "square", "triangle-down", "cross", "star", "hexagon")

_PARTS = {
    "encoder": "670A83 9E47B9",
    "embedding": "8E4E77 D38EB9",
    "norm": "985015 E38F52",
    "norm_in": "A65B9C F0A4E6",
    "norm_factor": "B1842D FCD8A3",
    "in_proj.z": "5E2271 9354A5",
    "in_proj.x": "237228 68B465",
    "in_proj.B": "1897C0 B1E4FF",
    "in_proj.C": "72A111 CAF86D",
    "in_proj.dt": "433F01 756E31",
    "conv": "5977B1 ACBFF2",
    "conv_state": "807913 CDC25E",
    "x_proj.dt": "9E5EB0 ECA7FE",
    "x_proj.B": "A01407 E7593C",
    "x_proj.C": "0A4546 427577",
    "dt_proj": "7C5E29 C29E65",
    "A": "0BA4A7 83FBFE",
    "B": "523902 876832",
    "state": "113E72 4E6DA7",
    "C": "4D6D0A 8FAE4E",
    "D": "B084BB F7E1FC",
    "gated_norm": "184719 497846",
    "out_proj": "3F41B2 8277F2",
    "head": "35A83D A8FCA1",
    "bias": "523447 846378",
}
"""Colours on light and on dark of the parts that take bytes, the same in every figure: found by
annealing, so that parts that follow each other in a model differ most."""
PARTS = {part: f"#{both.split()[0]}" for part, both in _PARTS.items()}


@dataclass(frozen=True, slots=True)
class Theme:
    """Ground, ink and scales of a figure."""

    name: str
    paper: str
    ink: str
    faint: str  # grid lines, marks of little weight
    missing: str  # a cell that was not measured
    diverging: tuple[str, ...]  # worst loss … nothing … best gain
    sequential: tuple[str, ...]  # nothing … worst
    marks: Mapping[str, str] = field(default_factory=dict)  # colour on light -> its twin here

    def mark(self, colour: str) -> str:
        """The colour of a mark on this ground."""
        return self.marks.get(colour, colour)


def _colours(text: str) -> tuple[str, ...]:
    return tuple(f"#{colour}" for colour in text.split())


LIGHT = Theme(
    "light",
    "#FFFFFF",
    "#22262B",
    "#D9DCE1",
    "#ECEDEF",
    _colours("8C2D04 D94801 F59A54 FDD9B4 FAFAFA C6DBEF 6BAED6 2171B5 08306B"),
    _colours("FAFAFA FDD9B4 F59A54 D94801 8C2D04"),
)
DARK = Theme(
    "dark",
    "#14171C",
    "#E4E7EB",
    "#363C45",
    "#1D2127",
    _colours("FFD9B3 FDAE6B D9691B 6B3512 23272E 173F66 2F7CC0 7FB8E6 D2E6F7"),
    _colours("23272E 6B3512 D9691B FDAE6B FFD9B3"),
    {
        BLUE: "#3E9BDC",
        ORANGE: "#E69F00",
        VERMILION: "#E8702A",
        GREEN: "#1DB58A",
        SKY: "#8CCBF2",
        PURPLE: "#D98FB8",
        GREY: "#9AA1AB",
        **{PARTS[part]: f"#{both.split()[1]}" for part, both in _PARTS.items()},
    },
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def part_colour(part: str) -> str:
    return PARTS.get(part, GREY)
