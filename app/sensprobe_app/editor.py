"""The tables in which a plan is edited: cell by cell, and whole rows and columns at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import streamlit as st

from sensprobe.errors import SensprobeError
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.report.dataframes import pd
from sensprobe.report.editing import grid, options, priced_schemes, set_many, site_name
from sensprobe.report.plans import OUTSIDE
from sensprobe.report.results import Entries
from sensprobe_app.controls import plain
from sensprobe_app.store import Found

NOT_PRICED = "not measured"


class Editor:
    """The tables of a plan's schemes, and what was changed in them, which is kept while other views
    are shown."""

    def __init__(self, found: Found, name: str, base: Entries) -> None:
        self._found, self._name, self._base = found, name, base
        cells = grid(base, found.sites)
        inside = {layer: row for layer, row in cells.items() if layer != OUTSIDE}
        self._rows = {"layers": inside, "outside": {OUTSIDE: cells.get(OUTSIDE, {})}}

    def _key(self, kind: str, of: str = "edits") -> str:
        return f"{of} {self._found.line.name} {self._name} {kind}"

    def changes(self) -> dict[str, str]:
        """Sites whose scheme was changed -> the new scheme."""
        kept = (st.session_state.get(self._key(kind), {}) for kind in self._rows)
        return {site: text for edits in kept for site, text in edits.items()}

    def put(self, more: Mapping[str, str] | None) -> None:
        """Change more sites, or None: undo every change. The tables then start anew."""
        for kind, rows in self._rows.items():
            before = {
                site_name(r, n): text for r, cells in rows.items() for n, text in cells.items()
            }
            edits = {} if more is None else {**st.session_state.get(self._key(kind), {}), **more}
            kept = {site: text for site, text in edits.items() if before.get(site, text) != text}
            st.session_state[self._key(kind)] = kept
            st.session_state[self._key(kind, "version")] = self._version(kind) + 1

    def drawn(self) -> dict[str, str]:
        """Draw the tables, and return `changes`."""
        found = self._found
        profiles = found.results.profiles if found.results is not None else ()
        offered = options(profiles, self._base, found.sites)
        offered += [text for text in dict.fromkeys(self.changes().values()) if text not in offered]
        priced = priced_schemes(profiles[0], found.sites) if profiles else None
        extra = st.text_input(
            "Another scheme to choose from",
            key="extra",
            placeholder="int4/group32",
            help="FORMAT[/GRANULARITY][/sym|asym][/RANGE][/static|dynamic][/ROUNDING]",
        )
        if extra:
            try:
                offered.append(str(parse(extra)))
            except SensprobeError as error:
                st.error(plain(str(error)))
        for kind, rows in self._rows.items():
            if any(rows.values()):
                self._table(kind, rows, offered, priced)
        self._set_many(list(dict.fromkeys(offered)))
        return self.changes()

    def _set_many(self, offered: list[str]) -> None:
        """Controls that put whole rows and columns in a scheme."""
        rows = [layer for rows in self._rows.values() for layer in rows]
        names = [n for rows in self._rows.values() for cells in rows.values() for n in cells]
        first, second, third, fourth, last = st.columns(5, vertical_alignment="bottom")
        row = first.selectbox("Rows", ["", *rows], key="row", format_func=_row_name)
        columns = ["", *(f"{kind}s" for kind in Kind), *dict.fromkeys(names)]
        column = second.selectbox(
            "Columns", columns, key="column", format_func=lambda name: name or "every column"
        )
        scheme = third.selectbox("Scheme", offered, key="scheme of many")
        many = set_many(row, column, scheme, self._found.sites)
        fourth.button("Set them", on_click=self.put, args=(many,), help=f"{len(many)} sites")
        last.button(
            "Undo all changes", on_click=self.put, args=(None,), disabled=not self.changes()
        )

    def _version(self, kind: str) -> int:
        return int(st.session_state.get(self._key(kind, "version"), 0))

    def _table(
        self,
        kind: str,
        rows: dict[str, dict[str, str]],
        offered: list[str],
        priced: Mapping[str, frozenset[str]] | None,
    ) -> None:
        """Draw a table to edit, each column's priced schemes first, and keep what was changed."""
        edits, start = self._key(kind), self._key(kind, "start")
        editing = self._key(kind, f"edit {self._version(kind)}")
        if editing not in st.session_state:  # it was not shown before
            st.session_state[start] = dict(st.session_state.get(edits, {}))
        begun = st.session_state[start]
        first = {
            layer: {n: begun.get(site_name(layer, n), text) for n, text in cells.items()}
            for layer, cells in rows.items()
        }
        frame = pd.DataFrame.from_dict(first, orient="index")
        frame.index = pd.Index(map(_row_name, rows), name="where")
        st.caption(
            "Schemes in the layers: edit a cell" if kind == "layers" else "Outside the layers"
        )
        columns = {}
        for name in frame.columns:
            sites = [site_name(layer, name) for layer, cells in rows.items() if name in cells]
            known = (
                set(offered) if priced is None else set().union(*(priced[site] for site in sites))
            )
            columns[name] = st.column_config.SelectboxColumn(
                name,
                options=[t for t in offered if t in known] + [t for t in offered if t not in known],
                required=True,
                format_func=partial(_told, known),
            )
        after = st.data_editor(frame, column_config=columns, key=editing, num_rows="fixed")
        now = dict(zip(rows, after.to_dict(orient="records"), strict=True))
        st.session_state[edits] = {
            site_name(layer, name): str(now[layer][name])
            for layer, cells in rows.items()
            for name, before in cells.items()
            if str(now[layer][name]) != before
        }


def _row_name(layer: str) -> str:
    return {"": "every row", OUTSIDE: "no layer"}.get(layer, f"layer {layer}")


def _told(priced: Collection[str], scheme: str) -> str:
    return scheme if scheme in priced else f"{scheme} ({NOT_PRICED})"
