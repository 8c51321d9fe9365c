"""Figures for the screen, as Plotly figures: the report's page and the dashboard draw the same.

Pure functions of results; `theme` is LIGHT or DARK. All text from models and plans is escaped, and
every mark carries in `customdata[0]` the name of the plan or target it stands for.
"""

from sensprobe.report.figures.agreeing import agreement_scatter
from sensprobe.report.figures.bars import bytes_by_part
from sensprobe.report.figures.benching import bandwidths, ratios
from sensprobe.report.figures.comparing import fronts
from sensprobe.report.figures.frontiers import frontier
from sensprobe.report.figures.maps import heat_map, layer_map
from sensprobe.report.figures.plan_grids import plan_grid
from sensprobe.report.figures.rankings import ranking
from sensprobe.report.figures.searching import convergence, durations, importances
from sensprobe.report.figures.style import template

__all__ = [
    "agreement_scatter",
    "bandwidths",
    "bytes_by_part",
    "convergence",
    "durations",
    "frontier",
    "fronts",
    "heat_map",
    "importances",
    "layer_map",
    "plan_grid",
    "ranking",
    "ratios",
    "template",
]
