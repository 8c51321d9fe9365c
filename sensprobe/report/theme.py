"""Colours shared by every figure, safe for colour-blind readers, on light and on dark.

Marks are Okabe and Ito's, which hold on both grounds. Losses are orange and gains blue (Brewer's
Oranges and Blues), with a neutral middle that is the ground itself.
"""

from __future__ import annotations

from dataclasses import dataclass

BLUE, ORANGE, VERMILION, GREEN = "#0072B2", "#E69F00", "#D55E00", "#009E73"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#8A8F98"

SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon")

PARTS = {
    "encoder": "#BBBBBB",
    "norm": "#999933",
    "A": "#CC6677",
    "B": "#88CCEE",
    "state": "#AA4499",
    "C": "#44AA99",
    "D": "#DDCC77",
    "out_proj": "#332288",
    "head": "#117733",
    "bias": "#882255",
}
"""Paul Tol's muted palette, one colour a part, the same in every figure."""


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
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def part_colour(part: str) -> str:
    return PARTS.get(part, GREY)
