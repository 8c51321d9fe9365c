"""The output of an export for another runtime, or for a crossbar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from sensprobe.units import size_text as size


def exported_for(document: Mapping[str, Any]) -> Iterator[Table | str]:
    """The folder, its bytes, the tensors dropped or narrowed, and the way to load it. Text must be
    printed without wrapping, so that commands can be copied."""
    weights, state = document["weight_bytes"], document["state_bytes"]
    yield (
        f"{document['path']}: {document['about']}\n"
        f"weights and scales {weights['plan']:,} bytes in the plan, {weights['here']:,} here; "
        f"state (batch {document['batch']}) {state['plan']:,}, {state['here']:,} here\n"
        f"{document['quantized']} matrices are quantized"
    )
    if document["dropped"]:
        yield _table("dropped: the plan says more than the runtime can", document["dropped"])
    else:
        yield "dropped: nothing, the plan is kept whole"
    if document["narrowed"]:
        yield _table("full precision in the plan, and not here", document["narrowed"])
    if about := document["rounded_anew"]["about"]:
        yield about
    yield "\n".join(["load it with", *(f"  {line}" for line in document["use"])])


def crossbar_lines(found: Mapping[str, Any]) -> list[str]:
    """What a plan takes of a crossbar."""
    lines = [
        f"crossbar  {found['sizes']}",
        f"{found['matrices']} matrices ({found['weights']:,} weights) on {found['tiles']:,} "
        f"tile(s), {100 * found['utilisation']:.1f} % of their cells used",
        f"conversions a step  ADC {found['adc_conversions']:,}, DAC {found['dac_conversions']:,}",
        f"digital  {found['digital_weights']:,} weights, {found['digital_states']:,} numbers of "
        f"state, {found['digital_multiplications']:,} of {found['multiplications']:,} "
        "multiplications a step",
    ]
    if found["energy_pj"] is not None:
        given = [f"{k}={found[k]:g}" for k in ("adc_pj", "dac_pj") if found[k] is not None]
        lines.append(
            f"energy of conversions a step  {found['energy_pj']:,.6g} pJ, computed from "
            f"{' and '.join(given)} as entered"
        )
    return lines


def on_crossbar(document: Mapping[str, Any]) -> Iterator[Table | str]:
    """The folder, what its plan takes of the crossbar, each matrix, and what stays digital. Text
    is printed without wrapping."""
    where = f"{document['path']}: {size(document['folder_bytes'])}"
    yield "\n".join([where, *crossbar_lines(document["crossbar"])])
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("matrix", "plan", "slices", "tiles", "cells used", "ADC", "DAC"):
        made.add_column(heading, justify="left" if heading in ("matrix", "plan") else "right")
    for row in document["placed"]:
        counts = (f"{row[k]:,}" for k in ("adc_conversions", "dac_conversions"))
        used = f"{100 * row['utilisation']:.1f} %"
        cells = (row["site"], row["scheme"], str(row["slices"]), str(row["tiles"]), used, *counts)
        made.add_row(*map(Text, cells))
    yield made
    digital = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("digital", "values", "why"):
        digital.add_column(heading, justify="right" if heading == "values" else "left")
    for row in document["digital"]:
        digital.add_row(Text(row["sites"]), f"{row['values']:,}", Text(row["why"]))
    yield digital


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("sites", "tensors", "plan", "here", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (row["sites"], str(row["count"]), row["asked"], row["becomes"], row["why"])
        table.add_row(*map(Text, cells))
    return table
