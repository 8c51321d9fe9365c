"""The output of `sensprobe bench MODEL`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensprobe.report.benchmark_tables import about_benchmark, versions_of
from sensprobe.report.benchmarks import read_benchmark
from sensprobe.report.values import MISSING, Measured, digits, number, plus_minus, shortened

GIGA, PERCENT, LABEL = 1e-9, 100, 16
UNITS = (("s", 1.0), ("ms", 1e3), ("µs", 1e6))
LEAST = 2.0
"""The least value that is shown in a unit if there is a smaller unit."""
NOTE = (
    "Operations are timed inside the step; other: what entering and leaving it takes. kB: bytes "
    "that must move, exact; % of copy: their bandwidth, against copying a large array. Sequences "
    "run as in `sensprobe eval`, PyTorch's around the same scans. Medians over rounds, ± a "
    "standard error; × how many times as fast."
)
Row = Mapping[str, Any]
Rows = Mapping[str, Mapping[str, Row]]


def model_bench(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The machine and model, and for every batch a table with the time of PyTorch."""
    found = read_benchmark({**document, "rows": []})
    where, *how = about_benchmark(found)
    yield Text(where, style="bold")
    yield Text("\n".join([*how, versions_of(found)]), style="dim")
    yield Text(_memory(document))
    if document["why_not_packed"]:
        yield Text(
            f"{document['plan_name']} does not stream from packed memory: "
            f"{document['why_not_packed']}. Its step is the simulation's, which decodes weights as "
            "it goes and keeps float32 states.",
            style="yellow",
        )
    for batch in document["batches"]:
        yield _batch(document, batch)
    yield Text(NOTE, style="dim")


def _memory(document: Mapping[str, Any]) -> str:
    packed = f"{document['weight_bytes']:,} bytes of weights, {document['state_bytes']:,} of state"
    if not document["plan"]:
        return f"{document['model']} at full precision: {packed} a sequence"
    return (
        f"{document['model']} under {document['plan_name']}: {packed} a sequence (full precision: "
        f"{document['full_weight_bytes']:,} and {document['full_state_bytes']:,})"
    )


def _batch(document: Mapping[str, Any], batch: int) -> RenderableType:
    rows = [row for row in document["rows"] if row["batch"] == batch]
    names = dict.fromkeys(row["scheme"] for row in rows)
    of = {name: {r["operation"]: r for r in rows if r["scheme"] == name} for name in names}
    step, *_ = (found["step"] for found in of.values())
    copied = Measured(GIGA * step["copy_bytes_per_second"], GIGA * step["copy_stderr"])
    return Group(
        Text(
            f"\nBatch {batch}, beside PyTorch's own of the model in float32; copying a large array "
            f"reaches {plus_minus(copied)} GB/s"
        ),
        _whole(of, document["length"]),
        Text(""),
        _inside(of),
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="right" if k else "left", no_wrap=True)
    return table


def _whole(of: Rows, length: int) -> Table:
    """A step and a sequence of every way to run the model."""
    table = _table("", "step", "× PyTorch", f"sequence of {length:,}", "× PyTorch")
    for name, rows in of.items():
        cells = []
        for row in (rows["step"], rows["sequence"]):
            unit, factor = _unit([row])
            beside = "" if name == "PyTorch" else _measured(row, "ratio", 1)
            cells += [f"{_measured(row, 'seconds', factor)} {unit}", beside]
        table.add_row(shortened(name, LABEL), *cells)
    return table


def _inside(of: Rows) -> Table:
    """The step of the plan by kinds of operations, beside that of full precision."""
    (first, rows), *others = ((name, rows) for name, rows in of.items() if name != "PyTorch")
    full = others[0][1] if others else {}
    kinds = {name: None for name in [*rows, *full] if name != "sequence"}
    unit, factor = _unit([rows["step"], *(full[name] for name in full if name == "step")])
    headings = ["", f"{shortened(first, LABEL)}\n{unit}", "\n%", "\nkB", "% of\ncopy"]
    if full:
        headings += [f"full precision\n{unit}", "\nkB", "\n×"]
    table = _table(*headings)
    for name in kinds:
        row, other = rows.get(name), full.get(name)
        share, copied = (_percent(row, key) for key in ("share", "of_copy"))
        cells = [_measured(row, "seconds", factor), share, _kilobytes(row), copied]
        if full:
            beside = _measured(row, "times", 1)
            cells += [_measured(other, "seconds", factor), _kilobytes(other), beside]
        table.add_row(name if name == "step" else f"  {name}", *cells)
    return table


def _unit(rows: Sequence[Row]) -> tuple[str, float]:
    """The unit that suits the shortest of some times."""
    shortest = min(row["seconds"] for row in rows)
    return next((unit for unit in UNITS if shortest * unit[1] >= LEAST), UNITS[-1])


def _measured(row: Row | None, key: str, factor: float) -> str:
    """A value with its standard error."""
    if row is None or row.get(key) is None:
        return MISSING
    stderr = row["stderr" if key == "seconds" else f"{key}_stderr"]
    return plus_minus(Measured(row[key] * factor, stderr * factor))


def _percent(row: Row | None, key: str) -> str:
    if row is None or row.get(key) is None:
        return ""
    return number(PERCENT * row[key], 0)


def _kilobytes(row: Row | None) -> str:
    if row is None or not row.get("bytes"):
        return ""
    return digits(row["bytes"] / 1000, 3)
