"""What `sensprobe bench MODEL` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import nan
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensprobe.report.bench_tables import about_bench, versions_of
from sensprobe.report.benches import read_bench
from sensprobe.report.values import MISSING, Measured, digits, plus_minus

MICRO, KILO, GIGA = 1e6, 1e-3, 1e-9
COLUMNS = ("µs", "%", "kB", "% of\ncopy", "full precision\nµs", "\nkB", "times as\nfast")
NOTE = (
    "Operations are timed inside the step; other: what entering and leaving it takes. kB: bytes "
    "that must move, exact; % of copy: their bandwidth, against copying a large array. Medians "
    "over rounds, ± a standard error."
)
Row = Mapping[str, Any]


def model_bench(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What was timed where, and for every batch a table and what PyTorch takes."""
    found = read_bench(document)
    where, *how = about_bench(found)
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
    of = {name: {r["operation"]: r for r in rows if r["scheme"] == name} for name in _names(rows)}
    first, *_ = of.values()
    full = of.get("full precision", {}) if document["plan"] else {}
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(f"\nbatch {batch}")
    for heading in COLUMNS if full else COLUMNS[:4]:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in dict.fromkeys([*first, *full]):
        table.add_row(_label(name, document), *_cells(first.get(name), full.get(name), bool(full)))
    lines = [*(_torch(label, of) for label in ("step", "sequence")), _copied(first["step"])]
    return Group(Text(""), table, *(Text(line) for line in lines))


def _copied(step: Row) -> str:
    found = Measured(GIGA * step["copy_bytes_per_second"], GIGA * step["copy_stderr"])
    return f"Copying a large array, one thread: {plus_minus(found)} GB/s, read and written"


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["scheme"] for row in rows))


def _label(name: str, document: Mapping[str, Any]) -> str:
    if name == "sequence":
        return f"sequence of {document['length']:,}"
    return name if name == "step" else f"  {name}"


def _cells(row: Row | None, full: Row | None, beside: bool) -> list[str]:
    cells = [_time(row), _share(row), _kilobytes(row), _percent(row, "of_copy")]
    if not beside:
        return cells
    return [*cells, _time(full), _kilobytes(full), _measured(row, "times", 1)]


def _time(row: Row | None) -> str:
    return _measured(row, "seconds", MICRO)


def _measured(row: Row | None, key: str, factor: float) -> str:
    """A value with its standard error, beyond three digits of it no decimals."""
    if row is None or row.get(key) is None:
        return MISSING
    stderr = row["stderr" if key == "seconds" else f"{key}_stderr"]
    return plus_minus(Measured(row[key] * factor, stderr * factor))


def _share(row: Row | None) -> str:
    return _percent(row, "share")


def _percent(row: Row | None, key: str) -> str:
    if row is None or row.get(key) is None:
        return ""
    return f"{100 * row[key]:.0f}"


def _kilobytes(row: Row | None) -> str:
    if row is None or not row.get("bytes"):
        return ""
    return digits(KILO * row["bytes"], 3)


def _torch(label: str, of: Mapping[str, Mapping[str, Row]]) -> str:
    """PyTorch's time, and how many times as fast each of the others is."""
    theirs = of["PyTorch"][label]
    others = [
        f"{name} {plus_minus(Measured(rows[label]['ratio'], rows[label].get('ratio_stderr', nan)))}"
        for name, rows in of.items()
        if name != "PyTorch"
    ]
    return (
        f"PyTorch's own {label} in float32: {_time(theirs)} µs; times as fast as that: "
        f"{', '.join(others)}"
    )
