"""Results in a terminal, as rich renderables. Nothing here prints.

Tables fit themselves to the width they are given: where error bars find no room, values stay to the
digits the bars support; where all schemes find no room beside each other, they go below each other.
Every mark survives without colour. Text from plans and models is never read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from sensprobe.report import tables
from sensprobe.report.agreement import Agreement
from sensprobe.report.benchmark_tables import about_benchmark, benchmark_table
from sensprobe.report.benchmarks import Benchmark
from sensprobe.report.dataframes import pd
from sensprobe.report.prose import about_agreement, missed_limits, samples_seen, samples_tuned
from sensprobe.report.results import Confirmation, Search, Sensitivity
from sensprobe.report.tuned import Tuning, table
from sensprobe.report.values import (
    MISSING,
    NOISE,
    UNSTABLE,
    plus_minus,
    shortened,
)

LEGEND = (
    f"{NOISE} within 1.96 standard errors of zero: no difference   {UNSTABLE} max|A| "
    "(of Mambas the decay at rest) > 1: unstable"
)
MOST = 30  # groups in a table of sensitivities
REST = "all are in sensitivity-*.csv of `sensprobe report`, and in --json"
GAP = 2  # columns between cells
LABEL = 30  # columns a name may take
FOLDED = 16  # the fewest a name is folded to before numbers move below
WORSE, BETTER, DIM = "dark_orange", "dodger_blue2", "dim"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A renderable that is built for the width it is given."""

    build: Callable[[int], RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.build(options.max_width)


def sensitivity_report(found: Sensitivity) -> RenderableType:
    """A heading, the table of the headline metric where it was measured, and that of KL; of many
    groups the worst."""
    blocks: list[RenderableType] = [Text(_about(found), style="bold")]
    for of in ("metric", "additive") if found.has_metric else ("additive",):
        kept, note = tables.worst(found, of, MOST)
        blocks += [Text(""), sensitivity_table(kept, of)]
        blocks += [Text(f"{note}; {REST}", style=DIM)] if note else []
    return Group(*blocks, Text(LEGEND, style=DIM))


def _about(found: Sensitivity) -> str:
    what = "every part, all layers together" if found.by == "part" else "every site"
    base = ""
    if found.baseline.known:
        level = plus_minus(found.metric.shown(found.baseline))
        base = f"; full precision: {found.metric.name} {level} {found.metric.unit}".rstrip()
    where = f"{found.n:,} {found.split} samples{base}"
    return f"{found.method.capitalize()} sensitivity of {what}, on {where}"


def sensitivity_table(found: Sensitivity, of: str = "metric") -> Fitted:
    """Groups down, schemes across. `of`: "metric" (change to full precision) or "additive"."""
    heading = found.heading(of)

    def build(width: int) -> RenderableType:
        for bars in (True, False):
            frame = tables.sensitivity(found, of, bars=bars)
            least = 1 if bars else 9
            sizes = [max([len(text) for text in frame[s]], default=0) for s in frame]
            frame.columns = pd.Index(_headings(found.schemes, [max(n, least) for n in sizes]))
            frame.index = frame.index.map(lambda name: shortened(name, LABEL))
            if _natural(frame.reset_index()) <= width:
                break
        sign = found.metric.sign if of == "metric" else 0
        return _table(frame.reset_index(), left=(heading,), sign=sign).build(width)

    return Fitted(build) if found.rows else _table(pd.DataFrame(), (), none="nothing was measured")


def _packed(schemes: Sequence[str], cells: dict[str, int], room: int) -> list[list[str]]:
    """Schemes in order, cut where a row of cells would be wider than the room."""
    rows: list[list[str]] = [[]]
    used = 0
    for scheme in schemes:
        if rows[-1] and used + cells[scheme] + GAP > room:
            rows.append([])
            used = 0
        rows[-1].append(scheme)
        used += cells[scheme] + GAP
    return rows


def _headings(schemes: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Schemes folded to their widths, and to wider ones where two would read alike."""
    found = [_folded(s, n) for s, n in zip(schemes, widths, strict=True)]
    alike = [found.count(h) > schemes.count(s) for h, s in zip(found, schemes, strict=True)]
    if not any(alike):
        return found
    return _headings(schemes, [n + double for n, double in zip(widths, alike, strict=True)])


def _folded(scheme: str, width: int) -> str:
    """A scheme (or a name) on several lines, broken after slashes, dots and spaces, and
    before what is in brackets."""
    lines = [""]
    for word in re.split(r"(?<=[/. ])|(?=\()", scheme):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(shortened(line, max(width, 8)) for line in lines)


def frontier_table(search: Search) -> RenderableType:
    """Front, uniform and chosen plans in growing bytes, full precision last."""
    return _table(
        tables.frontier(search), left=("", "plan", "note"), drop=("effective", "weights", "state")
    )


def chosen_table(search: Search) -> RenderableType:
    """For each budget the chosen plan and the best uniform plan that fits."""
    return _table(tables.chosen(search), left=("budget", "plan"))


def confirmed_table(found: Confirmation) -> RenderableType:
    """Chosen plans on data the search has not seen: the result of a run."""
    missed = [Text(line, style=WORSE) for line in missed_limits(found)]
    return Group(
        Text(f"Confirmed on {samples_seen(found)}", style="bold"),
        _table(tables.confirmation(found), left=("budget", "plan")),
        *missed,
        Text(LEGEND, style=DIM),
    )


def compared_table(found: Search | Confirmation) -> RenderableType:
    """Plans measured beside the search, on the samples of the split named."""
    return Group(
        Text(f"Measured beside the search, on the {found.split} split", style="bold"),
        _table(tables.compared(found), left=("plan", "chosen of no more bytes")),
    )


def tuned_table(found: Tuning) -> RenderableType:
    """What training under plans gained, on samples that it was not trained on."""
    said = [Text(f"{p.name}: {line}", style=WORSE) for p in found.plans for line in p.warnings]
    return Group(
        Text(f"Tuned: trained under their plans, scored on {samples_tuned(found)}", style="bold"),
        _table(table(found), left=("plan",), drop=("trained", "epochs")),
        *said,
        Text(LEGEND, style=DIM),
    )


def rows_table(rows: Sequence[Mapping[str, str]], left: Sequence[str]) -> Fitted:
    """A table of any rows of text, the columns `left` of names."""
    return _table(pd.DataFrame(rows), left)


def agreement_line(found: Agreement) -> Text:
    """τ over all schemes in one sentence, with what it means."""
    return Text(about_agreement(found))


def benchmark_report(found: Benchmark) -> RenderableType:
    """A benchmark: where and how it was made, and a row a case."""
    where, *how = about_benchmark(found)
    return Group(
        Text(where, style="bold"),
        *(Text(line, style=DIM) for line in how),
        _table(benchmark_table(found), left=("operation", "shape", "scheme"), drop=("25", "size")),
    )


def _table(
    frame: pd.DataFrame,
    left: Sequence[str],
    drop: Iterable[str] = (),
    sign: int = 0,
    none: str = "none",
) -> Fitted:
    """A table of text, in which no number is ever cut; `none` is said where it has no rows.

    `sign` is +1 where signed numbers above zero are better, -1 where they are worse; they have
    colours then.

    Where it finds no room, columns that start with a word of `drop` go, in that order; then those
    in `left` fold; and what then still finds none stands below, beside the same first columns.
    """

    def build(width: int) -> RenderableType:
        shown = frame
        if shown.empty:
            return Text(none, style=DIM)
        for start in drop:
            if _natural(shown) > width:
                shown = shown.loc[:, [not str(name).startswith(start) for name in shown]]
        blocks: list[RenderableType] = []
        for columns in _blocks(shown, left, width):
            part = shown[columns]
            if blocks:  # rows that say something there
                others = part.drop(columns=_keys([str(name) for name in shown], left))
                part = part[~others.isin(["", MISSING]).all(axis=1)]
                blocks.append(Text(""))
            blocks.append(_block(part, left, width, sign))
        return Group(*blocks)

    return Fitted(build)


def _block(frame: pd.DataFrame, left: Sequence[str], width: int, sign: int) -> Table:
    folds = _folds(frame, left, width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name in frame.columns:
        heading = str(name).replace(" (", "\n(")
        heading = _folded(heading, folds[name]) if name in folds else heading
        justify: Literal["left", "right"] = "left" if name in left else "right"
        table.add_column(Text(heading, style="bold"), justify=justify, no_wrap=True)
    for row in frame.to_dict("records"):
        table.add_row(*(_text(str(v), folds.get(str(name)), sign) for name, v in row.items()))
    return table


def _blocks(frame: pd.DataFrame, left: Sequence[str], width: int) -> list[list[str]]:
    """Columns that stand beside each other: all, or the first ones (which say what a row is) with
    as many of the others as there is room for."""
    names, sizes = [str(name) for name in frame], _sizes(frame)
    least = {name: min(sizes[name], FOLDED) if name in left else sizes[name] for name in names}
    if sum(least.values()) + GAP * (len(names) - 1) <= width:
        return [names]
    keys = _keys(names, left)
    room = width - sum(min(sizes[name], LABEL) for name in keys) - GAP * len(keys)
    others = [name for name in names if name not in keys]
    return [[*keys, *some] for some in _packed(others, {n: least[n] for n in others}, room)]


def _keys(names: Sequence[str], left: Sequence[str]) -> list[str]:
    """The first columns, of names: they say what a row is."""
    return list(takewhile(lambda name: name in left, names))


def _sizes(frame: pd.DataFrame) -> dict[str, int]:
    """Columns of the terminal every column takes without folding anything."""
    return {
        str(name): max(
            *map(len, str(name).replace(" (", "\n").split("\n")),
            *(len(str(v)) for v in frame[name]),
            0,
        )
        for name in frame
    }


def _natural(frame: pd.DataFrame) -> int:
    sizes = _sizes(frame)
    return sum(sizes.values()) + GAP * (len(sizes) - 1)


def _folds(frame: pd.DataFrame, left: Sequence[str], width: int) -> dict[str, int]:
    """Widths of the columns that must fold: they share the room left, small ones kept whole."""
    sizes = _sizes(frame)
    folding = sorted((name for name in left if name in sizes), key=lambda name: sizes[name])
    room = (
        width - GAP * (len(sizes) - 1) - sum(size for n, size in sizes.items() if n not in folding)
    )
    folds = {}
    for k, name in enumerate(folding):
        share = max(room // (len(folding) - k), 8)
        if sizes[name] > share:
            folds[name] = share
        room -= min(sizes[name], share)
    return folds


def _text(value: str, fold: int | None, sign: int) -> Text:
    """A cell in the colour of what it says."""
    value = value if fold is None else _folded(value, fold)
    mark = UNSTABLE if value.startswith(UNSTABLE) else ""
    value = value.removeprefix(mark)
    number, style = value.strip(), ""
    if number.startswith(NOISE) or number == MISSING:
        style = DIM
    elif sign and number.startswith(("+", "−")):
        style = BETTER if number.startswith("+") == (sign > 0) else WORSE
    return Text(mark, style="bold red") + Text(value, style=style)
