"""The output of `eval`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor, inf, isfinite, log10
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensprobe.cli.show_targets import crossbar_lines
from sensprobe.scores.metrics import MetricInfo, info_in
from sensprobe.scores.score import Score
from sensprobe.units import size_text as size

MOST_PLACES = 7
"""Decimals from which a number has a power of ten instead."""
NO_DIFFERENCE = "· within 1.96 standard errors of zero"


def table(*columns: tuple[str, str], title: str | None = None) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        made.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return made


def wide(rows: Sequence[Mapping[str, str]], left: Sequence[str]) -> RenderableType:
    """A table that wraps by columns where all find no room, and cuts no number."""
    from sensprobe.report.terminal import rows_table

    return rows_table(rows, left)


def score(document: Mapping[str, Any], metric: MetricInfo) -> str:
    """A score with its error, in the metric's unit."""
    return f"{_level(document, metric)} {metric.unit}".rstrip()


def change(document: Mapping[str, Any], metric: MetricInfo) -> str:
    """A difference with its sign and error, in the metric's unit of differences."""
    return f"{_level(document, metric, '+')} {metric.change_unit or metric.name}"


def _level(document: Mapping[str, Any], metric: MetricInfo, sign: str = "") -> str:
    """A number and its error: of percents two decimals, of others the digits that two of the error
    have."""
    value, stderr = metric.scale * document["value"], metric.scale * document["stderr"]
    if metric.unit == "%":
        return f"{value:{sign}.2f} ± {_error(stderr, metric)}"
    places = 1 - floor(log10(float(f"{stderr:.1e}"))) if 0 < stderr < inf else -1
    if not 0 <= places <= MOST_PLACES:
        return f"{value:{sign}.5g} ± {_error(stderr, metric)}"
    return f"{value:{sign}.{places}f} ± {stderr:.{places}f}"


def _heading(metric: MetricInfo) -> str:
    return f"{metric.name} ({metric.unit})" if metric.unit else metric.name


def _gap(document: Mapping[str, Any], metric: MetricInfo) -> str:
    """A difference without its unit, behind a dot where it is none."""
    return ("" if Score(**document).differs() else "· ") + _level(document, metric, "+")


def _error(stderr: float, metric: MetricInfo) -> str:
    """A standard error; "?" where one sample, or one group of samples, tells none."""
    if not isfinite(stderr):
        return "?"
    return f"{stderr:.2f}" if metric.unit == "%" else f"{stderr:.2g}"


def evaluation(document: Mapping[str, Any], *, classes: bool = False) -> RenderableType:
    """A score, what it costs, and with `classes` how well each class is found."""
    metric, cost = info_in(document), document["cost"]
    lines = [
        f"{metric.name}  {score(document, metric)}   "
        f"(n = {document['n']:,}, {document['split']} split of {document['data']})",
    ]
    if "noise" in document:
        lines.append(_noise(document["noise"], metric))
    if "crossbar" in document:
        lines += crossbar_lines(document["crossbar"])
    if "difference" in document:
        gap = document["difference"]
        verdict = "" if Score(**gap).differs() else "   within the error"
        if "ratio" in document:
            times = document["ratio"]
            error = f"{times['stderr']:.2g}" if isfinite(times["stderr"]) else "?"
            verdict = f", {times['value']:.4g} ± {error} times as much{verdict}"
        lines.append(f"against full precision  {change(gap, metric)}{verdict}")
    lines.append(
        f"bytes  {size(cost['total_bytes'])} = weights {size(cost['weight_bytes'])} + state "
        f"{size(cost['state_bytes'])} (batch {cost['batch']}), "
        f"{cost['effective_bits']:.2f} bits a value"
    )
    lines.append(stability(document))
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if classes:
        parts += [Text(""), _classes(document["per_class"])]
    if "text" in document:
        parts += _text(document["text"])
    if "dead_band" in document:
        parts += _dead_band(document["dead_band"])
    return Group(*parts)


def on_devices(found: Mapping[str, Any]) -> str:
    """What was perturbed, and on how many devices."""
    told = ", ".join(f"{pattern}={noise}" for pattern, noise in found["noise"])
    return f"{told} on {found['draws']} device(s)"


def _noise(found: Mapping[str, Any], metric: MetricInfo) -> str:
    """The spread over devices, and the error of their mean."""
    deviation, error = (_error(metric.scale * found[key], metric) for key in ("spread", "stderr"))
    unit = metric.unit if metric.unit != "%" else "points"
    return (
        f"noise  {on_devices(found)}: standard deviation {deviation}, of their mean {error} "
        f"{unit}".rstrip()
    )


def tuned(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table of the scores of each split before and after tuning, and what is written where."""
    metric, cost = info_in(document), document["cost"]
    splits = document["splits"]
    heads = {name: f"{name} ({found['n']:,})" for name, found in splits.items()}
    first, unit = _heading(metric), f" ({metric.change_unit})" if metric.change_unit else ""
    made = []
    fewer = f", {document['pruned_to']}" if document["pruned_to"] else ""
    rows = {
        "full precision": "full", f"plan{fewer}": "before", f"plan{fewer}, tuned": "after"
    }  # fmt: skip
    for title, key in rows.items():
        cells = {heads[name]: _level(found[key], metric) for name, found in splits.items()}
        made.append({first: title, **cells})
    by_tuning = "gained by tuning" if document["sign"] > 0 else "change by tuning"
    for title, key in {by_tuning: "gained", "left to full precision": "left"}.items():
        cells = {heads[name]: _gap(found[key], metric) for name, found in splits.items()}
        made.append({first: title + unit, **cells})
    yield wide(made, (first,))
    yield Text(NO_DIFFERENCE)
    yield Text(
        f"bytes  {size(cost['total_bytes'])} = weights {size(cost['weight_bytes'])} + state "
        f"{size(cost['state_bytes'])} (batch {cost['batch']})\n"
        f"{_stored_A(document)}"
        f"{document['weights']}, {document['plan']}"
    )


def pruned(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Tables of what pruning took from every layer, and of scores before and after it."""
    states, spent, rows = document["states"], document["bytes"], document["layers"]
    said = [f"{states['after']} of {states['before']} states"] if "kept" in rows[0] else []
    if "kernels" in rows[0]:
        counts = (sum(row["kernels"][when] for row in rows) for when in ("after", "before"))
        said.insert(0, "{} of {} kernels".format(*counts))
        free = sum(row["kernels"]["free"] for row in rows)
        said += [f"{free} of them worth nothing"] if free else []
    samples = document["samples"]
    yield Text(f"{', '.join(said)}; prices, each alone, on {samples} calibration samples")
    yield _prices_by_layer(document)
    metric, splits = info_in(document), document["splits"]
    first, scores = _heading(metric), []
    for title in ("before", "after", "change"):
        shown = _gap if title == "change" else _level
        cells = {f"{n} ({s['n']:,})": shown(s[title], metric) for n, s in splits.items()}
        unit = f" ({metric.change_unit})" if title == "change" and metric.change_unit else ""
        scores.append({first: title + unit, **cells})
    yield wide(scores, (first,))
    yield Text(NO_DIFFERENCE)
    yield Text(
        f"bytes {'under the plan' if document['plan'] else 'in float32'}  {size(spent['before'])} "
        f"before, {size(spent['after'])} after, state included\n{document['weights']}"
    )


def _prices_by_layer(document: Mapping[str, Any]) -> Table:
    """Prices of the kernels and of the states that are kept and that went, each where some did."""
    rows, unit = document["layers"], document["price"]
    columns = [("layer", "right")]
    if "kernels" in rows[0]:
        columns += [
            ("kernels", "right"),
            (f"kept ({unit})", "right"),
            (f"removed ({unit})", "right"),
        ]
    if "kept" in rows[0]:
        what = "states " if "kernels" in rows[0] else ""
        columns += [(f"{what}kept ({unit})", "right"), (f"{what}removed ({unit})", "right")]
    made = table(*columns)
    for row in rows:
        cells = [str(row["layer"])]
        if "kernels" in row:
            cells.append(f"{row['kernels']['after']} of {row['kernels']['before']}")
        for one in filter(None, (row.get("kernels"), row if "kept" in row else None)):
            cells += [f"{one['kept']:.2g}", f"{one['removed']:.2g}"]
        made.add_row(*cells)
    return made


def _stored_A(document: Mapping[str, Any]) -> str:
    """A line on the discretised A before and after tuning; "" for a model without them."""
    found = document.get("stability")
    if not found:
        return ""
    said = (
        f"{x['above']} of {x['values']} above 1, the largest {x['largest']:.4f}"
        for x in (found["before"], found["after"])
    )
    return f"|A| as stored  {'; tuned: '.join(said)}\n"


def trials(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table of the short trainings that chose the rates, the best first; nothing without any."""
    if not document["trials"]:
        return
    title = "\nshort trainings, the best first; held-out samples of the search split"
    made = table(*((n, "right") for n in ("lr", "ssm lr", "teacher", "score", "s")), title=title)
    for row in document["trials"]:
        found = "diverged"
        if row["value"] is not None:
            found = f"{row['value']:.4g} ± {_number(row['stderr'])}"
        cells = f"{row['lr']:.2g}", f"{row['ssm_lr']:.2g}", row["teacher"], found
        made.add_row(*cells, f"{row['seconds']:.0f}")
    yield made


def _number(stderr: float | None) -> str:
    return "?" if stderr is None or not isfinite(stderr) else f"{stderr:.2g}"


def turns(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table of the steps of each budget of `search --tune`, and what stands after them."""
    metric = info_in(document)
    unit = f" ({metric.change_unit})" if metric.change_unit else ""
    for row in document["budgets"]:
        title = f"\n{row['budget']}, on the search split ({document['n']:,})"
        made = []
        for step in row["steps"]:
            gained, rate = step.get("gained"), step.get("a_minute")
            if not (gained and Score(**gained).differs()):
                rate = None
            made.append({
                "step": step["step"],
                "plan": step["plan"],
                "minutes": "" if step["seconds"] is None else f"{step['seconds'] / 60:.1f}",
                _heading(metric): _level(step["score"], metric),
                f"gained{unit}": _gap(gained, metric) if gained else "",
                "gained/min": "" if rate is None else f"{metric.scale * rate:+.3g}",
            })  # fmt: skip
        yield Text(title)
        yield wide(made, ("step", "plan"))
        yield Text(f"stands: {row['stands']}   {NO_DIFFERENCE}")


def _classes(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A table of the recall, precision and F1 of each class, in percent."""
    from sensprobe.report.values import ACCURACY, measured, plus_minus

    def percent(found: Any) -> str:
        return plus_minus(ACCURACY.shown(measured(found)))

    made = table(
        *((name, "right") for name in ("class", "samples", "recall (%)")),
        *((name, "right") for name in ("predicted", "precision (%)", "F1 (%)")),
    )
    for row in rows:
        recall, precision, f1 = (percent(row[key]) for key in ("recall", "precision", "f1"))
        counts = f"{row['n']:,}", f"{row['predicted']:,}"
        made.add_row(str(row["class"]), counts[0], recall, counts[1], precision, f1)
    return made


def _dead_band(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Tables of the share of writes that left a rounded state as it was, by state and position."""
    yield Text(f"\nwrites that rounding kept from moving the state ({found['samples']} samples)\n")
    made = table(("state", "left"), ("share", "right"))
    for name, share in found["states"].items():
        made.add_row(name, f"{100 * share:.1f} %")
    yield made
    made = table(("steps", "right"), ("share", "right"))
    for row in found["positions"]:
        made.add_row(_span(row), f"{100 * row['share']:.1f} %")
    yield made


def _span(row: Mapping[str, Any]) -> str:
    """Positions from `first` to `last`."""
    return str(row["last"]) if row["first"] == row["last"] else f"{row['first']}–{row['last']}"


def _text(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Perplexity, amount of text and loss by position."""
    perplexity = found["perplexity"]
    yield Text(
        f"perplexity  {perplexity['value']:.5g} ± {perplexity['stderr']:.2g} a token   "
        f"({found['tokens']:,} tokens, {found['bytes']:,} bytes)\n"
    )
    names = [n for n in ("bits_per_byte", "kl") if n in found["positions"][0]]
    heads = {"bits_per_byte": "bits a byte", "kl": "KL (nats a token)"}
    made = table(("tokens read", "right"), *((heads[name], "right") for name in names))
    for row in found["positions"]:
        cells = [f"{row[name]['value']:.4g} ± {row[name]['stderr']:.2g}" for name in names]
        made.add_row(_span(row), *cells)
    yield made


def stability(document: Mapping[str, Any]) -> str:
    """The largest |A| as stored; of Mambas the largest decay at rest."""
    name, radius = document["radius_name"], document["max_abs_A"]
    if radius > 1:
        return (
            f"{name}  {radius:.4f}: above 1, the recurrence is UNSTABLE (errors grow with length)"
        )
    return f"{name}  {radius:.4f}"
