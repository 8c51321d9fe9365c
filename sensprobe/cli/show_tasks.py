"""The output of `eval --task`: scores of tasks with lm-eval's errors, and their differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensprobe.cli.show_scores import stability
from sensprobe.units import size_text as size

WIDTH = 140
"""Columns that names and numbers need; where output is no terminal there are so many."""
SHARES = frozenset({"acc", "acc_norm", "acc_mutual_info", "exact_match", "f1", "mcc"})
"""Metrics that people read in percent."""


def tasks(document: Mapping[str, Any]) -> RenderableType:
    """A table of every score, groups first, and the cost."""
    rows, cost = document["tasks"], document["cost"]
    compared = any("baseline" in row for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", overflow="fold")
    for name in ("metric", "score", "n", *(("full precision", "difference") if compared else ())):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    group_of = {member: row["task"] for row in rows for member in row["members"]}
    for row in rows:
        cells = [_metric(row), _score(row, row["metric"]), f"{row['n']:,}"]
        if compared:
            cells += [_value(row["baseline"], row["metric"]), _difference(row)]
        table.add_row(_name(row, group_of.get(row["task"])), *cells)
    lines = [
        f"\nbytes  {size(cost['total_bytes'])} = weights {size(cost['weight_bytes'])} + state "
        f"{size(cost['state_bytes'])} (batch {cost['batch']}), "
        f"{cost['effective_bits']:.2f} bits a value",
        stability(document),
    ]
    if document["limit"] is not None:
        lines.append(f"of each task only the first {document['limit']:,} documents")
    return Group(table, Text("\n".join(lines)))


def _name(row: Mapping[str, Any], group: str | None) -> str:
    """The name of a task; under its group without the group's name before it."""
    name = row["task"] if row["filter"] == "none" else f"{row['task']} ({row['filter']})"
    return name if group is None else "  " + name.removeprefix(f"{group}_")


def _metric(row: Mapping[str, Any]) -> str:
    """The name of a metric, its unit, and the direction that is better."""
    unit = " %" if row["metric"] in SHARES else ""
    return row["metric"] + unit + {None: "", True: " ↑", False: " ↓"}[row["higher_is_better"]]


def _value(score: Mapping[str, Any], metric: str) -> str:
    return f"{100 * score['value']:.2f}" if metric in SHARES else f"{score['value']:.5g}"


def _score(score: Mapping[str, Any], metric: str) -> str:
    """A score with lm-eval's error, where it gives one."""
    if (error := score["stderr"]) is None:
        return _value(score, metric)
    return f"{_value(score, metric)} ± " + (
        f"{100 * error:.2f}" if metric in SHARES else f"{error:.2g}"
    )


def _difference(row: Mapping[str, Any]) -> str:
    """A difference with sign and error, with its unit if that is not the score's, and `·` if it is
    within the error."""
    gap = row.get("difference")
    if gap is None:
        return "–"
    value, stderr, metric = gap["value"], gap["stderr"], row["metric"]
    if metric in SHARES:
        text = f"{100 * value:+.2f} ± {100 * stderr:.2f}"
    else:
        text = f"{value:+.3g} ± {stderr:.2g}" + ("" if gap["unit"] == metric else f" {gap['unit']}")
    return text if abs(value) > 1.96 * stderr else f"{text} ·"
