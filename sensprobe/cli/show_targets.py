"""The output of an export for another runtime: its bytes, and what is dropped or narrowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text


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


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("sites", "tensors", "plan", "here", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (row["sites"], str(row["count"]), row["asked"], row["becomes"], row["why"])
        table.add_row(*map(Text, cells))
    return table
