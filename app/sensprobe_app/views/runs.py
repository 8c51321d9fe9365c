"""Every run in the folder: what it is of, how it stands, the best it has found."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import streamlit as st

from sensprobe.errors import SensprobeError
from sensprobe.report.dataframes import pd
from sensprobe.report.overview import RunLine, about_lines
from sensprobe.runs.notes import TEXT, Notes, tags_of, write_notes
from sensprobe_app import store
from sensprobe_app.controls import choice, command, plain

EVERY = "2s"
LINE = 22
"""Pixels of a line of text in a table."""
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
    if shown == folder and not folder.resolve().is_relative_to(store.EXAMPLE):
        _notes(folder)


@st.fragment(run_every=EVERY)
def _table(folder: Path) -> None:
    lines = store.lines(folder)
    st.markdown(f"**{plain(about_lines(lines))}**")
    every = list(dict.fromkeys(tag for line in lines for tag in line.notes.tags))
    if every:
        only = st.pills("Only with the tag", every, key="tag")
        lines = [line for line in lines if only is None or only in line.notes.tags]
    st.dataframe(
        table(lines),
        hide_index=True,
        row_height=LINE * max([1, *(len(line.best) for line in lines)]) + 13,
        column_config={
            "run": st.column_config.LinkColumn("run", display_text=r"run=(.*)"),
            "best plan per budget": st.column_config.TextColumn(width="large"),
            "tags": st.column_config.ListColumn(),
            "last change": st.column_config.DatetimeColumn(
                "last change (UTC)", format="YYYY-MM-DD HH:mm:ss"
            ),
            "started": st.column_config.DatetimeColumn("started (UTC)", format="YYYY-MM-DD HH:mm"),
        },
    )
    for line in lines:
        if line.problem:
            st.warning(f"{plain(line.name)}: {plain(line.problem)}")


def _notes(folder: Path) -> None:
    """Tags and a note of one run, to be changed and kept in its folder."""
    with st.expander("Tags and notes"):
        lines = {line.name: line for line in store.lines(folder) if line.model}
        name = choice("Of the run", list(lines), "noted")
        if name is None:
            return
        line = lines[name]
        with st.form("notes", border=False):
            tags = st.text_input("Tags, by commas", ", ".join(line.notes.tags), key=f"tags {name}")
            text = st.text_area("Notes", line.notes.text, key=f"text {name}", max_chars=TEXT)
            if st.form_submit_button("Keep"):
                try:
                    write_notes(line.path, Notes(tags_of(tags), text))
                    st.rerun()
                except SensprobeError as error:
                    st.error(plain(str(error)))


def table(lines: list[RunLine]) -> pd.DataFrame:
    """A row a run."""
    rows = [
        {
            "run": f"/sensitivity?run={quote(line.name)}",
            "state": STATES.get(line.state, line.state),
            "model": line.model,
            "data": line.data,
            "best plan per budget": "; ".join(line.best),
            "tags": list(line.notes.tags),
            "notes": line.notes.text,
            "seeds": line.seeds,
            "evaluations": line.evaluations,
            "last change": _time(line.changed),
            "started": _time(line.created),
        }
        for line in lines
    ]
    return pd.DataFrame(rows)


def _time(text: str) -> pd.Timestamp | pd.api.typing.NaTType:
    """Not a time, where the text is none."""
    return pd.to_datetime(text, utc=True, errors="coerce")
