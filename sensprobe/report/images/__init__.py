"""Figures for print, as PNG bytes: matplotlib at 200 dots an inch, no global state.

The results and colours are those of `figures`. A name is never read as mathematics, and a letter
the font lacks becomes a box: no text from a model can break a picture.
"""

from sensprobe.report.images.agreeing import agreement_scatter
from sensprobe.report.images.bars import bytes_by_part
from sensprobe.report.images.benching import bandwidths, ratios
from sensprobe.report.images.frontiers import frontier
from sensprobe.report.images.maps import heat_map, layer_map
from sensprobe.report.images.plan_grids import plan_grid
from sensprobe.report.images.searching import convergence, durations, importances

__all__ = [
    "agreement_scatter",
    "bandwidths",
    "bytes_by_part",
    "convergence",
    "durations",
    "frontier",
    "heat_map",
    "importances",
    "layer_map",
    "plan_grid",
    "ratios",
]
