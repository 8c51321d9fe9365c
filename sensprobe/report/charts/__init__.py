"""Every figure of the report and the dashboard, prepared: a pure function of results each.

`sensprobe.report.drawing` draws them on a screen, on paper or as characters. Every mark carries the
name of the plan or group it stands for.
"""

from sensprobe.report.charts.benchmarks import bandwidths, ratios
from sensprobe.report.charts.chart import Chart
from sensprobe.report.charts.frontiers import batches, frontier, fronts
from sensprobe.report.charts.maps import harshest, heat_map, layer_map, plan_grid
from sensprobe.report.charts.model import model_graph
from sensprobe.report.charts.parts import bytes_by_part
from sensprobe.report.charts.ranges import octaves
from sensprobe.report.charts.rankings import agreement_scatter, ranking
from sensprobe.report.charts.searching import (
    convergence,
    durations,
    importances,
    parallel,
    predictions,
)
from sensprobe.report.charts.tuning import tuned

__all__ = [
    "Chart",
    "agreement_scatter",
    "bandwidths",
    "batches",
    "bytes_by_part",
    "convergence",
    "durations",
    "frontier",
    "fronts",
    "harshest",
    "heat_map",
    "importances",
    "layer_map",
    "model_graph",
    "octaves",
    "parallel",
    "plan_grid",
    "predictions",
    "ranking",
    "ratios",
    "tuned",
]
