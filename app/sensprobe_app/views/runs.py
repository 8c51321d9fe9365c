"""Every run in the folder: what it is of, how it stands, the best it has found."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pandas as pd
import streamlit as st
from pandas.api.typing import NaTType

from sensprobe.report.overview import RunLine
from sensprobe_app import store
from sensprobe_app.controls import command, plain

EVERY = "2s"
STATES = {
    "running": "▶ running", "finished": "✓ finished", "stopped": "■ stopped", "new": "new",
    "damaged": "⚠ damaged",
}  # fmt: skip


def show(folder: Path, shown: Path) -> None:
    """The table, which follows what is on disk; where there is no run, how to get one."""
    st.title("Runs")
    if shown != folder:
        what = "is empty" if folder.is_dir() else "does not exist"
        st.warning(f"{plain(str(folder))} {what}. A run is made by the first command below.")
        command(
            ["sensprobe", "profile", "s4d-digits", "--data", "digits", "--run", folder / "first"],
            "Find where a model hurts:",
        )
        command(
            ["sensprobe", "search", "--run", folder / "first", "--budget", "1.5KiB"],
            "Then find the best plan for a budget:",
        )
        st.markdown("Below is the run that ships as an example; every view shows it.")
    _table(shown)


@st.fragment(run_every=EVERY)
def _table(folder: Path) -> None:
    lines = store.lines(folder)
    st.dataframe(
        table(lines),
        hide_index=True,
        column_config={
            "run": st.column_config.LinkColumn("run", display_text=r"run=(.*)"),
            "best plan per budget": st.column_config.TextColumn(width="large"),
            "last change": st.column_config.DatetimeColumn(
                "last change (UTC)", format="YYYY-MM-DD HH:mm:ss"
            ),
            "started": st.column_config.DatetimeColumn("started (UTC)", format="YYYY-MM-DD HH:mm"),
        },
    )
    for line in lines:
        if line.problem:
            st.warning(f"{plain(line.name)}: {plain(line.problem)}")


def table(lines: list[RunLine]) -> pd.DataFrame:
    """A row a run."""
    rows = [
        {
            "run": f"/sensitivity?run={quote(line.name)}",
            "state": STATES.get(line.state, line.state),
            "model": line.model,
            "data": line.data,
            "best plan per budget": "; ".join(line.best),
            "evaluations": line.evaluations,
            "last change": _time(line.changed),
            "started": _time(line.created),
        }
        for line in lines
    ]
    return pd.DataFrame(rows)


def _time(text: str) -> pd.Timestamp | NaTType:
    """Not a time, where the text is none."""
    return pd.to_datetime(text, utc=True, errors="coerce")
